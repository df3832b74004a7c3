"""What the report computes from the records: means over seeds, gains, unequal terms, the front of cost and benefit."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ablation.results import ArmRecord, StudyResults, TrajectoryPoint
from probes.report import is_firm
from probes.results import ALL, MIX, Comparison, Results, Score
from probes.statistics import Interval

from .notation import count, duration, megabytes, scientific

EQUAL = 0.01  # quantities that differ by less, relatively, count as equal
SEEDS_FOR_A_BAND = 3  # two have a 95 % interval thirteen standard errors wide
Scored = Score | TrajectoryPoint


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean over seeds with its 95 % interval by Student's t; without bounds (NaN) where there is one."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(value=mean, low=math.nan, high=math.nan)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = error * float(stdtrit(len(values) - 1, 0.975))
    return Interval(value=mean, low=mean - reach, high=mean + reach)


def mean_band(scored: Sequence[Scored]) -> Interval:
    """Return the mean of some seeds' scores and the band around it.

    It is the 95 % interval over seeds where there are three or more; with fewer, the mean of each one's interval over
    documents.
    """
    if len(scored) >= SEEDS_FOR_A_BAND:
        return mean_interval([each.score for each in scored])
    means = (float(np.mean([getattr(each, name) for each in scored])) for name in ("score", "low", "high"))
    value, low, high = means
    return Interval(value=value, low=low, high=high)


def list_columns(results: StudyResults) -> list[str]:
    """Return the arms in the study's order, those that learn nothing last, and other groups that were probed."""
    arms = sorted(results.arms, key=lambda arm: ("trained", "reference", "untrained").index(arm.kind))
    names = [arm.name for arm in arms]
    probed = [*results.probes.groups, *results.probes.untrained] if results.probes else []
    return [*names, *(name for name in probed if name not in names)]


def is_trained(results: StudyResults, name: str) -> bool:
    """Return whether an arm, or another group that was probed, learned anything, here or before."""
    kinds = {arm.name: arm.kind for arm in results.arms}
    if name in kinds:
        return kinds[name] != "untrained"
    return results.probes is not None and name in results.probes.groups


def find_baseline(results: StudyResults) -> str | None:
    """Return what the others are set against in the map of differences: the untrained arm, or the first of all."""
    probed = {summary.group for summary in results.probes.summaries} if results.probes else set()
    names = [name for name in list_columns(results) if name in probed]
    return next((name for name in names if not is_trained(results, name)), names[0] if names else None)


def find_untrained(results: StudyResults, probe: str) -> float | None:
    """Return the best score of a network with random weights on a probe, or None where none was probed."""
    groups = results.probes.untrained if results.probes else []
    found = [results.probes.find_summary(group, probe) for group in groups] if results.probes else []
    return max((each.score for each in found if each is not None), default=None)


def orient(comparison: Comparison, a: str) -> Comparison:
    """Return a comparison as one of `a` with the other."""
    if comparison.a == a:
        return comparison
    return Comparison(
        probe=comparison.probe,
        a=comparison.b,
        b=comparison.a,
        difference=-comparison.difference,
        low=-comparison.high,
        high=-comparison.low,
        method=comparison.method,
        seeds=(comparison.seeds[1], comparison.seeds[0]),
        claim=comparison.claim,
        p=comparison.p,
        p_holm=comparison.p_holm,
        detectable=comparison.detectable,
    )


class Outcomes:
    """The comparisons of a study, found from either side."""

    def __init__(self, results: StudyResults) -> None:
        self._found: dict[tuple[str, str, str], Comparison] = {}
        for each in results.probes.comparisons if results.probes else ():
            self._found[each.probe, each.a, each.b] = each
            self._found[each.probe, each.b, each.a] = orient(each, each.b)

    def find(self, probe: str, a: str, b: str) -> Comparison | None:
        """Return the comparison of a with b, or None where they were not compared."""
        return self._found.get((probe, a, b))

    def beaten_by(self, probe: str, a: str) -> list[str]:
        """Return the arms that `a` is above on a probe, by a difference that stands."""
        found = [each for (name, first, _), each in self._found.items() if (name, first) == (probe, a)]
        return [each.b for each in found if is_firm(each) and each.difference > 0]


