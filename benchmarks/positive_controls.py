"""Does each objective win where it must? Replaced tokens for rtd, sentence order for shuffling, hidden tokens for mlm.

    python -m benchmarks.positive_controls --mlm runs/mlm-* --rtd runs/rtd-* --shuffle runs/shuffle-* [--out FILE]

An objective that doesn't win at what it was trained for was not trained well, and what other probes say of it is no
finding. Frozen encoders, each at the layer that dev items chose, the readout at the last; an untrained one beside them.
With 5 seeds of each it is Welch's test over seeds, corrected for all differences to mlm (Holm, 1979); with 2 to 4 an
interval over seeds and documents (Sellam et al., 2022); with one it is about these checkpoints.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corpora.console import Parser, run_command

if TYPE_CHECKING:
    from probes.results import Results

CLAIMS = (  # probe, who must win, over whom
    ("replacement_token", "rtd", "mlm"),
    ("sentence_ordering", "shuffle", "mlm"),
    ("masked_readout", "mlm", "rtd"),
    ("masked_readout", "mlm", "shuffle"),
)
GROUPS = {"mlm": "masked language models", "rtd": "replaced token detection", "shuffle": "sentence shuffling"}


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="python -m benchmarks.positive_controls",
        usage="python -m benchmarks.positive_controls --mlm FOLDER ... --rtd FOLDER ... --shuffle FOLDER ...",
        description=__doc__ or "",
        epilog="",
    )
    for group, words in GROUPS.items():
        parser.add_argument(f"--{group}", nargs="+", required=True, metavar="FOLDER", help=f"{words}, one a seed")
    parser.add_argument("--corpus", metavar="FILE", help="text (default: what the first run held out)")
    parser.add_argument("--size", type=int, default=4000, metavar="INT", help="most items of a probe (default: 4000)")
    parser.add_argument("--threads", type=int, metavar="INT", help="of the processor (default: as torch chooses)")
    parser.add_argument("--out", metavar="FILE", help="where to write the tables, as Markdown")
    return parser


def probe_groups(options: argparse.Namespace) -> "Results":
    """Probe all encoders, mlm's first: the others are compared with them."""
    import torch  # takes seconds, for which mistakes need not wait

    from probes.build import build_suite
    from probes.members import list_members
    from probes.progress import Progress
    from probes.suite import HowToProbe, run_suite

    if options.threads:
        torch.set_num_threads(options.threads)
    members = list_members([], [f"{name}={folder}" for name in GROUPS for folder in getattr(options, name)], None)
    progress = Progress(sys.stderr)
    built = build_suite(
        names=",".join(dict.fromkeys(probe for probe, *_ in CLAIMS)),
        suite="raw",
        corpus=options.corpus,
        treebank=[],
        folders=[member.location for member in members],
        size=options.size,
        language="en",
        progress=progress,
    )
    return run_suite(members, built, HowToProbe(mix=False), progress=progress)


def write_tables(results: "Results") -> Iterator[str]:
    """Yield the lines of two Markdown tables: what became of the claims, and what every group reached."""
    from probes.report import CLAIMS as SAID
    from probes.report import interval, percent

    yield "| claim | difference | 95 % interval | p (Holm) | seeds | |"
    yield "|---|---|---|---|---|---|"
    for probe, a, b in CLAIMS:
        yield f"| {probe}: {a} > {b} | {_describe_claim(results, probe, a, b)} |"
    yield ""
    groups = [*results.groups, *results.untrained]
    yield f"| probe | no encoder | {' | '.join(groups)} |"
    yield "|---" * (len(groups) + 2) + "|"
    for record in results.probes:
        found = [results.find_summary(group, record.name) for group in groups]
        cells = [f"{percent(each.score)} {interval(each)}" if each else "–" for each in found]
        yield f"| {record.name} | {percent(record.floor)} | {' | '.join(cells)} |"
    yield ""
    yield from (f"{name} is left out: {reason}" for name, reason in {**results.skipped, **results.failed}.items())
    yield f"{'; '.join(f'{what}: {source}' for what, source in results.sources.items())}. {SAID[results.claim]}"


def _describe_claim(results: "Results", probe: str, a: str, b: str) -> str:
    """Return the cells of a claim: the difference, its interval, p, the seeds, and whether it holds."""
    from probes.report import is_firm, signed

    found = [each for each in results.comparisons if each.probe == probe and {each.a, each.b} == {a, b}]
    if not found:
        return "– | – | – | – | not asked"
    (each,) = found
    sign = 1 if each.a == a else -1
    low, high = sorted((sign * each.low, sign * each.high))
    holds = is_firm(each) and sign * each.difference > 0
    seeds = dict(zip((each.a, each.b), each.seeds, strict=True))
    verdict = "holds" if holds else "does not hold" if is_firm(each) else "not to be told"
    cells = [signed(sign * each.difference), f"[{100 * low:.1f}, {100 * high:.1f}]"]
    p = "–" if each.p_holm is None else f"{each.p_holm:.3f}"
    whose = "" if each.claim == "objective" else ", of these checkpoints"
    return " | ".join([*cells, p, f"{seeds[a]}, {seeds[b]}", verdict + whose])


def main(argv: Sequence[str]) -> int:
    """Probe the encoders; print and write what became of the claims."""
    options = build_parser().read(argv)
    text = "\n".join(write_tables(probe_groups(options)))
    print(text)
    if options.out:
        Path(options.out).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
