"""The structural probe: a linear map under which squared distances are tree distances (Hewitt and Manning, 2019).

fit_structural(features, heads, offsets, split, *, is_punctuation=None, rank=None, seed=0, ...) -> StructuralFit
    features: a sequence over layers of (W, D) word vectors, or (layers, W, D); heads: (W,) place of each word's head in
    its sentence from 0, -1 for the root; offsets: (S + 1,) where sentences begin; split: (S,) TRAIN, DEV or TEST
StructuralFit: uuas (layers,) and dspr (layers,) on test, dev_uuas (layers,), best_layer (chosen on dev),
    right_edges (layers, S) and num_edges (S,): for an interval over sentences or documents
linear_chain_uuas(heads, offsets, is_punctuation=None) -> float       the baseline that links each word to the next
tree_distances(heads) -> (L, L) int; minimum_spanning_tree(distances) -> (L - 1, 2)

Dimensions: S sentences, W words of all, L words of the longest of a batch, B sentences of a batch, D hidden, R rank.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.csgraph import minimum_spanning_tree as _spanning_tree
from scipy.stats import rankdata
from torch import Tensor

from corpora.errors import UserError

from .fit import Layers, choose_device, standardise, to_device
from .probe import DEV, TEST, TRAIN

LENGTHS = (5, 50)  # sentences whose distance correlation counts (Hewitt and Manning, section 3.2)
STEPS_OF_AN_EPOCH = 200  # at most: of many sentences more go into a batch than the paper's 20


@dataclass(frozen=True, kw_only=True)
class StructuralFit:
    """How much of undirected trees each layer holds in its distances."""

    uuas: np.ndarray  # (layers,) share of the true edges between words that the minimum spanning tree has
    dspr: np.ndarray  # (layers,) Spearman's correlation of distances: mean over words of a length, then over lengths
    dev_uuas: np.ndarray  # (layers,)
    right_edges: np.ndarray  # (layers, S) int64
    num_edges: np.ndarray  # (S,) int64
    split: np.ndarray  # (S,)

    @property
    def best_layer(self) -> int:
        """The layer that is best on dev, the lowest of equals; its test figures are the ones to report."""
        return int(np.argmax(self.dev_uuas))


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
    unless given. UserError where a split has no sentence of 2 words.
    """
    words = np.zeros(len(heads), dtype=bool) if is_punctuation is None else np.asarray(is_punctuation, dtype=bool)
    trees = [tree_distances(heads[begin:end]) for begin, end in zip(offsets[:-1], offsets[1:], strict=True)]
    edges = [
        _true_edges(heads[begin:end], words[begin:end]) for begin, end in zip(offsets[:-1], offsets[1:], strict=True)
    ]
    lengths = np.diff(offsets)
    for name, number in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        if not ((split == number) & (lengths > 1)).any():
            raise UserError(f"the structural probe has no {name} sentence of two words or more; give a larger treebank")
    place = choose_device(device)
    uuas, dspr, dev_uuas, right = [], [], [], np.zeros((len(features), len(lengths)), dtype=np.int64)
    num_edges = np.array([len(each) for each in edges])
    in_train = torch.from_numpy(np.repeat(split == TRAIN, lengths)).to(place)
    for layer in range(len(features)):
        items = to_device(features[layer], place)
        items = standardise(items, items[in_train])
        data = _Sentences(items, offsets, trees)
        projection = _train(data, split, rank or items.shape[1], seed, max_epochs, learning_rate)
        correlations: dict[int, list[float]] = {}
        for sentence in np.flatnonzero((split == DEV) | (split == TEST)).tolist():
            made = data.distances(sentence, projection)
            if num_edges[sentence]:
                kept = np.flatnonzero(~words[offsets[sentence] : offsets[sentence + 1]])
                found = kept[minimum_spanning_tree(made[np.ix_(kept, kept)])]
                right[layer, sentence] = len(edges[sentence] & {(int(a), int(b)) for a, b in np.sort(found, axis=1)})
            if split[sentence] == TEST and LENGTHS[0] <= lengths[sentence] <= LENGTHS[1]:
                correlations.setdefault(int(lengths[sentence]), []).extend(distance_spearman(made, trees[sentence]))
        uuas.append(right[layer, split == TEST].sum() / max(1, num_edges[split == TEST].sum()))
        dev_uuas.append(right[layer, split == DEV].sum() / max(1, num_edges[split == DEV].sum()))
        dspr.append(np.mean([np.mean(each) for each in correlations.values()]) if correlations else np.nan)
    return StructuralFit(
        uuas=np.array(uuas),
        dspr=np.array(dspr),
        dev_uuas=np.array(dev_uuas),
        right_edges=right,
        num_edges=num_edges,
        split=split,
    )


