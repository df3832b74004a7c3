"""Passages: the runs of whole sentences of one document that examples are made from."""

from dataclasses import dataclass

import numpy as np

from .store import Corpus


@dataclass(frozen=True, kw_only=True)
class Passages:
    """P passages in the order of the corpus, as ranges into its store; every array is int64 (P,)."""

    starts: np.ndarray  # first token
    ends: np.ndarray  # one past the last token
    first_sentences: np.ndarray
    last_sentences: np.ndarray  # one past the last sentence; a piece of an over-long sentence counts as one sentence
    documents: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def num_sentences(self) -> np.ndarray:
        return self.last_sentences - self.first_sentences

    def select(self, indices: np.ndarray) -> "Passages":
        """Return the passages at `indices` (or where a boolean mask is true), in that order."""
        return Passages(**{name: getattr(self, name)[indices] for name in self.__dataclass_fields__})


def cut_passages(corpus: Corpus, max_tokens: int, *, held_out: bool) -> Passages:
    """Fill passages of at most `max_tokens` tokens with whole sentences, never across documents.

    A sentence longer than `max_tokens` is cut into pieces, each a passage of its own, so that no objective takes a
    piece for a sentence.
    """
    offsets = np.asarray(corpus.sentence_offsets)
    num_sentences = len(offsets) - 1
    document_of = np.repeat(np.arange(corpus.num_documents), np.diff(corpus.document_offsets))
    fits_until = np.searchsorted(offsets, offsets[:-1] + max_tokens, side="right") - 1
    following = np.minimum(fits_until, np.asarray(corpus.document_offsets)[document_of + 1]).tolist()
    firsts = []
    sentence = 0
    while sentence < num_sentences:
        firsts.append(sentence)
        sentence = max(following[sentence], sentence + 1)
    first = np.array(firsts, dtype=np.int64)
    last = np.append(first[1:], num_sentences).astype(np.int64)[: len(first)]
    keep = (np.asarray(corpus.is_held_out)[document_of[first]] == held_out) & (offsets[last] > offsets[first])
    first, last = first[keep], last[keep]

    pieces = np.maximum(
        -(-(offsets[last] - offsets[first]) // max_tokens), 1
    )  # more than one only for an over-long sentence
    place = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first, last = np.repeat(first, pieces), np.repeat(last, pieces)
    starts = offsets[first] + place * max_tokens
    return Passages(
        starts=starts,
        ends=np.minimum(starts + max_tokens, offsets[last]),
        first_sentences=first,
        last_sentences=last,
        documents=document_of[first],
    )
