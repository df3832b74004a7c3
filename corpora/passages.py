"""Passages: the runs of whole sentences of one document that examples are made from."""

from dataclasses import dataclass

import numpy as np

from .store import Corpus

UNITS = ("document", "paragraph")  # what a passage may not go beyond
SHORTEST = 4  # tokens of a sentence that says enough to be compared with another of its paragraph


@dataclass(frozen=True, kw_only=True)
class Passages:
    """P passages in the order of the corpus, as ranges into its store; every array is (P,), int64 or bool."""

    starts: np.ndarray  # first token
    ends: np.ndarray  # one past the last token
    first_sentences: np.ndarray
    last_sentences: np.ndarray  # one past the last sentence; a piece of an over-long sentence counts as one sentence
    documents: np.ndarray
    opens_unit: np.ndarray  # bool: it begins the document, or the paragraph, that passages were cut from
    num_paragraphs: np.ndarray  # of which it holds two sentences or more of at least SHORTEST tokens

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def num_sentences(self) -> np.ndarray:
        return self.last_sentences - self.first_sentences

    @property
    def fair_firsts(self) -> np.ndarray:
        """The first sentence whose length says nothing of its place (P,); the passage's second, mostly.

        A passage begins with the sentence that was too long for the passage before, so it is longer than the others.
        """
        return self.first_sentences + ~self.opens_unit

    @property
    def num_fair(self) -> np.ndarray:
        return self.last_sentences - self.fair_firsts

    def select(self, indices: np.ndarray) -> "Passages":
        """Return the passages at `indices` (or where a boolean mask is true), in that order."""
        return Passages(**{name: getattr(self, name)[indices] for name in self.__dataclass_fields__})


def cut_passages(corpus: Corpus, max_tokens: int, *, held_out: bool, unit: str = "document") -> Passages:
    """Fill passages of at most `max_tokens` tokens with whole sentences, never across documents.

    Where the `unit` is "paragraph", never across paragraphs either. A sentence longer than `max_tokens` is cut into
    pieces, each a passage of its own, so that no objective takes a piece for a sentence.
    """
    offsets = np.asarray(corpus.sentence_offsets)
    num_sentences = len(offsets) - 1
    document_of = np.repeat(np.arange(corpus.num_documents), np.diff(corpus.document_offsets))
    fits_until = np.searchsorted(offsets, offsets[:-1] + max_tokens, side="right") - 1
    starts_unit = np.zeros(num_sentences + 1, dtype=bool)
    starts_unit[np.asarray(corpus.document_offsets)] = True
    if unit == "paragraph":
        starts_unit[:-1] |= np.asarray(corpus.paragraph_starts)
    boundaries = np.flatnonzero(starts_unit)
    ends_of_units = boundaries[np.searchsorted(boundaries, np.arange(num_sentences), side="right")]
    following = np.minimum(fits_until, ends_of_units).tolist()
    firsts = []
    sentence = 0
    while sentence < num_sentences:
        firsts.append(sentence)
        sentence = max(following[sentence], sentence + 1)
    first = np.array(firsts, dtype=np.int64)
    last = np.append(first[1:], num_sentences).astype(np.int64)[: len(first)]
    num_paragraphs = _count_paragraphs(corpus, first)
    keep = (np.asarray(corpus.is_held_out)[document_of[first]] == held_out) & (offsets[last] > offsets[first])
    first, last, num_paragraphs = first[keep], last[keep], num_paragraphs[keep]

    pieces = np.maximum(
        -(-(offsets[last] - offsets[first]) // max_tokens), 1
    )  # more than one only for an over-long sentence
    place = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first, last, num_paragraphs = (np.repeat(each, pieces) for each in (first, last, num_paragraphs))
    starts = offsets[first] + place * max_tokens
    return Passages(
        starts=starts,
        ends=np.minimum(starts + max_tokens, offsets[last]),
        first_sentences=first,
        last_sentences=last,
        documents=document_of[first],
        opens_unit=starts_unit[first] & (place == 0),
        num_paragraphs=num_paragraphs,
    )


def _count_paragraphs(corpus: Corpus, firsts: np.ndarray) -> np.ndarray:
    """Return of how many paragraphs each passage, by its first sentence (P,), holds two sentences to compare."""
    starts_anew = np.array(corpus.paragraph_starts, dtype=bool)
    starts_anew[firsts] = True
    parts = np.cumsum(starts_anew) - 1  # of paragraphs, cut at the passages' ends
    is_long = np.diff(corpus.sentence_offsets) >= SHORTEST
    has_two = np.bincount(parts, is_long, int(starts_anew.sum())) >= 2
    passages = np.searchsorted(firsts, np.flatnonzero(starts_anew), side="right") - 1
    return np.bincount(passages, has_two, len(firsts)).astype(np.int64)
