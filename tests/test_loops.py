"""Compiled loops build what numpy builds, bit for bit."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora.errors import UserError
from corpora.tables import Tables
from objectives import OBJECTIVES, draws, masking
from objectives.loops import compiled_loops, use_compiled
from objectives.masking import choose_independently, choose_tokens, count_exactly, hide_tokens
from objectives.sequences import _frame_by_arrays
from objectives.units import choose_units, cut_words
from tests.contract import is_same, open_stream, parts_of, texts_of
from tests.test_masking import draws_for, make_sequences
from training.loop import _start_worker
from training.setup import choose_loops
from training.stream import to_batch

SPECS = (
    *OBJECTIVES,
    "mlm+nsp",
    "rtd+sentence_shuffle",
    *(f"mlm:strategy={name}" for name in ("words", "ngrams", "spans", "pmi")),
    *(f"mlm:count={count}" for count in ("bernoulli", "probabilistic")),
    "mlm:mask_rate=0.4,final_mask_rate=0.1,count=bernoulli",
    "mlm:strategy=words,decided_by=unit",
)


@pytest.fixture(autouse=True)
def numpy_afterwards() -> Iterator[None]:
    yield
    use_compiled(False)


def by_both(build: Callable[[], object]) -> tuple[object, object]:
    """Return what numpy's loops give, and what the compiled ones do."""
    use_compiled(False)
    first = build()
    use_compiled(True)
    second = build()
    use_compiled(False)
    return first, second


@pytest.mark.parametrize("spec", SPECS)
def test_every_objective_builds_the_same_batches(corpus, spec):
    stream = open_stream(corpus, spec, tables=Tables(corpus))
    for examples in (np.arange(16), np.array([5]), np.array([40, 3, 17])):
        ours, compiled = by_both(lambda: stream.build(examples, progress=0.3))  # noqa: B023
        assert is_same(ours, compiled)
        for text, other in zip(texts_of(ours).values(), texts_of(compiled).values(), strict=True):
            for name in ("segments", "pieces", "is_word_start"):
                assert np.array_equal(getattr(text, name), getattr(other, name)), name
        plain, padded = by_both(lambda: to_batch(ours, corpus.vocabulary))  # noqa: B023
        for one, other in zip(parts_of(plain, torch.Tensor), parts_of(padded, torch.Tensor), strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other)


