"""Draws tables that benchmarks have written: how many times as fast, each with its interval, on one axis.

python -m benchmarks.plot results/*.json --out docs/performance.svg [--clock cpu]
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter


def read_ratios(paths: Sequence[Path], clock: str) -> list[tuple[str, float, float, float]]:
    """Return each speed-up of the tables with what it is of, its value and its interval, the largest last.

    Prices (ours to theirs) and rows without seconds are no speed-ups. "cpu" takes the ratio by processor time.
    """
    found = []
    for path in paths:
        for row in json.loads(path.read_text())["rows"]:
            ratio: dict[str, Any] | None = row["cpu_ratio"] if clock == "cpu" else row["ratio"]
            if ratio is not None and row["unit"] == "s" and row["ratio_is"] == "theirs / ours":
                what = f"{row['what']}\nagainst {row['theirs']['name']}"
                found.append((what, ratio["value"], ratio["low"], ratio["high"]))
    return sorted(found, key=lambda each: each[1])


def draw(ratios: Sequence[tuple[str, float, float, float]], path: Path) -> None:
    """Draw the ratios as points with their intervals, on a logarithmic axis from equally fast."""
    figure = Figure(figsize=(9, 0.6 * len(ratios) + 1), layout="constrained")
    axes = figure.subplots()
    places = range(len(ratios))
    values = [value for _, value, _, _ in ratios]
    spans = [[value - low for _, value, low, _ in ratios], [high - value for _, value, _, high in ratios]]
    axes.errorbar(values, places, xerr=spans, fmt="o", color="#0072b2", capsize=3)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set(xscale="log", xlabel="times as fast (95 % interval)", yticks=list(places))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_yticklabels([what for what, *_ in ratios], fontsize=8)
    for place, value in enumerate(values):
        axes.annotate(
            f"{value:.1f}x", (value, place), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8
        )
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main(argv: list[str]) -> int:
    """Draw what a command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args(argv)
    draw(read_ratios(options.tables, options.clock), options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
