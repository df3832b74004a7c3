"""Next sentence prediction."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from corpora.passages import Passages

from . import pairs
from .draws import Draws, to_integers
from .sequences import Arrangement, Selection


@dataclass(frozen=True, kw_only=True)
class NextSentencePrediction(pairs.PairObjective):
    """Tell whether the second text follows the first (Devlin et al., 2019, section 3.1 and appendix A.2, https://arxiv.org/abs/1810.04805).

    `is_random_next` is 1 where the second text is from another document. A passage is cut after a random sentence; the
    second text is its rest, or starts where another document's passage would have been cut and is filled by the same
    rule, so that lengths tell nothing. Exactly half are random, always from another document; BERT's code gives 56 to
    66 % on short documents, some from the same one.
    """

    name: ClassVar[str] = "nsp"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_random_next": ("is_next", "is_random")}

    @property
    def needs(self) -> str:
        return "passages of two sentences or more, from at least two documents"

    def can_carry(self, passages: Passages) -> np.ndarray:
        return pairs.has_two_documents(passages, passages.num_sentences >= 2)

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        passages, corpus = selection.passages, selection.corpus
        cuts = passages.first_sentences + 1 + to_integers(draws.per_example("cut")[:, 0], passages.num_sentences - 1)
        first = pairs.between(corpus, passages.first_sentences, cuts)
        rest = pairs.between(corpus, cuts, passages.last_sentences)
        is_random = draws.halves("random")
        pool, others = selection.pool, pairs.draw_others(selection, draws)
        steps = to_integers(draws.per_example("other_cut", pairs.TRIES), pool.num_sentences[others] - 1)
        room = selection.max_tokens - first.lengths
        elsewhere = pairs.fill_elsewhere(selection, others, pool.first_sentences[others] + 1 + steps, room)
        pieces = pairs.pair_up(first, pairs.choose(is_random, elsewhere, rest))
        return Arrangement(pieces=pieces, targets={"is_random_next": is_random.astype(np.int64)})
