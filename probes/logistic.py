"""Multinomial logistic regression, many problems in one solve: all strengths of regularisation, all sets of labels.

solve_logistic(items, label_sets, strengths, num_classes) -> weights, biases
solve_best(items, label_sets, strengths, num_classes, choose) -> (weights, biases), best
    only the strengths that `choose` takes are solved to the end
standardise(items, reference) -> items with the mean and the deviation of the reference taken out

Dimensions: n items, F features, R axes, C classes, T label sets, G strengths of regularisation, P = T * G problems.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_FINE = 1e-4  # the largest slope at which a problem counts as solved: scikit-learn's test, and its default
_COARSE = 1e-3  # and at which its strength can be judged; at 2e-3, parts of speech got a worse one
_FEW_ITEMS_FINE = 1e-5  # where the items are few, exactness costs nothing
_HISTORY = 16  # steps that L-BFGS remembers
_MAX_STEPS = 500
_PATIENCE = 3  # steps with the diagonal, before the blocks of the Hessian are worth their cost
_SAMPLE = 4096  # items that the blocks are made from
_DIAGONAL = 0.1  # its share in them
_MOST_NUMBERS = 1 << 26  # in all blocks, or in what they are made from: 256 MiB
_PASSES = 2  # of stochastic descent, where the items are many
_ROWS = 1024  # items at once: what the processor's cache holds

Solution = tuple[Tensor, Tensor]  # weights (T, G, F, C) and biases (T, G, C)


@dataclass(frozen=True, kw_only=True)
class _Problems:
    """P problems on the same items."""

    items: Tensor  # (n, F)
    axes: Tensor  # (F, R) orthonormal
    spread: Tensor  # (R,) mean square of the items along each axis
    targets: Tensor  # (P, n)
    sets: Tensor  # (P,) which label set each has
    l2: Tensor  # (P,)

    def choose(self, chosen: Tensor) -> "_Problems":
        return replace(self, targets=self.targets[chosen], sets=self.sets[chosen], l2=self.l2[chosen])

    def draw(self, begin: int, step: int, count: int) -> "_Problems":
        """Return the problems on so many of the items, spread over all."""
        rows = slice(begin, begin + step * count, step)
        return replace(self, items=self.items[rows], targets=self.targets[:, rows])

    def blocks(self, made: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of the items, and their log-probabilities (P, C, m) by parameters (P, C, R + 1)."""
        weights, biases = self._flatten(made)
        size = _ROWS if made.device.type == "cpu" else len(self.items)
        for begin in range(0, len(self.items), size):
            rows = slice(begin, begin + size)
            logits = torch.addmm(biases, weights, self.items[rows].T)
            yield rows, logits.unflatten(0, made.shape[:2]).log_softmax(1)

    def glance(self, made: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient at `made` (P, C, R + 1), and the mean (P, C) of p * (1 - p), with no eye to the loss."""
        weights, biases = self._flatten(made)
        chances = torch.addmm(biases, weights, self.items.T).unflatten(0, made.shape[:2]).softmax(1)
        sums = chances.sum(dim=2)
        curvature = (sums - torch.einsum("pcm,pcm->pc", chances, chances)) / len(self.items)
        right = self.targets[:, None]
        residual = chances.scatter_add_(1, right, -chances.new_ones(right.shape))
        return self._slope(made, residual.flatten(0, 1) @ self.items, residual.sum(dim=2)), curvature

    def evaluate(self, made: Tensor) -> "_Place":
        """Return the loss and its gradient at `made` (P, C, R + 1)."""
        count, classes, _ = made.shape
        losses = made.new_zeros(count)
        slopes, sums = made.new_zeros(count * classes, self.items.shape[1]), made.new_zeros(count, classes)
        for rows, log_chances in self.blocks(made):
            right = self.targets[:, None, rows]
            losses -= log_chances.gather(1, right)[:, 0].sum(dim=1)
            residual = log_chances.exp_().scatter_add_(1, right, -log_chances.new_ones(right.shape))
            slopes.addmm_(residual.flatten(0, 1), self.items[rows])
            sums += residual.sum(dim=2)
        penalty = self.l2 / 2 * made[..., :-1].square().sum(dim=(1, 2))
        loss = losses / len(self.items) + penalty
        return _Place(made=made, loss=loss, gradient=self._slope(made, slopes, sums))

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the largest slope (P,) of a gradient (P, C, R + 1) along any feature."""
        return torch.cat([gradient[..., :-1] @ self.axes.T, gradient[..., -1:]], dim=2).abs().amax(dim=(1, 2))

    def invert(self, curvature: Tensor) -> Tensor:
        """Return the inverse of the Hessian's diagonal (P, C, R + 1), chances and items as if independent.

        `curvature` (P, C) is the mean of p * (1 - p).
        """
        curvature = curvature.clamp(min=1e-4)[..., None]
        return 1 / torch.cat([curvature * self.spread + self.l2[:, None, None], curvature], dim=2)

    def can_invert_by_class(self, made: Tensor) -> bool:
        """Say whether `invert_by_class` saves more than it costs, and fits into memory."""
        largest = max(made.numel() * made.shape[2], made.shape[0] * made.shape[1] * _SAMPLE)
        return _are_many(self.items) and largest <= _MOST_NUMBERS

    def invert_by_class(self, made: Tensor) -> Tensor:
        """Return the inverse of the Hessian's block of each class (P, C, R + 1, R + 1) at `made` (P, C, R + 1).

        On some of the items, with a part of the diagonal that `invert` takes for the whole, in case they are few for a
        class. Problems of one label set share their curvature: what they differ by is mostly the penalty.
        """
        few = self.draw(0, max(1, len(self.items) // _SAMPLE), min(len(self.items), _SAMPLE))
        weights, biases = self._flatten(made)
        chances = torch.addmm(biases, weights, few.items.T).unflatten(0, made.shape[:2]).softmax(1)
        along = torch.cat([few.items @ self.axes, few.items.new_ones(len(few.items), 1)], dim=1)  # (m, R + 1)
        spread = torch.cat([self.spread, self.spread.new_ones(1)])
        inverses = along.new_empty(*made.shape, made.shape[2])
        for each in self.sets.unique():
            (places,) = (self.sets == each).nonzero(as_tuple=True)
            curvatures = (chances[places] * (1 - chances[places])).mean(dim=0)  # (C, m)
            for number, curvature in enumerate(curvatures):
                block = (along.T * curvature) @ along / len(along)
                block = torch.lerp(block, torch.diag(curvature.mean().clamp(min=1e-4) * spread), _DIAGONAL)
                for place in places:
                    penalised = block + torch.diag(self.l2[place].expand(len(spread)))
                    factor, failed = torch.linalg.cholesky_ex(penalised)
                    inverses[place, number] = (
                        torch.diag(1 / penalised.diagonal()) if failed else torch.cholesky_inverse(factor)
                    )
        return inverses

    def _flatten(self, made: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (P * C, F) of the features, and biases (P * C, 1)."""
        return made[..., :-1].flatten(0, 1) @ self.axes.T, made[..., -1].reshape(-1, 1)

    def _slope(self, made: Tensor, slopes: Tensor, sums: Tensor) -> Tensor:
        """Return the gradient at `made` (P, C, R + 1) by residuals times features (P * C, F), and their sums (P, C)."""
        size = len(self.items)
        along = (slopes @ self.axes).unflatten(0, made.shape[:2]) / size + self.l2[:, None, None] * made[..., :-1]
        return torch.cat([along, sums[..., None] / size], dim=2)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where P problems stand."""

    made: Tensor  # (P, C, R + 1)
    loss: Tensor  # (P,)
    gradient: Tensor  # (P, C, R + 1)

    def choose(self, chosen: Tensor) -> "_Place":
        return _Place(made=self.made[chosen], loss=self.loss[chosen], gradient=self.gradient[chosen])

    def put(self, chosen: Tensor, other: "_Place") -> None:
        """Write another place over the chosen problems."""
        self.made[chosen], self.loss[chosen], self.gradient[chosen] = other.made, other.loss, other.gradient


class _Descent:
    """L-BFGS on all problems side by side, each with its own step length (Nocedal and Wright, 2006, section 7.2)."""

    def __init__(self, problems: _Problems, place: _Place, curvature: Tensor) -> None:
        self.problems, self.place = problems, place
        self._inverse = problems.invert(curvature)
        self._history: list[tuple[Tensor, Tensor]] = []  # steps, and what they changed the gradient by; 0: none

    def choose(self, chosen: Tensor) -> None:
        """Go on with the chosen problems only."""
        self.problems, self.place = self.problems.choose(chosen), self.place.choose(chosen)
        self._inverse = self._inverse[chosen]
        history = [(moved[chosen], changed[chosen]) for moved, changed in self._history]
        self._history = [pair for pair in history if pair[0].any()]

    def minimise(self, tolerance: float) -> None:
        """Take steps until no problem has a slope above the tolerance, or none falls any more."""
        is_falling = torch.ones_like(self.place.loss, dtype=torch.bool)
        for step in range(_MAX_STEPS):
            is_active = (self.problems.steepest(self.place.gradient) > tolerance) & is_falling
            if not is_active.any():
                break
            if step == _PATIENCE and self._inverse.dim() == 3 and self.problems.can_invert_by_class(self.place.made):
                self._inverse, self._history = self.problems.invert_by_class(self.place.made), []
            active = is_active.nonzero()[:, 0]
            place, problems = self.place.choose(active), self.problems.choose(active)
            history = [(moved[active], changed[active]) for moved, changed in self._history]
            inverse = self._inverse if is_active.all() else self._inverse[active]
            tried, is_enough = _search(problems, place, -_two_loops(place.gradient, history, inverse))
            moved, changed = (torch.zeros_like(self.place.made) for _ in range(2))
            moved[active], changed[active] = tried.made - place.made, tried.gradient - place.gradient
            self._history = [*self._history, (moved, changed)][-_HISTORY:]
            is_falling[active] = is_enough
            self.place.put(active[is_enough], tried.choose(is_enough))


def solve_logistic(items: Tensor, label_sets: Tensor, strengths: Tensor, num_classes: int) -> Solution:
    """Minimise mean cross-entropy + l2 / 2 * |W|^2 for every label set (T, n) and strength (G,), on items (n, F).

    Items are standardised, or the test of convergence says nothing. Returns weights (T, G, F, C), biases (T, G, C).

    L-BFGS in the principal axes of the items, where the Hessian is nearly diagonal and its diagonal the first guess: a
    rotation changes neither the loss nor the penalty, and directions in which the items don't vary drop out. Where the
    items are many, stochastic descent with the same diagonal goes first, and a problem that takes more than a few steps
    goes on with the Hessian's block of each class. It ends where scikit-learn's does, when no slope is above 1e-4.
    """
    descent = _begin(items, label_sets, strengths, num_classes)
    descent.minimise(_FINE if _are_many(items) else _FEW_ITEMS_FINE)
    return _leave(descent, (len(label_sets), len(strengths)))


def solve_best(
    items: Tensor,
    label_sets: Tensor,
    strengths: Tensor,
    num_classes: int,
    choose: Callable[[Solution], Tensor],
) -> tuple[Solution, Tensor]:
    """Minimise as `solve_logistic` does, but go on to the end with one strength for each label set only.

    `choose` takes solutions that are nearly exact, and returns the numbers (T,) of the best; these are returned beside
    the solution, weights (T, 1, F, C) and biases (T, 1, C).
    """
    shape = (len(label_sets), len(strengths))
    descent = _begin(items, label_sets, strengths, num_classes)
    descent.minimise(_COARSE if _are_many(items) else _FEW_ITEMS_FINE)
    best = choose(_leave(descent, shape))
    descent.choose(best + shape[1] * torch.arange(shape[0], device=best.device))
    descent.minimise(_FINE if _are_many(items) else _FEW_ITEMS_FINE)
    return _leave(descent, (shape[0], 1)), best


def standardise(items: Tensor, reference: Tensor) -> Tensor:
    """Return `items` (N, F) with the mean and the deviation of `reference` (n, F) taken out; constants become zero."""
    return rescale(items.clone(), *measure(reference))


def measure(items: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of items (n, F), and one over their deviation, or 0 for a constant."""
    first = items[:_ROWS].mean(dim=0)
    sums, squares = torch.zeros_like(first), torch.zeros_like(first)
    for block in items.split(_ROWS):
        centred = block - first  # of what is far from 0, squares would drown the deviation
        sums += centred.sum(dim=0)
        squares += centred.square_().sum(dim=0)
    shift = sums / len(items)
    mean, deviation = first + shift, (squares / len(items) - shift.square()).clamp(min=0).sqrt()
    is_constant = deviation <= 1e-6 * mean.abs().clamp(min=1e-6)
    return mean, torch.where(is_constant, 0.0, 1 / deviation)


def rescale(items: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """Take the mean out of items (n, F) and multiply, in place; return them."""
    for block in items.split(_ROWS):
        block.sub_(mean).mul_(inverse)
    return items


def _are_many(items: Tensor) -> bool:
    return len(items) > max(8192, 16 * items.shape[1])


def _begin(items: Tensor, label_sets: Tensor, strengths: Tensor, num_classes: int) -> _Descent:
    """Return a descent at its start."""
    are_many = _are_many(items)
    axes, spread = _principal_axes(items[::8] if are_many else items)
    problems = _Problems(
        items=items,
        axes=axes,
        spread=spread,
        targets=label_sets.repeat_interleave(len(strengths), dim=0),
        sets=torch.arange(len(label_sets), device=items.device).repeat_interleave(len(strengths)),
        l2=strengths.repeat(len(label_sets)),
    )
    start, curvature = _start_at_shares(problems, num_classes)
    if not are_many:
        return _Descent(problems, problems.evaluate(start), curvature)
    made, later = _descend_stochastically(problems, start, curvature)
    place = problems.evaluate(made)
    shares = start[..., -1]
    is_lower = place.loss < -(shares.exp() * shares).sum(dim=1)  # than at the start; outliers can throw such steps off
    if not is_lower.all():
        place = problems.evaluate(torch.where(is_lower[:, None, None], made, start))
    return _Descent(problems, place, torch.where(is_lower[:, None], later, curvature))


def _leave(descent: _Descent, shape: Sequence[int]) -> Solution:
    """Return weights (*shape, F, C) and biases (*shape, C)."""
    made = descent.place.made
    weights = (made[..., :-1] @ descent.problems.axes.T).transpose(1, 2)
    return weights.unflatten(0, shape), made[..., -1].unflatten(0, shape)


def _start_at_shares(problems: _Problems, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return parameters (P, C, R + 1) that give every item the shares of the classes, and their curvature (P, C)."""
    ones = torch.ones_like(problems.targets, dtype=torch.float32)
    counts = ones.new_zeros(len(ones), num_classes).scatter_add_(1, problems.targets, ones) + 0.1
    shares = counts / counts.sum(dim=1, keepdim=True)
    weights = shares.new_zeros(*counts.shape, len(problems.spread))
    return torch.cat([weights, shares.log()[..., None]], dim=2), shares * (1 - shares)


def _descend_stochastically(problems: _Problems, made: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
    """Return parameters and curvature after some passes in batches that are spread over all items.

    A step is that of Newton, with the diagonal, times a rate that falls to 0; it starts the lower, the fewer items
    there are for a feature, since such steps follow the noise.
    """
    width = problems.items.shape[1]
    rows = max(_ROWS, 4 * width)
    batches = len(problems.items) // rows
    for step in range(_PASSES * batches):
        batch = problems.draw(step % batches, batches, rows)
        rate = rows / (rows + 16 * width) * (1 - step / (_PASSES * batches))
        gradient, now = batch.glance(made)
        curvature = torch.lerp(curvature, now, 0.1)
        made = made - rate * problems.invert(curvature) * gradient
    return made, curvature


def _principal_axes(items: Tensor) -> tuple[Tensor, Tensor]:
    """Return orthonormal axes (F, R) that span the items (n, F), and the mean square along each (R,)."""
    if len(items) < items.shape[1]:  # cheaper from the other side
        values, vectors = torch.linalg.eigh(items @ items.T)
        is_kept = values > 1e-6 * values[-1].clamp(min=1e-12)
        return (items.T @ vectors[:, is_kept]) / values[is_kept].sqrt(), values[is_kept] / len(items)
    values, vectors = torch.linalg.eigh(items.T @ items / len(items))
    is_kept = values > 1e-7 * values[-1].clamp(min=1e-12)
    return vectors[:, is_kept], values[is_kept]


def _search(problems: _Problems, place: _Place, step: Tensor) -> tuple[_Place, Tensor]:
    """Shorten the step of a problem until its loss falls enough, but for rounding (Armijo).

    Returns the place that was tried last, and which problems (P,) fell enough.
    """
    slope = (step * place.gradient).sum(dim=(1, 2))
    sizes = torch.ones_like(slope)
    tried = problems.evaluate(place.made + step)
    for _ in range(12):
        rise = tried.loss - place.loss
        is_enough = rise <= 1e-4 * sizes * slope + 2e-7 * (place.loss + 0.1)
        if is_enough.all():
            break
        left = (~is_enough).nonzero()[:, 0]
        lowest = -slope * sizes / (2 * (rise - slope * sizes))  # of the parabola, as a share of the step
        sizes = torch.where(is_enough, sizes, sizes * lowest.nan_to_num(0.1).clamp(0.1, 0.5))
        tried.put(left, problems.choose(left).evaluate(place.made[left] + sizes[left, None, None] * step[left]))
    return tried, is_enough


def _times(inverse: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient (P, C, R + 1) times a diagonal of the same shape, or times blocks (P, C, R + 1, R + 1)."""
    return inverse * gradient if inverse.dim() == 3 else (inverse @ gradient[..., None])[..., 0]


def _two_loops(gradient: Tensor, history: list[tuple[Tensor, Tensor]], inverse: Tensor) -> Tensor:
    """Return the gradient times the approximate inverse Hessian; a pair without curvature counts for nothing."""
    direction, factors = gradient.clone(), []
    for moved, changed in reversed(history):
        curvature = (moved * changed).sum(dim=(1, 2), keepdim=True)
        inverse_curvature = torch.where(curvature > 1e-12, 1 / curvature.clamp(min=1e-12), 0.0)
        factor = inverse_curvature * (moved * direction).sum(dim=(1, 2), keepdim=True)
        direction -= factor * changed
        factors.append((factor, inverse_curvature))
    direction = _times(inverse, direction)
    if history:
        moved, changed = history[-1]
        scale = (moved * changed).sum(dim=(1, 2), keepdim=True)
        norm = (changed * _times(inverse, changed)).sum(dim=(1, 2), keepdim=True)
        direction *= torch.where((scale > 1e-12) & (norm > 1e-12), scale / norm.clamp(min=1e-12), 1.0)
    for (moved, changed), (factor, inverse_curvature) in zip(history, reversed(factors), strict=True):
        direction += (factor - inverse_curvature * (changed * direction).sum(dim=(1, 2), keepdim=True)) * moved
    return direction
