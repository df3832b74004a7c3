"""Claims that are stated before a study runs, and what it says of them: reproduced, not reproduced, or undecided."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from probes.results import Score
from probes.statistics import SEEDS_FOR_A_CLAIM, holm, welch

from .questions import check_keys, suggest
from .results import HypothesisRecord, StudyResults

LEVEL = 0.05
_PART = re.compile(
    r"held_out:(?P<loss>[\w.]+)\.(?P<figure>\w+)|(?P<probe>\w+)(@(?P<layer>best|last))?",
)
_FORM = "a probe's name, with @best (the default) or @last, or held_out:LOSS.FIGURE, or the difference A - B of two"


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """That one arm is above another in a measure, and who says so."""

    name: str
    claim: str
    source: str
    better: str
    worse: str
    measure: str


def find_hypothesis_problems(written: Any, arms: Sequence[str], problems: list[str]) -> tuple[Hypothesis, ...]:
    """Return the hypotheses of a study's file, and add what is wrong with them to `problems`."""
    if not isinstance(written, list | None):
        problems.append("hypotheses must be a list, each with name, claim, source, better, worse and measure")
        return ()
    keys = [each.name for each in fields(Hypothesis)]
    found = []
    for number, each in enumerate(written or [], 1):
        where = f"hypothesis {each.get('name', number) if isinstance(each, Mapping) else number}"
        if not isinstance(each, Mapping):
            problems.append(f"{where} is {each!r}; write a mapping with {', '.join(keys)}")
            continue
        wrong = check_keys(each, keys, where)
        wrong += [f"{where} has no {key}" for key in keys if not isinstance(each.get(key), str)]
        if not wrong:
            for key in ("better", "worse"):
                if each[key] not in arms:
                    wrong.append(f"{where}: {key} is '{each[key]}', which is no arm{suggest(each[key], arms)}")
            wrong += [
                f"{where}: measure is '{each['measure']}'; write {_FORM}"
                for part in _split(each["measure"])
                if not _PART.fullmatch(part)
            ]
        problems += wrong
        if not wrong:
            found.append(Hypothesis(**each))
    names = [each.name for each in found]
    problems += [f"two hypotheses are called '{name}'" for name in sorted({n for n in names if names.count(n) > 1})]
    return tuple(found)


def find_unasked(hypotheses: Sequence[Hypothesis], asked: Sequence[str]) -> list[str]:
    """Return a line for each hypothesis whose measure is a probe that the study does not ask."""
    found = []
    for each in hypotheses:
        where = f"hypothesis {each.name}: measure names the probe"
        matches = [_PART.fullmatch(part) for part in _split(each.measure)]
        probes = [match["probe"] for match in matches if match and match["probe"]]
        unasked = [name for name in probes if name not in asked]
        found += [f"{where} {name}, which the study does not ask{suggest(name, asked)}" for name in unasked]
    return found


def _split(measure: str) -> list[str]:
    return [part.strip() for part in measure.split(" - ", 1)]


def judge(hypotheses: Sequence[Hypothesis], results: StudyResults) -> tuple[HypothesisRecord, ...]:
    """Return what the runs say of each claim: Welch's test over seeds, corrected for all of them (Holm, 1979).

    A verdict takes five seeds of each arm and a corrected p below .05; the interval is that of the single difference.
    """
    records = [_compare(each, results) for each in hypotheses]
    tested = [number for number, record in enumerate(records) if record.p is not None]
    corrected = holm([record.p for record in records if record.p is not None])
    for number, p in zip(tested, corrected.tolist(), strict=True):
        records[number] = _decide(records[number], p, len(tested))
    return tuple(records)


def _compare(hypothesis: Hypothesis, results: StudyResults) -> HypothesisRecord:
    record = HypothesisRecord(
        name=hypothesis.name,
        claim=hypothesis.claim,
        source=hypothesis.source,
        a=hypothesis.better,
        b=hypothesis.worse,
        measure=hypothesis.measure,
    )
    sides = [_values(arm, hypothesis.measure, results) for arm in (hypothesis.better, hypothesis.worse)]
    missing = [arm for arm, side in zip((hypothesis.better, hypothesis.worse), sides, strict=True) if not side]
    if missing:
        return replace(record, why=f"{hypothesis.measure} was not measured of {' and '.join(missing)}")
    difference = float(np.mean(sides[0]) - np.mean(sides[1]))
    fewest = min(len(side) for side in sides)
    if fewest < 2:
        return replace(record, verdict="undecided", difference=difference, why="one seed says nothing of others")
    tested = welch(*sides)
    record = replace(record, verdict="undecided", difference=difference, low=tested.low, high=tested.high)
    if fewest < SEEDS_FOR_A_CLAIM:
        return replace(record, why=f"{fewest} seeds; a verdict takes {SEEDS_FOR_A_CLAIM} of each arm")
    return replace(record, p=tested.p_value)


def _decide(record: HypothesisRecord, p: float, tests: int) -> HypothesisRecord:
    assert record.difference is not None
    why = f"p = {p:.2g} after Holm over {tests} hypotheses"
    if p >= LEVEL:
        return replace(record, verdict="undecided", p=p, why=why)
    return replace(record, verdict="reproduced" if record.difference > 0 else "not reproduced", p=p, why=why)


def _values(arm: str, measure: str, results: StudyResults) -> list[float]:
    """Return the measure of each seed of an arm that has it."""
    parts = [_read_part(arm, part, results) for part in _split(measure)]
    seeds = [seed for seed in parts[0] if all(seed in part for part in parts)]
    return [parts[0][seed] - sum(part[seed] for part in parts[1:]) for seed in seeds]


def _read_part(arm: str, part: str, results: StudyResults) -> dict[int, float]:
    """Return {seed: figure} of a probe, or of a held-out loss."""
    match = _PART.fullmatch(part)
    assert match is not None
    if match["loss"]:
        found = {run.seed: run.held_out.get(match["loss"], {}) for run in results.list_runs(arm)}
        return {seed: each[match["figure"]] for seed, each in found.items() if match["figure"] in each}
    if results.probes is None:
        return {}
    values = {}
    wanted = _choose_last if match["layer"] == "last" else _choose_best
    for encoder in results.probes.encoders:
        layers = results.probes.list_layers(encoder.name, match["probe"])
        if encoder.group == arm and layers:
            values[encoder.seed or 0] = wanted(layers).score
    return values


def _choose_last(layers: Sequence[Score]) -> Score:
    return layers[-1]


def _choose_best(layers: Sequence[Score]) -> Score:
    return next(score for score in layers if score.is_chosen)
