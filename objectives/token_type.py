"""Token type classification."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from corpora.tables import Tables

from .attributes import AttributeObjective

_CONTENT, _STOP_WORD, _DIGIT, _PUNCTUATION = range(4)


@dataclass(frozen=True, kw_only=True)
class TokenTypeClassification(AttributeObjective):
    """Tell what kind of word was hidden (Yamaguchi et al., 2021, section 3.1, https://arxiv.org/abs/2109.01819).

    Punctuation has no letter or digit, a digit word is made of digits and signs, and stop words are the
    `num_stop_words` tokens of letters in lower case that the training text has most often: a rule for any language,
    where the authors take an English list.
    """

    name: ClassVar[str] = "token_type"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"token_type": ("content", "stop_word", "digit", "punctuation")}

    num_stop_words: int = 100

    def classify(self, texts: list[str], token_ids: np.ndarray, tables: Tables) -> np.ndarray:
        stop_words = find_stop_words(tables, self.num_stop_words)
        return np.array([_kind(text, stop_words) for text in texts], dtype=np.int64)


def find_stop_words(tables: Tables, count: int) -> frozenset[str]:
    """Return the commonest tokens that are letters in lower case."""
    texts = tables.token_texts
    found: list[str] = []
    for token_id in np.argsort(-tables.unigram_counts, kind="stable"):
        if len(found) == count or not tables.unigram_counts[token_id]:
            break
        if texts[token_id].isalpha() and texts[token_id] == texts[token_id].lower():
            found.append(texts[token_id])
    return frozenset(found)


def _kind(text: str, stop_words: frozenset[str]) -> int:
    if not any(letter.isalnum() for letter in text):
        return _PUNCTUATION
    if not any(letter.isalpha() for letter in text):
        return _DIGIT
    return _STOP_WORD if text.lower() in stop_words else _CONTENT
