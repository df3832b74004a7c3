"""What groups of encoders reach, and by how much they differ: over documents, and over seeds if there are several."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from .results import CEILING, Claim, Comparison, EncoderRecord, ProbeRecord, Summary
from .statistics import (
    Interval,
    Resampled,
    claim_level,
    extreme,
    holm,
    interval,
    mean_over_seeds,
    minimum_detectable_difference,
    multi_bootstrap,
    welch,
)

Chosen = Mapping[tuple[str, str], tuple[int, Resampled]]  # (encoder, probe) -> the layer its dev items chose, its draws


def summarise(chosen: Chosen, encoders: Sequence[EncoderRecord], probes: Sequence[ProbeRecord]) -> list[Summary]:
    """Return what every group reaches on every probe: the mean over its encoders, its interval, its flag."""
    summaries = []
    for group in dict.fromkeys(encoder.group for encoder in encoders):
        members = [encoder.name for encoder in encoders if encoder.group == group]
        for probe in probes:
            found = [chosen[name, probe.name] for name in members if (name, probe.name) in chosen]
            if not found:
                continue
            reached = mean_over_seeds([draws for _, draws in found])
            summaries.append(
                Summary(
                    group=group,
                    probe=probe.name,
                    score=reached.value,
                    low=reached.low,
                    high=reached.high,
                    seeds=len(found),
                    layers=tuple(layer for layer, _ in found),
                    flag=extreme(reached, floors=[probe.floor], ceiling=CEILING) or "",
                )
            )
    return summaries


def compare_groups(
    chosen: Chosen,
    encoders: Sequence[EncoderRecord],
    probes: Sequence[ProbeRecord],
    pairs: Sequence[tuple[str, str]] | None = None,
) -> list[Comparison]:
    """Return the differences of pairs of groups on every probe: of each group of trained encoders to the first of them.

    Or of other `pairs` (a, b), where both have been asked.

    Five seeds or more on each side: Welch's test on seeds, corrected for all of the comparisons (Holm, 1979). Two or
    more: an interval over seeds and documents (Sellam et al., 2022), and no test, since a bootstrap of so few seeds
    rejects too often. One: an interval over documents, of these two checkpoints.
    """
    if pairs is None:
        trained = list(dict.fromkeys(encoder.group for encoder in encoders if encoder.is_trained))
        pairs = [(group, trained[0]) for group in trained[1:]]
    groups = {group for pair in pairs for group in pair}
    comparisons = []
    for probe in probes:
        draws = {
            group: [
                chosen[encoder.name, probe.name][1]
                for encoder in encoders
                if encoder.group == group and (encoder.name, probe.name) in chosen
            ]
            for group in groups
        }
        for a, b in pairs:
            if draws[a] and draws[b]:
                comparisons.append(_compare(probe.name, a, b, draws[a], draws[b]))
    return _correct(comparisons)


def _compare(probe: str, a: str, b: str, first: Sequence[Resampled], second: Sequence[Resampled]) -> Comparison:
    """Return the difference of two groups' encoders on a probe, by the method that so many seeds allow."""
    fewest = min(len(first), len(second))
    claim: Claim = claim_level(fewest)
    values = [[each.value for each in side] for side in (first, second)]
    found: Interval
    p = detectable = None
    if claim == "objective":
        tested = welch(*values)
        found, p, method = tested, tested.p_value, "Welch's t over seeds"
    elif fewest > 1:
        found, method = multi_bootstrap(first, second), "bootstrap over seeds and documents"
    else:
        found, method = interval(_mean(first) - _mean(second)), "paired bootstrap over documents"
    if fewest > 1:
        deviation = math.sqrt(sum(float(np.var(side, ddof=1)) for side in values) / 2)
        detectable = minimum_detectable_difference(deviation, fewest)
    return Comparison(
        probe=probe,
        a=a,
        b=b,
        difference=found.value,
        low=found.low,
        high=found.high,
        method=method,
        seeds=(len(first), len(second)),
        claim=claim,
        p=p,
        detectable=detectable,
    )


def _mean(draws: Sequence[Resampled]) -> Resampled:
    """Return the mean of encoders as they are: none of them is drawn."""
    return Resampled(
        value=float(np.mean([each.value for each in draws])),
        draws=np.mean([each.draws for each in draws], axis=0),
        jackknife=np.mean([each.jackknife for each in draws], axis=0),
    )


def _correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with their p-values corrected for one another."""
    tested = [each for each in comparisons if each.p is not None]
    corrected = iter(holm(each.p for each in tested if each.p is not None).tolist())
    return [each if each.p is None else replace(each, p_holm=next(corrected)) for each in comparisons]
