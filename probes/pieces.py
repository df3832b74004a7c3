"""The tokens of texts, which of them make up each character span, and which texts are read together.

Dimensions: M texts, S spans, P pieces, B rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .encoder import FrozenEncoder

_CHUNK = 2048  # texts that are tokenised at once
_STRIDE = 1 << 32  # keeps the characters of different texts apart


@dataclass(frozen=True, kw_only=True)
class Tokens:
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
class Pieces:
    """Which tokens make up each span."""

    first: np.ndarray  # (S,) place among all tokens
    last: np.ndarray  # (S,) one behind the last
    is_lost: np.ndarray  # (S,)
    starts: np.ndarray  # (M + 1,) the first span of each text


def tokenise(encoder: FrozenEncoder, texts: Sequence[str]) -> Tokens:
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
    return Tokens(
        ids=np.array(columns["ids"], dtype=np.int64),
        begins=offsets[:, 0],
        ends=offsets[:, 1],
        is_ordinary=is_ordinary,
        lengths=lengths,
        starts=np.cumsum(lengths) - lengths,
        is_truncated=np.array(columns["cut"], dtype=bool),
        num_ordinary=np.bincount(np.repeat(np.arange(len(texts)), lengths)[is_ordinary], minlength=len(texts)),
    )


def find_pieces(tokens: Tokens, spans: np.ndarray) -> Pieces:
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
    return Pieces(
        first=np.where(is_empty, 0, places[first]),
        last=np.where(is_empty, 0, places[np.maximum(last - 1, 0)] + 1),
        is_lost=is_empty | is_cut,
        starts=np.searchsorted(spans[:, 0], np.arange(len(tokens.lengths) + 1)),
    )


def batch_by_length(lengths: np.ndarray, token_budget: int) -> Iterator[np.ndarray]:
    """Yield the numbers of texts of like length, so many that rows times the longest stay within the budget."""
    order = np.argsort(lengths, kind="stable")[::-1]
    start = 0
    while start < len(order):
        count = max(1, token_budget // int(lengths[order[start]]))
        yield np.sort(order[start : start + count])
        start += count
