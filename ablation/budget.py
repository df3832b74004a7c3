"""How much each run may cost, in what, and how many steps that is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from corpora.errors import UserError

from .results import Fairness

UNITS: tuple[Fairness, ...] = ("flops", "tokens", "steps", "time")
FORM = "flops: 1e13, tokens: 2e6, steps: 500 or time: 10m, one of them"

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_SHORT = re.compile(r"(?P<number>[0-9.]+(e[+-]?[0-9]+)?)\s*(?P<unit>[smh]|flops|tokens|steps)", re.IGNORECASE)
_NAMES = {"flops": "FLOPs", "tokens": "tokens", "steps": "steps", "time": "seconds"}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """An amount of one unit, for one run of the arm that all others are measured against; time is in seconds."""

    unit: Fairness
    amount: float

    def __str__(self) -> str:
        return f"{self.amount:.4g} {_NAMES[self.unit]} a run"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one step of an arm costs."""

    flops: float
    tokens: float
    seconds: float | None = None  # None: not measured

    def of(self, unit: Fairness) -> float:
        """Return the cost in that unit; ValueError for seconds that were not measured."""
        costs = {"flops": self.flops, "tokens": self.tokens, "steps": 1.0, "time": self.seconds}
        cost = costs[unit]
        if cost is None:
            raise ValueError("the time of a step was not measured")
        return cost


def parse_budget(written: Any) -> Budget:
    """Read {flops: 1e13}, {time: 10m}, or a short form such as 10m, 500steps, 1e13flops. UserError."""
    if isinstance(written, str):
        return _parse_short(written)
    if not isinstance(written, Mapping) or len(written) != 1 or next(iter(written)) not in UNITS:
        raise UserError(f"budget is {written!r}; write {FORM}")
    ((unit, amount),) = written.items()
    if unit == "time" and isinstance(amount, str):
        budget = _parse_short(amount)
        if budget.unit == "time":
            return budget
    try:
        number = float(amount)
    except (TypeError, ValueError):
        raise UserError(f"budget: {unit} is {amount!r}; write {FORM}") from None
    return _checked(Budget(unit=cast(Fairness, unit), amount=number), written)


def _parse_short(text: str) -> Budget:
    match = _SHORT.fullmatch(text.strip())
    if match is None:
        raise UserError(f"budget is '{text}'; write a time such as 90s, 10m or 2h, or 500steps, 2e6tokens, 1e13flops")
    try:
        number, unit = float(match["number"]), match["unit"].lower()
    except ValueError:
        raise UserError(f"budget is '{text}', and '{match['number']}' is no number") from None
    if unit in _SECONDS:
        return _checked(Budget(unit="time", amount=number * _SECONDS[unit]), text)
    return _checked(Budget(unit=cast(Fairness, unit), amount=number), text)


def _checked(budget: Budget, written: Any) -> Budget:
    if not 0 < budget.amount < float("inf"):
        raise UserError(f"budget is {written!r}; it must be above 0, and finite")
    return budget


def choose_steps(budget: Budget, fairness: Fairness, rates: Mapping[str, Rates], anchor: str) -> dict[str, int]:
    """Return the steps of each arm: as much of what `fairness` makes equal as the anchor does with the budget.

    UserError for arms that the budget does not give a single step, all at once.
    """
    target = budget.amount
    if budget.unit != fairness:
        target = budget.amount / rates[anchor].of(budget.unit) * rates[anchor].of(fairness)
    steps = {name: target / each.of(fairness) for name, each in rates.items()}
    short = [
        f"the budget of {budget} is {number:.2g} of a step of the arm '{name}'; give at least "
        f"{budget.amount / number:.3g} {_NAMES[budget.unit]}"
        for name, number in steps.items()
        if number < 1
    ]
    if short:
        raise UserError("\n".join(short))
    return {name: max(1, round(number)) for name, number in steps.items()}


def spread(amounts: list[float]) -> float:
    """Return how far the largest is above the smallest, as a share of it."""
    return max(amounts) / min(amounts) - 1 if amounts and min(amounts) > 0 else 0.0
