"""Capitalisation prediction."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from corpora.tables import Tables

from .attributes import AttributeObjective

_LOWER, _INITIAL, _UPPER, _NONE = range(4)


@dataclass(frozen=True, kw_only=True)
class CasingPrediction(AttributeObjective):
    """Tell how the hidden word is written: lower case, an initial capital, capitals inside, or without letters.

    After the capitalisation task of Aroca-Ouellette and Rudzicz, 2020, section 3, https://aclanthology.org/2020.emnlp-main.403,
    which asks about all tokens whether there is a capital in them, and averages over padding too.
    """

    name: ClassVar[str] = "casing"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"casing": ("lower", "initial", "capitals", "no_letters")}

    def classify(self, texts: list[str], token_ids: np.ndarray, tables: Tables) -> np.ndarray:
        return np.array([_casing(text) for text in texts], dtype=np.int64)


def _casing(text: str) -> int:
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return _NONE
    if any(letter.isupper() for letter in letters[1:]):
        return _UPPER
    return _INITIAL if letters[0].isupper() else _LOWER
