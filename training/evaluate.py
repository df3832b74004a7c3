"""Held-out figures: the same examples with the same corruption every time."""

from collections import defaultdict

import numpy as np
import torch

from .setup import Run


def evaluate(run: Run) -> dict[str, dict[str, float]]:
    """Return each loss's held-out mean and its head's figures; nothing where there is no held-out text."""
    if run.held_out is None:
        return {}
    accelerator = run.accelerator
    totals: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    sums: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    run.model.eval()
    numbers = range(accelerator.process_index, run.held_out.per_step, accelerator.num_processes)
    if not numbers:  # fewer micro-batches than processes: read one for the shapes of the sums, and leave it out of them
        numbers, share = range(1), 0.0
    else:
        share = 1.0
    with torch.no_grad(), accelerator.autocast():
        for number in numbers:
            losses = run.model(run.held_out[number].to(accelerator.device))
            for name, loss in losses.items():
                totals[name] += share * float(loss.total)
                counts[name] += int(share) * loss.count
                for key, value in loss.statistics.items():
                    sums[name][key] = sums[name].get(key, 0) + share * value.double()
    run.model.train()
    figures = {}
    for name in run.model.weights:
        pair = torch.tensor([totals[name], counts[name]], dtype=torch.float64, device=accelerator.device)
        total, count = accelerator.reduce(pair).tolist()
        statistics = {key: accelerator.reduce(value).cpu().numpy() for key, value in sums[name].items()}
        figures[name] = {"loss": total / max(count, 1), **run.model.summarise(name, statistics, int(count))}
    return {name: {key: float(np.float64(value)) for key, value in each.items()} for name, each in figures.items()}
