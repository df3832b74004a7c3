"""Sentence shuffle detection."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from corpora.passages import Passages

from .base import HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head, SequenceHead
from .sequences import Arrangement, Pieces, Selection, sentences_of

_TRIES = 64


@dataclass(frozen=True, kw_only=True)
class SentenceShuffleDetection(Objective):
    """Tell whether the sentences of a passage stand in their order.

    The binary form of Lee et al., 2020, https://arxiv.org/abs/2010.16249, and of DiscoEval's sentence ordering, Chen et
    al., 2019, section 3.2, https://arxiv.org/abs/1909.00142.

    `is_shuffled` is 1 where the order differs. Half of the passages are shuffled, by a permutation that is never the
    identity and uniform among the others; both halves hold the same tokens, so nothing but order tells them apart.
    Where equal sentences make the shuffled text read as the original, it is labelled so.
    """

    name: ClassVar[str] = "sentence_shuffle"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_shuffled": ("in_order", "shuffled")}

    min_sentences: int = 3

    def __post_init__(self) -> None:
        if self.min_sentences < 2:
            raise ValueError(f"min_sentences is {self.min_sentences}; at least 2 are needed for an order to change")

    @property
    def needs(self) -> str:
        return f"passages of {self.min_sentences} sentences or more"

    def can_carry(self, passages: Passages) -> np.ndarray:
        return passages.num_sentences >= self.min_sentences

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        sentences = sentences_of(selection)
        is_shuffled = draws.halves("shuffled")
        order = permute_within(sentences.rows, is_shuffled, draws)
        pieces = Pieces(
            starts=sentences.starts[order], ends=sentences.ends[order], rows=sentences.rows, segments=sentences.segments
        )
        differs = is_shuffled & reads_differently(selection, sentences, pieces)
        return Arrangement(pieces=pieces, targets={"is_shuffled": differs.astype(np.int64)})

    def build_head(self, setting: HeadSetting) -> Head:
        return SequenceHead(setting.config, "is_shuffled", num_classes=2)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2)}


def permute_within(rows: np.ndarray, is_shuffled: np.ndarray, draws: Draws) -> np.ndarray:
    """Return an order (N,) of the pieces that permutes those of each shuffled row.

    It is uniform among the permutations but the identity.
    """
    identity = np.arange(len(rows))
    counts = np.bincount(rows, minlength=len(is_shuffled))
    places = identity - np.repeat(np.cumsum(counts) - counts, counts)
    order = identity
    pending = is_shuffled & (counts >= 2)
    for attempt in range(_TRIES):  # a draw is the identity with probability 1 / n!, so that few attempts are ever made
        if not pending.any():
            break
        words = draws.per_token(f"permute{attempt}", rows, places)
        drawn = np.lexsort((words, rows))
        order = np.where(pending[rows], drawn, order)
        moved = np.bincount(rows[order != identity], minlength=len(is_shuffled)) > 0
        pending = pending & ~moved
    return order


def reads_differently(selection: Selection, before: Pieces, after: Pieces) -> np.ndarray:
    """Say for each example whether its text changed (B,), which equal sentences can prevent."""
    changed = np.zeros(len(selection.indices), dtype=bool)
    tokens = selection.corpus.token_ids
    moved = np.flatnonzero(before.starts != after.starts)
    for row in np.unique(before.rows[moved]):
        pieces = np.flatnonzero(before.rows == row)
        old, new = (
            np.concatenate([tokens[start:end] for start, end in zip(p.starts[pieces], p.ends[pieces], strict=True)])
            for p in (before, after)
        )
        changed[row] = not np.array_equal(old, new)
    return changed
