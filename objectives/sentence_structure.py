"""StructBERT's sentence structural objective."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from . import pairs
from .draws import Draws
from .sequences import Arrangement, Selection


@dataclass(frozen=True, kw_only=True)
class SentenceStructure(pairs.PairObjective):
    """Tell whether the second text follows, precedes or is random (Wang et al., 2020, section 2.3, https://arxiv.org/abs/1908.04577).

    `relation` is of the second text to the first: 0 it follows in the document, 1 it precedes, 2 it is from another
    document; each is exactly a third. The texts are the two sides of a cut in a passage, as in `sop`; one from another
    document begins where its passage would have been cut and fills the same room, and is set beside either side.
    """

    name: ClassVar[str] = "sentence_structure"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"relation": ("next", "previous", "random")}

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        passages, corpus = selection.passages, selection.corpus
        cuts = pairs.draw_cuts(passages, draws)
        earlier = pairs.between(corpus, passages.fair_firsts, cuts)
        later = pairs.between(corpus, cuts, passages.last_sentences)
        relation = pairs.draw_in_turn(draws, "relation", 3)
        earlier_leads = np.where(relation == 2, pairs.draw_leads(draws), relation == 0)
        first, second = pairs.choose(earlier_leads, earlier, later), pairs.choose(earlier_leads, later, earlier)
        room = pairs.room_beside(selection, selection.indices, first.lengths)
        others = pairs.draw_others(selection, draws)
        cuts = pairs.draw_cuts_of(selection.pool, others, draws)
        elsewhere = pairs.fill_elsewhere(selection, others, cuts, room)
        pieces = pairs.pair_up(first, pairs.choose(relation == 2, elsewhere, second))
        return Arrangement(pieces=pieces, targets={"relation": relation})
