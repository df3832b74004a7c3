"""Which tokens are selected, and what stands in their place."""

import numpy as np

from corpora import Vocabulary

from .draws import Draws, happens, threshold, to_integers, to_uniforms
from .loops import compiled_loops
from .sequences import Sequences, Target

LOW = np.uint64(2**24 - 1)  # of a key: a place in an example
_LAST = np.uint64(2**64 - 1)  # the key of what can't be chosen


def rate_now(rate: float, final_rate: float | None, progress: np.ndarray) -> float | np.ndarray:
    """Return the rate of each example (B,), on the line from `rate` to `final_rate` over a run; None: it stays."""
    return rate if final_rate is None else rate + (final_rate - rate) * progress


def count_exactly(sequences: Sequences, rate: float | np.ndarray) -> np.ndarray:
    """Return how many tokens of each example to select (B,), by one rate or each example's (B,).

    BERT's rule: max(1, round(rate x length)) with the special tokens counted in the length. Python's rounding, half to
    even, as in google-research/bert, create_pretraining_data.py. A rate of 0 selects nothing.
    """
    return np.maximum(np.rint(sequences.lengths * rate).astype(np.int64), np.where(np.asarray(rate) > 0, 1, 0))


def count_upwards(sequences: Sequences, rate: float | np.ndarray) -> np.ndarray:
    """Return ceil(rate x ordinary tokens) for each example (B,).

    SpanBERT's rule: pretraining/fairseq/data/masking.py adds special tokens afterwards.
    """
    return np.ceil(np.round(_count_ordinary(sequences) * rate, 9)).astype(
        np.int64
    )  # .15 x 20 is 3, not 3.0000000000004


def count_by_chance(sequences: Sequences, rate: float | np.ndarray, draws: Draws) -> np.ndarray:
    """Return int(rate x ordinary tokens + U) for each example (B,), whose mean is the rate exactly.

    fairseq's rule, in data/mask_tokens_dataset.py, which counts <s> and </s>, since it hides them too.
    """
    uniforms = to_uniforms(draws.per_example("count")[:, 0]).astype(np.float64)
    return (_count_ordinary(sequences) * rate + uniforms).astype(np.int64)


def _count_ordinary(sequences: Sequences) -> np.ndarray:  # (B,)
    return np.bincount(sequences.rows[~sequences.is_special], minlength=sequences.num_examples)


def choose_independently(sequences: Sequences, rate: float | np.ndarray, draws: Draws) -> np.ndarray:
    """Say of each token (T,) whether it is selected, at one rate or its example's (B,), whatever becomes of the others.

    RoBERTa in `transformers`. Tokens that are not free are among them.
    """
    thresholds = np.full(sequences.num_examples, np.rint(np.asarray(rate) * 2.0**32), dtype=np.int64)
    if (loops := compiled_loops()) is not None:
        return loops.choose_independently(draws.key("choose"), draws.examples, sequences.offsets, thresholds)
    words = draws.per_place("choose", sequences.offsets)
    return (words >> np.uint64(32)) < np.repeat(thresholds, sequences.lengths).astype(np.uint64)


def choose_tokens(sequences: Sequences, counts: np.ndarray, draws: Draws) -> np.ndarray:
    """Choose `counts` (B,) of each example's free tokens, uniformly and without replacement.

    Return their positions, ascending. An example with fewer free tokens than its count has all of them chosen.
    """
    if (loops := compiled_loops()) is not None:
        return loops.choose(
            draws.key("choose"), draws.examples, sequences.offsets, sequences.is_free, counts.astype(np.int64)
        )
    keys = draws.per_place("choose", sequences.offsets)
    keys &= ~LOW
    keys |= sequences.places.astype(np.uint64)  # of equal words the first comes first
    keys[~sequences.is_free] = _LAST
    limits = nth_of_rows(sequences, keys, counts)
    return np.flatnonzero(keys < np.repeat(limits, sequences.lengths))


def nth_of_rows(sequences: Sequences, keys: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return for each row the key (B,) at its place (B,) among the row's keys in order; `keys` (T,) are all tokens'."""
    is_inside = sequences.layout.is_inside
    num_rows, length = is_inside.shape
    rows = np.full((num_rows, length), _LAST)
    rows[is_inside] = keys
    rows.sort(axis=1)
    return rows[np.arange(num_rows), np.clip(places, 0, length - 1).astype(np.int64)]


def hide_tokens(
    sequences: Sequences,
    positions: np.ndarray,
    draws: Draws,
    vocabulary: Vocabulary,
    *,
    mask_token_rate: float,
    random_token_rate: float,
    deciding: np.ndarray | None = None,
) -> np.ndarray:
    """Return what stands at `positions` (N,): [MASK], a random ordinary token, or for the rest the token itself.

    `deciding` (N,) are positions too: tokens that name the same one share its fate, each random one still its own.
    """
    ordinary = vocabulary.ordinary_ids
    if (loops := compiled_loops()) is not None:
        return loops.hide(
            sequences.token_ids,
            sequences.offsets,
            positions,
            positions if deciding is None else deciding,
            draws.key("action"),
            draws.key("token"),
            draws.examples,
            ordinary,
            vocabulary.mask_id,
            threshold(mask_token_rate),
            threshold(mask_token_rate + random_token_rate),
        )
    rows, places = sequences.rows[positions], sequences.places[positions]
    action = draws.per_token("action", rows, places if deciding is None else sequences.places[deciding])
    masked = happens(action, mask_token_rate)
    shown = np.where(masked, vocabulary.mask_id, sequences.token_ids[positions])
    randomised = np.flatnonzero(happens(action, mask_token_rate + random_token_rate) & ~masked)
    words = draws.per_token("token", rows[randomised], places[randomised])
    shown[randomised] = ordinary[to_integers(words, len(ordinary))]
    return shown


def ask_changes(before: Sequences, after: Sequences) -> Target:
    """Ask of every token that no other objective has taken, special tokens too: 1 where it differs from before."""
    asked = np.flatnonzero(before.is_free | before.is_special)
    differs = after.token_ids[asked] != before.token_ids[asked]
    return Target(positions=asked, values=differs.astype(np.int64))
