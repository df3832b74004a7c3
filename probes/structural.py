"""The structural probe: a linear map under which squared distances are tree distances (Hewitt and Manning, 2019).

fit_structural(features, heads, offsets, split, *, is_punctuation=None, rank=None, seed=0, ...) -> StructuralFit
    features: a sequence over layers of (W, D) word vectors, or (layers, W, D); heads: (W,) place of each word's head in
    its sentence from 0, -1 for the root; offsets: (S + 1,) where sentences begin; split: (S,) TRAIN, DEV or TEST
StructuralFit: uuas (layers,) and dspr (layers,) on test, dev_uuas (layers,), best_layer (chosen on dev),
    right_edges (layers, S) and num_edges (S,): for an interval over sentences or documents

Dimensions: S sentences, W words of all, L words of the longest of a batch, B sentences of a batch, D hidden, R rank.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from corpora.errors import UserError

from .fit import Layers, choose_device, to_device
from .logistic import standardise
from .probe import DEV, TEST, TRAIN
from .trees import distance_spearman, list_edges, minimum_spanning_tree, tree_distances

LENGTHS = (5, 50)  # sentences whose distance correlation counts (Hewitt and Manning, section 3.2)
STEPS_OF_AN_EPOCH = 200  # at most: of many sentences more go into a batch than the paper's 20


@dataclass(frozen=True, kw_only=True)
class StructuralFit:
    """How much of undirected trees each layer holds in its distances."""

    right_edges: np.ndarray  # (layers, S) int64, of dev and test: edges that the minimum spanning tree has
    num_edges: np.ndarray  # (S,) int64, between words that are no punctuation
    correlations: np.ndarray  # (layers, S) of test: sums over words of Spearman's correlation of their distances
    num_correlated: np.ndarray  # (layers, S) int64: over how many words
    lengths: np.ndarray  # (S,) words
    split: np.ndarray  # (S,)

    @property
    def uuas(self) -> np.ndarray:
        """(layers,) share of the true edges between words that the minimum spanning tree has, on test."""
        return self._share(TEST)

    @property
    def dev_uuas(self) -> np.ndarray:
        """(layers,) the same on dev."""
        return self._share(DEV)

    @property
    def dspr(self) -> np.ndarray:
        """(layers,) Spearman's correlation of distances: mean over the words of a length, then over lengths."""
        return np.array([self.weigh_dspr(layer, np.ones((1, len(self.lengths))))[0] for layer in range(len(self.uuas))])

    @property
    def best_layer(self) -> int:
        """The layer that is best on dev, the lowest of equals; its test figures are the ones to report."""
        return int(np.argmax(self.dev_uuas))

    def weigh_dspr(self, layer: int, weights: np.ndarray) -> np.ndarray:
        """Return a layer's distance correlations (draws,), each sentence counted as `weights` (draws, S) say."""
        members = np.eye(LENGTHS[1] + 1)[np.minimum(self.lengths, LENGTHS[1])]  # (S, lengths)
        sums = weights @ (self.correlations[layer][:, None] * members)
        counts = weights @ (self.num_correlated[layer][:, None] * members)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        return np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else np.nan for row in means])

    def _share(self, part: int) -> np.ndarray:
        chosen = self.split == part
        return self.right_edges[:, chosen].sum(axis=1) / max(1, int(self.num_edges[chosen].sum()))


def fit_structural(
    features: Layers,
    heads: np.ndarray,
    offsets: np.ndarray,
    split: np.ndarray,
    *,
    is_punctuation: np.ndarray | None = None,
    rank: int | None = None,
    seed: int = 0,
    max_epochs: int = 30,
    learning_rate: float = 1e-3,
    device: str | torch.device | None = None,
) -> StructuralFit:
    """Learn for each layer a matrix (D, R) under which squared distances between words are those in the tree.

    The loss is the authors': absolute differences of the distances of all pairs of a sentence, over its length squared,
    mean over sentences; the rate is halved when dev no longer improves, and five such epochs end it. Punctuation (W,)
    is in the training, and left out of the spanning trees and their edges. Different here: features are standardised,
    a batch of 20 sentences grows where there are more than 4,000, and those of like length go together; `rank` is D
    unless given. Sentences of any other split (-1) are not used. UserError where a split has no sentence of 2 words.
    """
    words = np.zeros(len(heads), dtype=bool) if is_punctuation is None else np.asarray(is_punctuation, dtype=bool)
    bounds = list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
    trees = [_Tree(heads=heads[begin:end], is_punctuation=words[begin:end]) for begin, end in bounds]
    lengths = np.diff(offsets)
    for name, number in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        if not ((split == number) & (lengths > 1)).any():
            raise UserError(f"the structural probe has no {name} sentence of two words or more; give a larger treebank")
    place = choose_device(device)
    in_train = torch.from_numpy(np.repeat(split == TRAIN, lengths)).to(place)
    distances = [tree.distances for tree in trees]
    figures = []
    for layer in range(len(features)):
        items = to_device(features[layer], place)
        data = _Sentences(standardise(items, items[in_train]), offsets, distances)
        projection = _train(data, split, rank or items.shape[1], seed, max_epochs, learning_rate)
        figures.append(_judge(data, trees, split, projection))
    right, correlations, counts = (np.stack(each) for each in zip(*figures, strict=True))
    return StructuralFit(
        right_edges=right.astype(np.int64),
        num_edges=np.array([len(tree.edges) for tree in trees]),
        correlations=correlations,
        num_correlated=counts.astype(np.int64),
        lengths=lengths,
        split=split,
    )


