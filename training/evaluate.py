"""Held-out figures: the same examples with the same corruption every time."""

from collections import defaultdict

import numpy as np
import torch

from .setup import Run


def evaluate(run: Run) -> dict[str, dict[str, float]]:
    """Return each loss's held-out mean and its head's figures; nothing where there is no held-out text."""
    if not run.held_out:
        return {}
    accelerator = run.accelerator
    totals: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    sums: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    run.model.eval()
    with torch.no_grad(), accelerator.autocast():
        for held_out in run.held_out:
            numbers = range(accelerator.process_index, held_out.per_step, accelerator.num_processes)
            share = 1.0 if numbers else 0.0  # fewer micro-batches than processes: read one for the shapes of the sums
            for number in numbers or range(1):
                losses = run.model(held_out[number].to(accelerator.device))
                for name, loss in losses.items():
                    totals[name] += share * float(loss.total)
                    counts[name] += int(share) * loss.count
                    for key, value in loss.statistics.items():
                        sums[name][key] = sums[name].get(key, 0) + share * value.double()
    run.model.train()
    figures = {}
    for name in run.model.weights:
        if name not in sums and name not in totals:  # its arm has no held-out text
            continue
        pair = torch.tensor([totals[name], counts[name]], dtype=torch.float64, device=accelerator.device)
        total, count = accelerator.reduce(pair).tolist()
        statistics = {key: accelerator.reduce(value).cpu().numpy() for key, value in sums[name].items()}
        figures[name] = {"loss": total / max(count, 1), **run.model.summarise(name, statistics, int(count))}
    return {name: {key: float(np.float64(value)) for key, value in each.items()} for name, each in figures.items()}
