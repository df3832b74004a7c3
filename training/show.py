"""`python -m objectives show SPEC`: what an encoder sees of real passages, and what it is asked about them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from corpora.console import Parser
from corpora.errors import StorageError, UserError

from .command import parse
from .config import Config

_DESCRIPTION = """\
Show what an objective makes of a text: a few passages as they stand, as the
encoder sees them, and what it is asked about them with the right answers. What a
generator fills in comes from one that has learned nothing, or from a run's.

examples:
  python -m objectives show sop --corpus wiki.txt.gz
  python -m objectives show rtd --corpus wiki.txt.gz --generator uniform
  python -m objectives show mlm+nsp --examples 5 --html shown.html
  python -m objectives show --run runs/rtd --examples 5
"""
_EPILOG = """\
Every setting of pretrain.py can be given too: --max_length, --encoder,
--tokenizer, --seed, ... The examples are those that a run with these settings
reads first. Marks in the text: [new<-was] for a token that was changed, +new+ for
one that was put in, -was- for one that was taken out, (2) for the second sentence
or piece of the text, (else) for one from elsewhere.
"""
_STYLES = {
    "special": "dim",
    "changed": "bold red",
    "hidden": "bold blue",
    "inserted": "bold green",
    "removed": "strike",
    "piece": "bold magenta",
}
_OTHER_WAYS = ("mix", "recipe", "config")  # to say what is learned


def build_parser() -> Parser:
    """Return the parser of the command's own options."""
    parser = Parser(
        prog="python -m objectives show",
        usage="python -m objectives show SPEC [--corpus FILE] [--OPTION VALUE ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("--examples", type=int, default=3, metavar="INT", help="how many to show (default: 3)")
    parser.add_argument("--first", type=int, default=0, metavar="INT", help="the number of the first (default: 0)")
    parser.add_argument("--run", metavar="FOLDER", help="show what this run reads, with its generator as it is now")
    parser.add_argument("--html", metavar="PAGE", help="write a page, too")
    return parser


def read_settings(argv: Sequence[str]) -> tuple[argparse.Namespace, Config]:
    """Return the command's own options, and the settings of the run that is to be shown. UserError on mistakes."""
    spec = argv[0] if argv and not argv[0].startswith("-") else None
    options, rest = build_parser().parse_known_args(argv[0 if spec is None else 1 :])
    if options.examples < 1 or options.first < 0:
        raise UserError("--examples must be at least 1, and --first at least 0")
    if options.run:
        rest = ["--resume", options.run, *rest]
    elif spec is None and not any(word.partition("=")[0][2:] in _OTHER_WAYS for word in rest):
        raise UserError("no objective was named; write python -m objectives show NAME, or --run FOLDER")
    if spec is not None:
        rest = ["--objective", spec, *rest]
    return options, parse(rest)


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status. Raises UserError."""
    options, config = read_settings(argv)
    from .examples import make_examples  # imports torch, for which mistakes need not wait
    from .show_html import write_page

    shown = make_examples(config, first=options.first, count=options.examples)
    console = Console(width=min(Console().width, 80), highlight=False)
    for example in shown:
        console.print(Text(example.title, style="bold"))
        for text in example.texts:
            line = Text("  ")
            line.append(f"{text.title}: ", style="italic")
            for token in text.tokens:
                line.append(" " if token.space else "").append(token.marked, style=_STYLES.get(token.kind, ""))
            console.print(line)
        for question in example.questions:
            console.print(Text.assemble("  ", (f"{question.title}: ", "italic"), question.answer))
        console.print()
    if options.html:
        try:
            Path(options.html).write_text(write_page(shown, config), encoding="utf-8")
        except OSError as error:
            raise StorageError(f"cannot write {options.html}: {error.strerror}") from error
        print(f"page: {options.html}", file=sys.stderr)
    return 0