class _Tree:
    """A sentence's tree, and what is asked of it."""

    def __init__(self, *, heads: np.ndarray, is_punctuation: np.ndarray) -> None:
        self.distances = tree_distances(heads)  # (L, L)
        self.edges = list_edges(heads, is_punctuation)
        self.kept = np.flatnonzero(~is_punctuation)

    def count_right(self, made: np.ndarray) -> int:
        """Return how many of the edges the spanning tree of distances (L, L) has."""
        found = self.kept[minimum_spanning_tree(made[np.ix_(self.kept, self.kept)])]
        return len(self.edges & {(int(a), int(b)) for a, b in np.sort(found, axis=1)})


def _judge(data: "_Sentences", trees: Sequence[_Tree], split: np.ndarray, projection: Tensor) -> np.ndarray:
    """Return for each sentence of dev and test (3, S): right edges, and on test the sum and number of correlations."""
    figures = np.zeros((3, len(trees)))
    for number in np.flatnonzero((split == DEV) | (split == TEST)).tolist():
        tree, made = trees[number], data.distances(number, projection)
        if tree.edges:
            figures[0, number] = tree.count_right(made)
        if split[number] == TEST and LENGTHS[0] <= len(made) <= LENGTHS[1]:
            found = distance_spearman(made, tree.distances)
            figures[1:, number] = sum(found), len(found)
    return figures


class _Sentences:
    """Word vectors and true distances, sentence by sentence."""

    def __init__(self, items: Tensor, offsets: np.ndarray, distances: Sequence[np.ndarray]) -> None:
        self.items, self.offsets, self.trees = items, offsets, distances

    def distances(self, number: int, projection: Tensor) -> np.ndarray:
        """Return the squared distances (L, L) of one sentence under a projection (D, R)."""
        rows = self.items[self.offsets[number] : self.offsets[number + 1]] @ projection
        return _square_distances(rows[None].double())[0].cpu().numpy()

    def batches(self, numbers: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield items (B, L, D), distances (B, L, L) and lengths (B,) of sentences of like length, shuffled."""
        lengths = np.diff(self.offsets)
        numbers = numbers[np.argsort(lengths[numbers] + rng.random(len(numbers)), kind="stable")]
        size = max(20, len(numbers) // STEPS_OF_AN_EPOCH)
        groups = np.split(numbers, np.arange(size, len(numbers), size))
        for place in rng.permutation(len(groups)):
            yield self._pad(groups[place], lengths[groups[place]])

    def _pad(self, numbers: np.ndarray, lengths: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        width = int(lengths.max())
        places = np.minimum(self.offsets[numbers][:, None] + np.arange(width), len(self.items) - 1)
        true = np.zeros((len(numbers), width, width), dtype=np.float32)
        for row, number in enumerate(numbers):
            true[row, : lengths[row], : lengths[row]] = self.trees[number]
        device = self.items.device
        return (
            self.items[torch.from_numpy(places).to(device)],
            torch.from_numpy(true).to(device),
            torch.from_numpy(lengths).to(device),
        )


def _square_distances(rows: Tensor) -> Tensor:
    """Return the squared distances (B, L, L) between rows (B, L, R)."""
    squares = rows.square().sum(dim=2)
    return squares[:, :, None] + squares[:, None, :] - 2 * rows @ rows.transpose(1, 2)


def _loss(batch: tuple[Tensor, Tensor, Tensor], projection: Tensor) -> Tensor:
    """Return the sum over sentences of the absolute differences of distances over the length squared."""
    rows, true, lengths = batch
    is_word = torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]
    is_pair = is_word[:, :, None] & is_word[:, None, :]
    apart = (_square_distances(rows @ projection) - true).abs() * is_pair
    return (apart.sum(dim=(1, 2)) / lengths.square()).sum()


def _train(data: _Sentences, split: np.ndarray, rank: int, seed: int, max_epochs: int, learning_rate: float) -> Tensor:
    """Return the projection (D, R) of the epoch that was best on dev."""
    rng, width = np.random.default_rng(seed), data.items.shape[1]
    lengths = np.diff(data.offsets)
    train, dev = (np.flatnonzero((split == number) & (lengths > 1)) for number in (TRAIN, DEV))
    start = rng.uniform(-0.05, 0.05, size=(width, rank)).astype(np.float32)
    projection = torch.from_numpy(start).to(data.items.device).requires_grad_()
    optimizer = torch.optim.Adam([projection], lr=learning_rate)
    best, lowest, last = projection.detach().clone(), float("inf"), 0
    for epoch in range(max_epochs):
        for batch in data.batches(train, rng):
            optimizer.zero_grad()
            (_loss(batch, projection) / len(batch[2])).backward()
            optimizer.step()
        with torch.no_grad():
            now = sum(float(_loss(batch, projection)) for batch in data.batches(dev, rng)) / len(dev)
        if now < lowest - 1e-4:
            best, lowest, last = projection.detach().clone(), now, epoch
        else:
            optimizer.param_groups[0]["lr"] *= 0.5
        if epoch - last >= 5:
            break
    return best
