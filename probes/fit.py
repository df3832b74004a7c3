"""Probes fitted to frozen features: linear, one hidden layer, a mix of layers; and the metrics they are judged by.

fit_linear(features, labels, split, *, control_labels=None, metric="accuracy", l2_grid=L2_GRID, device=None) -> Fit
fit_mlp(features, labels, split, *, control_labels=None, metric="accuracy", hidden=64, seed=0, device=None, ...) -> Fit
fit_scalar_mix(features, labels, split, *, metric="accuracy", l2_grid=L2_GRID, seed=0, device=None, ...) -> Fit
    of one "layer"
    features: a sequence over layers of (N, F) arrays, or (layers, N, F); labels (N,) from 0; split (N,) of TRAIN, DEV,
    TEST, where items of any other value (-1: lost to truncation) are neither learned from nor scored
Fit: predictions (layers, N), scores (layers, N) or None, dev (layers,), test (layers,), best_layer (chosen on dev),
    l2 (layers,) or None, metric, control (a Fit or None), selectivity (layers,), mix (layers,) or None
score(metric, labels, predictions, scores=None) -> float

Dimensions: N items, n of them in training, F features, R axes, C classes, T label sets, G strengths of
regularisation, P = T * G problems.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from corpora.errors import UserError

from .probe import DEV, TEST, TRAIN, Metric

L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_FEWEST_STEPS = 50  # of an epoch: fewer items are passed over several times
_HISTORY = 8  # steps that L-BFGS remembers
_MAX_STEPS = 200

Layers = Sequence[np.ndarray] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a probe made of every layer: predictions for all items, and scores of those in dev and test."""

    metric: Metric
    labels: np.ndarray  # (N,)
    split: np.ndarray  # (N,)
    predictions: np.ndarray  # (layers, N) int64
    scores: np.ndarray | None  # (layers, N) float32: log odds of class 1, where there are two classes
    dev: np.ndarray  # (layers,)
    test: np.ndarray  # (layers,)
    l2: np.ndarray | None = None  # (layers,) chosen on dev
    mix: np.ndarray | None = None  # weights of the layers in a scalar mix
    control: "Fit | None" = None

    @property
    def best_layer(self) -> int:
        """The layer that is best on dev, the lowest of equals; its test score is the one to report."""
        return int(np.argmax(self.dev))

    @property
    def selectivity(self) -> np.ndarray:
        """(layers,) test accuracy minus that on the control task (Hewitt and Liang, 2019, section 2.2)."""
        if self.control is None:
            raise ValueError("no control labels were fitted, so there is no selectivity")
        return self.test - self.control.test

    def test_score(self, layer: int, where: np.ndarray) -> float:
        """Return the metric over those test items at which `where` (N,) is True; NaN if there are none."""
        chosen = where & (self.split == TEST)
        scores = None if self.scores is None else self.scores[layer, chosen]
        return score(self.metric, self.labels[chosen], self.predictions[layer, chosen], scores)


def fit_linear(
    features: Layers,
    labels: np.ndarray,
    split: np.ndarray,
    *,
    control_labels: np.ndarray | None = None,
    metric: Metric = "accuracy",
    l2_grid: Sequence[float] = L2_GRID,
    device: str | torch.device | None = None,
) -> Fit:
    """Fit multinomial logistic regression to every layer, for all strengths and both label sets in one solve a layer.

    Features are standardised on the training items. The strength, l2 / 2 * |W|^2 beside the mean cross-entropy, is
    chosen on dev for each layer and label set; scikit-learn's C is 1 / (l2 * n). The problem is convex and needs no
    seed. UserError where train, dev or test is empty or a feature isn't finite.
    """
    sets = _label_sets(labels, control_labels, split)
    place, num_classes = choose_device(device), int(sets.max()) + 1
    strengths = torch.tensor(l2_grid, dtype=torch.float32, device=place)
    train = torch.from_numpy(np.flatnonzero(split == TRAIN)).to(place)
    choices = []
    for layer in range(len(features)):
        items = to_device(features[layer], place)
        items = standardise(items, items[train])
        weights, biases = solve_logistic(
            items[train], torch.from_numpy(sets).to(place)[:, train], strengths, num_classes
        )
        logits = torch.einsum("nf,tgfc->tgnc", items, weights) + biases[:, :, None]
        choices.append([_choose(logits[number], sets[number], split, metric) for number in range(len(sets))])
    return _collect(choices, sets, split, metric, l2=np.asarray(l2_grid))


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
    sets = _label_sets(labels, control_labels, split)
    place, num_classes, count = choose_device(device), int(sets.max()) + 1, len(sets)
    targets = torch.from_numpy(sets).to(place)
    choices = []
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
            logits = read(torch.arange(len(labels), device=place), best)
        choices.append([_choose(logits[number][None], sets[number], split, metric) for number in range(count)])
    return _collect(choices, sets, split, metric)


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
    sets = _label_sets(labels, None, split)
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


