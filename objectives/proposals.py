"""Tokens hidden for a generator to fill in, and which of them it has changed."""

from dataclasses import replace

import numpy as np
import torch

from .batch import Batch, DeviceTarget, Filling
from .draws import Draws, to_uniforms
from .masking import choose_tokens, count_exactly, hide_tokens
from .sequences import Context, Proposal, Sequences, Target


def check_asked(asked: str) -> None:
    """Raise a ValueError where neither all tokens nor the selected are asked."""
    if asked not in ("all", "selected"):
        raise ValueError(f"asked is '{asked}'; it must be all or selected")


def propose_replacements(
    sequences: Sequences,
    rate: float,
    draws: Draws,
    context: Context,
    *,
    kept_rate: float = 0.0,
    excludes_original: bool = False,
) -> tuple[Sequences, Proposal]:
    """Hide tokens at `rate`, and return the text with the proposal that asks a generator for them.

    Of these, `kept_rate` are asked for but not hidden from it. With `excludes_original` it can't draw the original.
    """
    positions = choose_tokens(sequences, count_exactly(sequences, rate), draws)
    shown = hide_tokens(
        sequences, positions, draws, context.vocabulary, mask_token_rate=1 - kept_rate, random_token_rate=0
    )
    proposal = Proposal(
        positions=positions,
        original_ids=sequences.token_ids[positions],
        uniforms=to_uniforms(draws.per_token("propose", sequences.rows[positions], sequences.places[positions])),
        excludes_original=excludes_original,
    )
    return sequences.with_tokens(positions, shown), proposal


def ask_originals(sequences: Sequences) -> Target:
    """Return the originals of every token that no other objective has taken, special tokens too."""
    asked = np.flatnonzero(sequences.is_free | sequences.is_special)
    return Target(positions=asked, values=sequences.token_ids[asked])


def mark_replaced(original: DeviceTarget, batch: Batch, filling: Filling | None) -> DeviceTarget:
    """Return the same questions with the answer 1 where a generator has put another token than the original."""
    is_replaced = batch.input_ids.flatten()[original.positions] != original.values
    if filling is not None:  # what an objective behind this one has hidden was not replaced
        is_replaced &= torch.isin(original.positions, filling.proposal.positions)
    return replace(original, values=is_replaced.long())
