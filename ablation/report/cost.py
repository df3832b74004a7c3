"""Cost beside benefit: what the runs took, which arms are on equal terms, and what it bought."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ablation.results import ArmRecord, StudyResults
from probes.figures import INK, Line

from .drawing import Paint, Picture, draw_panels, list_lines
from .measures import EQUAL, Gain, Quantity, find_front, list_quantities, list_unequal
from .notation import ABSENT


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """An arm's part in the table of costs: for each quantity its text, and how much more it is than the least."""

    arm: ArmRecord
    cells: Sequence[tuple[str, float | None]]  # the excess is None where all arms are equal in the quantity
    gain: Gain | None
    is_on_front: bool  # of time and mean gain


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a quantity was of the arm that took least and of the one that took most, and which pairs differ in it."""

    quantity: Quantity
    least: str
    most: str
    unequal: Sequence[tuple[str, str, float]]  # larger, smaller, by how much
    pairs: int


def list_costs(results: StudyResults, gains: Mapping[str, Gain]) -> list[CostRow]:
    """Return a row for every arm that learns."""
    quantities = list_quantities(results)
    times = next(quantity.of_arm for quantity in quantities if quantity.key == "time")
    front = find_front({name: (times[name], gains[name].value) for name in times if name in gains})
    rows = []
    for arm in (each for each in results.arms if each.kind == "trained"):
        cells: list[tuple[str, float | None]] = []
        for quantity in quantities:
            value = quantity.of_arm.get(arm.name)
            if value is None:
                cells.append((ABSENT, None))
                continue
            excess = value / min(quantity.of_arm.values()) - 1 if quantity.spread >= EQUAL else None
            cells.append((quantity.write(value), excess))
        rows.append(CostRow(arm=arm, cells=cells, gain=gains.get(arm.name), is_on_front=arm.name in front))
    return rows


def list_terms(results: StudyResults) -> list[Terms]:
    """Return each quantity that is known of two arms or more, with the pairs that differ in it."""
    listed = []
    for quantity in list_quantities(results):
        arms = sorted(quantity.of_arm, key=lambda name: quantity.of_arm[name])
        if len(arms) > 1:
            pairs = len(arms) * (len(arms) - 1) // 2
            unequal = list_unequal(quantity)
            listed.append(Terms(quantity=quantity, least=arms[0], most=arms[-1], unequal=unequal, pairs=pairs))
    return listed


def draw_cost(results: StudyResults, gains: Mapping[str, Gain]) -> tuple[list[Picture], str]:
    """Return the mean gain over each quantity in which the arms differ, and all of them as one figure."""
    lines = list_lines(results)
    pictures: list[Picture] = []
    panels: list[tuple[str, Paint]] = []
    for quantity in list_quantities(results):
        points = {name: (cost, gains[name].value) for name, cost in quantity.of_arm.items() if name in gains}
        if not points or quantity.spread < EQUAL or quantity.key == results.fairness:
            continue
        paint = partial(_paint_cost, quantity=quantity, points=points, gains=gains, lines=lines)
        alt = f"Mean gain over {quantity.name}, a point for each of {len(points)} arms"
        front = ", ".join(find_front(points))
        markup = draw_panels([("", paint)], alt, f"cost-{quantity.key}-")
        name = quantity.name.partition(" (")[0].capitalize()
        pictures.append(Picture(name=name, alt=alt, caption=f"On the front: {front}.", markup=markup))
        panels.append(("", paint))
    if not panels:
        return [], ""
    shown = [line for name, line in lines.items() if name in gains and line.is_trained]
    return pictures, draw_panels(panels, "Mean gain over cost", "cost-all-", shown)


def _paint_cost(
    panel: Axes,
    *,
    quantity: Quantity,
    points: Mapping[str, tuple[float, float]],
    gains: Mapping[str, Gain],
    lines: Mapping[str, Line],
) -> None:
    front = [points[name] for name in find_front(points)]
    costs, benefits = [cost for cost, _ in front], [100 * benefit for _, benefit in front]
    panel.step(costs, benefits, where="post", color=INK, linewidth=1, alpha=0.6)
    for name, (cost, benefit) in points.items():
        gain, line = gains[name], lines[name]
        panel.plot([cost, cost], [100 * gain.low, 100 * gain.high], color=line.ink, linewidth=1.4)  # nothing for NaN
        panel.plot([cost], [100 * benefit], color=line.ink, marker=line.marker, markersize=7, linestyle="none")
    panel.margins(x=0.1, y=0.12)
    panel.set_xlabel(quantity.name)
    panel.set_ylabel("mean gain × 100")
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity.write(value)))
