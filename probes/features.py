"""Vectors of texts and of character spans, from every layer, one forward pass a text; kept in a cache.

extract(encoder, texts, places=None, *, pooling="mean", piece_pooling="mean", cache=None, progress=False,
        token_budget=8192, dtype="float32") -> Features
Features: text_vectors (layers, M, D), spans (S, 3), span_vectors (layers, S, D), is_truncated (M,), is_lost (S,)
FeatureStore(encoder, probes, *, the same keywords): texts_encoded, num_truncated, num_layers,
    features_for(probe) -> LayerFeatures     a lazy sequence: features[layer] is (N, F) float32
    split_of(probe) -> (N,) int8             the probe's split, -1 for items that lost a place to truncation

Dimensions: M texts, S spans, N items, K places of an item, B rows, L positions, P pieces, D hidden, F features.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from corpora.errors import StorageError, UserError

from .encoder import FrozenEncoder
from .probe import WHOLE_TEXT, Combination, Probe

Pooling = Literal["mean", "cls"]
PiecePooling = Literal["mean", "first", "last"]

FORMAT = 1
UNUSED = -1  # the split of an item that has lost a place
_CHUNK = 2048  # texts that are tokenised at once
_STRIDE = 1 << 32  # keeps the characters of different texts apart


@dataclass(frozen=True, kw_only=True)
class Features:
    """What one encoder makes of texts and of character spans in them."""

    text_vectors: np.ndarray  # (layers, M, D): the mean over ordinary tokens, or [CLS]
    spans: np.ndarray  # (S, 3) int64: text, start, end; distinct and sorted
    span_vectors: np.ndarray  # (layers, S, D): the pooled pieces
    is_truncated: np.ndarray  # (M,) bool: the encoder has read a part of the text only
    is_empty: np.ndarray  # (M,) bool: no ordinary token
    is_lost: np.ndarray  # (S,) bool: cut off, or no piece of it is left; the vector is zero or of a part
    texts_encoded: int  # forward passes over texts in this call: 0 when all was in the cache


def extract(
    encoder: FrozenEncoder,
    texts: Sequence[str],
    places: np.ndarray | None = None,
    *,
    pooling: Pooling = "mean",
    piece_pooling: PiecePooling = "mean",
    cache: Path | None = None,
    progress: bool = False,
    token_budget: int = 8192,
    dtype: Literal["float32", "float16"] = "float32",
) -> Features:
    """Read every text once, and return the vectors of the texts and of the spans in `places` (any shape ending in 3).

    A piece belongs to a span when they share a character, so a piece that straddles two words counts for both. With a
    `cache` folder the vectors are memory maps, found again by the same weights, tokenizer, texts, spans and pooling.
    UserError where an encoder returns NaN, or a number that float16 can't hold; StorageError where the disk refuses.
    """
    spans = np.zeros((0, 3), dtype=np.int64) if places is None else places.reshape(-1, 3).astype(np.int64)
    spans = np.unique(spans[spans[:, 1] != WHOLE_TEXT], axis=0)
    job = _Job(encoder, texts, spans, pooling, piece_pooling, token_budget, dtype, progress)
    if cache is None:
        return job.run(lambda name, shape: np.zeros(shape, dtype=dtype))
    folder = Path(cache).expanduser() / job.key()
    encoded = 0
    if not folder.is_dir():
        _write_whole(folder, job)
        encoded = len(texts)
    return _open(folder, encoded)


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
        numbers: dict[str, int] = {}
        self._places: dict[str, np.ndarray] = {}
        for probe in probes:
            shared = np.array([numbers.setdefault(text, len(numbers)) for text in probe.texts], dtype=np.int64)
            places = probe.places.astype(np.int64, copy=True)
            places[..., 0] = shared[places[..., 0]]
            if self._places.setdefault(probe.name, places) is not places:
                raise ValueError(f"two probes are named '{probe.name}'")
        # Probes may keep texts that no item uses; those are read too, since that is rare and the numbering simpler.
        asked = np.concatenate([places.reshape(-1, 3) for places in self._places.values()]) if probes else None
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


@dataclass(frozen=True)
class _Job:
    """One extraction: what is asked, of which encoder."""

    encoder: FrozenEncoder
    texts: Sequence[str]
    spans: np.ndarray
    pooling: Pooling
    piece_pooling: PiecePooling
    token_budget: int
    dtype: str
    progress: bool

    def key(self) -> str:
        digest = hashlib.sha256()
        how = [FORMAT, self.encoder.weights_hash, self.encoder.tokenizer_hash, self.encoder.max_length]
        digest.update(json.dumps([*how, self.pooling, self.piece_pooling, self.dtype]).encode())
        for text in self.texts:
            content = text.encode("utf-8", "surrogatepass")
            digest.update(len(content).to_bytes(8, "little") + content)
        digest.update(self.spans.tobytes())
        return digest.hexdigest()[:32]

    def run(self, make: Callable[[str, tuple[int, ...]], np.ndarray]) -> Features:
        tokens = _tokenise(self.encoder, self.texts)
        shape = (self.encoder.num_layers, len(self.texts), self.encoder.hidden_size)
        text_vectors = make("text_vectors", shape)
        span_vectors = make("span_vectors", (shape[0], len(self.spans), shape[2]))
        pieces = _pieces_of_spans(tokens, self.spans)
        bar = tqdm(total=len(self.texts), desc="encoding", unit="text", disable=not self.progress, delay=2, leave=False)
        with bar:
            for rows in _batches(tokens.lengths, self.token_budget):
                self._encode(rows, tokens, pieces, text_vectors, span_vectors)
                bar.update(len(rows))
        return Features(
            text_vectors=text_vectors,
            spans=self.spans,
            span_vectors=span_vectors,
            is_truncated=tokens.is_truncated,
            is_empty=tokens.num_ordinary == 0,
            is_lost=pieces.is_lost,
            texts_encoded=len(self.texts),
        )

    def _encode(self, rows: np.ndarray, tokens: "_Tokens", pieces: "_Pieces", *out: np.ndarray) -> None:
        """Read the texts `rows` in one batch and write what is asked of them into both arrays of `out`."""
        lengths = tokens.lengths[rows]
        width = int(lengths.max())
        is_token = np.arange(width) < lengths[:, None]  # (B, L)
        flat = np.concatenate([np.arange(tokens.starts[row], tokens.starts[row] + tokens.lengths[row]) for row in rows])
        ids = np.full(is_token.shape, self.encoder.tokenizer.pad_token_id or 0, dtype=np.int64)
        ids[is_token] = tokens.ids[flat]
        spans = np.concatenate([np.arange(pieces.starts[row], pieces.starts[row + 1]) for row in rows])
        pools = (
            self._pool_texts(is_token, tokens.is_ordinary[flat]),
            self._pool_spans(spans, rows, width, pieces, tokens),
        )
        states = self.encoder.read(torch.from_numpy(ids), torch.from_numpy(is_token.astype(np.int64)))
        for layer, state in enumerate(states):
            for target, places, pool in zip(out, (rows, spans), pools, strict=True):
                self._store(target, layer, places, pool.of(state.flatten(0, 1)))

    def _store(self, target: np.ndarray, layer: int, places: np.ndarray, vectors: Tensor) -> None:
        values = vectors.float().cpu().numpy()
        if target.dtype == np.float16 and values.size and np.abs(values).max() > np.finfo(np.float16).max:
            raise UserError(
                f"encoder '{self.encoder.name}': layer {layer} returns {np.abs(values).max():g}, more than float16 "
                "can hold; keep the features as float32"
            )
        target[layer, places] = values

    def _pool_texts(self, is_token: np.ndarray, is_ordinary: np.ndarray) -> "_Pool":
        if self.pooling == "cls":
            firsts = np.arange(len(is_token)) * is_token.shape[1]
            return _Pool(firsts, np.arange(len(is_token)), len(is_token), self.encoder.device)
        positions = np.flatnonzero(is_token)[is_ordinary]
        return _Pool(positions, positions // is_token.shape[1], len(is_token), self.encoder.device)

    def _pool_spans(
        self, spans: np.ndarray, rows: np.ndarray, width: int, pieces: "_Pieces", tokens: "_Tokens"
    ) -> "_Pool":
        order = np.empty(rows.max() + 1 if len(rows) else 0, dtype=np.int64)
        order[rows] = np.arange(len(rows))
        first, last = pieces.first[spans], pieces.last[spans]  # flat places of all tokens, [first, last)
        if self.piece_pooling == "first":
            last = np.minimum(last, first + 1)
        if self.piece_pooling == "last":
            first = np.maximum(first, last - 1)
        counts = np.maximum(last - first, 0)
        owners = np.repeat(np.arange(len(spans)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        texts = self.spans[spans, 0]
        positions = order[texts[owners]] * width + first[owners] + within - tokens.starts[texts[owners]]
        return _Pool(positions, owners, len(spans), self.encoder.device)


class _Pool:
    """Means over groups of rows."""

    def __init__(self, positions: np.ndarray, owners: np.ndarray, count: int, device: torch.device) -> None:
        self._positions = torch.from_numpy(positions).to(device)
        self._owners = torch.from_numpy(owners).to(device)
        sizes = np.maximum(np.bincount(owners, minlength=count), 1).astype(np.float32)
        self._sizes = torch.from_numpy(sizes).to(device)[:, None]

    def of(self, state: Tensor) -> Tensor:
        """Return the means (groups, D) of a state (B * L, D); zero for an empty group."""
        sums = state.new_zeros(len(self._sizes), state.shape[1])
        return sums.index_add_(0, self._owners, state[self._positions]) / self._sizes


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """The tokens of all texts, one after another."""

    ids: np.ndarray
    begins: np.ndarray  # character of its text where a token begins
    ends: np.ndarray
    is_ordinary: np.ndarray
    lengths: np.ndarray  # (M,)
    starts: np.ndarray  # (M,) place of a text's first token
    is_truncated: np.ndarray  # (M,)
    num_ordinary: np.ndarray  # (M,)


@dataclass(frozen=True, kw_only=True)
class _Pieces:
    """Which tokens make up each span."""

    first: np.ndarray  # (S,) place among all tokens
    last: np.ndarray  # (S,) one behind the last
    is_lost: np.ndarray  # (S,)
    starts: np.ndarray  # (M + 1,) the first span of each text


def _tokenise(encoder: FrozenEncoder, texts: Sequence[str]) -> _Tokens:
    columns: dict[str, list[Any]] = {"ids": [], "offsets": [], "special": [], "length": [], "cut": []}
    for start in range(0, len(texts), _CHUNK):
        batch = encoder.tokenizer(list(texts[start : start + _CHUNK]), truncation=True, max_length=encoder.max_length)
        for encoding in batch.encodings:
            columns["ids"] += encoding.ids
            columns["offsets"] += encoding.offsets
            columns["special"] += encoding.special_tokens_mask
            columns["length"].append(len(encoding.ids))
            columns["cut"].append(bool(encoding.overflowing))
    offsets = np.array(columns["offsets"], dtype=np.int64).reshape(-1, 2)
    lengths = np.array(columns["length"], dtype=np.int64)
    is_ordinary = ~np.array(columns["special"], dtype=bool)
    return _Tokens(
        ids=np.array(columns["ids"], dtype=np.int64),
        begins=offsets[:, 0],
        ends=offsets[:, 1],
        is_ordinary=is_ordinary,
        lengths=lengths,
        starts=np.cumsum(lengths) - lengths,
        is_truncated=np.array(columns["cut"], dtype=bool),
        num_ordinary=np.bincount(np.repeat(np.arange(len(texts)), lengths)[is_ordinary], minlength=len(texts)),
    )


def _pieces_of_spans(tokens: _Tokens, spans: np.ndarray) -> _Pieces:
    """Find the ordinary tokens that share a character with each span.

    Tokens are in the order of their characters, so those of a span are a run, found by bisection over all texts.
    """
    texts = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
    ordinary = np.flatnonzero(tokens.is_ordinary)
    base = texts[ordinary] * _STRIDE
    first = np.searchsorted(base + tokens.ends[ordinary], spans[:, 0] * _STRIDE + spans[:, 1], side="right")
    last = np.searchsorted(base + tokens.begins[ordinary], spans[:, 0] * _STRIDE + spans[:, 2], side="left")
    read = np.zeros(len(tokens.lengths), dtype=np.int64)  # characters that were read of each text
    np.maximum.at(read, texts, tokens.ends)
    is_cut = tokens.is_truncated[spans[:, 0]] & (spans[:, 2] > read[spans[:, 0]])
    is_empty = last <= first
    places = np.append(ordinary, 0)
    return _Pieces(
        first=np.where(is_empty, 0, places[first]),
        last=np.where(is_empty, 0, places[np.maximum(last - 1, 0)] + 1),
        is_lost=is_empty | is_cut,
        starts=np.searchsorted(spans[:, 0], np.arange(len(tokens.lengths) + 1)),
    )


def _batches(lengths: np.ndarray, token_budget: int) -> Iterator[np.ndarray]:
    """Yield the numbers of texts of like length, so many that rows times the longest stay within the budget."""
    order = np.argsort(lengths, kind="stable")[::-1]
    start = 0
    while start < len(order):
        count = max(1, token_budget // int(lengths[order[start]]))
        yield np.sort(order[start : start + count])
        start += count


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


def _write_whole(folder: Path, job: _Job) -> None:
    """Fill a folder beside its final name and rename it; another process that was faster wins."""
    temporary = folder.parent / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
        made = job.run(
            lambda name, shape: (
                np.lib.format.open_memmap(temporary / f"{name}.npy", mode="w+", dtype=job.dtype, shape=shape)
                if 0 not in shape
                else np.zeros(shape, dtype=job.dtype)
            )
        )
        for name in ("text_vectors", "spans", "span_vectors", "is_truncated", "is_empty", "is_lost"):
            array = getattr(made, name)
            if isinstance(array, np.memmap):
                array.flush()
            else:
                np.save(temporary / f"{name}.npy", array)
        if not folder.is_dir():
            temporary.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise StorageError(
                f"features can't be kept in {folder.parent}: {error.strerror}; give another cache"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open(folder: Path, encoded: int) -> Features:
    def load(name: str) -> np.ndarray:
        path = folder / f"{name}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:  # an empty array can't be mapped, nor can a file that was cut
            array = np.load(path, allow_pickle=False)
        return array

    try:
        arrays = {name: load(name) for name in ("text_vectors", "span_vectors")}
        arrays |= {name: np.array(load(name)) for name in ("spans", "is_truncated", "is_empty", "is_lost")}
    except (OSError, ValueError) as error:
        raise StorageError(f"cached features in {folder} can't be read ({error}); remove that folder") from error
    return Features(**arrays, texts_encoded=encoded)
