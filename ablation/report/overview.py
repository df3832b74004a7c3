"""The figures that hold the whole study: differences as a map, the hypotheses."""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ablation.results import HypothesisRecord, StudyResults
from probes.figures import INK, SERIES, SETTINGS, ink_axes, render
from probes.report import is_firm

from .drawing import Picture
from .matrix import Row
from .measures import Outcomes, find_baseline, list_columns
from .notation import bounds, difference, plain, plural

_MORE, _LESS = SERIES[0], SERIES[1]  # blue and vermilion are told apart by every kind of eye
_DEEPEST = 0.7  # opacity of the largest difference
_VERDICTS = {"reproduced": "o", "not reproduced": "X", "undecided": "D"}


def draw_differences(results: StudyResults, rows: Sequence[Row]) -> Picture | None:
    """Return every score's distance from the baseline's, as a map; None where there is nothing to compare."""
    baseline = find_baseline(results)
    columns = [name for name in list_columns(results) if name != baseline]
    if baseline is None or not rows or not columns:
        return None
    outcomes = Outcomes(results)
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(2.1 + 0.72 * len(columns), 0.9 + 0.3 * len(rows)), layout="constrained")
        panel = figure.subplots()
        scale = _find_scale(rows, baseline, columns)
        for y, row in enumerate(rows):
            for x, name in enumerate(columns):
                _paint_cell(panel, (x, y), row, name, baseline, outcomes, scale)
        panel.set_xlim(-0.5, len(columns) - 0.5)
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_xticks(range(len(columns)), columns, rotation=35, ha="left", rotation_mode="anchor")
        panel.set_yticks(range(len(rows)), [plain(row.probe.name) for row in rows])
        panel.xaxis.tick_top()
        panel.tick_params(length=0, colors=INK)
        panel.spines[:].set_visible(False)
        panel.patch.set_visible(False)
        alt = f"Differences from {baseline} in points, {plural(len(rows), 'probe')} by {plural(len(columns), 'arm')}"
        markup = render(figure, alt, "differences-")
    caption = (
        f"Score minus that of {baseline}, in points. Blue is above, orange below, the deeper the further; outlined and "
        "bold where the difference stands. No colour: the score is at its floor (_) or ceiling (^)."
    )
    return Picture(name="differences", alt=alt, caption=caption, markup=markup)


def _find_scale(rows: Sequence[Row], baseline: str, columns: Sequence[str]) -> float:
    """Return the largest difference that is coloured."""
    largest = 0.0
    for row in rows:
        summaries = {cell.arm: cell.summary for cell in row.cells}
        base = summaries[baseline]
        for name in columns:
            summary = summaries[name]
            if summary is not None and base is not None and not summary.flag:
                largest = max(largest, abs(summary.score - base.score))
    return largest or 1.0


def _paint_cell(
    panel: Axes, place: tuple[int, int], row: Row, name: str, baseline: str, outcomes: Outcomes, scale: float
) -> None:
    cells = {cell.arm: cell for cell in row.cells}
    summary, base = cells[name].summary, cells[baseline].summary
    if summary is None or base is None:
        said = cells[name].missing if summary is None else cells[baseline].missing
        panel.annotate(said, place, ha="center", va="center", fontsize=7, style="italic", color=INK)
        return
    found = summary.score - base.score
    compared = outcomes.find(row.probe.name, name, baseline)
    firm = compared is not None and is_firm(compared)
    corner = (place[0] - 0.46, place[1] - 0.42)
    if not summary.flag:
        depth = _DEEPEST * min(1.0, abs(found) / scale)
        colour = _MORE if found >= 0 else _LESS
        panel.add_patch(Rectangle(corner, 0.92, 0.84, facecolor=colour, alpha=depth, edgecolor="none"))
    if firm:
        panel.add_patch(Rectangle(corner, 0.92, 0.84, facecolor="none", edgecolor=INK, linewidth=1))
    mark = {"floor": " _", "ceiling": " ^"}.get(summary.flag, "")
    weight = "bold" if firm else "normal"
    panel.annotate(
        difference(found) + mark, place, ha="center", va="center", fontsize=8.5, fontweight=weight, color=INK
    )


def draw_hypotheses(hypotheses: Sequence[HypothesisRecord]) -> Picture | None:
    """Return the differences that the hypotheses are about, with their intervals; None where none was measured."""
    shown = [each for each in hypotheses if each.difference is not None and not is_loss(each)]
    if not shown:
        return None
    alt = "Hypotheses: the difference that each claims, with its interval. " + "; ".join(
        f"{each.name}: {difference(each.difference)} {bounds(each.low, each.high)}, {each.verdict}" for each in shown
    )
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(6.8, 0.9 + 0.36 * len(shown)), layout="constrained")
        _paint_hypotheses(figure.subplots(), shown)
        markup = render(figure, alt, "hypotheses-")
    caption = (
        "The difference that was claimed to be above 0, and its 95 % interval. Filled circle: reproduced; cross: not "
        "reproduced; hollow diamond: undecided."
    )
    return Picture(name="hypotheses", alt=alt, caption=caption, markup=markup)


def is_loss(hypothesis: HypothesisRecord) -> bool:
    """Return whether a hypothesis is about nats, not about a share of items."""
    return hypothesis.measure.startswith("held_out:") and hypothesis.measure.endswith("loss")


def _paint_hypotheses(panel: Axes, shown: Sequence[HypothesisRecord]) -> None:
    for place, each in enumerate(shown):
        assert each.difference is not None
        if each.low is not None and each.high is not None:
            panel.plot([100 * each.low, 100 * each.high], [place, place], color=INK, linewidth=1.6)
        face = "none" if each.verdict == "undecided" else INK
        panel.plot(
            [100 * each.difference], [place], marker=_VERDICTS.get(each.verdict, "o"), markersize=7, color=INK,
            markerfacecolor=face,
        )  # fmt: skip
    panel.axvline(0, color=INK, linestyle=":", linewidth=1.2)
    panel.set_yticks(range(len(shown)), [each.name for each in shown])
    panel.set_ylim(len(shown) - 0.5, -0.5)
    panel.set_xlabel("difference, points")
    ink_axes(panel)
