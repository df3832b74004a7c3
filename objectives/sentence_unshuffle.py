"""Sentence unshuffling."""

from dataclasses import dataclass
from itertools import permutations
from math import factorial, log
from typing import ClassVar

import numpy as np

from .base import HeadSetting, TextStatistics
from .draws import Draws
from .heads import Head, SequenceHead
from .heads_detection import TokenClassHead
from .ordering import OrderObjective, cut_into, fair_sentences_of, places_within, reorder
from .pairs import draw_in_turn
from .sequences import Arrangement, Selection


@dataclass(frozen=True, kw_only=True)
class SentenceUnshuffling(OrderObjective):
    """Name the order that blocks of sentences were put in (Sun et al., 2020, sentence reordering, https://arxiv.org/abs/1907.12412).

    A passage is cut between sentences into exactly `num_blocks` blocks, which are permuted; every order, their own too,
    is equally frequent. `asked=permutation` asks at [CLS] which of the n! it is, ERNIE 2.0's classes without those of
    fewer blocks: class "231" shows the second block first. `asked=places` asks at each block's first token where it
    stood, as Lee et al., 2020, https://arxiv.org/abs/2010.16249, point to sentences, but without a decoder.
    """

    name: ClassVar[str] = "sentence_unshuffle"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"block_order": ("123", "132", "213", "231", "312", "321")}

    num_blocks: int = 3
    asked: str = "permutation"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.num_blocks <= 5:
            raise ValueError(f"num_blocks is {self.num_blocks}; it must be from 2 to 5, for 2 to 120 orders")
        if self.asked not in ("permutation", "places"):
            raise ValueError(f"asked is '{self.asked}'; known: permutation, places")
        if self.asked == "places":
            labels = {"block_place": tuple(str(place + 1) for place in range(self.num_blocks))}
        else:
            labels = {"block_order": tuple("".join(str(block + 1) for block in order) for order in self._orders)}
        object.__setattr__(self, "labels", labels)

    @property
    def _orders(self) -> list[tuple[int, ...]]:
        return list(permutations(range(self.num_blocks)))

    @property
    def least(self) -> int:
        return self.num_blocks

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        blocks = cut_into(fair_sentences_of(selection), self.num_blocks, draws)
        drawn = draw_in_turn(draws, "order", factorial(self.num_blocks))
        places = np.array(self._orders)[drawn].ravel()
        pieces = reorder(blocks, np.arange(len(places)) - places_within(blocks.rows) + places)
        if self.asked == "places":
            return Arrangement(pieces=pieces, piece_targets={"block_place": places})
        return Arrangement(pieces=pieces, targets={"block_order": drawn})

    def build_head(self, setting: HeadSetting) -> Head:
        if self.asked == "places":
            return TokenClassHead(setting.config, "block_place", self.num_blocks)
        return SequenceHead(setting.config, "block_order", factorial(self.num_blocks))

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        classes = self.num_blocks if self.asked == "places" else factorial(self.num_blocks)
        return {f"ln {classes}": log(classes)}
