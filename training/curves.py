"""The picture of a run: each loss over the tokens seen, beside what chance reaches."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

TRAINING, HELD_OUT, HIDDEN, CHANCE = "#9ecae1", "#08519c", "#d95f0e", "#666666"


def draw_curves(
    path: Path, metrics: Sequence[Mapping[str, Any]], chance: Mapping[str, Mapping[str, float]], title: str
) -> bool:
    """Write a PNG with a panel for each loss; False, and no file, where no loss was logged.

    `metrics` are the rows of the log, `chance` the level of each predictor that does not look at the text, by loss.
    """
    names = list(dict.fromkeys(name for row in metrics for name in row.get("losses", {})))
    if not names:
        return False
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.4 * rows + 0.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display, and leaves pyplot's state alone
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, name in zip(panels, names, strict=False):
        _draw_panel(panel, name, metrics, chance.get(name, {}))
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    shown: dict[str, Artist] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, format="png")
    return True


def _draw_panel(panel: Axes, name: str, metrics: Sequence[Mapping[str, Any]], levels: Mapping[str, float]) -> None:
    held_out = [row for row in metrics if row.get("split") == "held_out"]
    train = [row for row in metrics if row.get("split") == "train"]
    curves = (
        ("training", _read(train, lambda row: row.get("losses", {}).get(name)), TRAINING, "-"),
        ("held out", _read(held_out, lambda row: row.get("losses", {}).get(name)), HELD_OUT, "o-"),
        (
            "held out, hidden tokens only",
            _read(held_out, lambda row: _hidden_loss(row, name)),
            HIDDEN,
            "s-",
        ),
    )
    for label, points, colour, style in curves:
        if points:
            style = "." if len(points) == 1 and style == "-" else style
            panel.plot(*zip(*points, strict=True), style, color=colour, label=label, linewidth=1.6, markersize=4)
    for level, value in levels.items():
        if _is_number(value):
            panel.axhline(value, color=CHANCE, linestyle="--", linewidth=1, label="chance")
            panel.annotate(
                f"{level} {value:.2f}",
                xy=(0.99, value),
                xycoords=panel.get_yaxis_transform(),
                xytext=(0, 3),  # clear of the line
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=9,
                color=CHANCE,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )
    panel.set_title(name, fontsize=11)
    panel.set_xlabel("tokens seen" if any("tokens" in row for row in metrics) else "steps")
    panel.set_ylabel("loss (nats)")
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    _widen(panel)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _widen(panel: Axes) -> None:
    """Leave room above and below, a tenth of the level at the least, so that noise on a plateau looks like noise."""
    low, high = panel.dataLim.intervaly
    middle, half = (low + high) / 2, max(0.6 * (high - low), 0.1 * abs(high))
    panel.set_ylim(middle - half, middle + half)


def _hidden_loss(row: Mapping[str, Any], name: str) -> object:
    """Return the loss at hidden tokens where tokens that stayed visible were asked too, and it tells something else."""
    hidden, loss = row.get("metrics", {}).get(name, {}).get("hidden_loss"), row.get("losses", {}).get(name)
    differs = _is_number(hidden) and _is_number(loss) and abs(hidden - loss) > 1e-4 * abs(loss)
    return hidden if differs else None


def _read(rows: Sequence[Mapping[str, Any]], value_of: Callable[[Mapping[str, Any]], Any]) -> list[tuple[float, float]]:
    """Return (tokens, value) of the rows that have a finite one."""
    points = [(row.get("tokens", row.get("step", 0)), value_of(row)) for row in rows]
    return [(place, value) for place, value in points if _is_number(value)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
