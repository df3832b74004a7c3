"""Which tokens are selected, and what stands in their place.

Invariants by their numbers in the project's research on objectives.
"""

from collections import Counter

import numpy as np
import pytest

from objectives.draws import Draws
from objectives.masking import choose_tokens, count_exactly, hide_tokens
from objectives.sequences import Layout, Sequences


def make_sequences(lengths, vocab_size=200, seed=0):
    """Framed examples of the given lengths, [CLS] and [SEP] counted, of ordinary tokens."""
    offsets = np.cumsum([0, *lengths])
    ids = np.random.default_rng(seed).integers(5, vocab_size, size=offsets[-1])
    special = np.zeros(len(ids), dtype=bool)
    special[offsets[:-1]] = special[offsets[1:] - 1] = True
    ids[offsets[:-1]], ids[offsets[1:] - 1] = 2, 3
    layout = Layout(
        offsets=offsets,
        is_special=special,
        make_segments=lambda: np.zeros_like(ids),
        make_word_starts=lambda: ~special,
        make_pieces=lambda: np.where(special, -1, 0),
    )
    return Sequences(token_ids=ids, original_ids=ids, is_free=~special, layout=layout)


def draws_for(sequences, seed=0):
    return Draws(seed=seed, examples=np.arange(sequences.num_examples))


def choose(sequences, rate, seed=0):
    return choose_tokens(sequences, count_exactly(sequences, rate), draws_for(sequences, seed))


@pytest.mark.parametrize(("length", "count"), [(3, 1), (10, 2), (30, 4), (50, 8), (70, 10), (128, 19)])
def test_the_count_is_berts_rounded_half_to_even_with_specials_counted(length, count):
    """Invariants 2, 3 and 12; the counts are what google-research/bert's int(round(len(tokens) * .15)) gives."""
    assert count == max(1, int(round(length * 0.15)))
    assert len(choose(make_sequences([length]), 0.15)) == count


def test_selection_is_without_replacement_and_never_of_special_tokens():
    """Invariants 1 and 8: ELECTRA's code selects some tokens twice (93 % distinct)."""
    sequences = make_sequences([128] * 40 + [5] * 20)
    chosen = choose(sequences, 0.15)
    assert len(np.unique(chosen)) == len(chosen) == 40 * 19 + 20
    assert not sequences.is_special[chosen].any()
    assert (np.diff(chosen) > 0).all()


def test_rate_zero_selects_nothing_and_rate_one_everything():
    sequences = make_sequences([128, 7, 30])
    assert len(choose(sequences, 0)) == 0
    assert choose(sequences, 1).tolist() == np.flatnonzero(~sequences.is_special).tolist()


def test_an_example_with_nothing_free_has_nothing_selected():
    assert choose(make_sequences([2, 12, 2]), 0.15).tolist() == choose(make_sequences([2, 12, 2]), 0.15).tolist()
    assert len(choose(make_sequences([2, 2]), 0.15)) == 0


def test_every_place_is_selected_equally_often():
    """Invariant 9: DeBERTa's n-gram masks never reach the last seven of 128 places."""
    sequences = make_sequences([66] * 8000)
    places = sequences.places[choose(sequences, 0.15)]
    counts = np.bincount(places, minlength=66)[1:65]
    expected = counts.sum() / 64
    assert ((counts - expected) ** 2 / expected).sum() < 104  # chi-square, 63 degrees of freedom, p = .001
    assert counts.sum() == 8000 * 10


def test_the_selection_of_an_example_does_not_depend_on_its_batch():
    """Invariant 10."""
    together = make_sequences([40, 60, 80])
    alone = make_sequences([60])
    draws = Draws(seed=0, examples=np.array([1]))
    chosen = choose_tokens(alone, count_exactly(alone, 0.15), draws)
    assert (together.places[[p for p in choose(together, 0.15) if together.rows[p] == 1]] == chosen).all()


def test_selected_tokens_are_hidden_randomised_and_kept_in_the_papers_proportions(vocabulary):
    """Invariants 14 and 16 on 100,000 selected tokens (Devlin et al., 2019, appendix A.1).

    Random ones are never special.
    """
    sequences = make_sequences([128] * 5300)
    chosen = choose(sequences, 0.15)
    shown = hide_tokens(sequences, chosen, draws_for(sequences), vocabulary, mask_token_rate=0.8, random_token_rate=0.1)
    original = sequences.token_ids[chosen]
    assert len(chosen) > 100_000
    assert (shown == vocabulary.mask_id).mean() == pytest.approx(0.8, abs=0.005)
    assert (shown == original).mean() == pytest.approx(0.1 + 0.1 / 195, abs=0.005)
    drawn = shown[(shown != vocabulary.mask_id) & (shown != original)]
    assert len(drawn) / len(shown) == pytest.approx(0.1, abs=0.005)
    assert drawn.min() == 5 and drawn.max() == 199


@pytest.mark.parametrize(("mask", "random"), [(1, 0), (0, 1), (0, 0)])
def test_rates_of_zero_and_one_are_exact(vocabulary, mask, random):
    sequences = make_sequences([128] * 50)
    chosen = choose(sequences, 0.3)
    shown = hide_tokens(
        sequences, chosen, draws_for(sequences), vocabulary, mask_token_rate=mask, random_token_rate=random
    )
    if mask:
        assert (shown == vocabulary.mask_id).all()
    elif random:
        assert len(Counter(shown.tolist())) > 150 and (shown >= 5).all()
    else:
        assert (shown == sequences.token_ids[chosen]).all()


def test_nothing_is_changed_in_place():
    """Invariant 50."""
    sequences = make_sequences([20, 30])
    before = sequences.token_ids.copy()
    changed = sequences.with_tokens(np.array([1, 2]), np.array([4, 4]))
    assert (sequences.token_ids == before).all() and sequences.is_free[[1, 2]].all()
    assert (changed.token_ids[[1, 2]] == 4).all() and not changed.is_free[[1, 2]].any()
