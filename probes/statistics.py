"""Intervals that hold their level, over documents and over pretraining seeds.

resample_scores(labels, predictions, groups, *, metric="accuracy", scores=None, samples=1000, seed=0) -> Resampled
    groups (documents) are drawn with replacement; the draws are the same for all systems judged on the same items
resample(groups, measure, *, samples=1000, seed=0) -> Resampled       any figure of items, by weights of their groups
Resampled: value, draws (samples,), jackknife (groups,); a - b is the Resampled of a difference of two systems
interval(resampled, *, level=0.95, method="bca" or "percentile") -> Interval
multi_bootstrap(first, second, *, paired=False, level=0.95, seed=0) -> Comparison     lists of Resampled, one a seed
mean_over_seeds(systems, *, level=0.95, seed=0) -> Interval                           a list of Resampled, one a seed
welch(first, second, *, level=0.95) -> Comparison                                     scores, one a seed
holm(p_values) -> adjusted p-values; minimum_detectable_difference(sd, n, *, power=0.8, level=0.95) -> float
claim_level(num_seeds) -> "objective" or "checkpoints"
extreme(interval, *, floors, ceiling=0.995) -> "floor", "ceiling" or None
control_labels_by_type(words, num_classes, seed, *, counts=None) -> (N,)      random labels by word type
Interval: value, low, high, level. Comparison: the same, and p_value, degrees.

Two claims are kept apart: that two checkpoints differ, for which documents are resampled, and that two objectives do,
for which pretraining seeds are too.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

from corpora.errors import UserError

from .probe import Metric

SEEDS_FOR_A_CLAIM = 5
_CHUNK = 64  # resamples whose ROC curves are held at once


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure and where it would be expected among other documents (and seeds, where those were drawn too)."""

    value: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Comparison(Interval):
    """A difference, first minus second, its interval, and the chance of one so large were there none (two-sided)."""

    p_value: float
    degrees: float


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A score, what it is on resampled documents, and what it is without each one of them."""

    value: float
    draws: np.ndarray  # (samples,)
    jackknife: np.ndarray  # (groups,)

    def __sub__(self, other: "Resampled") -> "Resampled":
        """Return the difference of two systems judged on the same items with the same draws."""
        if self.draws.shape != other.draws.shape or self.jackknife.shape != other.jackknife.shape:
            raise ValueError("two systems can be compared on the same items, groups and number of samples only")
        return Resampled(
            value=self.value - other.value,
            draws=self.draws - other.draws,
            jackknife=self.jackknife - other.jackknife,
        )


def resample_scores(
    labels: np.ndarray,
    predictions: np.ndarray,
    groups: np.ndarray,
    *,
    metric: Metric = "accuracy",
    scores: np.ndarray | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Resampled:
    """Judge items (N,) on resamples of whole groups, since the items of a document are not independent.

    `scores` (N,) are needed for "auroc" alone. UserError where all items are of one group.
    """

    def measure(weights: np.ndarray, members: np.ndarray) -> np.ndarray:
        if metric == "auroc":
            if scores is None or labels.max() > 1:
                raise ValueError("the area under the ROC curve is for two classes, with a score for each item")
            return _weighted_auroc(labels, scores, members, weights)
        if metric == "macro_f1":
            return _weighted_macro_f1(labels, predictions, members, weights)
        right = np.bincount(members, weights=labels == predictions)
        return (weights @ right) / (weights @ np.bincount(members))

    return resample(groups, measure, samples=samples, seed=seed)


def resample(
    groups: np.ndarray,
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Resampled:
    """Measure items (N,) on resamples of whole groups, and without each of them.

    `measure(weights, members)` returns values (draws,) from how often each group counts (draws, groups) and which group
    each item is of (N,). UserError where all items are of one group.
    """
    _, members = np.unique(groups, return_inverse=True)
    count = int(members.max()) + 1 if len(members) else 0
    if count < 2:
        raise UserError(f"the test items come from {count} document; an interval needs at least 2, so give more text")
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    values = measure(np.concatenate([np.ones((1, count)), draws, 1 - np.eye(count)]), members)
    return Resampled(value=float(values[0]), draws=values[1 : samples + 1], jackknife=values[samples + 1 :])


def interval(resampled: Resampled, *, level: float = 0.95, method: Literal["bca", "percentile"] = "bca") -> Interval:
    """Return the bias-corrected and accelerated interval (Efron, 1987), or the plain percentiles.

    Where every resample gives the same score the interval is that point.
    """
    draws = resampled.draws[np.isfinite(resampled.draws)]
    if not len(draws):
        return Interval(value=resampled.value, low=float("nan"), high=float("nan"), level=level)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        below = ((draws < resampled.value).mean() + (draws <= resampled.value).mean()) / 2
        apart = resampled.jackknife[np.isfinite(resampled.jackknife)]
        apart = apart.mean() - apart
        spread = (apart**2).sum()
        if 0 < below < 1 and spread > 0:
            shift, acceleration = special.ndtri(below), (apart**3).sum() / (6 * spread**1.5)
            normal = shift + special.ndtri(tails)
            tails = special.ndtr(shift + normal / (1 - acceleration * normal))
    low, high = np.quantile(draws, tails)
    return Interval(value=resampled.value, low=float(low), high=float(high), level=level)


def multi_bootstrap(
    first: Sequence[Resampled],
    second: Sequence[Resampled],
    *,
    paired: bool = False,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two groups of seeds, resampling seeds and documents jointly (Sellam et al., 2022, section 4).

    Each Resampled is one seed, all on the same draws of documents; `paired` when the k-th of both share what a seed
    fixes. Two differences from the paper. Resampled seeds vary by (S - 1) / S of what seeds do, so their deviations are
    stretched by the root of S / (S - 1). And the interval is the bootstrap's standard error times a quantile of
    Student's t with Welch's degrees of freedom: percentiles of 5 seeds claim a difference that isn't there in 12 % of
    cases, not in 5 %. What one seed gets right on one document by chance is counted up to three times (Owen, 2007,
    section 4), which is on the safe side.
    """
    arms = [first, second]
    if min(len(first), len(second)) < 2:
        raise ValueError("seeds can be resampled from two on; compare checkpoints by the interval of their difference")
    if paired and len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} seeds can't be paired")
    if paired:
        arms = [[one - other for one, other in zip(first, second, strict=True)]]
    rng = np.random.default_rng(seed)
    drawn = [_draw_seeds(arm, rng) for arm in arms]
    values = [np.array([system.value for system in arm]) for arm in arms]
    value = float(values[0].mean() - sum(each.mean() for each in values[1:]))
    error = float(np.nanstd(drawn[0] - sum(drawn[1:]), ddof=1))
    return _student(value, error, _degrees(values), level)


