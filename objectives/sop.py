"""Sentence order prediction."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .draws import Draws
from .ordering import check_unit
from .pairs import PairObjective, between, choose, draw_cuts, pair_up
from .sequences import Arrangement, Selection


@dataclass(frozen=True, kw_only=True)
class SentenceOrderPrediction(PairObjective):
    """Tell whether two consecutive texts have changed places (Lan et al., 2020, section 3.1, https://arxiv.org/abs/1909.11942).

    `is_swapped` is 1 where the second text was read first. A passage is cut after a random sentence; exactly half of
    the pairs are swapped. Both texts are always from one passage: ALBERT's code puts a random document's text in the
    place of a missing one and calls it swapped too, 14 to 36 % of all that it calls so. The passage's first sentence is
    left out unless it opens the document: it was too long for the passage before, and where it stood would tell.
    `within=paragraph` cuts passages from single paragraphs; see `OrderObjective`.
    """

    name: ClassVar[str] = "sop"
    looks_elsewhere: ClassVar[bool] = False
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_swapped": ("in_order", "swapped")}

    within: str = "document"

    def __post_init__(self) -> None:
        check_unit(self.within)

    @property
    def unit(self) -> str:
        return self.within

    @property
    def needs(self) -> str:
        unit = "" if self.within == "document" else " of one paragraph"
        return f"passages{unit} of three sentences or more, or of two that open a {self.within}"

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        passages, corpus = selection.passages, selection.corpus
        cuts = draw_cuts(passages, draws)
        earlier = between(corpus, passages.fair_firsts, cuts)
        later = between(corpus, cuts, passages.last_sentences)
        is_swapped = draws.halves("swapped")
        pieces = pair_up(choose(is_swapped, later, earlier), choose(is_swapped, earlier, later))
        return Arrangement(pieces=pieces, targets={"is_swapped": is_swapped.astype(np.int64)})
