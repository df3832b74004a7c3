"""Probes trained by gradient descent: one hidden layer, and a learned mix of all layers.

fit_mlp(features, labels, split, *, control_labels=None, metric="accuracy", hidden=64, seed=0, device=None, ...) -> Fit
fit_scalar_mix(features, labels, split, *, metric="accuracy", l2_grid=L2_GRID, seed=0, device=None, ...) -> Fit
    of one "layer"
    features, labels, split and Fit as in fit.py

Dimensions: N items, F features, C classes, T label sets.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .fit import L2_GRID, Fit, Layers, choose_device, collect_fit, fit_linear, stack_labels, to_device
from .logistic import standardise
from .probe import DEV, TRAIN, Metric

_FEWEST_STEPS = 50  # of an epoch: fewer items are passed over several times


def fit_mlp(
    features: Layers,
    labels: np.ndarray,
    split: np.ndarray,
    *,
    control_labels: np.ndarray | None = None,
    metric: Metric = "accuracy",
    hidden: int = 64,
    seed: int = 0,
    max_epochs: int = 50,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    patience: int = 3,
    device: str | torch.device | None = None,
) -> Fit:
    """Fit one hidden layer of ReLUs to every layer by Adam, stopped when dev's loss no longer falls.

    The companion of the linear probe: what it gains in accuracy it mostly loses in selectivity (Hewitt and Liang, 2019,
    table 2), so never report it without its control. UserError as in `fit_linear`.
    """
    sets = stack_labels(labels, control_labels, split)
    place, num_classes, count = choose_device(device), int(sets.max()) + 1, len(sets)
    targets = torch.from_numpy(sets).to(place)
    logits = []
    for layer in range(len(features)):
        generator = torch.Generator().manual_seed(seed)
        items = to_device(features[layer], place)
        items = standardise(items, items[torch.from_numpy(split == TRAIN).to(place)])
        shapes = [(items.shape[1], hidden), (1, hidden), (hidden, num_classes), (1, num_classes)]
        bounds = [items.shape[1] ** -0.5, 0.0, hidden**-0.5, 0.0]
        parameters = [
            torch.empty(1, *shape).uniform_(-bound, bound, generator=generator).repeat(count, 1, 1).to(place)
            for shape, bound in zip(shapes, bounds, strict=True)
        ]

        def read(rows: Tensor, made: list[Tensor], items: Tensor = items) -> Tensor:
            return torch.relu(items[rows] @ made[0] + made[1]) @ made[2] + made[3]  # (T, rows, C)

        rates = [learning_rate] * 4
        best = _descend(parameters, read, targets, split, rates, max_epochs, batch_size, patience, seed)
        with torch.no_grad():
            logits.append(read(torch.arange(len(labels), device=place), best))
    return collect_fit(logits, sets, split, metric)


def fit_scalar_mix(
    features: Layers,
    labels: np.ndarray,
    split: np.ndarray,
    *,
    metric: Metric = "accuracy",
    l2_grid: Sequence[float] = L2_GRID,
    seed: int = 0,
    max_epochs: int = 50,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    patience: int = 3,
    device: str | torch.device | None = None,
) -> Fit:
    """Fit a linear probe to a weighted mean of all layers, its softmax weights learned beside it (Peters et al., 2018).

    The weights, `mix`, come from Adam, stopped by dev; the probe is then solved anew on the mixed features, so that its
    score compares with those of single layers. Layers are standardised first, so that `mix` compares them; of a pair
    the combined features are mixed. All layers are held at once: layers * N * F * 4 bytes. UserError as in
    `fit_linear`.
    """
    sets = stack_labels(labels, None, split)
    place, num_classes = choose_device(device), int(sets.max()) + 1
    is_train = torch.from_numpy(split == TRAIN).to(place)
    layers = []
    for layer in range(len(features)):
        items = to_device(features[layer], place)
        layers.append(standardise(items, items[is_train]))
    stack = torch.stack(layers)  # (layers, N, F)
    shapes = [(1, len(layers)), (1, stack.shape[2], num_classes), (1, 1, num_classes)]
    parameters = [torch.zeros(shape, device=place) for shape in shapes]

    def read(rows: Tensor, made: list[Tensor]) -> Tensor:
        mixed = torch.einsum("l,lnf->nf", made[0][0].softmax(dim=0), stack[:, rows])
        return mixed @ made[1] + made[2]  # (1, rows, C)

    rates = [10 * learning_rate, learning_rate, learning_rate]
    best = _descend(
        parameters, read, torch.from_numpy(sets).to(place), split, rates, max_epochs, batch_size, patience, seed
    )
    mix = best[0][0].softmax(dim=0)
    mixed = torch.einsum("l,lnf->nf", mix, stack).cpu().numpy()
    fit = fit_linear(mixed[None], labels, split, metric=metric, l2_grid=l2_grid, device=device)
    return replace(fit, mix=mix.cpu().numpy())


def _descend(
    parameters: list[Tensor],
    read: Callable[[Tensor, list[Tensor]], Tensor],
    targets: Tensor,
    split: np.ndarray,
    rates: list[float],
    max_epochs: int,
    batch_size: int,
    patience: int,
    seed: int,
) -> list[Tensor]:
    """Train P problems at once by Adam; each keeps its parameters of the epoch at which its dev loss was lowest."""
    rng = np.random.default_rng(seed)
    train, dev = np.flatnonzero(split == TRAIN), torch.from_numpy(np.flatnonzero(split == DEV)).to(targets.device)
    made = [parameter.requires_grad_() for parameter in parameters]
    optimizer = torch.optim.Adam([{"params": [p], "lr": rate} for p, rate in zip(made, rates, strict=True)])
    best, lowest, last = [p.detach().clone() for p in made], torch.full((len(targets),), torch.inf), 0
    passes = -(-_FEWEST_STEPS * batch_size // len(train))

    def losses(rows: Tensor) -> Tensor:
        logits = read(rows, made)
        return functional.cross_entropy(logits.transpose(1, 2), targets[:, rows], reduction="none").mean(dim=1)

    for epoch in range(max_epochs):
        order = np.concatenate([rng.permutation(train) for _ in range(passes)])
        for rows in np.array_split(order, max(1, len(order) // batch_size)):
            optimizer.zero_grad()
            losses(torch.from_numpy(rows).to(targets.device)).sum().backward()
            optimizer.step()
        with torch.no_grad():
            now = torch.stack([losses(rows) * len(rows) for rows in dev.split(4096)]).sum(dim=0).cpu() / len(dev)
        is_better = now < lowest - 1e-4
        if is_better.any():
            last = epoch
            for kept, parameter in zip(best, made, strict=True):
                kept[is_better] = parameter.detach()[is_better]
            lowest = torch.where(is_better, now, lowest)
        if epoch - last >= patience:
            break
    return best
