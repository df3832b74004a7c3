"""What each ingredient of a start is worth: the last held-out loss of `mlm` of finished runs, as bars.

    python -m benchmarks.ladder runs/*-start --out ladder.svg

A run is named by its encoder, how its weights start (--init_range) and its word table (--embedding_init). Of runs with
one name the median is drawn, with their range. Beside the bars stands the entropy of the words' frequencies, which
needs no text to reach.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

_TABLES = {"cooccurrence": "co-occurrence table", "random": "random table", "auto": "co-occurrence table"}
_STARTS = {"width": "1/sqrt(width)", "stock": ".02"}


def read(folder: Path) -> tuple[str, float, float, int]:
    """Return a run's name, its last loss at hidden tokens, the entropy of the words' frequencies, and its tokens."""
    record = json.loads((folder / "run.json").read_text("utf-8"))
    config = record["config"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    last = [row for row in rows if row["split"] == "held_out"][-1]
    name = f"{config['encoder']}, {_STARTS[config['init_range']]}, {_TABLES[config['embedding_init']]}"
    loss = last["metrics"]["mlm"].get("hidden_loss", last["losses"]["mlm"])
    return name, loss, record["chance"]["mlm"]["unigram"], last["tokens"]


def main(argv: list[str]) -> int:
    """Read the runs, print the table and draw it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ladder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders that pretrain.py wrote")
    parser.add_argument("--out", type=Path, default=Path("ladder.svg"), metavar="FILE")
    options = parser.parse_args(argv)
    losses: dict[str, list[float]] = defaultdict(list)
    for folder in options.runs:
        name, loss, unigram, tokens = read(folder)
        losses[name].append(loss)
        print(f"{folder}: {name}: {loss:.3f} after {tokens:,} tokens")
    names = list(losses)
    medians = [float(np.median(losses[name])) for name in names]
    for name, median in zip(names, medians, strict=True):
        print(f"{name:52} {median:.3f}  {unigram - median:+.3f} below the word frequencies")
    figure = Figure(figsize=(8.5, 0.4 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [unigram - median for median in medians], color="#3b6ea5")
    for place, (name, median) in enumerate(zip(names, medians, strict=True)):
        axes.plot([unigram - loss for loss in losses[name]], [place] * len(losses[name]), "|", color="black")
        axes.annotate(
            f"{median:.2f}", (max(unigram - median, 0), place), (4, 0), textcoords="offset points", va="center"
        )
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel(f"nats below the entropy of the words' frequencies ({unigram:.2f}); at the bars: the loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    with matplotlib.rc_context({"svg.hashsalt": "ladder"}):
        figure.savefig(options.out, metadata={"Date": None})
    print(f"picture: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
