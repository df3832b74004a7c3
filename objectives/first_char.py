"""First character prediction."""

from dataclasses import dataclass
from string import ascii_lowercase
from typing import ClassVar
from unicodedata import normalize

import numpy as np

from corpora.tables import Tables

from .attributes import AttributeObjective

_PUNCTUATION, _DIGIT, _OTHER = 26, 27, 28


@dataclass(frozen=True, kw_only=True)
class FirstCharPrediction(AttributeObjective):
    """Tell the first letter of the hidden word (Yamaguchi et al., 2021, section 3.1, https://arxiv.org/abs/2109.01819).

    29 classes: a to z whatever the case, and accents taken off; punctuation, digit, other. The authors ask for the
    first character of a piece, which is `whole_word=false`.
    """

    name: ClassVar[str] = "first_char"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {
        "first_char": (*ascii_lowercase, "punctuation", "digit", "other"),
    }

    def classify(self, texts: list[str], token_ids: np.ndarray, tables: Tables) -> np.ndarray:
        return np.array([_class_of(text) for text in texts], dtype=np.int64)


def _class_of(text: str) -> int:
    first = normalize("NFD", text[:1].lower())[:1]
    if first and first in ascii_lowercase:
        return ascii_lowercase.index(first)
    if first.isalpha() or not first:
        return _OTHER
    return _DIGIT if first.isdigit() else _PUNCTUATION
