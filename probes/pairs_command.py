"""`python -m probes minimal-pairs FOLDER... --pairs DIR`: which of two sentences each model finds more natural."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpora.console import Parser
from corpora.errors import StorageError, UserError

if TYPE_CHECKING:  # they import torch, which takes seconds: --help must not wait for it
    from .minimal_pairs import PairsResult, Paradigm
    from .readout import ReadoutResult

FORMAT = 1

_DESCRIPTION = """\
Show pairs of sentences that differ in one property, one of them good, and count
how often a model scores the good one higher. Each model is asked through its
own head: a masked language model by pseudo-log-likelihood, a detector of
replaced tokens by how original it finds them. Nothing is trained for that.

examples:
  python -m probes minimal-pairs runs/mlm runs/rtd --pairs blimp/
  python -m probes minimal-pairs runs/rtd --pairs blimp/ --rule rtd_mean
  python -m probes minimal-pairs bert-base-uncased --pairs blimp/ --limit 100
  python -m probes minimal-pairs runs/nsp runs/rtd --pairs blimp/ --supervised
  python -m probes minimal-pairs runs/rtd --pairs blimp/ --readout wiki.txt.gz
"""
_EPILOG = """\
A tie counts half, and ties are counted. The interval of a phenomenon is about
these templates where it has fewer than five, and about other templates too
where it has more; "overall" is the mean over templates. Beside the models stand
scores that see no model: the shorter sentence, and with --counts the commoner
words.

Rules:
  pll_sum               masked LM: sum of log p(token | rest), one mask a time
  pll_mean              the same, divided by the number of tokens
  pll_within_word_l2r   the same sum, with a word's later pieces masked too
  rtd_sum               detector: sum of log p(token is original), one pass
  rtd_mean, rtd_max     its mean; its most suspicious token
  rtd_difference        its sum over the tokens in which the two differ
  rtd_with_generator    log-odds(original) + log q of the run's own generator
  energy_sum            Electric: minus the sum of the tokens' energies
  label_sum             a tagger of hidden tokens: sum of log p(its label)
  sequence_log_p        a classifier of texts: log p(in order)
Exit status: 0, 1 where a model could not be asked, 2 for what can't be used.
"""


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m probes minimal-pairs",
        usage="python -m probes minimal-pairs FOLDER ... --pairs DIR [--OPTION VALUE]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("models", nargs="+", metavar="FOLDER", help="run, `transformers` folder, or name on the Hub")
    parser.add_argument("--pairs", required=True, metavar="DIR", help="JSON lines in BLiMP's format: a file or folder")
    parser.add_argument("--rule", metavar="NAME", help="how a head scores (default: pll_sum, rtd_sum, ...; see below)")
    parser.add_argument("--head", metavar="NAME", help="of a run's heads only this one: mlm, rtd, generator, ...")
    parser.add_argument("--limit", type=_count, metavar="N", help="first N pairs of each template (default: all)")
    parser.add_argument("--counts", metavar="TEXT", help="text whose word counts give the unigram score")
    parser.add_argument(
        "--supervised", action="store_true", help="add a linear probe that never saw the phenomenon; any encoder"
    )
    parser.add_argument(
        "--readout", metavar="TEXT", help="add a linear masked LM head, trained on this text on the frozen encoder"
    )
    parser.add_argument("--readout_steps", type=_count, default=100, metavar="N", help="its budget (default: 100)")
    parser.add_argument("--max_tokens", type=_count, default=8192, metavar="N", help="in a batch (default: 8192)")
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--out", metavar="FILE", help="write all figures there, as JSON")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status; UserError for what the user can mend."""
    options = build_parser().read(argv)
    from .minimal_pairs import commoner_is_better, read_paradigms, shorter_is_better

    _check(options)
    paradigms = read_paradigms(Path(options.pairs), options.limit)
    baselines = [shorter_is_better(paradigms)]
    if options.counts:
        baselines.append(commoner_is_better(paradigms, _count_text(options.counts)))
    results: list[PairsResult] = []
    readouts: dict[str, ReadoutResult] = {}
    failed: dict[str, str] = {}
    for model in options.models:
        try:
            _judge(model, paradigms, options, results, readouts)
        except UserError as error:
            failed[model] = str(error)
            print(f"error: {error}", file=sys.stderr)
    if options.out:
        _write_report(Path(options.out), options, paradigms, results, baselines, readouts, failed)
    if results:
        _print_tables([*results, *baselines], paradigms, readouts)
    return int(bool(failed)) if results else 2