def mean_over_seeds(systems: Sequence[Resampled], *, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean score of a group of seeds, with the interval of `multi_bootstrap`; one seed has `interval`'s."""
    if len(systems) == 1:
        return interval(systems[0], level=level)
    error = float(np.nanstd(_draw_seeds(systems, np.random.default_rng(seed)), ddof=1))
    values = np.array([system.value for system in systems])
    made = _student(float(values.mean()), error, len(values) - 1, level)
    return Interval(value=made.value, low=made.low, high=made.high, level=level)


def welch(first: Sequence[float], second: Sequence[float], *, level: float = 0.95) -> Comparison:
    """Compare the mean scores of two groups of seeds without supposing equal variances (Welch, 1947)."""
    arms = [np.asarray(first, dtype=float), np.asarray(second, dtype=float)]
    if min(len(arm) for arm in arms) < 2:
        raise ValueError("Welch's test needs at least 2 seeds in each group")
    error = float(np.sqrt(sum(arm.var(ddof=1) / len(arm) for arm in arms)))
    return _student(float(arms[0].mean() - arms[1].mean()), error, _degrees(arms), level)


def holm(p_values: Iterable[float]) -> np.ndarray:
    """Return p-values adjusted so that no false claim is made in 1 - level of cases, however many (Holm, 1979)."""
    given = np.asarray(list(p_values), dtype=float)
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def minimum_detectable_difference(sd: float, n: int, *, power: float = 0.8, level: float = 0.95) -> float:
    """Return the true difference that a t-test of n against n seeds of deviation `sd` finds with probability `power`.

    In units of `sd`; infinite for one seed.
    """
    if n < 2:
        return float("inf")
    degrees = 2 * n - 2
    critical = special.stdtrit(degrees, (1 + level) / 2)

    def missing(effect: float) -> float:  # the chance of a claim in the wrong direction is far below a thousandth
        return float(stats.nct.sf(critical, degrees, effect * np.sqrt(n / 2))) - power

    upper = 0.25
    while missing(upper) < 0:
        upper *= 2
    return sd * float(optimize.brentq(missing, 0.0, upper))


def claim_level(num_seeds: int) -> Literal["objective", "checkpoints"]:
    """Say what a comparison with so many pretraining seeds in its smaller group is about."""
    return "objective" if num_seeds >= SEEDS_FOR_A_CLAIM else "checkpoints"


def extreme(found: Interval, *, floors: Iterable[float], ceiling: float = 0.995) -> Literal["floor", "ceiling"] | None:
    """Say whether a score can't be told from what needs no encoder, or from the best possible one.

    Such a probe says nothing about the encoder and stays out of averages. `floors`: majority and surface baselines.
    """
    if found.low <= max(floors, default=-np.inf):
        return "floor"
    return "ceiling" if found.high >= ceiling else None


def control_labels_by_type(
    words: Sequence[str], num_classes: int, seed: int, *, counts: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Return a label (N,) for each word, the same for the same form, drawn with the chances `counts` / their sum.

    The control task of Hewitt and Liang (2019, section 2.1, https://arxiv.org/abs/1909.03368), where `counts` are those
    of the real task's labels; without them all classes are equally likely. A form keeps its label across all splits.
    """
    types, places = np.unique(np.asarray(words, dtype=object).astype(str), return_inverse=True)
    chances = np.ones(num_classes) if counts is None else np.asarray(counts, dtype=float)
    if len(chances) != num_classes:
        raise ValueError(f"{len(chances)} counts for {num_classes} classes")
    drawn = np.random.default_rng(seed).choice(num_classes, size=len(types), p=chances / chances.sum())
    return drawn[places].astype(np.int64)


def _draw_seeds(systems: Sequence[Resampled], rng: np.random.Generator) -> np.ndarray:
    """Return the mean over drawn seeds for every draw of documents (samples,)."""
    draws = np.stack([system.draws for system in systems])  # (S, samples)
    count, samples = draws.shape
    mean = draws.mean(axis=0)
    stretched = mean + (draws - mean) * np.sqrt(count / (count - 1))
    chosen = rng.integers(count, size=(count, samples))
    return np.take_along_axis(stretched, chosen, axis=0).mean(axis=0)


def _degrees(arms: Sequence[np.ndarray]) -> float:
    """Return the degrees of freedom of Welch and Satterthwaite; the smallest there can be where nothing varies."""
    parts = np.array([arm.var(ddof=1) / len(arm) for arm in arms])
    weights = np.array([len(arm) - 1 for arm in arms])
    return float(parts.sum() ** 2 / (parts**2 / weights).sum()) if parts.sum() > 0 else float(weights.min())


def _student(value: float, error: float, degrees: float, level: float) -> Comparison:
    reach = error * special.stdtrit(degrees, (1 + level) / 2)
    if error > 0:
        p_value = float(2 * special.stdtr(degrees, -abs(value) / error))
    else:
        p_value = 1.0 if value == 0 else 0.0
    return Comparison(
        value=value, low=value - reach, high=value + reach, level=level, p_value=p_value, degrees=float(degrees)
    )


def _weighted_macro_f1(
    labels: np.ndarray, predictions: np.ndarray, members: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the macro-F1 (rows,) under weights (rows, groups) of the items' groups."""
    classes, count = int(max(labels.max(), predictions.max())) + 1, weights.shape[1]

    def tally(of: np.ndarray, where: np.ndarray) -> np.ndarray:
        return weights @ np.bincount(members[where] * classes + of[where], minlength=count * classes).reshape(
            count, classes
        )

    everywhere = np.ones(len(labels), dtype=bool)
    both = tally(labels, everywhere) + tally(predictions, everywhere)
    parts = np.divide(2 * tally(labels, labels == predictions), both, out=np.zeros_like(both), where=both > 0)
    return parts.sum(axis=1) / np.maximum((both > 0).sum(axis=1), 1)


def _weighted_auroc(labels: np.ndarray, scores: np.ndarray, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve (rows,) under weights (rows, groups); NaN where a class has drawn no item."""
    order = np.argsort(scores, kind="stable")
    members, is_positive = members[order], labels[order] == 1
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # of runs of equal scores
    areas = []
    for some in np.array_split(weights, max(1, len(weights) // _CHUNK)):
        of_items = some[:, members]
        positive = np.add.reduceat(of_items * is_positive, starts, axis=1)
        negative = np.add.reduceat(of_items * ~is_positive, starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        areas.append(np.divide((positive * below).sum(axis=1), pairs, out=np.full(len(some), np.nan), where=pairs > 0))
    return np.concatenate(areas)
