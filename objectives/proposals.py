"""Tokens hidden for a generator to fill in, as all objectives do it that correct what it has put there."""

from .draws import Draws, to_uniforms
from .masking import choose_tokens, count_exactly, hide_tokens
from .sequences import Context, Proposal, Sequences


def propose_replacements(
    sequences: Sequences, rate: float, draws: Draws, context: Context
) -> tuple[Sequences, Proposal]:
    """Hide tokens at `rate`, and return the text with the proposal that asks a generator for them."""
    positions = choose_tokens(sequences, count_exactly(sequences, rate), draws)
    shown = hide_tokens(sequences, positions, draws, context.vocabulary, mask_token_rate=1, random_token_rate=0)
    uniforms = to_uniforms(draws.per_token("propose", sequences.rows[positions], sequences.places[positions]))
    proposal = Proposal(positions=positions, original_ids=sequences.token_ids[positions], uniforms=uniforms)
    return sequences.with_tokens(positions, shown), proposal
