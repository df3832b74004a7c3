"""Next sentence prediction."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from corpora.passages import Passages

from .base import HeadSetting, Objective, TextStatistics
from .draws import Draws, to_integers
from .heads import Head, SequenceHead
from .sequences import Arrangement, Pieces, Selection

_TRIES = 8


@dataclass(frozen=True, kw_only=True)
class NextSentencePrediction(Objective):
    """Tell whether the second text follows the first (Devlin et al., 2019, section 3.1 and appendix A.2, https://arxiv.org/abs/1810.04805).

    `is_random_next` is 1 where the second text is from another document. A passage is cut after a random sentence; the
    second text is its rest, or starts where another document's passage would have been cut and is filled by the same
    rule, so that lengths tell nothing. Exactly half are random, always from another document; BERT's code gives 56 to
    66 % on short documents, some from the same one.
    """

    name: ClassVar[str] = "nsp"
    num_segments: ClassVar[int] = 2
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_random_next": ("is_next", "is_random")}

    @property
    def needs(self) -> str:
        return "passages of two sentences or more, from at least two documents"

    def can_carry(self, passages: Passages) -> np.ndarray:
        enough = passages.num_sentences >= 2
        return enough & (len(np.unique(passages.documents[enough])) >= 2)

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        passages, corpus = selection.passages, selection.corpus
        offsets = np.asarray(corpus.sentence_offsets)
        cuts = passages.first_sentences + 1 + to_integers(draws.per_example("cut")[:, 0], passages.num_sentences - 1)
        first_ends = offsets[cuts]
        room = selection.max_tokens - (first_ends - passages.starts)
        is_random = draws.halves("random")
        other_starts, other_ends = self._from_elsewhere(selection, room, draws)
        second_starts = np.where(is_random, other_starts, first_ends)
        second_ends = np.where(is_random, other_ends, passages.ends)

        rows = np.arange(len(passages))
        pieces = Pieces(
            starts=np.stack([passages.starts, second_starts], 1).ravel(),
            ends=np.stack([first_ends, second_ends], 1).ravel(),
            rows=np.repeat(rows, 2),
            segments=np.tile([0, 1], len(rows)),
        )
        return Arrangement(pieces=pieces, targets={"is_random_next": is_random.astype(np.int64)})

    def _from_elsewhere(self, selection: Selection, room: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """Return for each example a token range (B,), (B,) of another document.

        It holds as many whole sentences as fit into `room` (B,).
        """
        pool, corpus = selection.pool, selection.corpus
        documents = pool.documents[selection.indices]
        own_first = np.searchsorted(pool.documents, documents, side="left")[:, None]
        own_count = np.searchsorted(pool.documents, documents, side="right")[:, None] - own_first
        other = to_integers(draws.per_example("other", _TRIES), len(pool) - own_count)  # (B, tries)
        other += own_count * (other >= own_first)
        cuts = pool.first_sentences[other] + 1
        cuts += to_integers(draws.per_example("other_cut", _TRIES), pool.num_sentences[other] - 1)
        offsets = np.asarray(corpus.sentence_offsets)
        fits = offsets[cuts + 1] - offsets[cuts] <= room[:, None]
        rows = np.arange(len(room))
        chosen = fits.argmax(axis=1)  # the first that fits; where none does, the first, cut short
        cut, document = cuts[rows, chosen], pool.documents[other[rows, chosen]]
        starts = offsets[cut]
        last = np.searchsorted(offsets, starts + room, side="right") - 1
        last = np.minimum(last, np.asarray(corpus.document_offsets)[document + 1])
        return starts, np.where(fits[rows, chosen], offsets[last], starts + room)

    def build_head(self, setting: HeadSetting) -> Head:
        return SequenceHead(setting.config, "is_random_next", num_classes=2)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2)}
