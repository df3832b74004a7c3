"""Trees by their heads: distances in them, spanning trees of distances, and what a chain of neighbours finds of them.

tree_distances(heads) -> (L, L) int; minimum_spanning_tree(distances) -> (L - 1, 2); list_edges(heads, is_punctuation)
linear_chain_uuas(heads, offsets, is_punctuation=None) -> float       the baseline that links each word to the next
distance_spearman(made, true) -> a correlation for each word

Dimensions: L words of a sentence.
"""

import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree as _spanning_tree
from scipy.stats import rankdata

from corpora.errors import UserError


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
        edges = list_edges(heads[begin:end], words[begin:end])
        right += len(edges & set(zip(kept[:-1], kept[1:], strict=True)))
        total += len(edges)
    return right / total if total else float("nan")


def list_edges(heads: np.ndarray, is_punctuation: np.ndarray) -> set[tuple[int, int]]:
    """Return the edges between words, the earlier first; one that has punctuation at either end is none."""
    edges = [(min(word, head), max(word, head)) for word, head in enumerate(heads.tolist()) if head >= 0]
    return {edge for edge in edges if not is_punctuation[list(edge)].any()}
