"""Same paragraph prediction."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from corpora.passages import Passages

from .draws import Draws
from .pairs import PairObjective, Texts, between, draw_others, draw_two_paragraphs, has_two_documents, pair_up
from .sequences import Arrangement, Selection


@dataclass(frozen=True, kw_only=True)
class SameParagraph(PairObjective):
    """Tell whether two sentences are of one paragraph (Di Liello et al., 2022, the first of its three tasks, https://arxiv.org/abs/2205.10455).

    `is_same_paragraph` is 1 for exactly half of the pairs. The other half are sentences of two paragraphs of one
    passage, or with `hard=false` of two documents. Both come from paragraphs of which the passage holds two sentences
    or more, so a heading is never a second text; a sentence longer than half a row is cut short, whatever the answer.
    """

    name: ClassVar[str] = "same_paragraph"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_same_paragraph": ("other_paragraph", "same_paragraph")}

    hard: bool = True

    @property
    def needs(self) -> str:
        if self.hard:
            return "passages with two sentences each of two paragraphs"
        return "passages with two sentences of a paragraph, from at least two documents"

    def can_carry(self, passages: Passages) -> np.ndarray:
        if self.hard:
            return passages.num_paragraphs >= 2
        return has_two_documents(passages, passages.num_paragraphs >= 1)

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        same, other = draw_two_paragraphs(selection, draws)
        if not self.hard:
            elsewhere = replace(selection, indices=draw_others(selection, draws)[:, 0])
            other, _ = draw_two_paragraphs(elsewhere, draws.within("elsewhere"))
        is_same = draws.halves("same")
        second = np.where(is_same, same[:, 1], other[:, 0])
        pieces = pair_up(self._show(selection, same[:, 0]), self._show(selection, second))
        return Arrangement(pieces=pieces, targets={"is_same_paragraph": is_same.astype(np.int64)})

    def _show(self, selection: Selection, sentences: np.ndarray) -> Texts:
        texts = between(selection.corpus, sentences, sentences + 1)
        return Texts(starts=texts.starts, ends=np.minimum(texts.ends, texts.starts + selection.max_tokens // 2))
