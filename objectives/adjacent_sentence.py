"""Adjacent sentence prediction."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from . import pairs
from .draws import Draws
from .sequences import Arrangement, Selection


@dataclass(frozen=True, kw_only=True)
class AdjacentSentencePrediction(pairs.PairObjective):
    """Tell of two sentences whether the second is the next, the previous, or another document's.

    (Aroca-Ouellette and Rudzicz, 2020, "adjacent sentence prediction", https://arxiv.org/abs/2010.01694.)

    `relation` is 0 where the second sentence follows the first in the document, 1 where it precedes it, and 2 where it
    is from another document; each is exactly a third. Each text is one sentence, where the authors' code takes longer
    texts and `sentence_structure` here does; the one from elsewhere is a neighbour of a cut like the one it replaces.
    """

    name: ClassVar[str] = "adjacent_sentence"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"relation": ("next", "previous", "other")}

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        corpus = selection.corpus
        relation = pairs.draw_in_turn(draws, "relation", 3)
        earlier_leads = np.where(relation == 2, pairs.draw_leads(draws), relation == 0)
        places, cuts = pairs.cut_beside(selection, [pairs.draw_others(selection, draws)], draws)  # (2, B, TRIES)
        firsts = cuts - earlier_leads[:, None]
        seconds = cuts - ~earlier_leads[:, None]
        rooms = pairs.room_beside(selection, places, pairs.between(corpus, firsts, firsts + 1).lengths)
        fits = pairs.between(corpus, seconds, seconds + 1).lengths.max(axis=0) <= rooms.min(axis=0)
        rows, chosen = np.arange(len(relation)), fits.argmax(axis=1)  # each could stand in the other's place

        first, second = firsts[0, rows, chosen], seconds[(relation == 2).astype(int), rows, chosen]
        room = selection.max_tokens - pairs.between(corpus, first, first + 1).lengths
        pieces = pairs.pair_up(
            pairs.between(corpus, first, first + 1), pairs.take_sentences(corpus, second, np.ones_like(second), room)
        )
        return Arrangement(pieces=pieces, targets={"relation": relation})
