"""Which tokens are selected, and what stands in their place."""

import numpy as np

from corpora import Vocabulary

from .draws import Draws, happens, to_integers, to_uniforms
from .sequences import Sequences, Target


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


def choose_independently(
    sequences: Sequences, positions: np.ndarray, rate: float | np.ndarray, draws: Draws
) -> np.ndarray:
    """Say of each position (N,) whether it is selected, whatever becomes of the others (RoBERTa in `transformers`)."""
    rows = sequences.rows[positions]
    words = draws.per_token("choose", rows, sequences.places[positions])
    rates = np.broadcast_to(rate, sequences.num_examples)[rows]
    return (words >> np.uint64(32)) < np.rint(rates * 2.0**32).astype(np.uint64)


def choose_tokens(sequences: Sequences, counts: np.ndarray, draws: Draws) -> np.ndarray:
    """Choose `counts` (B,) of each example's free tokens, uniformly and without replacement.

    Return their positions, ascending. An example with fewer free tokens than its count has all of them chosen.
    """
    candidates = np.flatnonzero(sequences.is_free)
    rows = sequences.rows[candidates]
    words = draws.per_token("choose", rows, sequences.places[candidates])
    order = np.argsort((rows.astype(np.uint64) << np.uint64(40)) | (words >> np.uint64(24)), kind="stable")
    available = np.bincount(rows, minlength=sequences.num_examples)
    rank = np.arange(len(candidates)) - np.repeat(np.cumsum(available) - available, available)
    return np.sort(candidates[order[rank < counts[rows]]])  # sorted by row first, so `rows` names the row of each rank


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
    rows, places = sequences.rows[positions], sequences.places[positions]
    action = draws.per_token("action", rows, places if deciding is None else sequences.places[deciding])
    masked = happens(action, mask_token_rate)
    randomised = happens(action, mask_token_rate + random_token_rate) & ~masked
    ordinary = vocabulary.ordinary_ids
    drawn = ordinary[to_integers(draws.per_token("token", rows, places), len(ordinary))]
    return np.where(masked, vocabulary.mask_id, np.where(randomised, drawn, sequences.token_ids[positions]))


def ask_changes(before: Sequences, after: Sequences) -> Target:
    """Ask of every token that no other objective has taken, special tokens too: 1 where it differs from before."""
    asked = np.flatnonzero(before.is_free | before.is_special)
    differs = after.token_ids[asked] != before.token_ids[asked]
    return Target(positions=asked, values=differs.astype(np.int64))
