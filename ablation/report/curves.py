"""Scores by layer and over training: small panels, one a probe, a line an arm."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ablation.results import StudyResults
from probes.figures import INK, METRICS, Line
from probes.results import ProbeRecord, Score
from probes.statistics import Interval

from .drawing import Paint, Picture, draw_panels, list_lines, style_of
from .measures import SEEDS_FOR_A_BAND, find_untrained, group_trajectories, mean_band
from .notation import count, plain, plural, points, power_of_ten


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One arm's line: places on the x axis, the score at each and its interval."""

    line: Line
    places: Sequence[float]
    bands: Sequence[Interval]


class PaintProbe(Protocol):
    """What paints one probe's curves into a panel."""

    def __call__(self, panel: Axes, *, probe: ProbeRecord, curves: Sequence[Curve]) -> None: ...


def draw_layers(results: StudyResults) -> tuple[list[Picture], str]:
    """Return a figure for every probe with scores at single layers, and all of them as one."""
    if results.probes is None:
        return [], ""
    by_layer: dict[tuple[str, str], dict[int, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for encoder in results.probes.encoders:
        for probe in results.probes.probes:
            for score in results.probes.list_layers(encoder.name, probe.name):
                by_layer[encoder.group, probe.name][int(score.layer)].append(score)
    curves: dict[str, list[Curve]] = {}
    for name, line in list_lines(results).items():
        for probe in results.probes.probes:
            scores = by_layer.get((name, probe.name))
            if scores:
                layers = sorted(scores)
                bands = [mean_band(scores[layer]) for layer in layers]
                curves.setdefault(probe.name, []).append(Curve(line=line, places=layers, bands=bands))
    return _draw_probes(results, curves, "layers", "score by layer", _paint_layers)


def draw_trajectories(results: StudyResults) -> tuple[list[Picture], str]:
    """Return a figure for every probe that was put to encoders on the way, and all of them as one."""
    if results.probes is None:
        return [], ""
    by_flops = results.fairness == "flops"
    grouped = group_trajectories(results)
    curves: dict[str, list[Curve]] = {}
    for name, line in list_lines(results).items():
        for probe in results.probes.probes:
            steps = grouped.get((name, probe.name))
            if steps:
                places = [float(np.mean([p.flops if by_flops else p.tokens for p in at_step])) for at_step in steps]
                bands = [mean_band(at_step) for at_step in steps]
                curves.setdefault(probe.name, []).append(Curve(line=line, places=places, bands=bands))
    untrained = {probe.name: find_untrained(results, probe.name) for probe in results.probes.probes}
    label, write = ("training FLOPs", power_of_ten) if by_flops else ("tokens read", count)
    paint = partial(_paint_trajectories, label=label, write=write, untrained=untrained)
    return _draw_probes(results, curves, "trajectories", "score over training", paint)


def explain_bands(results: StudyResults) -> str:
    """Return what a line and its band are, by how many seeds there are."""
    if len(results.seeds) >= SEEDS_FOR_A_BAND:
        return (
            f"Each line is the mean of {len(results.seeds)} seeds, its band the 95 % interval over seeds (Student's t)."
        )
    if len(results.seeds) == 1:
        return "Each line is one seed, its band the 95 % interval over test documents: it says nothing of other seeds."
    return (
        f"Each line is the mean of {len(results.seeds)} seeds, its band the mean of their 95 % intervals over test "
        "documents: two seeds are too few for an interval over seeds."
    )


def _draw_probes(
    results: StudyResults, curves: dict[str, list[Curve]], name: str, what: str, paint: PaintProbe
) -> tuple[list[Picture], str]:
    assert results.probes is not None
    pictures: list[Picture] = []
    panels: list[tuple[str, Paint]] = []
    for number, (probe_name, lines) in enumerate(curves.items()):
        probe = results.probes.find_probe(probe_name)
        own = partial(paint, probe=probe, curves=lines)
        alt = f"{plain(probe.name)}: {what}, {plural(len(lines), 'arm')}"
        markup = draw_panels([("", own)], alt, f"{name}{number}-")
        caption = f"{probe.question} Dotted: {plain(probe.floor_name)}, {points(probe.floor)}."
        pictures.append(Picture(name=plain(probe.name), alt=alt, caption=caption, markup=markup))
        panels.append((plain(probe.name), own))
    if not panels:
        return [], ""
    return pictures, draw_panels(panels, f"{what}, every probe", f"{name}-all-", list(list_lines(results).values()))


def _paint_layers(panel: Axes, *, probe: ProbeRecord, curves: Sequence[Curve]) -> None:
    _paint_curves(panel, probe, curves)
    panel.set_xlabel("layer (0: embeddings)")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _paint_trajectories(
    panel: Axes,
    *,
    probe: ProbeRecord,
    curves: Sequence[Curve],
    label: str,
    write: Callable[[float], str],
    untrained: Mapping[str, float | None],
) -> None:
    level = untrained[probe.name]
    if level is not None:
        panel.axhline(100 * level, color=INK, linestyle="--", linewidth=1)
    _paint_curves(panel, probe, curves)
    panel.set_xlabel(label)
    places = [place for curve in curves for place in curve.places]
    if min(places) > 0:
        panel.set_xscale("log")
        steps = (1.0,) if max(places) > 100 * min(places) else (1.0, 2.0, 5.0)
        panel.xaxis.set_major_locator(LogLocator(subs=steps, numticks=5))
        panel.xaxis.set_minor_locator(NullLocator())
    else:  # step 0 has no logarithm
        panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value) if value > 0 else "0"))


def _paint_curves(panel: Axes, probe: ProbeRecord, curves: Sequence[Curve]) -> None:
    for curve in sorted(curves, key=lambda each: each.line.is_trained):  # untrained ones beneath the others
        low, high = ([100 * getattr(band, end) for band in curve.bands] for end in ("low", "high"))
        alpha = 0.14 if curve.line.is_trained else 0.08
        panel.fill_between(curve.places, low, high, color=curve.line.ink, alpha=alpha, linewidth=0)
        panel.plot(curve.places, [100 * band.value for band in curve.bands], **style_of(curve.line))
    panel.axhline(100 * probe.floor, color=INK, linestyle=":", linewidth=1.2)
    panel.set_ylabel(f"{METRICS[probe.metric]} × 100")
