"""Rotation: which sentence was the first."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import HeadSetting, TextStatistics
from .draws import Draws, to_integers
from .heads import DetectionHead, Head
from .ordering import WholePassageObjective, fair_sentences_of, places_within, reorder
from .sequences import Arrangement, Selection


@dataclass(frozen=True, kw_only=True)
class Rotation(WholePassageObjective):
    """Tell which sentence was the first before the passage was turned round (Lewis et al., 2020, section 2.2, https://arxiv.org/abs/1910.13461).

    A sentence is drawn uniformly to begin with, the first one too, and what stood before it goes to the end. `is_first`
    is asked at the first token of each sentence: of n sentences 1 is positive. BART rotates at any token and generates
    the whole text; an encoder is asked for the start alone, at sentences, where no half of a sentence gives it away.
    """

    name: ClassVar[str] = "rotation"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_first": ("later", "first")}

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        sentences, counts = fair_sentences_of(selection), selection.passages.num_fair
        places = places_within(sentences.rows)
        start = to_integers(draws.per_example("start")[:, 0], counts)
        turned = (places + start[sentences.rows]) % counts[sentences.rows]
        pieces = reorder(sentences, np.arange(len(places)) - places + turned)
        return Arrangement(pieces=pieces, piece_targets={"is_first": (turned == 0).astype(np.int64)})

    def build_head(self, setting: HeadSetting) -> Head:
        return DetectionHead(setting.config, "is_first")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2)}
