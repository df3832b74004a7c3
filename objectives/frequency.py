"""Term frequency prediction."""

from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import ClassVar

import numpy as np

from corpora.tables import Tables

from .attributes import AttributeObjective
from .base import Corruption, TextStatistics
from .draws import Draws
from .sequences import Context, Sequences

_BINS = 5


@dataclass(frozen=True, kw_only=True)
class FrequencyPrediction(AttributeObjective):
    """Tell how telling the hidden token is of its text: its term frequency there, with `weighting=tf_idf` times idf.

    After the TF and TF-IDF tasks of Aroca-Ouellette and Rudzicz, 2020, section 3, https://aclanthology.org/2020.emnlp-main.403.
    There it is a number from 0 to 10, scaled by sentence and cut down to whole ones by the code; here one of five
    classes. tf: the token stands 1, 2, 3, 4, or 5 times and more in the example. tf_idf: fifths of the training text's
    tokens by idf, the token's idf taken times its count. Each piece counts for itself.
    """

    name: ClassVar[str] = "frequency"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"frequency": tuple(f"level_{n}" for n in range(1, _BINS + 1))}

    weighting: str = "tf_idf"
    whole_word: bool = False

    def __post_init__(self) -> None:
        if self.weighting not in ("tf", "tf_idf"):
            raise ValueError(f"weighting is '{self.weighting}'; it must be tf or tf_idf")
        if self.whole_word:
            raise ValueError("whole_word is true, but frequencies are of tokens")

    def classify(self, texts: list[str], token_ids: np.ndarray, tables: Tables) -> np.ndarray:
        return self._level(token_ids, np.ones(len(token_ids)), tables)

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        corruption = super().corrupt(sequences, draws, context)
        target = corruption.targets["frequency"]
        keys = sequences.rows * (context.vocabulary.size + 1) + sequences.original_ids  # -1 too, of inserted tokens
        _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
        times = counts[place[target.positions]]
        target.values[:] = self._level(sequences.original_ids[target.positions], times, context.tables)
        return corruption

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        """Return ln 5 alone: how often a token stands in its example can't be told from its count in the corpus."""
        return {f"ln {_BINS}": log(_BINS)}

    def _level(self, token_ids: np.ndarray, times: np.ndarray, tables: Tables) -> np.ndarray:
        if self.weighting == "tf":
            return np.minimum(times, _BINS).astype(np.int64) - 1
        idf, edges = _idf(tables)
        return np.searchsorted(edges, idf[token_ids] * times, side="left").astype(np.int64)


@lru_cache(maxsize=4)
def _idf(tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """Return the idf of each token (V,), and the four values that cut the training tokens into fifths by it."""
    documents = len(tables.training_documents())
    idf = np.log((1 + documents) / (1 + tables.document_frequency()))
    order = np.argsort(idf, kind="stable")
    share = np.cumsum(tables.unigram_counts[order]) / max(tables.unigram_counts.sum(), 1)
    places = np.searchsorted(share, np.arange(1, _BINS) / _BINS)
    return idf, idf[order][np.minimum(places, len(order) - 1)]