def _check(options: argparse.Namespace) -> None:
    from .scoring import RULES

    if options.rule is not None and options.rule not in RULES:
        import difflib

        near = difflib.get_close_matches(options.rule, RULES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"rule '{options.rule}' is unknown; {hint}known: {', '.join(RULES)}")
    if options.out and not Path(options.out).absolute().parent.is_dir():
        raise UserError(f"--out {options.out} can't be written: there is no folder {Path(options.out).parent}")


def _judge(
    model: str,
    paradigms: "list[Paradigm]",
    options: argparse.Namespace,
    results: "list[PairsResult]",
    readouts: "dict[str, ReadoutResult]",
) -> None:
    """Append what each head of a model makes of the pairs, and what its frozen body allows."""
    from .heads import find_heads, load_head
    from .minimal_pairs import judge_head
    from .scoring import DEFAULT_RULES, RULES

    heads = find_heads(model)
    sites = [site for site in heads.found if options.head in (None, site.name)]
    asked = [site for site in sites if options.rule is None or RULES[options.rule].kind == site.kind]
    for name, reason in heads.skipped.items():
        print(f"note: {model}: {name}: {reason}", file=sys.stderr)
    if not asked and not (options.supervised or options.readout):
        have = ", ".join(f"{site.name} ({site.kind})" for site in heads.found) or "none that scores texts"
        fitting = f" called {options.head}" if options.head else ""
        fitting += f" for rule {options.rule}" if options.rule else ""
        raise UserError(
            f"{model} has no head that scores a text{fitting}; heads: {have}; "
            "--supervised and --readout TEXT ask any encoder"
        )
    generators = [site for site in heads.found if site.name.startswith("generator")]
    for site in asked:
        rule = RULES[options.rule or DEFAULT_RULES[site.kind]]
        generator = None
        if rule.needs_generator and len(generators) == 1:
            generator = load_head(generators[0], device=options.device)
        head = load_head(site, device=options.device)
        judged = judge_head(head, paradigms, rule, generator=generator, max_tokens=options.max_tokens, progress=True)
        results.append(judged)
    if options.supervised or options.readout:
        _judge_body(model, paradigms, options, results, readouts)


def _judge_body(
    model: str,
    paradigms: "list[Paradigm]",
    options: argparse.Namespace,
    results: "list[PairsResult]",
    readouts: "dict[str, ReadoutResult]",
) -> None:
    """Append the supervised figures of a frozen encoder, each beside those of its untrained twin."""
    from .encoder import load_encoder, random_twin
    from .minimal_pairs import judge_left_out, judge_readout
    from .readout import ReadoutSettings, masked_readout

    encoder = load_encoder(model, device=options.device)
    if options.supervised:
        for body in (encoder, random_twin(encoder, 0)):
            results.append(judge_left_out(body, paradigms, progress=True).chosen)
    if options.readout:
        texts, held_out = _split_text(options.readout)
        settings = ReadoutSettings(steps=options.readout_steps)
        judged = masked_readout(encoder, texts, held_out, settings, progress=True)
        readouts[model] = judged
        for readout in judged.readouts:
            results.append(judge_readout(readout, paradigms, max_tokens=options.max_tokens, progress=True))


def _split_text(location: str) -> tuple[list[str], list[str]]:
    """Return the documents of a text, every twentieth held out."""
    texts = _read_texts(location)
    if len(texts) < 20:
        raise UserError(f"{location} has {len(texts)} documents; a readout needs 20, of which it holds one out")
    return [text for number, text in enumerate(texts) if number % 20 != 19], texts[19::20]


def _read_texts(location: str) -> list[str]:
    from corpora import TextSource
    from corpora.sources import read_documents

    return list(read_documents(TextSource(location=location)))