def list_gains(results: Results, group: str) -> list[float]:
    """Return each seed's mean, over the counted probes, of (score - floor) / (1 - floor), scores at chosen layers.

    A seed that lacks one of these probes is left out.
    """
    counted = {name: results.find_probe(name).floor for name in results.list_counted()}
    gains = []
    for encoder in (each.name for each in results.encoders if each.group == group):
        chosen = [s for s in results.scores if s.encoder == encoder and s.probe in counted and is_chosen(s)]
        if counted and len(chosen) == len(counted):
            shares = [(s.score - counted[s.probe]) / max(1 - counted[s.probe], 1e-9) for s in chosen]
            gains.append(float(np.mean(shares)))
    return gains


@dataclass(frozen=True, kw_only=True)
class Gain:
    """An arm's mean share of the way from the floors to 100, and its interval over seeds (NaN for one seed)."""

    arm: str
    value: float
    low: float
    high: float
    is_trained: bool


def list_mean_gains(results: StudyResults) -> dict[str, Gain]:
    """Return the mean gain of every column that has one."""
    gains = {}
    for name in list_columns(results):
        found = list_gains(results.probes, name) if results.probes else []
        if found:
            each = mean_interval(found)
            gains[name] = Gain(
                arm=name, value=each.value, low=each.low, high=each.high, is_trained=is_trained(results, name)
            )
    return gains


def is_chosen(score: Score) -> bool:
    """Return whether a score is the one of its probe: all items, at the layer that dev items chose."""
    return score.is_chosen and score.subset == ALL and score.layer != MIX


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What runs can be made equal in, and what each arm's run took of it."""

    key: str
    name: str
    write: Callable[[float], str]
    of_arm: Mapping[str, float]  # where it is known and above 0

    @property
    def spread(self) -> float:
        """How much more the largest is than the smallest, relatively."""
        values = list(self.of_arm.values())
        return max(values) / min(values) - 1 if values else 0.0


def list_quantities(results: StudyResults) -> list[Quantity]:
    """Return FLOPs, tokens, steps, time and memory of the arms that learn."""
    arms = [arm for arm in results.arms if arm.kind == "trained"]
    reads: dict[str, tuple[str, Callable[[float], str], Callable[[ArmRecord], float]]] = {
        "flops": ("FLOPs", scientific, lambda arm: arm.flops),
        "tokens": ("tokens read", count, lambda arm: arm.tokens),
        "steps": ("steps", count, lambda arm: arm.steps),
        "time": ("training time (min:s)", duration, lambda arm: mean_of_runs(results, arm.name, "seconds")),
        "memory": ("peak memory", megabytes, lambda arm: mean_of_runs(results, arm.name, "peak_memory")),
    }
    quantities = []
    for key, (name, write, read) in reads.items():
        known = {arm.name: value for arm in arms if (value := read(arm)) > 0}
        quantities.append(Quantity(key=key, name=name, write=write, of_arm=known))
    return quantities


def mean_of_runs(results: StudyResults, arm: str, name: str) -> float:
    """Return the mean of a field over the arm's finished runs that know it; 0 where none does."""
    values = [getattr(run, name) for run in results.list_runs(arm) if run.status == "finished" and getattr(run, name)]
    return float(np.mean(values)) if values else 0.0


def list_unequal(quantity: Quantity) -> list[tuple[str, str, float]]:
    """Return the pairs of arms that differ by 1 % or more, larger one first, and by how much."""
    names = list(quantity.of_arm)
    pairs = []
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            larger, smaller = sorted((first, second), key=lambda name: -quantity.of_arm[name])
            excess = quantity.of_arm[larger] / quantity.of_arm[smaller] - 1
            if excess >= EQUAL:
                pairs.append((larger, smaller, excess))
    return pairs


def find_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the Pareto front of (cost, benefit) by name, cheapest first: nothing is as cheap and better."""
    front: list[str] = []
    best = -math.inf
    for name, (_, benefit) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if benefit > best:
            front.append(name)
            best = benefit
    return front


def group_trajectories(results: StudyResults) -> dict[tuple[str, str], list[list[TrajectoryPoint]]]:
    """Return {(arm, probe): the seeds' points, one list for each step, first step first}."""
    grouped: dict[tuple[str, str], dict[int, list[TrajectoryPoint]]] = defaultdict(lambda: defaultdict(list))
    for point in results.trajectories:
        grouped[point.arm, point.probe][point.step].append(point)
    return {key: [by_step[step] for step in sorted(by_step)] for key, by_step in grouped.items()}


def find_onset(steps: Sequence[Sequence[TrajectoryPoint]], level: float) -> Sequence[TrajectoryPoint] | None:
    """Return the seeds' points at the first step from which on every seed's interval lies above a level, or None."""
    onset = None
    for at_step in reversed(steps):
        if min(point.low for point in at_step) <= level:
            break
        onset = at_step
    return onset
