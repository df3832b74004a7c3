"""Chance as a pure function: of the seed, the purpose, the example and the slot, and of nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.draws import Draws, happens, hash_fields, mix, to_integers, to_uniforms


def draws(examples, seed=0):
    return Draws(seed=seed, examples=np.asarray(examples, dtype=np.int64))


def test_the_finaliser_is_splitmix64s():
    """The first three outputs of SplitMix64 seeded with 1234567.

    As published with its reference implementation (Vigna, 2015).
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * golden
    assert mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_golden_words_never_change():
    """A change of these numbers would change every run that was ever recorded."""
    assert hash_fields(0, "/mlm/choose") == 11734629696284399914
    assert draws([0, 1]).within("mlm").per_example("choose", 2).tolist() == GOLDEN


GOLDEN = [[5950582483517240059, 16330136658753582245], [11616192390205982259, 1478055734201804802]]


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=20, unique=True), st.integers(0, 2**63 - 1))
def test_a_draw_does_not_depend_on_the_batch_it_is_made_in(examples, seed):
    together = draws(examples, seed).per_example("x", 3)
    for row, example in enumerate(examples):
        assert (draws([example], seed).per_example("x", 3)[0] == together[row]).all()


def test_a_token_has_the_same_word_whether_it_is_asked_for_alone_or_with_all_others():
    some = draws([7, 2**40, 9])
    offsets = np.array([0, 3, 3, 8])
    rows, places = np.repeat([0, 2], [3, 5]), np.concatenate([np.arange(3), np.arange(5)])
    assert (some.per_place("x", offsets) == some.per_token("x", rows, places)).all()


def test_seeds_purposes_and_examples_give_streams_of_their_own():
    """Also seeds that are equal in their low 32 bits, and pairs that have equal sums."""
    streams = [
        draws(range(64), seed).within(scope).per_example(purpose)[:, 0]
        for seed in (0, 1, 2**32, 2**32 + 1, 2**63 - 1)
        for scope in ("mlm", "rtd")
        for purpose in ("choose", "token")
    ]
    words = np.concatenate(streams)
    assert len(np.unique(words)) == len(words)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_an_event_of_rate_zero_never_happens_and_of_rate_one_always(rate):
    words = np.array([0, 1, 2**63, 2**64 - 1], dtype=np.uint64)
    assert (happens(words, rate) == bool(rate)).all()


def test_events_happen_at_their_rate():
    words = draws(range(100_000)).per_example("x")[:, 0]
    assert happens(words, 0.15).mean() == pytest.approx(0.15, abs=0.005)


def test_uniforms_stay_below_one_and_integers_below_their_bound():
    extreme = np.array([0, 2**64 - 1], dtype=np.uint64)
    assert to_uniforms(extreme).tolist() == [0.0, 1 - 2.0**-24]
    assert to_integers(extreme, 7).tolist() == [0, 6]
    assert to_integers(extreme, np.array([1, 30_000])).tolist() == [0, 29_999]


def test_integers_are_uniform():
    counts = np.bincount(to_integers(draws(range(70_000)).per_example("x")[:, 0], 7), minlength=7)
    chi_square = ((counts - 10_000) ** 2 / 10_000).sum()
    assert chi_square < 22.5  # 6 degrees of freedom, p = .001


def test_halves_are_balanced_in_every_pair_and_fair_over_pairs():
    bits = draws(range(20_000)).halves("x")
    assert (bits[0::2] ^ bits[1::2]).all()
    assert bits[0::2].mean() == pytest.approx(0.5, abs=0.02)


def test_neighbouring_examples_slots_and_seeds_are_uncorrelated():
    uniforms = to_uniforms(draws(range(40_000)).per_example("x", 2))
    other = to_uniforms(draws(range(40_000), 1).per_example("x"))[:, 0]
    pairs = [(uniforms[:-1, 0], uniforms[1:, 0]), (uniforms[:, 0], uniforms[:, 1]), (uniforms[:, 0], other)]
    assert max(abs(np.corrcoef(a, b)[0, 1]) for a, b in pairs) < 4 / np.sqrt(40_000)