def _count_text(location: str) -> dict[str, int]:
    from .minimal_pairs import count_words

    return count_words(_read_texts(location))


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_count.__name__ = "number, 1 at least,"  # argparse names it where it refuses one


def _print_tables(
    results: "list[PairsResult]", paradigms: "list[Paradigm]", readouts: "dict[str, ReadoutResult]"
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=80, highlight=False)
    num_pairs = sum(len(paradigm.pairs) for paradigm in paradigms)
    console.print(
        f"{num_pairs:,} pairs of {len(paradigms)} templates; accuracy in %, 95 % intervals, a tie counts half\n"
    )
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("model", overflow="fold", max_width=16)
    table.add_column("head", overflow="fold", max_width=12)
    table.add_column("rule", no_wrap=True)
    for name in ("%", "interval", "ties"):
        table.add_column(name, justify="right", no_wrap=True)
    letters = [_letter(number) for number in range(len(results))]
    for letter, result in zip(letters, results, strict=True):
        share = result.overall
        table.add_row(
            letter,
            _shorten(result.model) or "no model",
            result.head,
            result.rule,
            f"{100 * share.accuracy:.1f}",
            f"{100 * share.low:.1f}-{100 * share.high:.1f}",
            f"{share.num_ties:,}",
        )
    console.print(table)
    for start in range(0, len(results), 6):
        _print_phenomena(console, letters[start : start + 6], results[start : start + 6])
    for remark in dict.fromkeys(f"{_shorten(r.model)} {r.rule}: {text}" for r in results for text in r.remarks):
        console.print(remark)
    for model, readout in readouts.items():
        console.print(_describe_readout(model, readout))


def _print_phenomena(console: Any, letters: "list[str]", results: "list[PairsResult]") -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("phenomenon, its templates", overflow="fold", max_width=27)
    table.add_column("", justify="right", no_wrap=True)
    for letter in letters:
        table.add_column(letter, justify="right", no_wrap=True, min_width=5)
    for rows in zip(*(result.phenomena for result in results), strict=True):
        figures = [f"{100 * share.accuracy:.1f}" for share in rows]
        table.add_row(rows[0].name.replace("_", " "), str(rows[0].num_paradigms), *figures)
    console.print(table)


def _describe_readout(model: str, readout: "ReadoutResult") -> str:
    lines = [f"masked readout of {_shorten(model)}, {readout.figures.num_hidden:,} hidden tokens:"]
    for figures in (readout.figures, *([readout.twin] if readout.twin else [])):
        share = figures.accuracy
        name = "this body" if figures is readout.figures else "untrained"
        interval = f"{100 * share.low:.1f}-{100 * share.high:.1f}"
        lines.append(f"  {name:15} {100 * share.value:5.1f} % ({interval})  {figures.loss:.3f} nats")
    lines.append(f"  {'commonest token':15} {100 * readout.unigram_accuracy:5.1f} %  {readout.unigram_loss:.3f} nats")
    return "\n".join(lines)


def _letter(number: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[number] if number < 26 else str(number)


def _shorten(model: str) -> str:
    """Return what tells a model from others in a narrow column: the end of its path."""
    return "/".join(Path(model).parts[-2:]) if len(model) > 24 else model


def _write_report(
    path: Path,
    options: argparse.Namespace,
    paradigms: "list[Paradigm]",
    results: "list[PairsResult]",
    baselines: "list[PairsResult]",
    readouts: "dict[str, ReadoutResult]",
    failed: dict[str, str],
) -> None:
    """Write the whole record, by rename; StorageError where the disk refuses."""
    import torch
    import transformers

    report = {
        "format": FORMAT,
        "pairs": options.pairs,
        "limit": options.limit,
        "num_pairs": sum(len(paradigm.pairs) for paradigm in paradigms),
        "num_paradigms": len(paradigms),
        "results": [_to_json(result) for result in results],
        "baselines": [_to_json(result) for result in baselines],
        "readouts": {model: readout.as_dict() for model, readout in readouts.items()},
        "failed": failed,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror}") from error


def _to_json(result: "PairsResult") -> dict[str, Any]:
    plain = asdict(replace(result, outcomes={}))
    del plain["outcomes"]
    return plain
