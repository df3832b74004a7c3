"""The features of probes' items, from vectors that every text's one reading gave.

FeatureStore(encoder, probes, *, the keywords of `extract`): texts_encoded, num_truncated, num_layers,
    features_for(probe) -> LayerFeatures     a lazy sequence: features[layer] is (N, F) float32
    split_of(probe) -> (N,) int8             the probe's split, -1 for items that lost a place to truncation

Dimensions: S spans, N items, K places of an item, D hidden, F features.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .encoder import FrozenEncoder
from .features import Features, extract
from .probe import WHOLE_TEXT, Combination, Probe

UNUSED = -1  # the split of an item that has lost a place


class LayerFeatures(Sequence[np.ndarray]):
    """The features of a probe's items, one layer at a time: `features[layer]` is made when it is asked for."""

    def __init__(self, features: Features, places: np.ndarray, combine: Combination) -> None:
        self._features = features
        self._combine: Combination = combine
        self._texts = places[..., 0]
        self._is_text = places[..., 1] == WHOLE_TEXT
        self._rows = np.where(self._is_text, self._texts, 0)
        self._rows[~self._is_text] = _find_spans(features.spans, places[~self._is_text])

    def __len__(self) -> int:
        return len(self._features.text_vectors)

    def __getitem__(self, layer: int) -> np.ndarray:  # type: ignore[override]  # one layer at a time, no slices
        return combine(self.vectors(layer), self._combine)

    def vectors(self, layer: int) -> np.ndarray:
        """Return the vectors (N, K, D) float32 of the places, before they are combined."""
        if not 0 <= layer < len(self):
            raise IndexError(layer)
        texts, spans = self._features.text_vectors[layer], self._features.span_vectors[layer]
        vectors = np.empty((*self._rows.shape, texts.shape[-1]), dtype=np.float32)
        vectors[self._is_text] = texts[self._rows[self._is_text]]
        vectors[~self._is_text] = spans[self._rows[~self._is_text]]
        return vectors

    @property
    def is_usable(self) -> np.ndarray:
        """(N,) bool: no place of the item was lost."""
        is_lost = self._features.is_empty[self._texts]
        is_lost[~self._is_text] = self._features.is_lost[self._rows[~self._is_text]]
        return ~is_lost.any(axis=1)


def combine(vectors: np.ndarray, how: Combination) -> np.ndarray:
    """Make one feature vector of an item's (N, K, D), as `Probe` describes the ways."""
    if how == "concat":
        return vectors.reshape(len(vectors), -1)
    first, second = vectors[:, 0], vectors[:, 1]
    if how == "pair":
        parts = [first, second, np.abs(first - second), first * second]
    elif how == "difference":
        parts = [first, second, first - second]
    else:
        parts = [first, second, first * second]
    return np.concatenate(parts, axis=1)


class FeatureStore:
    """The features of many probes from one encoder; a text that several of them ask about is read once."""

    def __init__(self, encoder: FrozenEncoder, probes: Sequence[Probe], **options: Any) -> None:
        """Encode the texts of `probes`; the keywords are those of `extract`."""
        self.encoder = encoder
        numbers: dict[str, int] = {}
        self._places: dict[str, np.ndarray] = {}
        for probe in (each for each in probes if each.reads_vectors):
            shared = np.array([numbers.setdefault(text, len(numbers)) for text in probe.texts], dtype=np.int64)
            places = probe.places.astype(np.int64, copy=True)
            places[..., 0] = shared[places[..., 0]]
            if self._places.setdefault(probe.name, places) is not places:
                raise ValueError(f"two probes are named '{probe.name}'")
        # Probes may keep texts that no item uses; those are read too, since that is rare and the numbering simpler.
        asked = np.concatenate([places.reshape(-1, 3) for places in self._places.values()]) if numbers else None
        self.features = extract(encoder, list(numbers), asked, **options)

    @property
    def texts_encoded(self) -> int:
        """Forward passes over texts: each distinct one once, none that were in the cache."""
        return self.features.texts_encoded

    @property
    def num_truncated(self) -> int:
        """Texts that are longer than the encoder can read."""
        return int(self.features.is_truncated.sum())

    @property
    def num_layers(self) -> int:
        return len(self.features.text_vectors)

    def features_for(self, probe: Probe) -> LayerFeatures:
        """Return the features of a probe's items, layer by layer."""
        return LayerFeatures(self.features, self._places[probe.name], probe.combine)

    def split_of(self, probe: Probe) -> np.ndarray:
        """Return the probe's split with -1 for items that have lost a place, which no fit or score should count."""
        return np.where(self.features_for(probe).is_usable, probe.split, UNUSED).astype(np.int8)


def _find_spans(spans: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return where in the sorted `spans` (S, 3) each of `places` (n, 3) is."""
    if not len(places):
        return np.zeros(0, dtype=np.int64)
    both = np.concatenate([spans, places])
    _, names = np.unique(both, axis=0, return_inverse=True)
    names = names.reshape(-1)
    positions = np.empty(names.max() + 1, dtype=np.int64)
    positions[names[: len(spans)]] = np.arange(len(spans))
    return positions[names[len(spans) :]]
