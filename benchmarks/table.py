"""What all benchmarks do alike: their options, and a table as text and as JSON with the machine it was measured on."""

import argparse
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from corpora.console import Parser, run_command
from training.config import CHOICES

from .interleaved import Ratio, Row, Series

PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "accelerate", "numpy")
_WIDEST = 46  # columns of what a row is about


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a benchmark has measured, what it could not measure here, and how both sides were set up."""

    title: str
    rows: Sequence[Row]
    missing: Sequence[str] = ()  # rows that this machine can't show, and why
    settings: dict[str, Any] = field(default_factory=dict)  # of the alternative and of ours


def make_parser(name: str, description: str, **numbers: int) -> Parser:
    """Return a parser with the options that every benchmark has; `numbers` are whole numbers of its own."""
    parser = Parser(
        prog=f"python -m benchmarks.{name}",
        usage=f"python -m benchmarks.{name} [--OPTION VALUE ...]",
        description=description,
        epilog="",
    )
    parser.add_argument("--corpus", default="builtin", help="text, as for pretrain.py")
    parser.add_argument("--cache", default=None, help="folder for prepared corpora")
    parser.add_argument("--json", default=None, metavar="FILE", help="where to write the table as JSON, too")
    parser.add_argument("--loops", default="auto", choices=CHOICES["loops"], help="what builds our batches (auto)")
    parser.add_argument(
        "--child", default=None, help=argparse.SUPPRESS
    )  # what a process of the benchmark's own is to do
    for option, default in ({"pairs": 5, "warm_up": 2, "threads": 1} | numbers).items():
        parser.add_argument(f"--{option}", type=int, default=default, help=f"default: {default}")
    return parser


def run_benchmark(
    measure: Callable[[argparse.Namespace], Table],
    parser: Parser,
    argv: Sequence[str],
    be_child: Callable[[argparse.Namespace], None] | None = None,
) -> int:
    """Do what a command line asks for: measure, print, write the JSON; return the exit status.

    A benchmark that starts processes of its own does with `be_child` what these are for.
    """

    def command(argv: Sequence[str]) -> int:
        options = parser.read(argv)
        set_threads(options.threads)
        if be_child is not None and options.child is not None:
            be_child(options)
            return 0
        before = os.getloadavg()[0]
        table = measure(options)
        print(format_table(table, options.threads, before))
        if options.json:
            record = describe_table(table, options, before)
            Path(options.json).parent.mkdir(parents=True, exist_ok=True)
            Path(options.json).write_text(json.dumps(record, indent=1) + "\n")
        return 0

    return run_command(command, argv)


def set_threads(threads: int) -> None:
    """Give both sides as many threads, in torch and in the Rust of the tokenizers."""
    os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    import torch

    torch.set_num_threads(threads)


def describe_machine() -> dict[str, Any]:
    """Return the processor, the date and the versions."""
    from training.describe import name_processor

    return {
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "processor": name_processor(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def describe_table(table: Table, options: argparse.Namespace, load: float) -> dict[str, Any]:
    """Return a table as plain values, for JSON."""
    return {
        "title": table.title,
        "machine": describe_machine() | {"load_before": load, "load_after": os.getloadavg()[0]},
        "options": vars(options),
        "settings": table.settings,
        "rows": [_describe_row(row) for row in table.rows],
        "missing": list(table.missing),
    }


def _describe_row(row: Row) -> dict[str, Any]:
    def describe(series: Series) -> dict[str, Any]:
        return {"name": series.name, "median": series.median, "spread": series.spread, "values": series.values} | (
            {"cpu": series.cpu} if series.cpu else {}
        )

    def plain(ratio: Ratio | None) -> dict[str, float] | None:
        return ratio and {"value": ratio.value, "low": ratio.low, "high": ratio.high}

    return {
        "what": row.what,
        "unit": row.unit,
        "tokens": row.tokens,
        "theirs": describe(row.theirs),
        "ours": describe(row.ours),
        "ratio": plain(row.ratio),
        "cpu_ratio": plain(row.cpu_ratio),
        "ratio_is": "ours / theirs" if row.inverted else "theirs / ours",
        "notes": dict(row.notes),
    }


def format_table(table: Table, threads: int, load: float) -> str:
    """Return the table as text: medians with half the interquartile range, the ratio, and that by processor time."""
    machine = describe_machine()
    lines = [
        table.title,
        f"{machine['date']}  {machine['processor']}  threads {threads}  load {load:.1f} -> {os.getloadavg()[0]:.1f}",
        "  ".join(f"{name} {number}" for name, number in machine["versions"].items()),
        "",
    ]
    for row in table.rows:
        pairs = len(row.ours.values)
        lines.append(f"{row.what:{_WIDEST}}  ({pairs} {'pair' if pairs == 1 else 'pairs'})")
        for series in (row.theirs, row.ours):
            lines.append(f"    {series.name:{_WIDEST - 4}}  {_format_median(series, row)}")
        by_cpu = f"   by processor time {row.cpu_ratio}" if row.cpu_ratio else ""
        lines.append(f"    {'ratio, 95 % interval':{_WIDEST - 4}}  {row.ratio}{by_cpu}")
        lines += [f"    {name:{_WIDEST - 4}}  {value}" for name, value in row.notes.items()]
    lines += [f"not shown: {each}" for each in table.missing]
    lines += [f"{name}: {value}" for name, value in table.settings.items()]
    return "\n".join(lines)


def _format_median(series: Series, row: Row) -> str:
    spread = f"IQR {series.spread:.0%}"
    if row.unit == "MB":
        return f"{series.median / 1e6:,.0f} MB  {spread}"
    if row.unit != "s":
        return f"{series.median:.4f} {row.unit}  {spread}"
    seconds = series.median
    shown = f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"
    rate = f"  {row.tokens / seconds:,.0f} tokens/s" if row.tokens else ""
    return f"{shown}  {spread}{rate}"
