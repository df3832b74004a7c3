"""A small vocabulary, and corpora written down as nested lists of token ids."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from corpora import Vocabulary

SPECIALS = (0, 1, 2, 3, 4)


@dataclass(kw_only=True)
class WrittenCorpus:
    """Has what objectives read of a Corpus, made from documents of sentences of token ids."""

    documents: list[list[list[int]]]
    vocabulary: Vocabulary
    folder: Path
    held_out: tuple[int, ...] = ()
    token_ids: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        sentences = [sentence for document in self.documents for sentence in document]
        self.token_ids = np.array([token for sentence in sentences for token in sentence], dtype=np.uint16)
        self.sentence_offsets = np.cumsum([0] + [len(sentence) for sentence in sentences])
        self.document_offsets = np.cumsum([0] + [len(document) for document in self.documents])
        self.is_held_out = np.isin(np.arange(len(self.documents)), self.held_out)
        training = ~np.repeat(np.repeat(self.is_held_out, list(map(len, self.documents))), list(map(len, sentences)))
        self.unigram_counts = np.bincount(self.token_ids[training], minlength=self.vocabulary.size)
        self.num_documents = len(self.documents)
        self.num_sentences = len(sentences)
        self.paragraph_starts = np.arange(len(sentences)) % 3 == 0  # every third sentence opens a paragraph
        self.paragraph_starts[self.document_offsets[:-1]] = True

    @property
    def unigram_entropy(self) -> float:
        rates = self.unigram_counts[self.unigram_counts > 0] / self.unigram_counts.sum()
        return float(-(rates * np.log(rates)).sum())

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return a WordPiece tokenizer of the 200 tokens of `word_of`."""
        words = {word_of(token_id): token_id for token_id in range(self.vocabulary.size)}
        backend = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
        backend.decoder = decoders.WordPiece()
        names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        special = {name: word_of(token_id) for token_id, name in enumerate(names)}
        return PreTrainedTokenizerFast(tokenizer_object=backend, **special)

    def gather_word_starts(self, positions: np.ndarray) -> np.ndarray:
        return self.token_ids[positions] % 3 != 0  # every third id continues a word


def word_of(token_id: int) -> str:
    """Return the text of an id: five special tokens, then words of every kind, every third a continuation."""
    if token_id < 5:
        return ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")[token_id]
    letters = "abcdefghijklmnopqrstuvwxyz"
    word = letters[token_id % 26] + letters[token_id // 26] * (1 + token_id % 4)
    if token_id % 3 == 0:
        return "##" + word
    kinds = {7: ".", 8: ",", 10: "the", 11: "of", 13: "and", 14: "1984", 16: "7", 17: "é"}
    return kinds.get(token_id, word.capitalize() if token_id % 5 == 0 else word)


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary(
        size=200, pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4, special_ids=SPECIALS, num_separators=1
    )


@pytest.fixture(scope="session")
def corpus(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> WrittenCorpus:
    """60 documents of 1 to 12 sentences of 1 to 14 tokens; the last ten are held out."""
    rng = np.random.default_rng(0)
    documents = [
        [rng.integers(5, 200, size=rng.integers(1, 15)).tolist() for _ in range(rng.integers(1, 13))] for _ in range(60)
    ]
    return WrittenCorpus(
        documents=documents,
        vocabulary=vocabulary,
        folder=tmp_path_factory.mktemp("corpus"),
        held_out=tuple(range(50, 60)),
    )
