"""Word length prediction."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from corpora.tables import Tables

from .attributes import AttributeObjective

_LONGEST = 12


@dataclass(frozen=True, kw_only=True)
class LengthPrediction(AttributeObjective):
    """Tell how many characters the hidden word has, 12 standing for all that are longer.

    After the word length task of Aroca-Ouellette and Rudzicz, 2020, section 3, https://aclanthology.org/2020.emnlp-main.403.
    It is a class here, of the whole word; in the authors' code a regression per piece.
    """

    name: ClassVar[str] = "length"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {
        "length": (*(f"length_{n}" for n in range(1, _LONGEST)), f"length_{_LONGEST}_or_more"),
    }

    def classify(self, texts: list[str], token_ids: np.ndarray, tables: Tables) -> np.ndarray:
        return np.array([min(max(len(text), 1), _LONGEST) - 1 for text in texts], dtype=np.int64)
