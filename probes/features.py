"""Vectors of texts and of character spans, from every layer, one forward pass a text; kept in a cache.

extract(encoder, texts, places=None, *, pooling="mean", piece_pooling="mean", cache=None, progress=False,
        token_budget=8192, dtype="float32") -> Features
Features: text_vectors (layers, M, D), spans (S, 3), span_vectors (layers, S, D), is_truncated (M,), is_lost (S,)

Dimensions: M texts, S spans, B rows, L positions, D hidden.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from corpora.errors import UserError

from .encoder import FrozenEncoder
from .feature_cache import fill_folder, load_folder
from .pieces import Pieces, Tokens, batch_by_length, find_pieces, tokenise
from .probe import WHOLE_TEXT

Pooling = Literal["mean", "cls"]
PiecePooling = Literal["mean", "first", "last"]

FORMAT = 1


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
        fill_folder(folder, dtype, lambda make: vars(job.run(make)))
        encoded = len(texts)
    return Features(**load_folder(folder), texts_encoded=encoded)


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
        tokens = tokenise(self.encoder, self.texts)
        shape = (self.encoder.num_layers, len(self.texts), self.encoder.hidden_size)
        text_vectors = make("text_vectors", shape)
        span_vectors = make("span_vectors", (shape[0], len(self.spans), shape[2]))
        pieces = find_pieces(tokens, self.spans)
        bar = tqdm(total=len(self.texts), desc="encoding", unit="text", disable=not self.progress, delay=2, leave=False)
        with bar:
            for rows in batch_by_length(tokens.lengths, self.token_budget):
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

    def _encode(self, rows: np.ndarray, tokens: Tokens, pieces: Pieces, *out: np.ndarray) -> None:
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

    def _pool_spans(self, spans: np.ndarray, rows: np.ndarray, width: int, pieces: Pieces, tokens: Tokens) -> "_Pool":
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
