"""Objectives by probes: what stands in each cell, and what is said where there is nothing to stand."""

from collections.abc import Sequence
from dataclasses import dataclass

from ablation.results import StudyResults
from probes.report import shade
from probes.results import Comparison, ProbeRecord, Summary

from .measures import Outcomes, list_columns
from .missing import name_missing


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm on one probe: its score, or why there is none."""

    arm: str
    probe: str
    summary: Summary | None
    shade: str  # a class of the style sheet: the share of the way from the floor to 100
    beats: tuple[int, ...]  # numbers of the columns it is above, by differences that stand
    missing: str  # why there is no score, or of how many seeds it is; "" where nothing is missing


@dataclass(frozen=True, kw_only=True)
class Row:
    """One probe: its cells in the order of the columns, and the differences that its comparisons would find."""

    probe: ProbeRecord
    cells: tuple[Cell, ...]
    is_counted: bool  # in the mean gain
    detectable: tuple[float, float] | None  # smallest, largest


def list_rows(results: StudyResults) -> list[Row]:
    """Return the matrix; no rows where nothing was probed."""
    if results.probes is None:
        return []
    columns, outcomes = list_columns(results), Outcomes(results)
    numbers = {name: number for number, name in enumerate(columns, 1)}
    counted = set(results.probes.list_counted())
    rows = []
    for probe in results.probes.probes:
        cells = []
        for arm in columns:
            summary = results.probes.find_summary(arm, probe.name)
            beats = tuple(sorted(numbers[name] for name in outcomes.beaten_by(probe.name, arm) if name in numbers))
            cells.append(
                Cell(
                    arm=arm,
                    probe=probe.name,
                    summary=summary,
                    shade=shade(summary, probe),
                    beats=beats,
                    missing=name_missing(results, arm, probe.name, summary),
                )
            )
        rows.append(
            Row(
                probe=probe,
                cells=tuple(cells),
                is_counted=probe.name in counted,
                detectable=_range_of_detectable(results.probes.comparisons, probe.name),
            )
        )
    return rows


def _range_of_detectable(comparisons: Sequence[Comparison], probe: str) -> tuple[float, float] | None:
    found = [each.detectable for each in comparisons if each.probe == probe and each.detectable is not None]
    return (min(found), max(found)) if found else None
