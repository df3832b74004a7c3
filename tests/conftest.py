"""A small vocabulary, and corpora written down as nested lists of token ids."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from corpora import Vocabulary

SPECIALS = (0, 1, 2, 3, 4)


@dataclass(kw_only=True)
class WrittenCorpus:
    """Has what objectives read of a Corpus, made from documents of sentences of token ids."""

    documents: list[list[list[int]]]
    vocabulary: Vocabulary
    held_out: tuple[int, ...] = ()
    token_ids: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        sentences = [sentence for document in self.documents for sentence in document]
        self.token_ids = np.array([token for sentence in sentences for token in sentence], dtype=np.uint16)
        self.sentence_offsets = np.cumsum([0] + [len(sentence) for sentence in sentences])
        self.document_offsets = np.cumsum([0] + [len(document) for document in self.documents])
        self.is_held_out = np.isin(np.arange(len(self.documents)), self.held_out)
        self.unigram_counts = np.bincount(self.token_ids, minlength=self.vocabulary.size)
        self.num_documents = len(self.documents)

    def gather_word_starts(self, positions: np.ndarray) -> np.ndarray:
        return self.token_ids[positions] % 3 != 0  # every third id continues a word


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary(
        size=200, pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4, special_ids=SPECIALS, num_separators=1
    )


@pytest.fixture(scope="session")
def corpus(vocabulary: Vocabulary) -> WrittenCorpus:
    """60 documents of 1 to 12 sentences of 1 to 14 tokens; the last ten are held out."""
    rng = np.random.default_rng(0)
    documents = [
        [rng.integers(5, 200, size=rng.integers(1, 15)).tolist() for _ in range(rng.integers(1, 13))] for _ in range(60)
    ]
    return WrittenCorpus(documents=documents, vocabulary=vocabulary, held_out=tuple(range(50, 60)))