def score(metric: Metric, labels: np.ndarray, predictions: np.ndarray, scores: np.ndarray | None = None) -> float:
    """Return accuracy, macro-F1 over the classes that occur, or the area under the ROC curve (ties count half).

    NaN where there are no items, or only one class for "auroc". `scores` (N,) are needed for "auroc" alone.
    """
    if not len(labels):
        return float("nan")
    if metric == "accuracy":
        return float((labels == predictions).mean())
    if metric == "macro_f1":
        size = int(max(labels.max(), predictions.max())) + 1
        right = np.bincount(labels[labels == predictions], minlength=size)
        both = np.bincount(labels, minlength=size) + np.bincount(predictions, minlength=size)
        return float((2 * right[both > 0] / both[both > 0]).mean())
    if scores is None or labels.max() > 1:
        raise ValueError("the area under the ROC curve is for two classes, with a score for each item")
    _, ranks, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - (counts - 1) / 2)[ranks]  # mid-ranks, from 1
    positives = int((labels == 1).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    return float((middle[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def standardise(items: Tensor, reference: Tensor) -> Tensor:
    """Return `items` (N, F) with the mean and the deviation of `reference` (n, F) taken out; constants become zero."""
    deviation, mean = torch.std_mean(reference, dim=0, correction=0)
    is_constant = deviation <= 1e-6 * mean.abs().clamp(min=1e-6)
    return ((items - mean) / torch.where(is_constant, 1.0, deviation)).masked_fill(is_constant, 0.0)


def solve_logistic(items: Tensor, label_sets: Tensor, strengths: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Minimise mean cross-entropy + l2 / 2 * |W|^2 for every label set (T, n) and strength (G,), on items (n, F).

    Returns weights (T, G, F, C) and biases (T, G, C). L-BFGS (Nocedal and Wright, 2006, section 7.2) in the principal
    axes of the items, where the Hessian is nearly diagonal and its diagonal the first guess: a rotation changes neither
    the loss nor the penalty, and directions in which the items don't vary drop out. Of many items an eighth come first.
    """
    axes, spread = _principal_axes(items)
    targets = label_sets.repeat_interleave(len(strengths), dim=0)  # (P, n)
    l2 = strengths.repeat(len(label_sets))  # (P,)
    counts = functional.one_hot(label_sets, num_classes).sum(dim=1).repeat_interleave(len(strengths), dim=0)  # (P, C)
    shares = (counts + 0.1) / (counts + 0.1).sum(dim=1, keepdim=True)
    made = torch.cat([shares.new_zeros(len(l2), len(spread), num_classes), shares.log()[:, None]], dim=1)
    is_large = len(items) > max(8192, 16 * items.shape[1])
    for step, tolerance in ((8, 1e-3), (1, 1e-4)) if is_large else ((1, 2e-6),):
        part, labels = items[::step], targets[:, ::step]
        inverse = _inverse_curvature(part, axes, spread, l2, made)
        made = _minimise(part, axes, labels, l2, made, inverse, tolerance)
    weights = (axes @ made[:, :-1]).unflatten(0, (len(label_sets), len(strengths)))
    return weights, made[:, -1].unflatten(0, (len(label_sets), len(strengths)))


def _inverse_curvature(items: Tensor, axes: Tensor, spread: Tensor, l2: Tensor, made: Tensor) -> Tensor:
    """Return the inverse of the Hessian's diagonal (P, R + 1, C) at `made`, chances and items as if independent."""
    chances = _logits(items, axes, made).softmax(dim=2)
    curvature = (chances * (1 - chances)).mean(dim=0).clamp(min=1e-4)[:, None]  # (P, 1, C)
    return 1 / torch.cat([curvature * spread[:, None] + l2[:, None, None], curvature], dim=1)


def _logits(items: Tensor, axes: Tensor, made: Tensor) -> Tensor:
    """Return logits (n, P, C) from parameters (P, R + 1, C), whose last row is the bias."""
    count, _, classes = made.shape
    flat = (axes @ made[:, :-1]).permute(1, 0, 2).reshape(-1, count * classes)
    return torch.addmm(made[:, -1].reshape(-1), items, flat).unflatten(1, (count, classes))


def _principal_axes(items: Tensor) -> tuple[Tensor, Tensor]:
    """Return orthonormal axes (F, R) that span the items (n, F), and the mean square along each (R,)."""
    if len(items) < items.shape[1]:  # cheaper from the other side
        values, vectors = torch.linalg.eigh(items @ items.T)
        is_kept = values > 1e-6 * values[-1].clamp(min=1e-12)
        return (items.T @ vectors[:, is_kept]) / values[is_kept].sqrt(), values[is_kept] / len(items)
    values, vectors = torch.linalg.eigh(items.T @ items / len(items))
    is_kept = values > 1e-7 * values[-1].clamp(min=1e-12)
    return vectors[:, is_kept], values[is_kept]


def _objective(items: Tensor, axes: Tensor, targets: Tensor, l2: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss (P,) and its gradient (P, R + 1, C) at `made`."""
    log_odds = _logits(items, axes, made).log_softmax(dim=2)
    right = targets.T[:, :, None]
    loss = -log_odds.gather(2, right)[..., 0].mean(dim=0) + l2 / 2 * made[:, :-1].square().sum(dim=(1, 2))
    residual = log_odds.exp_().scatter_add_(2, right, -log_odds.new_ones(right.shape)) / len(items)
    gradient = axes.T @ (items.T @ residual.flatten(1)).unflatten(1, residual.shape[1:]).permute(1, 0, 2)
    return loss, torch.cat([gradient + l2[:, None, None] * made[:, :-1], residual.sum(dim=0)[:, None]], dim=1)


def _minimise(
    items: Tensor,
    axes: Tensor,
    targets: Tensor,
    l2: Tensor,
    start: Tensor,
    inverse: Tensor,
    tolerance: float,
) -> Tensor:
    """Return the minimisers (P, R + 1, C): L-BFGS on all problems side by side, each with its own step length."""
    solved = start.clone()
    history: list[tuple[Tensor, Tensor]] = []  # steps, and what they changed the gradient by
    loss, gradient = _objective(items, axes, targets, l2, solved)
    active = torch.arange(len(start), device=start.device)
    is_enough = torch.ones_like(active, dtype=torch.bool)
    for _ in range(_MAX_STEPS):
        point, step = solved[active], -_two_loops(gradient, history, inverse[active])
        slope, sizes = (step * gradient).sum(dim=(1, 2)), torch.ones_like(loss)
        goes_on = (-slope > tolerance * (loss + 0.1)) & is_enough  # twice what a Newton step would gain
        if not goes_on.any():
            break
        if not goes_on.all():
            active, point, step, slope = active[goes_on], point[goes_on], step[goes_on], slope[goes_on]
            loss, gradient, sizes = loss[goes_on], gradient[goes_on], sizes[goes_on]
            history = [(moved[goes_on], changed[goes_on]) for moved, changed in history]
        for _ in range(12):  # Armijo: halve the step of a problem until its loss falls enough, but for rounding
            tried = point + sizes[:, None, None] * step
            new_loss, new_gradient = _objective(items, axes, targets[active], l2[active], tried)
            is_enough = new_loss <= loss + 1e-4 * sizes * slope + 2e-7 * (loss + 0.1)
            if is_enough.all():
                break
            sizes = torch.where(is_enough, sizes, sizes / 2)
        history = [*history, (tried - point, new_gradient - gradient)][-_HISTORY:]
        solved[active] = torch.where(is_enough[:, None, None], tried, point)
        loss, gradient = new_loss, new_gradient
    return solved


def _two_loops(gradient: Tensor, history: list[tuple[Tensor, Tensor]], inverse: Tensor) -> Tensor:
    """Return the gradient times the approximate inverse Hessian; a pair without curvature counts for nothing."""
    direction, factors = gradient.clone(), []
    for moved, changed in reversed(history):
        curvature = (moved * changed).sum(dim=(1, 2), keepdim=True)
        inverse_curvature = torch.where(curvature > 1e-12, 1 / curvature.clamp(min=1e-12), 0.0)
        factor = inverse_curvature * (moved * direction).sum(dim=(1, 2), keepdim=True)
        direction -= factor * changed
        factors.append((factor, inverse_curvature))
    direction *= inverse
    if history:
        moved, changed = history[-1]
        scale = (moved * changed).sum(dim=(1, 2), keepdim=True)
        norm = (changed.square() * inverse).sum(dim=(1, 2), keepdim=True)
        direction *= torch.where((scale > 1e-12) & (norm > 1e-12), scale / norm.clamp(min=1e-12), 1.0)
    for (moved, changed), (factor, inverse_curvature) in zip(history, reversed(factors), strict=True):
        direction += (factor - inverse_curvature * (changed * direction).sum(dim=(1, 2), keepdim=True)) * moved
    return direction


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


_Choice = tuple[int, np.ndarray, np.ndarray | None, float, float]  # strength, predictions, scores, dev, test


def _choose(logits: Tensor, labels: np.ndarray, split: np.ndarray, metric: Metric) -> _Choice:
    """Return what the strength that is best on dev predicts from logits (G, N, C); of equals the one of lower loss."""
    predictions = logits.argmax(dim=2).cpu().numpy()
    scores = (logits[..., 1] - logits[..., 0]).cpu().numpy() if logits.shape[2] == 2 else None
    dev, test = np.flatnonzero(split == DEV), np.flatnonzero(split == TEST)

    def judge(number: int, items: np.ndarray) -> float:
        return score(
            metric, labels[items], predictions[number, items], None if scores is None else scores[number, items]
        )

    place = torch.from_numpy(dev).to(logits.device)
    targets = torch.from_numpy(labels[dev]).to(logits.device)
    losses = [float(functional.cross_entropy(each[place], targets)) for each in logits]
    best = max(range(len(logits)), key=lambda number: (judge(number, dev), -losses[number]))
    return best, predictions[best], None if scores is None else scores[best], judge(best, dev), judge(best, test)


def _collect(
    choices: list[list[_Choice]],
    sets: np.ndarray,
    split: np.ndarray,
    metric: Metric,
    *,
    l2: np.ndarray | None = None,
) -> Fit:
    """Make the Fit of the first label set, with that of the second as its control, from choices per layer and set."""
    made: Fit | None = None
    for number in reversed(range(len(sets))):
        best, predictions, scores, dev, test = zip(*(layer[number] for layer in choices), strict=True)
        made = Fit(
            metric=metric,
            labels=sets[number],
            split=split,
            predictions=np.stack(predictions),
            scores=None if scores[0] is None else np.stack(scores),
            dev=np.array(dev),
            test=np.array(test),
            l2=None if l2 is None else l2[list(best)],
            control=made,
        )
    assert made is not None
    return made


def _label_sets(labels: np.ndarray, control_labels: np.ndarray | None, split: np.ndarray) -> np.ndarray:
    """Return the label sets (T, N) int64, after a look at what there is to learn and to judge."""
    for name, number in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        if not (split == number).any():
            raise UserError(f"a probe has no {name} items left; give more text, or an encoder that reads longer texts")
    return np.stack([labels] if control_labels is None else [labels, control_labels]).astype(np.int64)


def choose_device(device: str | torch.device | None) -> torch.device:
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def to_device(items: np.ndarray, device: torch.device) -> Tensor:
    made = torch.from_numpy(np.asarray(items, dtype=np.float32)).to(device)
    if not torch.isfinite(made).all():
        raise UserError("a feature is NaN or infinite; the encoder's weights are broken")
    return made
