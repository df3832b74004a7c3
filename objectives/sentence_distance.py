"""Sentence distance prediction."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from corpora.passages import Passages

from . import pairs
from .draws import Draws
from .sequences import Arrangement, Selection


@dataclass(frozen=True, kw_only=True)
class SentenceDistance(pairs.PairObjective):
    """Tell how far the second text is from the first (Sun et al., 2020, structure-aware tasks, https://arxiv.org/abs/1907.12412).

    `distance` is 0 where it follows at once, 1 where it is from elsewhere in the document, with a sentence or more
    between, and 2 where it is from another document; each is exactly a third. A passage whose document has no other is
    left out, so no class turns into another on short documents, as in code that falls back to what is there. All three
    texts follow a cut in a passage, and as many sentences are shown as each of them has: lengths don't tell.
    """

    name: ClassVar[str] = "sentence_distance"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"distance": ("adjacent", "same_document", "other_document")}

    @property
    def needs(self) -> str:
        return "documents with two passages of three sentences or more, at least two of them"

    def can_carry(self, passages: Passages) -> np.ndarray:
        enough = passages.num_fair >= 2
        carrying = np.bincount(passages.documents[enough], minlength=int(passages.documents.max(initial=0)) + 1)
        return pairs.has_two_documents(passages, enough & (carrying[passages.documents] >= 2))

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        corpus, pool, rows = selection.corpus, selection.pool, np.arange(len(selection.indices))
        others = [pairs.draw_siblings(selection, draws), pairs.draw_others(selection, draws)]
        places, cuts = pairs.cut_beside(selection, others, draws)  # (3, B, TRIES)
        firsts, rooms = pairs.measure_rest(selection, places, cuts)
        chosen = (firsts.max(axis=0) <= rooms.min(axis=0)).argmax(axis=1)  # each could stand in any other's place
        places, cuts, room = places[:, rows, chosen], cuts[:, rows, chosen], rooms.min(axis=0)[rows, chosen]

        counts = pairs.fill_from(corpus, cuts, pool.last_sentences[places], room).min(axis=0)
        distance = pairs.draw_in_turn(draws, "distance", 3)
        first = pairs.between(corpus, pool.fair_firsts[selection.indices], cuts[0])
        second = pairs.take_sentences(corpus, cuts[distance, rows], counts, room)
        return Arrangement(pieces=pairs.pair_up(first, second), targets={"distance": distance})
