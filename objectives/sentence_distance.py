"""Sentence distance prediction."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from corpora.passages import Passages

from .base import HeadSetting, Objective, TextStatistics
from .draws import Draws, to_integers
from .heads import Head, SequenceHead
from .pairs import (
    TRIES,
    between,
    draw_cuts,
    draw_in_turn,
    draw_other_cuts,
    fill_from,
    has_two_documents,
    pair_up,
    room_beside,
    take_fitting,
    take_sentences,
)
from .sequences import Arrangement, Selection


@dataclass(frozen=True, kw_only=True)
class SentenceDistance(Objective):
    """Tell how far the second text is from the first (Sun et al., 2020, structure-aware tasks, https://arxiv.org/abs/1907.12412).

    `distance` is 0 where it follows at once, 1 where it comes later in the document, after a gap of a sentence or more,
    and 2 where it is from another document; each is exactly a third. A passage that no text follows in its document is
    left out, so no class turns into another on short documents, as in code that falls back to what is there. Of all
    three texts as many sentences are shown as each of them has: neither lengths nor the document's end tell.
    """

    name: ClassVar[str] = "sentence_distance"
    num_segments: ClassVar[int] = 2
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"distance": ("adjacent", "same_document", "other_document")}

    @property
    def needs(self) -> str:
        return "passages of three sentences or more that more text of their document follows, from two documents"

    def can_carry(self, passages: Passages) -> np.ndarray:
        is_followed = np.append(np.diff(passages.documents) == 0, False)[: len(passages)]
        return has_two_documents(passages, is_followed & (passages.num_fair >= 2))

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        passages, corpus, rows = selection.passages, selection.corpus, np.arange(len(selection.indices))
        cuts = draw_cuts(passages, draws)
        first = between(corpus, passages.fair_firsts, cuts)
        room = room_beside(selection, first)

        left = np.asarray(corpus.document_offsets)[passages.documents + 1] - passages.last_sentences
        further = passages.last_sentences[:, None] + to_integers(draws.per_example("further", TRIES), left[:, None])
        further = further[rows, take_fitting(corpus, further, room)]
        others, documents = draw_other_cuts(selection, draws)
        chosen = take_fitting(corpus, others, room)
        other, document = others[rows, chosen], documents[rows, chosen]

        counts = np.minimum(passages.last_sentences - cuts, fill_from(corpus, further, passages.documents, room))
        counts = np.minimum(counts, fill_from(corpus, other, document, room))
        distance = draw_in_turn(draws, "distance", 3)
        second = take_sentences(corpus, np.choose(distance, [cuts, further, other]), counts, room)
        return Arrangement(pieces=pair_up(first, second), targets={"distance": distance})

    def build_head(self, setting: HeadSetting) -> Head:
        return SequenceHead(setting.config, "distance", num_classes=3)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 3": log(3)}
