"""Held-out figures: the same examples with the same corruption every time."""

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from .gradients import table_gradients
from .setup import Run


def evaluate(run: Run) -> dict[str, dict[str, float]]:
    """Return each loss's held-out mean and its head's figures; nothing where there is no held-out text.

    Beside them: the mean's `standard_error` (`error_of_mean`), the number of `targets`, and, where there are several
    losses, the norm of each one's gradient on the word table that they share, with its weight in the sum.
    """
    if not run.held_out:
        return {}
    accelerator = run.accelerator
    moments: dict[str, Tensor] = defaultdict(lambda: torch.zeros(6, dtype=torch.float64))
    sums: dict[str, dict[str, Tensor]] = defaultdict(dict)
    run.model.eval()
    with torch.no_grad(), accelerator.autocast():
        for held_out in run.held_out:
            numbers = range(accelerator.process_index, held_out.per_step, accelerator.num_processes)
            share = 1.0 if numbers else 0.0  # fewer micro-batches than processes: read one for the shapes of the sums
            for number in numbers or range(1):
                losses = run.model(held_out[number].to(accelerator.device))
                for name, loss in losses.items():
                    total, count = float(loss.total), loss.count
                    each = (1, total, count, total * total, total * count, count * count)
                    moments[name] += share * torch.tensor(each, dtype=torch.float64)
                    for key, value in loss.statistics.items():
                        sums[name][key] = sums[name].get(key, 0) + share * value.double()
    gradients = table_gradients(run) if len(run.model.weights) > 1 else {}
    run.model.train()
    figures = {}
    for name in run.model.weights:
        if name not in moments:  # its arm has no held-out text
            continue
        summed = accelerator.reduce(moments[name].to(accelerator.device)).cpu().numpy()
        statistics = {key: accelerator.reduce(value).cpu().numpy() for key, value in sums[name].items()}
        count = int(summed[2])
        figures[name] = {"loss": summed[1] / max(count, 1), **error_of_mean(summed), "targets": count}
        figures[name] |= run.model.summarise(name, statistics, count)
        if name in gradients:
            figures[name]["table_gradient"] = gradients[name]
    return {name: {key: float(np.float64(value)) for key, value in each.items()} for name, each in figures.items()}


def error_of_mean(moments: np.ndarray) -> dict[str, float]:
    """Return the standard error of a mean loss, or nothing where it is of one micro-batch.

    `moments` (6,) are, over N micro-batches of a total t and a count c each, the sums of 1, t, c, t^2, tc and c^2. The
    mean is a ratio of sums, and micro-batches are independent where their targets may not be: the variance of a ratio
    in cluster sampling (Cochran, 1977, Sampling Techniques, section 6.3), without the correction for a finite corpus.
    """
    number, total, count, total_squared, product, count_squared = moments
    if number < 2 or not count:
        return {}
    mean = total / count
    squares = total_squared - 2 * mean * product + mean**2 * count_squared
    return {"standard_error": float(np.sqrt(max(squares, 0.0) * number / (number - 1)) / count)}
