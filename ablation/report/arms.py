"""One arm's part of the page: what it is, what it makes of a text, what it reached, whom it beats."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablation.results import ArmRecord, RunRecord, StudyResults
from probes.figures import Line
from probes.report import is_firm
from training.chance import LEVELS, chance_of

from .drawing import Picture
from .losses import draw_training, list_levels
from .measures import Outcomes, list_columns
from .notation import figure, plain

_OF_THE_MEASUREMENT = ("targets", "standard_error")  # which tables/held_out.csv has


@dataclass(frozen=True, kw_only=True)
class Against:
    """An arm beside another: on which probes it is above, and below, by differences that stand."""

    other: str
    above: tuple[str, ...]
    below: tuple[str, ...]
    compared: int


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A figure on held-out text: its mean and its range over seeds, and what chance reaches."""

    loss: str
    name: str
    mean: float
    low: float
    high: float
    chance: str


@dataclass(frozen=True, kw_only=True)
class ArmPart:
    """All that the page says of one arm."""

    arm: ArmRecord
    anchor: str
    line: Line
    runs: Sequence[RunRecord]
    passage: Sequence[tuple[str, bool]]  # what it makes of a text, in pieces: is it a mark [now<-before]?
    training: Picture | None
    held_out: Sequence[HeldOut]
    against: Sequence[Against]


def describe_arm(results: StudyResults, arm: ArmRecord, anchor: str, line: Line) -> ArmPart:
    """Return an arm's part; `anchor` is its id on the page."""
    runs = results.list_runs(arm.name)
    return ArmPart(
        arm=arm,
        anchor=anchor,
        line=line,
        runs=runs,
        passage=split_marks(next((run.example for run in runs if run.example is not None), "")),
        training=draw_training(results, arm.name, anchor),
        held_out=list_held_out(runs),
        against=list_against(results, arm.name),
    )


def split_marks(example: str) -> list[tuple[str, bool]]:
    """Return an example's pieces in order, and which of them are marks of changed tokens, [now<-before]."""
    pieces = re.split(r"(\[[^\[\]\n]*<-[^\[\]\n]*\])", example)
    return [(piece, number % 2 == 1) for number, piece in enumerate(pieces) if piece]


def list_held_out(runs: Sequence[RunRecord]) -> list[HeldOut]:
    """Return the last held-out figures of finished runs, over their seeds."""
    finished = [run for run in runs if run.status == "finished" and run.held_out]
    names = dict.fromkeys(
        (loss, name)
        for run in finished
        for loss, figures in run.held_out.items()
        for name in figures
        if name not in _OF_THE_MEASUREMENT
    )
    listed = []
    for loss, name in names:
        values = [run.held_out[loss][name] for run in finished if name in run.held_out.get(loss, {})]
        figures, chance = finished[0].held_out.get(loss, {}), list_levels(finished[0]).get(loss, {})
        listed.append(
            HeldOut(
                loss=loss,
                name=name,
                mean=float(np.mean(values)),
                low=min(values),
                high=max(values),
                chance=_tell_chance(name, figures, chance),
            )
        )
    return listed


def _tell_chance(name: str, figures: Mapping[str, float], chance: Mapping[str, float]) -> str:
    if name == "loss":
        return ", ".join(f"{figure(value)} ({LEVELS.get(each, each)})" for each, value in chance.items())
    return chance_of(name, figures)


def list_against(results: StudyResults, arm: str) -> list[Against]:
    """Return the arm beside each other one that it was compared with."""
    if results.probes is None:
        return []
    outcomes = Outcomes(results)
    listed = []
    for other in list_columns(results):
        found = [each for probe in results.probes.probes if (each := outcomes.find(probe.name, arm, other))]
        firm = [each for each in found if is_firm(each)]
        if found:
            listed.append(
                Against(
                    other=other,
                    above=tuple(plain(each.probe) for each in firm if each.difference > 0),
                    below=tuple(plain(each.probe) for each in firm if each.difference < 0),
                    compared=len(found),
                )
            )
    return listed
