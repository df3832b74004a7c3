"""Which tokens are selected, and what stands in their place."""

import numpy as np

from corpora import Vocabulary

from .draws import Draws, happens, to_integers
from .sequences import Sequences


def count_exactly(sequences: Sequences, rate: float) -> np.ndarray:
    """Return how many tokens of each example to select (B,).

    BERT's rule: max(1, round(rate x length)) with the special tokens counted in the length. Python's rounding, half to
    even, as in google-research/bert, create_pretraining_data.py. A rate of 0 selects nothing.
    """
    if rate == 0:
        return np.zeros(sequences.num_examples, dtype=np.int64)
    return np.maximum(np.rint(sequences.lengths * rate).astype(np.int64), 1)


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
) -> np.ndarray:
    """Return what stands at `positions` (N,): [MASK], a random ordinary token, or for the rest the token itself."""
    rows, places = sequences.rows[positions], sequences.places[positions]
    action = draws.per_token("action", rows, places)
    masked = happens(action, mask_token_rate)
    randomised = happens(action, mask_token_rate + random_token_rate) & ~masked
    ordinary = vocabulary.ordinary_ids
    drawn = ordinary[to_integers(draws.per_token("token", rows, places), len(ordinary))]
    return np.where(masked, vocabulary.mask_id, np.where(randomised, drawn, sequences.token_ids[positions]))
