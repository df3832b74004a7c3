"""Sentence shuffle detection."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from corpora.passages import Passages

from .base import HeadSetting, TextStatistics
from .draws import Draws
from .heads import Head, SequenceHead
from .ordering import (
    WholePassageObjective,
    fair_sentences_of,
    move_some,
    permute_within,
    places_within,
    reads_differently,
    reorder,
    swap_neighbours,
)
from .sequences import Arrangement, Selection, sentences_of

HARDNESS = ("any", "adjacent_swap", "moved")


@dataclass(frozen=True, kw_only=True)
class SentenceShuffleDetection(WholePassageObjective):
    """Tell whether the sentences of a passage stand in their order.

    The binary form of Lee et al., 2020, https://arxiv.org/abs/2010.16249, and of DiscoEval's sentence ordering, Chen et
    al., 2019, section 3.2, https://arxiv.org/abs/1909.00142.

    `is_shuffled` is 1 where the order differs. Half of the passages are shuffled, by a permutation that is never the
    identity and uniform among the others; both halves hold the same tokens, so nothing but order tells them apart.
    Where equal sentences make the shuffled text read as the original, it is labelled so.

    Harder than `hardness=any`: `adjacent_swap`, two neighbours change places; `moved`, `num_moved` sentences from
    anywhere change places in a ring. `keep_ends` leaves the first and the last sentence where they are.

    A passage's first sentence is longer than the others, for it was too long for the passage before: its length alone
    tells an order from a shuffled one better than chance, to an encoder that has read nothing. So it is left out unless
    it opens the document; `fair_lengths=false` shuffles it with the others.
    """

    name: ClassVar[str] = "sentence_shuffle"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_shuffled": ("in_order", "shuffled")}

    hardness: str = "any"
    num_moved: int = 2
    keep_ends: bool = False
    fair_lengths: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hardness not in HARDNESS:
            raise ValueError(f"hardness is '{self.hardness}'; known: {', '.join(HARDNESS)}")
        if self.num_moved < 2:
            raise ValueError(f"num_moved is {self.num_moved}; no fewer than 2 sentences can change places")

    @property
    def least(self) -> int:
        movable = self.num_moved if self.hardness == "moved" else 2
        return max(super().least, movable + 2 * self.keep_ends)

    @property
    def needs(self) -> str:
        return super().needs if self.fair_lengths else f"passages of {self.least} sentences or more"

    def can_carry(self, passages: Passages) -> np.ndarray:
        return super().can_carry(passages) if self.fair_lengths else passages.num_sentences >= self.least

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        sentences = fair_sentences_of(selection) if self.fair_lengths else sentences_of(selection)
        is_shuffled = draws.halves("shuffled")
        pieces = reorder(sentences, self._reorder(sentences.rows, is_shuffled, draws))
        differs = is_shuffled & reads_differently(selection, sentences, pieces)
        return Arrangement(pieces=pieces, targets={"is_shuffled": differs.astype(np.int64)})

    def _reorder(self, rows: np.ndarray, is_shuffled: np.ndarray, draws: Draws) -> np.ndarray:
        """Return the order (N,) of all sentences, those of unshuffled rows and fixed ends as they stand."""
        places, order = places_within(rows), np.arange(len(rows))
        is_end = (places == 0) | (np.append(places[1:], 0) == 0)
        movable = np.flatnonzero(~(is_end & self.keep_ends))
        if self.hardness == "adjacent_swap":
            order[movable] = movable[swap_neighbours(rows[movable], is_shuffled, draws)]
        elif self.hardness == "moved":
            order[movable] = movable[move_some(rows[movable], is_shuffled, self.num_moved, draws)]
        else:
            order[movable] = movable[permute_within(rows[movable], is_shuffled, draws)]
        return order

    def build_head(self, setting: HeadSetting) -> Head:
        return SequenceHead(setting.config, "is_shuffled", num_classes=2)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2)}