def tree_distances(heads: np.ndarray) -> np.ndarray:
    """Return the number of edges between any two words (L, L) of a tree given by its heads, -1 for the root.

    UserError where they form no tree: a loop, no root, or several.
    """
    count = len(heads)
    if (heads == -1).sum() != 1 or heads.max(initial=-1) >= count or heads.min(initial=-1) < -1:
        raise UserError(f"heads {heads.tolist()} form no tree: exactly one word is the root (-1)")
    ancestors = np.zeros((count, count), dtype=np.int64)  # of a word: itself and those above it
    above = np.arange(count)
    for _ in range(count):
        alive = above >= 0
        ancestors[alive, above[alive]] = 1
        above = np.where(alive, heads[above], -1)
        if (above < 0).all():
            break
    if (above >= 0).any():
        raise UserError(f"heads {heads.tolist()} form no tree: there is a loop")
    depths = ancestors.sum(axis=1)
    return depths[:, None] + depths[None, :] - 2 * (ancestors @ ancestors.T)


def minimum_spanning_tree(distances: np.ndarray) -> np.ndarray:
    """Return the edges (L - 1, 2) that join all words at the least sum of distances (L, L)."""
    weights = np.maximum(distances, 0) + 1e-6  # a zero would be no edge to scipy
    np.fill_diagonal(weights, 0)
    return np.stack(_spanning_tree(weights).nonzero(), axis=1)


def distance_spearman(made: np.ndarray, true: np.ndarray) -> list[float]:
    """Return for each word the rank correlation of its distances (L, L) to the others of the sentence and itself.

    A word that is as far from all others as from each gives no correlation and is left out.
    """
    ranks = [rankdata(each, axis=1) for each in (made, true)]
    first, second = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    norms = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return ((first * second).sum(axis=1)[norms > 0] / norms[norms > 0]).tolist()


def linear_chain_uuas(heads: np.ndarray, offsets: np.ndarray, is_punctuation: np.ndarray | None = None) -> float:
    """Return the share of edges that linking each word to the next would find, punctuation left out."""
    words = np.zeros(len(heads), dtype=bool) if is_punctuation is None else np.asarray(is_punctuation, dtype=bool)
    right = total = 0
    for begin, end in zip(offsets[:-1], offsets[1:], strict=True):
        kept = np.flatnonzero(~words[begin:end]).tolist()
        edges = _true_edges(heads[begin:end], words[begin:end])
        right += len(edges & set(zip(kept[:-1], kept[1:], strict=True)))
        total += len(edges)
    return right / total if total else float("nan")


def _true_edges(heads: np.ndarray, is_punctuation: np.ndarray) -> set[tuple[int, int]]:
    """Return the edges between words, the earlier first; one that has punctuation at either end is none."""
    edges = [(min(word, head), max(word, head)) for word, head in enumerate(heads.tolist()) if head >= 0]
    return {edge for edge in edges if not is_punctuation[list(edge)].any()}


class _Sentences:
    """Word vectors and true distances, sentence by sentence."""

    def __init__(self, items: Tensor, offsets: np.ndarray, trees: Sequence[np.ndarray]) -> None:
        self.items, self.offsets, self.trees = items, offsets, trees

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
