"""Same sentence prediction."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from corpora import Corpus
from corpora.passages import Passages

from .draws import Draws, to_integers
from .pairs import PairObjective, Texts, between, draw_others, draw_two_paragraphs, has_two_documents, pair_up
from .sequences import Arrangement, Selection

_LONGEST_WORD = 16  # tokens that are searched for the edge of a word


@dataclass(frozen=True, kw_only=True)
class SameSentence(PairObjective):
    """Tell whether two spans are of one sentence (a finer grain of Di Liello et al., 2022, https://arxiv.org/abs/2205.10455).

    `is_same_sentence` is 1 for exactly half of the pairs; the spans of the others are of two sentences of a paragraph,
    or with `hard=false` of two documents. The first span is always a sentence's head and the second a sentence's tail,
    so capitals and full stops say nothing and none has to be removed, which ids of tokens would not allow. Both are
    whole words where a word's edge is near, and together as long as the shorter of the two sentences.
    """

    name: ClassVar[str] = "same_sentence"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_same_sentence": ("other_sentence", "same_sentence")}

    hard: bool = True

    @property
    def needs(self) -> str:
        return "passages with two sentences of a paragraph" + ("" if self.hard else ", from at least two documents")

    def can_carry(self, passages: Passages) -> np.ndarray:
        enough = passages.num_paragraphs >= 1
        return enough if self.hard else has_two_documents(passages, enough)

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        corpus, (sentences, _) = selection.corpus, draw_two_paragraphs(selection, draws)
        one, other = sentences.T
        if not self.hard:
            elsewhere = replace(selection, indices=draw_others(selection, draws)[:, 0])
            other = draw_two_paragraphs(elsewhere, draws.within("elsewhere"))[0][:, 0]
        is_same = draws.halves("same")
        left, right = between(corpus, one, one + 1), between(corpus, other, other + 1)
        shorter = np.minimum(left.lengths, right.lengths)
        head = 1 + to_integers(draws.per_example("head")[:, 0], shorter - 1)
        tail = np.where(is_same, left.ends, right.ends)
        first = Texts(starts=left.starts, ends=_to_word_edge(corpus, left.starts + head, left.starts, -1))
        second = Texts(starts=_to_word_edge(corpus, tail - (shorter - head), tail, 1), ends=tail)
        return Arrangement(pieces=pair_up(first, second), targets={"is_same_sentence": is_same.astype(np.int64)})


def _to_word_edge(corpus: Corpus, positions: np.ndarray, limits: np.ndarray, step: int) -> np.ndarray:
    """Return the nearest start of a word, `step` by step, before `limits` (B,) is reached; else the position itself."""
    found, last = positions, len(corpus.token_ids) - 1
    for _ in range(_LONGEST_WORD):
        is_inside = (found != limits) & ~corpus.gather_word_starts(np.minimum(found, last))
        found = found + step * is_inside
    is_edge = (found != limits) & corpus.gather_word_starts(np.minimum(found, last))
    return np.where(is_edge, found, positions)
