"""When each arm has learned what a probe asks: the share of its training after which every seed is above the floor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ablation.results import StudyResults
from probes.results import ProbeRecord

from .measures import find_onset, find_untrained, group_trajectories, list_columns


@dataclass(frozen=True, kw_only=True)
class Onset:
    """An arm on a probe: how much of its training it took, of what it was probed after; None where it never did."""

    share: float | None
    first: bool  # it was above at the first of its probed steps already


@dataclass(frozen=True, kw_only=True)
class OnsetRow:
    """A probe, and each arm's onset; None where the arm was not probed on the way."""

    probe: ProbeRecord
    cells: Sequence[Onset | None]


def list_onsets(results: StudyResults) -> tuple[list[str], list[OnsetRow]]:
    """Return the arms that were probed on the way, and a row for each probe."""
    grouped = group_trajectories(results)
    arms = [name for name in list_columns(results) if any(arm == name for arm, _ in grouped)]
    rows = []
    for probe in results.probes.probes if results.probes and arms else ():
        untrained = find_untrained(results, probe.name)
        level = max(probe.floor, untrained if untrained is not None else 0.0)
        cells: list[Onset | None] = []
        for arm in arms:
            steps = grouped.get((arm, probe.name))
            if not steps:
                cells.append(None)
                continue
            found = find_onset(steps, level)
            # an arm's own steps, whatever the study makes equal: they are what a share of its training means
            whole = results.find_arm(arm).steps or steps[-1][0].step
            share = None if found is None else float(np.mean([point.step for point in found])) / whole
            cells.append(Onset(share=share, first=found is steps[0]))
        if any(cells):
            rows.append(OnsetRow(probe=probe, cells=cells))
    return arms, rows