@given(
    lengths=st.lists(st.integers(2, 300), min_size=1, max_size=9),
    rate=st.floats(0, 1.2),
    seed=st.integers(0, 2**32),
    share_free=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_choosing_and_hiding_are_the_same_whatever_is_free(corpus, lengths, rate, seed, share_free):
    sequences = make_sequences([*lengths, 3], seed=seed)
    free, starts = np.random.default_rng(seed).random((2, len(sequences.token_ids))) < [[share_free], [0.3]]
    layout = replace(sequences.layout, make_word_starts=lambda: starts & ~sequences.is_special)
    sequences = replace(sequences, is_free=free & ~sequences.is_special, layout=layout)
    chance, vocabulary = draws_for(sequences, seed), corpus.vocabulary

    def choose() -> list[np.ndarray]:
        counts = count_exactly(sequences, rate)
        positions = choose_tokens(sequences, counts, chance)
        rates = {"mask_token_rate": 0.5, "random_token_rate": 0.3}
        hidden = hide_tokens(sequences, positions, chance, vocabulary, **rates)
        deciding = np.sort(positions)[::-1][np.argsort(positions)]  # of other rows, in no order
        rows = np.repeat(np.arange(sequences.num_examples), sequences.lengths)
        deciding = np.where(rows[deciding] == rows[positions], deciding, positions)
        by_others = hide_tokens(sequences, positions, chance, vocabulary, **rates, deciding=deciding)
        words = cut_words(sequences)
        whole = choose_units(sequences, words, counts, chance, "unit")
        return [
            positions,
            hidden,
            by_others,
            hide_tokens(sequences, positions[::-1].copy(), chance, vocabulary, **rates),
            choose_independently(sequences, rate, chance),
            choose_independently(sequences, np.linspace(0, 1, sequences.num_examples), chance),
            words.positions,
            words.word_starts,
            whole,
        ]

    for ours, compiled in zip(*by_both(choose), strict=True):
        assert ours.dtype == compiled.dtype and np.array_equal(ours, compiled)


def test_loops_are_numpys_unless_a_gpu_computes(monkeypatch):
    choose_loops("auto", progress=False)
    assert compiled_loops() is None or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    choose_loops("auto", progress=False)
    assert compiled_loops() is not None
    choose_loops("numpy", progress=False)
    assert compiled_loops() is None


def test_without_numba_only_who_asks_for_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "objectives.compiled", raising=False)
    monkeypatch.delattr("objectives.compiled", raising=False)
    with pytest.raises(UserError, match=r"--loops compiled needs numba \(.*\); pip install 'numba>=0.61'"):
        choose_loops("compiled", progress=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    choose_loops("auto", progress=False)
    assert compiled_loops() is None


def test_compiling_is_announced_and_only_where_nothing_is_kept(monkeypatch, tmp_path, capsys):
    use_compiled(True)
    loops = compiled_loops()
    kept = Path(loops.frame.stats.cache_path)
    assert kept.is_dir()
    monkeypatch.setattr(loops, "frame", SimpleNamespace(stats=SimpleNamespace(cache_path=str(tmp_path))))
    choose_loops("compiled", progress=True)
    assert "compiling the loops that build batches" in capsys.readouterr().err
    old = tmp_path / "compiled.frame-1.py311.nbi"
    old.touch()
    os.utime(old, (0, 0))  # of an earlier version of the file
    choose_loops("compiled", progress=True)
    assert "compiling the loops that build batches" in capsys.readouterr().err
    os.utime(old)
    choose_loops("compiled", progress=True)
    assert capsys.readouterr().err == ""


def test_machine_code_that_is_kept_has_the_numbers_of_numpys_loops():
    """It is kept by what `compiled.py` contains, and would outlive a change of these elsewhere."""
    from objectives import compiled

    for name in ("GOLDEN", "FIRST", "SECOND"):
        assert getattr(compiled, name) == getattr(draws, name)
    assert compiled.LOW == masking.LOW


def test_loops_that_cannot_be_kept_are_compiled_all_the_same(monkeypatch):
    from objectives import compiled

    def refuse(**options: object) -> Callable[..., object]:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda loop: loop

    monkeypatch.setattr(compiled, "njit", refuse)
    assert compiled._compile(sum) is sum


def test_a_position_beyond_the_tokens_is_an_error_not_another_token():
    from objectives import compiled

    offsets = np.array([0, 3, 7])
    assert compiled.locate(np.array([0, 3, 6, 2]), offsets, 4).tolist() == [0, 4, 7, 2]
    for position in (-1, 7, 100):
        with pytest.raises(IndexError, match="beyond the tokens"):
            compiled.locate(np.array([position]), offsets, 4)


@pytest.mark.parametrize("compiled", [True, False])
def test_workers_build_by_the_loops_of_the_main_process(monkeypatch, compiled):
    monkeypatch.setattr(os, "setpgrp", lambda: None)
    use_compiled(not compiled)
    _start_worker(compiled, 0)
    assert (compiled_loops() is not None) == compiled


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_framing_is_the_same(data):
    num_examples = data.draw(st.integers(1, 5))
    tokens = np.random.default_rng(0).integers(5, 60_000, 500).astype(data.draw(st.sampled_from(["uint16", "uint32"])))
    tokens.flags.writeable = False  # as those of a store
    pieces = []
    for row in range(num_examples):
        second = data.draw(st.integers(0, 3))  # how many pieces stand before the second text
        for number in range(data.draw(st.integers(0 if pieces else 1, 4))):
            start, length = data.draw(st.integers(0, 400)), data.draw(st.integers(0, 9))
            pieces.append((start, start + length, row, int(number >= second)))
    starts, ends, rows, segments = np.array(pieces).T.copy()
    given = (tokens, starts, ends, rows, segments, num_examples, 2, 3, data.draw(st.sampled_from([1, 2])))
    from objectives import compiled

    for ours, other in zip(_frame_by_arrays(*given), compiled.frame(*given), strict=True):
        assert ours.dtype == other.dtype and np.array_equal(ours, other)
