"""Probes fitted to frozen features: linear ones, every layer, all strengths of regularisation at once.

fit_linear(features, labels, split, *, control_labels=None, metric="accuracy", l2_grid=L2_GRID, device=None) -> Fit
    features: a sequence over layers of (N, F) arrays, or (layers, N, F); labels (N,) from 0; split (N,) of TRAIN, DEV,
    TEST, where items of any other value (-1: lost to truncation) are neither learned from nor scored
Fit: predictions (layers, N), scores (layers, N) or None, dev (layers,), test (layers,), best_layer (chosen on dev),
    l2 (layers,) or None, metric, control (a Fit or None), selectivity (layers,), mix (layers,) or None

Dimensions: N items, n of them in training, F features, C classes, T label sets, G strengths of regularisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from corpora.errors import UserError

from .logistic import Solution, measure, rescale, solve_best
from .metrics import score
from .probe import DEV, TEST, TRAIN, Metric

L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_PART = 1024  # items that are standardised at once, to be judged: what the cache of a processor holds

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
    chosen on dev for each layer and label set, from solutions that are nearly exact; the chosen one is then solved to
    the end. scikit-learn's C is 1 / (l2 * n). The problem is convex and needs no seed. UserError where train, dev or
    test is empty or a feature isn't finite.
    """
    sets = stack_labels(labels, control_labels, split)
    place, num_classes = choose_device(device), int(sets.max()) + 1
    strengths = torch.tensor(l2_grid, dtype=torch.float32, device=place)
    train, dev = (torch.from_numpy(np.flatnonzero(split == number)).to(place) for number in (TRAIN, DEV))
    targets = torch.from_numpy(sets).to(place)
    logits, chosen = [], []
    for layer in range(len(features)):
        items = to_device(features[layer], place)
        learned = items[train]
        mean, inverse = measure(learned)
        judged = rescale(items[dev], mean, inverse)

        def choose(nearly: Solution, judged: Tensor = judged) -> Tensor:
            return _choose_strengths(_apply(nearly, judged), targets[:, dev], metric)

        found, best = solve_best(rescale(learned, mean, inverse), targets[:, train], strengths, num_classes, choose)
        parts = [_apply(found, rescale(part.clone(), mean, inverse))[:, 0] for part in items.split(_PART)]
        logits.append(torch.cat(parts, dim=1))
        chosen.append(np.asarray(l2_grid)[best.cpu().numpy()])
    return collect_fit(logits, sets, split, metric, l2=np.stack(chosen))


def _apply(solution: Solution, items: Tensor) -> Tensor:
    """Return logits (T, G, N, C) of items (N, F)."""
    weights, biases = solution
    return items @ weights + biases[:, :, None]


def _choose_strengths(logits: Tensor, targets: Tensor, metric: Metric) -> Tensor:
    """Return which strength (T,) is best on dev by logits (T, G, n, C); of equals the one of lower loss."""
    best = []
    for found, labels in zip(logits, targets, strict=True):
        judged = [judge(metric, labels.cpu().numpy(), each) for each in found]
        losses = [float(functional.cross_entropy(each, labels)) for each in found]
        best.append(max(range(len(judged)), key=lambda number: (judged[number], -losses[number])))
    return torch.tensor(best, device=logits.device)


def judge(metric: Metric, labels: np.ndarray, logits: Tensor) -> float:
    """Return the score of logits (n, C) against labels (n,)."""
    return score(metric, labels, logits.argmax(dim=1).cpu().numpy(), log_odds(logits))


def log_odds(logits: Tensor) -> np.ndarray | None:
    """Return the log odds (n,) of class 1 from logits (n, C), where there are two classes."""
    return (logits[:, 1] - logits[:, 0]).cpu().numpy() if logits.shape[1] == 2 else None


def collect_fit(
    logits: Sequence[Tensor],
    sets: np.ndarray,
    split: np.ndarray,
    metric: Metric,
    *,
    l2: np.ndarray | None = None,
    mix: np.ndarray | None = None,
) -> Fit:
    """Make the Fit of the first label set, with that of the second as its control, from logits (T, N, C) by layer.

    `l2` is (layers, T).
    """
    made: Fit | None = None
    for number in reversed(range(len(sets))):
        labels = sets[number]
        found = [each[number] for each in logits]
        scores = [log_odds(each) for each in found]
        dev, test = (
            np.array(
                [
                    judge(metric, labels[split == part], each[torch.from_numpy(split == part).to(each.device)])
                    for each in found
                ]
            )
            for part in (DEV, TEST)
        )
        made = Fit(
            metric=metric,
            labels=labels,
            split=split,
            predictions=np.stack([each.argmax(dim=1).cpu().numpy() for each in found]),
            scores=None if scores[0] is None else np.stack([each for each in scores if each is not None]),
            dev=dev,
            test=test,
            l2=None if l2 is None else l2[:, number],
            mix=mix,
            control=made,
        )
    assert made is not None
    return made


def stack_labels(labels: np.ndarray, control_labels: np.ndarray | None, split: np.ndarray) -> np.ndarray:
    """Return the label sets (T, N) int64, after a look at what there is to learn and to judge."""
    for name, number in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        if not (split == number).any():
            raise UserError(f"a probe has no {name} items left; give more text, or an encoder that reads longer texts")
    return np.stack([labels] if control_labels is None else [labels, control_labels]).astype(np.int64)


def choose_device(device: str | torch.device | None) -> torch.device:
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def to_device(items: np.ndarray, device: torch.device) -> Tensor:
    """Return items as float32 on the device; UserError where one isn't finite."""
    made = torch.from_numpy(np.asarray(items, dtype=np.float32)).to(device)
    if not torch.isfinite(made.sum()) and not torch.isfinite(made).all():  # the sum alone costs little
        raise UserError("a feature is NaN or infinite; the encoder's weights are broken")
    return made
