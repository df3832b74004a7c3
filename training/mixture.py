"""Mixtures: objectives with inputs of their own that share one encoder, micro-batch by micro-batch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corpora.errors import UserError
from objectives import Objective, build_objectives
from objectives.draws import hash_fields

_GOLDEN = (math.sqrt(5) - 1) / 2
_FORM = "'15*mlm; 1*causal_lm', each with a weight and, if it is not for the whole run, a span such as @0-0.25"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A composition on an input of its own, how often it is chosen, and for which part of the run."""

    objectives: tuple[Objective, ...]
    weight: float = 1.0
    start: float = 0.0  # of the run, from 0 to 1
    end: float = 1.0

    def is_active(self, progress: float) -> bool:
        return self.start <= progress < self.end or (progress >= 1 and self.end == 1)


def parse_mix(mix: str | Mapping[str, Any]) -> tuple[Arm, ...]:
    """Read '15*mlm:mask_rate=0.3; 1*causal_lm@0-0.25', or the same as a mapping from YAML.

    The mapping is from compositions to their `weight`, `start` and `end`, as far as they are not 1, 0 and 1. UserError
    where it can't be used.
    """
    if isinstance(mix, str):
        written = [_parse_arm(part.strip()) for part in mix.split(";") if part.strip()]
    else:
        written = list(mix.items())
    arms = []
    for objective, settings in written:
        settings = {} if settings is None else settings
        if not isinstance(settings, Mapping) or set(settings) - {"weight", "start", "end"}:
            raise UserError(
                f"--mix can't use {settings!r} of {objective}; give weight, start and end, or write {_FORM}"
            )
        try:
            numbers = {key: float(value) for key, value in settings.items()}
        except (TypeError, ValueError):
            raise UserError(f"--mix: weight, start and end of {objective} must be numbers") from None
        arms.append(Arm(objectives=build_objectives(str(objective)), **numbers))
    _check(arms)
    return tuple(arms)


def _parse_arm(text: str) -> tuple[str, dict[str, str]]:
    head, times, rest = text.partition("*")
    settings, objective = ({"weight": head.strip()}, rest.strip()) if times else ({}, text)
    before, at, span = objective.rpartition("@")
    if at:
        start, dash, end = span.partition("-")
        if not dash:
            raise UserError(f"--mix: '{span}' is no part of a run; write it as @0-0.25, from 0 to 1")
        objective, settings = before.strip(), settings | {"start": start.strip(), "end": end.strip()}
    return objective, settings


def _check(arms: Sequence[Arm]) -> None:
    if not arms:
        raise UserError(f"--mix is empty; write {_FORM}")
    names = [objective.name for arm in arms for objective in arm.objectives]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"--mix has {', '.join(twice)} more than once; an objective has one head, and so one place")
    for arm in arms:
        name = "+".join(objective.name for objective in arm.objectives)
        if not (math.isfinite(arm.weight) and arm.weight > 0):
            raise UserError(f"--mix: the weight of {name} is {arm.weight:g}; it must be above 0")
        if not 0 <= arm.start < arm.end <= 1:
            raise UserError(
                f"--mix: {name} is from {arm.start:g} to {arm.end:g}; a span lies within 0-1 and is not empty"
            )
    edges = sorted({0.0, *(arm.start for arm in arms), *(arm.end for arm in arms)})
    for edge in edges[:-1] if edges[-1] == 1 else edges:
        if not any(arm.is_active(edge) for arm in arms):
            raise UserError(f"--mix has nothing to do from {edge:g} of the run on; let its spans cover 0 to 1")


def choose_arm(arms: Sequence[Arm], number: int, progress: float, seed: int) -> int:
    """Return which arm a micro-batch belongs to, a pure function of its number.

    Multiples of the golden ratio fill the unit interval evenly, so that any stretch of micro-batches has the arms in
    the proportion of their weights, within one or two.
    """
    if len(arms) == 1:
        return 0
    active = [index for index, arm in enumerate(arms) if arm.is_active(progress)]
    point = (hash_fields(seed, "mixture") / 2**64 + number * _GOLDEN) % 1 * sum(arms[index].weight for index in active)
    for index in active:
        point -= arms[index].weight
        if point < 0:
            return index
    return active[-1]
