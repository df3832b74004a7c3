"""What predictors reach that do not look at the text: what a figure has to beat."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

LEVELS = {
    "ln V": "every token alike",
    "unigram": "tokens by how often they occur",
    "ln 2": "yes and no alike",
    "base rate": "always the share of positives",
}


def chance_of(key: str, figures: Mapping[str, float]) -> str:
    """Return what a predictor gets that does not look at the text, where the figures tell."""
    positives = figures.get("positive_rate")
    if key == "auroc":
        return "0.500"
    if key == "accuracy" and "majority" in figures:
        return f"{figures['majority']:.3f} (the larger class)"
    if key == "average_precision" and positives is not None:
        return f"{positives:.3f} (the share of positives)"
    if key == "f1" and positives is not None:
        return f"{2 * positives / (1 + positives):.3f} (always yes)"
    return ""


def add_base_rates(
    chance: Mapping[str, Mapping[str, float]], held_out: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Add to a detection's levels the loss of always saying the share of positives, below ln 2 where they are few."""
    levels = {name: dict(each) for name, each in chance.items()}
    for name, figures in (held_out[-1].get("metrics", {}) if held_out else {}).items():
        rate = figures.get("positive_rate", 0)
        if 0 < rate < 1:
            entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
            levels[name] = levels.get(name, {}) | {"base rate": entropy}
    return levels
