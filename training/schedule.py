"""The learning rate as a pure function of the step."""

import math
from collections.abc import Callable

SCHEDULES: dict[
    str, Callable[[float, float], float]
] = {  # share of the steps after the warm-up that are done, share that the decay takes -> share of the peak
    "linear": lambda done, _: 1 - done,
    "cosine": lambda done, _: (1 + math.cos(math.pi * done)) / 2,
    "constant_then_decay": lambda done, decay: min(1.0, (1 - done) / decay),
}


def learning_rate_at(
    step: int, *, peak: float, schedule: str, warmup_rate: float, max_steps: int, decay_rate: float = 0.1
) -> float:
    """Return the learning rate of step 0, 1, ..., max_steps - 1.

    It rises over the warm-up, then follows the schedule, and is never 0. `decay_rate` is the share of the steps after
    the warm-up in which constant_then_decay falls; the others fall from the warm-up on.
    """
    warmup_steps = math.ceil(warmup_rate * max_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * SCHEDULES[schedule]((step - warmup_steps) / max(max_steps - warmup_steps, 1), decay_rate)
