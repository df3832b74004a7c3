"""Texts as rows of tokens, and batches of them in which some tokens are hidden.

B rows, L positions, K hidden tokens, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from corpora.errors import UserError

from .encoder import FrozenEncoder


class Hiding(Protocol):
    """What hiding asks of a readout's settings."""

    @property
    def tokens_per_step(self) -> int: ...
    @property
    def mask_rate(self) -> float: ...
    @property
    def seed(self) -> int: ...


def cut_rows(encoder: FrozenEncoder, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Return the texts as framed rows of token ids, each at most `max_length` long; UserError where there are none."""
    return cut_texts(encoder, texts, max_length)[0]


def count_tokens(encoder: FrozenEncoder, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Return how often each token (V,) stands in the rows; special tokens, which are never hidden, count 0."""
    counts = np.bincount(np.concatenate([np.array(row) for row in rows]), minlength=encoder.network.config.vocab_size)
    counts[encoder.tokenizer.all_special_ids] = 0
    return counts


def cut_texts(encoder: FrozenEncoder, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[int]]:
    """Return the rows, and for each the number of its text; rows of fewer than two ordinary tokens are left out."""
    framed = encoder.tokenizer(
        list(texts),
        truncation=True,
        max_length=min(max_length, encoder.max_length),
        return_overflowing_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    special = set(encoder.tokenizer.all_special_ids)
    owners = framed["overflow_to_sample_mapping"]
    kept = [
        (row, owner)
        for row, owner in zip(framed["input_ids"], owners, strict=True)
        if sum(token not in special for token in row) > 1
    ]
    if not kept:
        raise UserError(f"a readout needs texts of two tokens and more; {len(texts):,} texts have none")
    rows, numbers = zip(*kept, strict=True)
    return list(rows), list(numbers)


def choose_hidden(
    encoder: FrozenEncoder, rows: Sequence[list[int]], rate: float, chance: np.random.Generator
) -> list[np.ndarray]:
    """Return the places that are hidden in each row: `rate` of its ordinary tokens, one at least."""
    special = np.array(encoder.tokenizer.all_special_ids)
    chosen = []
    for row in rows:
        ordinary = np.flatnonzero(~np.isin(row, special))
        count = max(1, math.floor(rate * len(ordinary) + 0.5))
        chosen.append(np.sort(chance.choice(ordinary, count, replace=False)))
    return chosen


def split_rows(rows: Sequence[list[int]], tokens: int, order: np.ndarray) -> Iterator[list[int]]:
    """Yield numbers of rows, in `order`, that have `tokens` tokens together or the first row more."""
    held: list[int] = []
    num_tokens = 0
    for number in order.tolist():
        held.append(number)
        num_tokens += len(rows[number])
        if num_tokens >= tokens:
            yield held
            held, num_tokens = [], 0
    if held:
        yield held


def endless_batches(
    encoder: FrozenEncoder, rows: list[list[int]], settings: Hiding
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    chance = np.random.default_rng([settings.seed, 1])  # not the one that hides tokens of the held-out texts
    while True:
        for numbers in split_rows(rows, settings.tokens_per_step, chance.permutation(len(rows))):
            taken = [rows[number] for number in numbers]
            yield build_batch(encoder, taken, choose_hidden(encoder, taken, settings.mask_rate, chance))


def build_batch(
    encoder: FrozenEncoder, rows: Sequence[list[int]], chosen: Sequence[np.ndarray]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ids (B, L) with [MASK] where a token is hidden, attention mask, hidden places (K,), original ids (K,)."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), encoder.tokenizer.pad_token_id)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    places = np.concatenate([number * width + each for number, each in enumerate(chosen)])
    originals = ids.reshape(-1)[places]
    ids.reshape(-1)[places] = encoder.tokenizer.mask_token_id
    made = [torch.from_numpy(array).to(encoder.device) for array in (ids, mask, places, originals)]
    return made[0], made[1], made[2], made[3]
