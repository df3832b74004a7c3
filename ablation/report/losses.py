"""What each run's own held-out losses did, beside what chance reaches."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ablation.results import RunRecord, StudyResults
from probes.figures import INK, Line
from training.chance import add_base_rates

from .drawing import Paint, Picture, draw_panels, list_lines
from .notation import count, plural


def draw_training(results: StudyResults, arm: str, prefix: str) -> Picture | None:
    """Return the held-out losses of an arm's runs over the tokens read, or None where none was measured."""
    runs = [run for run in results.list_runs(arm) if run.curve]
    losses = list(dict.fromkeys(name for run in runs for point in run.curve for name in point.losses))
    if not losses:
        return None
    line = list_lines(results)[arm]
    panels: list[tuple[str, Paint]] = [
        (name, partial(_paint_losses, runs=runs, name=name, line=line)) for name in losses
    ]
    alt = f"{arm}: held-out loss over the tokens read, {', '.join(losses)}"
    caption = (
        f"Held-out loss over the tokens read; {plural(len(runs), 'run')}, a thin line each, and their mean. Dashed: "
        "predictors that do not look at the text."
    )
    return Picture(name=f"training-{prefix}", alt=alt, caption=caption, markup=draw_panels(panels, alt, f"{prefix}-"))


def list_levels(run: RunRecord) -> dict[str, dict[str, float]]:
    """Return what each loss of a run is for predictors that do not look at the text."""
    return add_base_rates(run.chance, [{"metrics": run.held_out}])


def _paint_losses(panel: Axes, *, runs: Sequence[RunRecord], name: str, line: Line) -> None:
    by_step: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        read = [(point.step, point.tokens, point.losses[name]) for point in run.curve if name in point.losses]
        panel.plot([x for _, x, _ in read], [y for _, _, y in read], color=line.ink, linewidth=0.8, alpha=0.45)
        for step, tokens, loss in read:
            by_step.setdefault(step, []).append((tokens, loss))
    means = [np.mean(by_step[step], axis=0) for step in sorted(by_step) if len(by_step[step]) == len(runs)]
    panel.plot(*zip(*means, strict=True), color=line.ink, marker=line.marker, markersize=4, linewidth=1.8)
    levels = next((known[name] for run in runs if name in (known := list_levels(run))), {})
    for label, value in levels.items():
        panel.axhline(value, color=INK, linestyle="--", linewidth=1)
        panel.annotate(
            f"{label} {value:.2f}",
            xy=(0.99, value),
            xycoords=panel.get_yaxis_transform(),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
            color=INK,
        )
    panel.set_xlabel("tokens read")
    panel.set_ylabel("held-out loss (nats)")
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value).replace(" ", "")))
    panel.margins(y=0.12)
