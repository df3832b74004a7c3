"""What each ingredient of a start is worth: the last held-out loss of `mlm` of finished runs, as bars.

    python -m benchmarks.ladder runs/*-start --out ladder.svg

A run is named by its encoder, how its weights start (--init_range) and its word table (--embedding_init). Of runs with
one name the median is drawn, with their range: how far they are below the entropy of the words' frequencies, which
needs no text to reach.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from corpora.console import run_command
from corpora.errors import UserError
from training.encoders import known_encoders
from training.setup import NARROW

from .finished import read_options, read_run, write_picture

_TABLES = {"cooccurrence": "co-occurrence table", "random": "random table"}
_STARTS = {"width": "1/sqrt(width)", "stock": ".02"}


def read(folder: Path) -> tuple[str, float, float]:
    """Return a run's name, its last loss at hidden tokens, and how far that is below the words' frequencies."""
    record, rows = read_run(folder)
    try:
        loss = rows[-1]["metrics"]["mlm"].get("hidden_loss", rows[-1]["losses"]["mlm"])
        unigram = record["chance"]["mlm"]["unigram"]
        width = json.loads((folder / "config.json").read_text("utf-8"))["hidden_size"]
    except (OSError, LookupError) as error:
        raise UserError(f"{folder} is no finished run of mlm ({type(error).__name__}: {error})") from error
    config = record["config"]
    table = config["embedding_init"]
    if table == "auto":
        is_new = config["encoder"] in known_encoders()
        table = "cooccurrence" if is_new and width <= NARROW else "random"
    return f"{config['encoder']}, {_STARTS[config['init_range']]}, {_TABLES[table]}", loss, unigram - loss


def run(argv: list[str]) -> int:
    """Read the runs, print the table and draw it."""
    options = read_options("ladder", __doc__ or "", argv)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)  # by name: loss, gain
    for folder in options.runs:
        name, loss, gain = read(folder)
        found[name].append((loss, gain))
    for name, pairs in found.items():
        loss, gain = np.median(pairs, axis=0)
        print(f"{name:52} {loss:.3f}  {gain:+.3f} below the word frequencies  seeds {len(pairs)}")
    draw(found, options.out)
    return 0


def draw(found: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Write the bars."""
    names = list(found)
    medians = [np.median(found[name], axis=0) for name in names]
    figure = Figure(figsize=(8.5, 0.4 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [float(gain) for _, gain in medians], color="#3b6ea5")
    for place, (name, (loss, gain)) in enumerate(zip(names, medians, strict=True)):
        gains = [gain for _, gain in found[name]]
        axes.plot(gains, [place] * len(gains), "|", color="black")
        end = (max(*gains, float(gain), 0.0), place)
        axes.annotate(f"{loss:.2f}", end, (5, 0), textcoords="offset points", va="center")
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("nats below the words' entropy; at the bars: the loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    write_picture(figure, path)


def main(argv: list[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
