"""Character-code prediction: a control."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from corpora.tables import Tables

from .attributes import AttributeObjective


@dataclass(frozen=True, kw_only=True)
class AsciiPrediction(AttributeObjective):
    """Tell the sum of the hidden word's character codes modulo 5: a fact about the word that means nothing.

    A control of Alajrami and Aletras, 2022, section 3, https://aclanthology.org/2022.acl-short.16. Their code sums the
    mark of a word's start too, and labels each piece (`whole_word=false`).
    """

    name: ClassVar[str] = "ascii"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"code_sum": ("sum_0", "sum_1", "sum_2", "sum_3", "sum_4")}

    def classify(self, texts: list[str], token_ids: np.ndarray, tables: Tables) -> np.ndarray:
        return np.array([sum(map(ord, text)) % 5 for text in texts], dtype=np.int64)
