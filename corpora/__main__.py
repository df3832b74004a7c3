"""`python -m corpora FILES`: prepare text as training would, and report on it."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from .console import Help, check_options, run_command
from .describe import describe_corpus, format_description
from .errors import UserError
from .sentences import LANGUAGES
from .sources import CHOICES, TextSource
from .store import CorpusSettings, prepare_corpus
from .tokenizer import KINDS

_DESCRIPTION = """\
Report on text before you train on it: how much there is, how long sentences and
documents are, how well the tokenizer fits, what is there twice, and which
objectives can use it. The text is prepared as pretrain.py prepares it, and kept
for it: the next command with the same text and settings starts at once.

examples:
  python -m corpora wiki.txt.gz
  python -m corpora articles/                       every file in a folder
  python -m corpora 'news/*.jsonl' --text_column body
  python -m corpora novels.txt --documents file --tokenizer_kind bpe
  python -m corpora wiki.txt.gz --tokenizer runs/rtd
  python -m corpora                                 the built-in text
  python -m corpora wiki.txt.gz --json | jq .unigram_entropy
"""
_EPILOG = """\
FILES are text, JSON lines or Parquet, each plain, gzip or zstd. Beneath the
figures stand warnings about what would spoil a run, with what would help.
Exit status: 0, or 2 for text or an option that can't be used, 4 for a disk that
can't be written.
"""

_WRONG_NUMBER = re.compile(
    r"Parser key \"(?P<name>\w+)\": Expected a <class '(?P<kind>int|float)'>. Got value: (?P<value>.*)"
)
_NUMBERS = {"int": "a whole number", "float": "a number"}


def build_parser() -> ArgumentParser:
    """Return a parser whose options are the fields of TextSource and CorpusSettings."""
    parser = ArgumentParser(
        prog="python -m corpora",
        usage="python -m corpora [FILES] [--OPTION VALUE ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=Help,
        exit_on_error=False,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("files", nargs="*", metavar="FILES", help="file, folder, quoted glob or `datasets` name")

    def option(group: Any, name: str, meaning: str, **how: Any) -> None:
        default = {**vars(TextSource()), **vars(CorpusSettings())}.get(name)
        if "action" not in how:
            how = {"type": str, "default": default, "metavar": "|".join(how.get("choices", ())) or "TEXT"} | how
        group.add_argument(f"--{name}", help=meaning, **how)

    text = parser.add_argument_group("How the text is read")
    cuts = "where plain text is cut into documents: at a blank_line (default), one per file, or one per line"
    option(text, "documents", cuts, choices=CHOICES["documents"])
    option(text, "text_column", "where the text stands in JSON lines and Parquet (default: text)", metavar="NAME")
    option(text, "errors", "bytes that are not UTF-8: stop there (default), or go on", choices=CHOICES["errors"])
    tokens = parser.add_argument_group("How it is cut into tokens and sentences")
    option(tokens, "tokenizer", "load this one (folder or hub name) instead of training one", metavar="FOLDER")
    option(tokens, "tokenizer_kind", "what to train (default: wordpiece, as BERT)", choices=KINDS)
    option(tokens, "vocab_size", "of a trained tokenizer (default: 8192)", type=int, metavar="INT")
    option(tokens, "lowercase", "a trained tokenizer lowers case", action="store_true")
    option(tokens, "segmenter", "rules (default), or learnt from the text (needs nltk)", choices=("rules", "punkt"))
    option(tokens, "language", f"for the rules: {', '.join(LANGUAGES)} (default: en)", metavar="NAME")
    rest = parser.add_argument_group("The rest")
    option(rest, "held_out_rate", "share of documents kept for evaluation (default: 0.02)", type=float, metavar="RATE")
    option(rest, "held_out", "text to evaluate on instead of a share: file, folder, glob or dataset", metavar="TEXT")
    where = "folder for prepared text (default: $PRETEXT_CACHE, or ~/.cache/pretext)"
    option(rest, "cache", where, metavar="DIR")
    at_once = (
        "that encode at once; changes no byte (default: one for 8 MB of text, up to the processors at hand and to 16)"
    )
    option(rest, "processes", at_once, type=int, default=None, metavar="INT")
    option(rest, "samples", "sentences to show (default: 3)", type=int, default=3, metavar="INT")
    option(rest, "json", "print one JSON object instead", action="store_true")
    rest.add_argument("--help", "-h", action="help", help="print this text, and stop")
    return parser


def parse(argv: Sequence[str]) -> Namespace:
    """Read the command line. Raises UserError on what can't be understood."""
    parser = build_parser()
    check_options(argv, [name for action in parser._actions for name in action.option_strings])
    try:
        options = parser.parse_args(list(argv))
    except ArgumentError as error:
        message = " ".join(str(error).split())
        wrong = _WRONG_NUMBER.search(message)
        if wrong:
            message = f"--{wrong['name']} is '{wrong['value']}'; it must be {_NUMBERS[wrong['kind']]}"
        raise UserError(message) from error
    if len(options.files) > 1:
        pattern = Path(options.files[0]).parent / "*"
        raise UserError(
            f"{len(options.files)} places were given, but one is read: quote a glob ('{pattern}'), or give the folder"
        )
    if options.processes is not None and options.processes < 1:
        raise UserError(f"--processes is {options.processes}; it must be at least 1")
    return options


def report(options: Namespace) -> str:
    """Prepare the text and return what is to be printed."""
    source = TextSource(
        location=options.files[0] if options.files else "builtin",
        documents=options.documents,
        text_column=options.text_column,
        errors=options.errors,
    )
    settings = CorpusSettings(
        source=source,
        tokenizer=options.tokenizer,
        tokenizer_kind=options.tokenizer_kind,
        vocab_size=options.vocab_size,
        lowercase=options.lowercase,
        segmenter=options.segmenter,
        language=options.language,
        held_out_rate=options.held_out_rate,
        held_out=replace(source, location=options.held_out) if options.held_out is not None else None,
    )
    corpus = prepare_corpus(settings, Path(options.cache) if options.cache else None, processes=options.processes)
    description = describe_corpus(corpus, options.samples)
    if options.json:
        return json.dumps(description.as_dict(), indent=1, ensure_ascii=False) + "\n"
    return format_description(description)


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(_run, argv)


def _run(argv: Sequence[str]) -> int:
    print(report(parse(argv)), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
