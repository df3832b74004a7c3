"""Says when an objective sits at chance, why that is likely, and what may help."""

import math
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .causes import Cause, list_causes, read_facts
from .setup import Run

DUE = 0.25  # of the steps that an objective is trained for: from then on it is told where it sits at chance
ERRORS = 2.0  # standard errors below chance that chance itself rarely reaches: one time in forty
LEAST_LOSS = 0.01  # of the chance loss: what is less has taught nothing worth the name, however surely it is there
LEAST_SKILL = 0.05  # of accuracy or AUROC: what a loss LEAST_LOSS below ln 2 comes to, see docs/stuck.md


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A held-out figure beside its level of chance, and how far from it still counts as sitting there."""

    figure: str  # loss, hidden_loss, auroc or accuracy
    value: float
    level: str  # what the level of chance is called
    chance: float
    margin: float

    @property
    def sits(self) -> bool:
        ahead = self.value - self.chance if self.figure in ("auroc", "accuracy") else self.chance - self.value
        return not ahead > self.margin  # so that a figure that is no number sits


def stand(figures: Mapping[str, float], levels: Mapping[str, float]) -> tuple[Standing, ...]:
    """Return where a loss's held-out `figures` stand to chance, whose `levels` of the loss are in nats by name.

    It sits at chance where all of them do. A detection is judged by its AUROC alone, for where few tokens are positive
    a loss below ln 2 says nothing; everything else by its loss, at hidden tokens where there are such, and
    where the share of the majority class is known by its accuracy too, which may have left chance while the
    probabilities are still off. The margins are the larger of ERRORS standard errors and of the least effect.
    """
    targets = max(figures.get("targets", 1.0), 1.0)
    if "auroc" in figures:
        positives = min(max(figures.get("positive_rate", 0.5), 1 / targets), 1 - 1 / targets) * targets
        error = math.sqrt((targets + 1) / (12 * positives * (targets - positives)))  # of AUROC where nothing is known
        return (_skill("auroc", figures["auroc"], "no better than chance", 0.5, error),)
    level, chance = min(levels.items(), key=lambda each: each[1])
    figure = "hidden_loss" if "hidden_loss" in figures else "loss"
    margin = max(ERRORS * figures.get("standard_error", 0.0), LEAST_LOSS * chance)
    standings = [Standing(figure=figure, value=figures[figure], level=level, chance=chance, margin=margin)]
    if "majority" in figures and "accuracy" in figures:
        majority = figures["majority"]
        error = math.sqrt(majority * (1 - majority) / targets)
        standings.append(_skill("accuracy", figures["accuracy"], "majority", majority, error))
    return tuple(standings)


def _skill(figure: str, value: float, level: str, chance: float, error: float) -> Standing:
    return Standing(figure=figure, value=value, level=level, chance=chance, margin=max(ERRORS * error, LEAST_SKILL))


def find_stuck(run: Run, told: Collection[str]) -> dict[str, Any]:
    """Return what the log shall say after an evaluation: the losses that sit at chance, and the likely causes.

    Empty where there are none but those `told` before. A loss is judged once DUE of the steps are taken in which its
    objective is trained, and no longer than it is.
    """
    sitting = {}
    for name, figures in run.figures.items():
        standings = stand(figures, run.chance[name])
        if name not in told and _is_due(run, name) and all(each.sits for each in standings):
            sitting[name] = standings
    if not sitting:
        return {}
    every = {name for name in run.figures if all(each.sits for each in stand(run.figures[name], run.chance[name]))}
    causes = list_causes([read_facts(run, name, every) for name in sitting])
    return {
        "losses": {name: [vars(each) for each in standings] for name, standings in sitting.items()},
        "causes": [vars(cause) for cause in causes],
    }


def _is_due(run: Run, name: str) -> bool:
    progress, owner = run.step / run.max_steps, run.model.owners[name]
    (arm,) = [arm for arm in run.train.arms if owner in [objective.name for objective in arm.objectives]]
    return arm.start + DUE * (arm.end - arm.start) <= progress <= arm.end and progress >= 2 * run.config.warmup_rate


def describe_stuck(found: Mapping[str, Any], step: int, max_steps: int, tokens: int) -> str:
    """Return what `find_stuck` found as lines of 79 columns."""
    share = f"{100 * step / max_steps:.0f} % of the steps and {tokens / 1e6:.1f} M tokens"
    lines = [f"at chance after {share}:"]
    for name, standings in found["losses"].items():
        shown = [
            f"{_NAMES[each['figure']]} {each['value']:.3f} ({each['level']} {each['chance']:.3f})" for each in standings
        ]
        lines.append(f"  {name}: {', '.join(shown)}")
    if found["causes"]:
        lines.append("likely causes, the likeliest first, and what may help:")
    folded = [textwrap.fill(line, 79, subsequent_indent="    ") for line in lines]
    for number, cause in enumerate((Cause(**each) for each in found["causes"]), start=1):
        text = f"{number}. {cause.cause}: {cause.advice}"
        folded.append(textwrap.fill(text, 79, initial_indent="  ", subsequent_indent="     ", break_on_hyphens=False))
    return "\n".join([*folded, "docs/stuck.md says more; --diagnose looks at an encoder before it is trained"])


_NAMES = {"loss": "held-out loss", "hidden_loss": "held-out loss at hidden tokens", "auroc": "AUROC"}
_NAMES |= {"accuracy": "accuracy"}
