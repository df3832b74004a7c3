"""Online code length of labels given features, in bits (Voita and Titov, 2020).

online_code(features, labels, *, num_classes=None, units=None, shuffles=3, seed=0, l2_grid=..., device=None) -> Code
    features as in fit.py, of the items that are to be coded (those in training, by the paper); items of one unit (a
    sentence) stay together
Code: bits (layers,), deviation (layers,) over the shuffles, uniform_bits, unigram_bits, num_items,
    compression (layers,), gain (layers,): bits an item saved over the unigram code
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, log2

import numpy as np
import torch
from torch import Tensor

from corpora.errors import UserError

from .fit import Layers, choose_device, to_device
from .logistic import solve_logistic, standardise

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)  # Voita and Titov, section 4.1
L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MINIMUM_BLOCK = 10  # items; smaller first blocks say nothing
_STAY = 0.9  # the weight that a strength keeps from block to block; the rest is shared among all


@dataclass(frozen=True, kw_only=True)
class Code:
    """How many bits it takes to send the labels to someone who has the features, by layer; less is better."""

    bits: np.ndarray  # (layers,) mean over the shuffles
    deviation: np.ndarray  # (layers,) of the shuffles, which is what the borders of the blocks add; NaN for one
    uniform_bits: float  # n * log2 C
    unigram_bits: float  # n * H2(labels): what knowing the shares of the labels alone costs
    num_items: int

    @property
    def compression(self) -> np.ndarray:
        """(layers,) uniform bits over bits, as in the paper; above 1 for skewed labels even if features say nothing."""
        return self.uniform_bits / self.bits

    @property
    def gain(self) -> np.ndarray:
        """(layers,) bits an item saved over the unigram code."""
        return (self.unigram_bits - self.bits) / self.num_items


def online_code(
    features: Layers,
    labels: np.ndarray,
    *,
    num_classes: int | None = None,
    units: np.ndarray | None = None,
    shuffles: int = 3,
    seed: int = 0,
    l2_grid: Sequence[float] = L2_GRID,
    device: str | torch.device | None = None,
) -> Code:
    """Send labels (N,) block by block, each by a linear probe that was trained on those before it.

    Voita and Titov (2020, section 2.2, https://arxiv.org/abs/2003.12298), with four differences. Everything is in bits:
    their code adds natural logarithms to the first block's bits. Nothing is chosen on dev, whose labels would have to
    be sent too: strengths of regularisation are experts whose predictions are mixed by how well they have coded so far,
    with a share that changes hands at each block (Herbster and Warmuth, 1998), and the mixture is what is counted. A
    chance of 1 / (t + 1) after t items is spread over all classes, so that one not yet seen costs little. And the probe
    is linear, where theirs has two hidden layers. Compare code lengths from here among themselves only.

    The first block costs n_1 log2 C. `units` (N,) gives the sentence of each item. UserError for fewer than 2 blocks.
    """
    place, size = choose_device(device), num_classes or int(labels.max()) + 1
    if size < 2:
        raise UserError("all labels are the same, so there is nothing to send; a code needs at least 2 classes")
    orders = [shuffle_units(len(labels), units, np.random.default_rng([seed, number])) for number in range(shuffles)]
    bits = np.zeros((len(features), shuffles))
    strengths = torch.tensor(l2_grid, dtype=torch.float32, device=place)
    targets = torch.from_numpy(labels.astype(np.int64)).to(place)
    for layer in range(len(features)):
        items = to_device(features[layer], place)
        items = standardise(items, items)  # both sides have the features
        for number, (order, ends) in enumerate(orders):
            shuffled = torch.from_numpy(order).to(place)
            bits[layer, number] = _code(items[shuffled], targets[shuffled], ends, strengths, size)
    counts = np.bincount(labels)
    return Code(
        bits=bits.mean(axis=1),
        deviation=bits.std(axis=1, ddof=1) if shuffles > 1 else np.full(len(bits), np.nan),
        uniform_bits=len(labels) * log2(size),
        unigram_bits=float(-(counts[counts > 0] * np.log2(counts[counts > 0] / len(labels))).sum()),
        num_items=len(labels),
    )


def shuffle_units(count: int, units: np.ndarray | None, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Return an order of the items in which units stay together, and where the blocks end, at ends of units.

    Blocks below MINIMUM_BLOCK items are joined with the next.
    """
    _, members = np.unique(np.arange(count) if units is None else units, return_inverse=True)
    if len(members) != count:
        raise ValueError(f"{len(members)} units for {count} items")
    ranks = rng.permutation(members.max() + 1)
    order = np.argsort(ranks[members], kind="stable")
    ends_of_units = np.flatnonzero(np.diff(ranks[members][order], append=-1)) + 1
    ends: list[int] = []
    for fraction in FRACTIONS:
        end = int(ends_of_units[np.searchsorted(ends_of_units, round(fraction * count))])
        if end >= (ends[-1] if ends else 0) + MINIMUM_BLOCK or (fraction == 1.0 and ends and ends[-1] < count):
            ends.append(end)
    if len(ends) < 2:
        raise UserError(f"{count} items are too few to send in blocks; {4 * MINIMUM_BLOCK} or more would do")
    return order, ends


def code_length(log_chances: Tensor, labels: Tensor) -> Tensor:
    """Return the bits that labels (n,) cost under natural log-probabilities (..., n, C)."""
    places = labels.expand(log_chances.shape[:-1])[..., None]
    return -log_chances.gather(-1, places)[..., 0].double().sum(dim=-1) / log(2)


def _code(items: Tensor, labels: Tensor, ends: list[int], strengths: Tensor, num_classes: int) -> float:
    """Return the bits of labels (n,) given items (n, F), both in the order in which they are sent."""
    total = ends[0] * log2(num_classes)
    shares = torch.full((len(strengths),), -log2(len(strengths)), dtype=torch.float64)  # log2 of the experts' weights
    for begin, end in zip(ends[:-1], ends[1:], strict=True):
        weights, biases = solve_logistic(items[:begin], labels[None, :begin], strengths, num_classes)
        logits = torch.einsum("nf,gfc->gnc", items[begin:end], weights[0]) + biases[0][:, None]
        escape = 1 / (begin + 1)
        chances = logits.double().softmax(dim=2) * (1 - escape) + escape / num_classes
        costs = code_length(chances.log(), labels[begin:end]).cpu()  # (G,)
        weighed = shares - costs
        sent = -torch.logsumexp(weighed * log(2), dim=0) / log(2)
        total += float(sent)
        kept = torch.exp2(weighed + sent)
        shares = (_STAY * kept + (1 - _STAY) / len(strengths)).log2()
    return total
