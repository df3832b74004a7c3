"""Random class prediction: a control."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from corpora.tables import Tables

from .attributes import AttributeObjective
from .draws import hash_fields, mix, to_integers

_CLASSES = 5


@dataclass(frozen=True, kw_only=True)
class RandomClassPrediction(AttributeObjective):
    """Tell which of five classes the hidden token was given by chance, once for the whole vocabulary.

    The control of Alajrami and Aletras, 2022, section 3, https://aclanthology.org/2022.acl-short.16. The classes hang
    on `class_seed` alone; in their code each process and each resumed run draws others. A word is its first piece.
    """

    name: ClassVar[str] = "random_class"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"random_class": tuple(f"class_{n}" for n in range(_CLASSES))}

    class_seed: int = 0

    def classify(self, texts: list[str], token_ids: np.ndarray, tables: Tables) -> np.ndarray:
        key = np.uint64(hash_fields(self.class_seed, "random class"))
        return to_integers(mix(mix(token_ids.astype(np.uint64)) ^ key), _CLASSES)
