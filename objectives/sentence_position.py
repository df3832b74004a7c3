"""Sentence position prediction."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import HeadSetting, TextStatistics
from .draws import Draws, to_integers
from .heads import Head, SequenceHead
from .ordering import OrderObjective
from .pairs import draw_in_turn
from .sequences import Arrangement, Pieces, Selection


@dataclass(frozen=True, kw_only=True)
class SentencePosition(OrderObjective):
    """Tell where the sentence that now stands first stood (Chen et al., 2019, section 3.1, https://arxiv.org/abs/1909.00142).

    DiscoEval's sentence position task as pretraining: one of five consecutive sentences of a passage is moved to the
    front, and `position` is where it was, 0 for one that always stood there; each is exactly a fifth. They read as one
    text, where DiscoEval encodes each sentence by itself.
    """

    name: ClassVar[str] = "sentence_position"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"position": ("first", "second", "third", "fourth", "fifth")}

    num_sentences: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        most = len(type(self).labels["position"])
        if not 2 <= self.num_sentences <= most:
            raise ValueError(f"num_sentences is {self.num_sentences}; it must be from 2 to {most}")
        labels = {"position": type(self).labels["position"][: self.num_sentences]}
        object.__setattr__(self, "labels", labels)

    @property
    def least(self) -> int:
        return self.num_sentences

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        passages, count = selection.passages, self.num_sentences
        first = passages.fair_firsts + to_integers(draws.per_example("run")[:, 0], passages.num_fair - count + 1)
        position = draw_in_turn(draws, "position", count)
        place = np.arange(count)[None, :]
        order = np.where(place == 0, position[:, None], place - (place <= position[:, None]))
        sentences = (first[:, None] + order).ravel()
        offsets, rows = np.asarray(selection.corpus.sentence_offsets), np.repeat(np.arange(len(passages)), count)
        pieces = Pieces(starts=offsets[sentences], ends=offsets[sentences + 1], rows=rows, segments=np.zeros_like(rows))
        return Arrangement(pieces=pieces, targets={"position": position})

    def build_head(self, setting: HeadSetting) -> Head:
        return SequenceHead(setting.config, "position", self.num_sentences)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {f"ln {self.num_sentences}": log(self.num_sentences)}
