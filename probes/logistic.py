"""Multinomial logistic regression, many problems in one solve: all strengths of regularisation, all sets of labels.

solve_logistic(items, label_sets, strengths, num_classes, *, start=None, tolerance=FINE) -> weights, biases
standardise(items, reference) -> items with the mean and the deviation of the reference taken out

Dimensions: n items, F features, R axes, C classes, T label sets, G strengths of regularisation, P = T * G problems.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

FINE, COARSE = 1e-4, 1e-2  # of the loss: what a Newton step would still gain, twice
_FEW_ITEMS_FINE = 2e-6  # where the items are few, exactness costs nothing
_HISTORY = 16  # steps that L-BFGS remembers
_MAX_STEPS = 200
_BLOCK = 1 << 18  # logits at once: what the processor's cache holds

Solution = tuple[Tensor, Tensor]  # weights (T, G, F, C) and biases (T, G, C)


@dataclass(frozen=True, kw_only=True)
class _Problems:
    """P problems on the same items."""

    items: Tensor  # (n, F)
    axes: Tensor  # (F, R) orthonormal
    targets: Tensor  # (P, n)
    l2: Tensor  # (P,)

    def choose(self, chosen: Tensor) -> "_Problems":
        return replace(self, targets=self.targets[chosen], l2=self.l2[chosen])

    def thin(self, step: int) -> "_Problems":
        return replace(self, items=self.items[::step], targets=self.targets[:, ::step])

    def blocks(self, made: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of the items, and their log-probabilities (P, C, m) by parameters (P, C, R + 1)."""
        count, classes, _ = made.shape
        weights = made[..., :-1].flatten(0, 1) @ self.axes.T  # (P * C, F)
        biases = made[..., -1].reshape(-1, 1)
        size = max(256, _BLOCK // (count * classes))
        for begin in range(0, len(self.items), size):
            rows = slice(begin, begin + size)
            yield rows, torch.addmm(biases, weights, self.items[rows].T).unflatten(0, (count, classes)).log_softmax(1)

    def evaluate(self, made: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss (P,) and its gradient (P, C, R + 1) at `made`."""
        count, classes, _ = made.shape
        losses = made.new_zeros(count)
        slopes, sums = made.new_zeros(count * classes, self.items.shape[1]), made.new_zeros(count, classes)
        for rows, log_chances in self.blocks(made):
            right = self.targets[:, None, rows]
            losses -= log_chances.gather(1, right)[:, 0].sum(dim=1)
            residual = log_chances.exp_().scatter_add_(1, right, -log_chances.new_ones(right.shape))
            slopes.addmm_(residual.flatten(0, 1), self.items[rows])
            sums += residual.sum(dim=2)
        size = len(self.items)
        penalty = self.l2 / 2 * made[..., :-1].square().sum(dim=(1, 2))
        gradient = (slopes @ self.axes).unflatten(0, (count, classes)) / size + self.l2[:, None, None] * made[..., :-1]
        return losses / size + penalty, torch.cat([gradient, sums[..., None] / size], dim=2)

    def inverse_curvature(self, made: Tensor, spread: Tensor) -> Tensor:
        """Return the inverse of the Hessian's diagonal (P, C, R + 1), chances and items as if independent."""
        curvature = made.new_zeros(made.shape[:2])
        for _, log_chances in self.blocks(made):
            chances = log_chances.exp_()
            curvature += (chances - chances.square()).sum(dim=2)
        curvature = (curvature / len(self.items)).clamp(min=1e-4)[..., None]  # (P, C, 1)
        return 1 / torch.cat([curvature * spread + self.l2[:, None, None], curvature], dim=2)


def solve_logistic(
    items: Tensor,
    label_sets: Tensor,
    strengths: Tensor,
    num_classes: int,
    *,
    start: Solution | None = None,
    tolerance: float = FINE,
) -> Solution:
    """Minimise mean cross-entropy + l2 / 2 * |W|^2 for every label set (T, n) and strength, on items (n, F).

    `strengths` are (G,), or (T, G) where each label set has its own. Returns weights (T, G, F, C) and biases (T, G, C).
    L-BFGS (Nocedal and Wright, 2006, section 7.2) in the principal axes of the items, where the Hessian is nearly
    diagonal and its diagonal the first guess: a rotation changes neither the loss nor the penalty, and directions in
    which the items don't vary drop out. Of many items an eighth come first, unless there is a `start`.
    """
    strengths = strengths.expand(len(label_sets), -1)  # (T, G)
    shape = strengths.shape
    is_large = len(items) > max(8192, 16 * items.shape[1])
    axes, spread = _principal_axes(items[::8] if is_large else items)
    targets = label_sets.repeat_interleave(shape[1], dim=0)
    problems = _Problems(items=items, axes=axes, targets=targets, l2=strengths.flatten())
    made = _start_at_shares(problems, num_classes) if start is None else _enter(start, axes)
    if is_large and start is None:
        part = problems.thin(8)
        made = _minimise(part, made, part.inverse_curvature(made, spread), max(tolerance, 1e-3))
    if not is_large:
        tolerance = min(tolerance, _FEW_ITEMS_FINE)
    made = _minimise(problems, made, problems.thin(8 if is_large else 1).inverse_curvature(made, spread), tolerance)
    weights = (made[..., :-1] @ axes.T).transpose(1, 2)
    return weights.unflatten(0, shape), made[..., -1].unflatten(0, shape)


def standardise(items: Tensor, reference: Tensor) -> Tensor:
    """Return `items` (N, F) with the mean and the deviation of `reference` (n, F) taken out; constants become zero."""
    deviation, mean = torch.std_mean(reference, dim=0, correction=0)
    is_constant = deviation <= 1e-6 * mean.abs().clamp(min=1e-6)
    return ((items - mean) / torch.where(is_constant, 1.0, deviation)).masked_fill(is_constant, 0.0)


def _start_at_shares(problems: _Problems, num_classes: int) -> Tensor:
    """Return parameters (P, C, R + 1) that give every item the shares of the classes."""
    ones = torch.ones_like(problems.targets, dtype=torch.float32)
    counts = ones.new_zeros(len(ones), num_classes).scatter_add_(1, problems.targets, ones) + 0.1
    shares = (counts / counts.sum(dim=1, keepdim=True)).log()[..., None]
    return torch.cat([shares.new_zeros(*counts.shape, problems.axes.shape[1]), shares], dim=2)


def _enter(start: Solution, axes: Tensor) -> Tensor:
    """Return a solution as parameters (P, C, R + 1) along the axes."""
    weights, biases = (each.flatten(0, 1) for each in start)
    return torch.cat([weights.transpose(1, 2) @ axes, biases[..., None]], dim=2)


def _principal_axes(items: Tensor) -> tuple[Tensor, Tensor]:
    """Return orthonormal axes (F, R) that span the items (n, F), and the mean square along each (R,)."""
    if len(items) < items.shape[1]:  # cheaper from the other side
        values, vectors = torch.linalg.eigh(items @ items.T)
        is_kept = values > 1e-6 * values[-1].clamp(min=1e-12)
        return (items.T @ vectors[:, is_kept]) / values[is_kept].sqrt(), values[is_kept] / len(items)
    values, vectors = torch.linalg.eigh(items.T @ items / len(items))
    is_kept = values > 1e-7 * values[-1].clamp(min=1e-12)
    return vectors[:, is_kept], values[is_kept]


def _minimise(problems: _Problems, start: Tensor, inverse: Tensor, tolerance: float) -> Tensor:
    """Return the minimisers (P, C, R + 1): L-BFGS on all problems side by side, each with its own step length."""
    solved = start.clone()
    history: list[tuple[Tensor, Tensor]] = []  # steps, and what they changed the gradient by
    loss, gradient = problems.evaluate(solved)
    active = torch.arange(len(start), device=start.device)
    is_enough = torch.ones_like(active, dtype=torch.bool)
    left = problems
    for _ in range(_MAX_STEPS):
        point, step = solved[active], -_two_loops(gradient, history, inverse[active])
        slope = (step * gradient).sum(dim=(1, 2))
        goes_on = (-slope > tolerance * (loss + 0.1)) & is_enough  # twice what a Newton step would gain
        if not goes_on.any():
            break
        if not goes_on.all():
            active, point, step, slope = active[goes_on], point[goes_on], step[goes_on], slope[goes_on]
            loss, gradient, left = loss[goes_on], gradient[goes_on], problems.choose(active)
            history = [(moved[goes_on], changed[goes_on]) for moved, changed in history]
        tried, new_loss, new_gradient, is_enough = _search(left, point, step, loss, slope)
        history = [*history, (tried - point, new_gradient - gradient)][-_HISTORY:]
        solved[active] = torch.where(is_enough[:, None, None], tried, point)
        loss, gradient = new_loss, new_gradient
    return solved


def _search(
    problems: _Problems, point: Tensor, step: Tensor, loss: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Halve the step of a problem until its loss falls enough, but for rounding (Armijo).

    Returns the points that were tried last, their losses and gradients, and whether they are low enough.
    """
    sizes = torch.ones_like(loss)
    for _ in range(12):
        tried = point + sizes[:, None, None] * step
        new_loss, new_gradient = problems.evaluate(tried)
        is_enough = new_loss <= loss + 1e-4 * sizes * slope + 2e-7 * (loss + 0.1)
        if is_enough.all():
            break
        sizes = torch.where(is_enough, sizes, sizes / 2)
    return tried, new_loss, new_gradient, is_enough


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
