"""Sentence order prediction."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import HeadSetting, TextStatistics
from .draws import Draws
from .heads import Head, SequenceHead
from .heads_pairs import SegmentPairHead, check_pooling
from .ordering import OrderObjective
from .pairs import between, choose, draw_cuts, pair_up
from .sequences import Arrangement, Selection


@dataclass(frozen=True, kw_only=True)
class SentenceOrderPrediction(OrderObjective):
    """Tell whether two consecutive texts have changed places (Lan et al., 2020, section 3.1, https://arxiv.org/abs/1909.11942).

    `is_swapped` is 1 where the second text was read first. A passage is cut after a random sentence; exactly half of
    the pairs are swapped. Both texts are always from one passage: ALBERT's code puts a random document's text in the
    place of a missing one and calls it swapped too, 14 to 36 % of all that it calls so. The passage's first sentence is
    left out unless it opens the document: it was too long for the passage before, and where it stood would tell.
    `pooling=segments` asks the mean vectors of both texts instead of [CLS]; see `SegmentPairHead`.
    """

    name: ClassVar[str] = "sop"
    num_segments: ClassVar[int] = 2
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_swapped": ("in_order", "swapped")}

    pooling: str = "cls"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pooling(self.pooling)

    @property
    def least(self) -> int:
        return 2

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        passages, corpus = selection.passages, selection.corpus
        cuts = draw_cuts(passages, draws)
        earlier = between(corpus, passages.fair_firsts, cuts)
        later = between(corpus, cuts, passages.last_sentences)
        is_swapped = draws.halves("swapped")
        pieces = pair_up(choose(is_swapped, later, earlier), choose(is_swapped, earlier, later))
        return Arrangement(pieces=pieces, targets={"is_swapped": is_swapped.astype(np.int64)})

    def build_head(self, setting: HeadSetting) -> Head:
        head = SequenceHead if self.pooling == "cls" else SegmentPairHead
        return head(setting.config, "is_swapped", num_classes=2)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2)}
