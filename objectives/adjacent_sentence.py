"""Adjacent sentence prediction."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from corpora.passages import Passages

from .base import HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head, SequenceHead
from .pairs import (
    between,
    choose,
    draw_cuts,
    draw_in_turn,
    draw_leads,
    draw_other_cuts,
    has_two_documents,
    pair_up,
    room_beside,
    take_fitting,
    take_sentences,
)
from .sequences import Arrangement, Selection


@dataclass(frozen=True, kw_only=True)
class AdjacentSentencePrediction(Objective):
    """Tell of two sentences whether the second is the next, the previous, or another document's.

    (Aroca-Ouellette and Rudzicz, 2020, "adjacent sentence prediction", https://arxiv.org/abs/2010.01694.)

    `relation` is 0 where the second sentence follows the first in the document, 1 where it precedes it, and 2 where it
    is from another document; each is exactly a third. Each text is one sentence, where the authors' code takes longer
    texts and `sentence_structure` here does; the one from elsewhere is a neighbour of a cut like the one it replaces.
    """

    name: ClassVar[str] = "adjacent_sentence"
    num_segments: ClassVar[int] = 2
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"relation": ("next", "previous", "other")}

    @property
    def needs(self) -> str:
        return "passages of three sentences or more, or of two that open a document, from at least two documents"

    def can_carry(self, passages: Passages) -> np.ndarray:
        return has_two_documents(passages, passages.num_fair >= 2)

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        corpus, cuts = selection.corpus, draw_cuts(selection.passages, draws)
        earlier, later = between(corpus, cuts - 1, cuts), between(corpus, cuts, cuts + 1)
        relation = draw_in_turn(draws, "relation", 3)
        earlier_leads = np.where(relation == 2, draw_leads(draws), relation == 0)
        first, second = choose(earlier_leads, earlier, later), choose(earlier_leads, later, earlier)

        room = room_beside(selection, first)
        others = draw_other_cuts(selection, draws)[0] - ~earlier_leads[:, None]
        other = others[np.arange(len(cuts)), take_fitting(corpus, others, room)]
        elsewhere = take_sentences(corpus, other, np.ones_like(other), room)
        pieces = pair_up(first, choose(relation == 2, elsewhere, second))
        return Arrangement(pieces=pieces, targets={"relation": relation})

    def build_head(self, setting: HeadSetting) -> Head:
        return SequenceHead(setting.config, "relation", num_classes=3)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 3": log(3)}
