"""Collocations: how they are counted over a text, and what masking makes of them (Levine et al., 2021)."""

from collections import Counter
from itertools import pairwise
from math import log

import numpy as np
import pytest

from corpora.errors import UserError
from corpora.tables import Tables
from objectives import build_objectives, collocations
from objectives.collocations import (
    COLLOCATION,
    WordRuns,
    choose_collocations,
    collocation_keys,
    count_collocations,
    cut_collocations,
    take_apart,
)
from objectives.draws import Draws
from objectives.sequences import Context
from tests.conftest import WrittenCorpus
from tests.test_masking import draws_for, make_sequences
from tests.test_objectives import open_stream


def key_of(*token_ids):
    """Return the key of a run of words of one token each."""
    ids = np.array(token_ids)
    runs = WordRuns(ids, np.ones(len(ids), dtype=bool), np.arange(len(ids)) == 0)
    return int(runs.keys(np.array([0]), len(ids))[0])


def keys_of(*phrases):
    return np.sort(np.array([key_of(*phrase) for phrase in phrases], dtype=np.uint64))


def rows_of(corpus, table):
    """Return {tokens: (number of words, how often, PMI)}."""
    return {
        tuple(corpus.token_ids[row["start"] : row["end"]].tolist()): (row["words"], row["count"], row["score"])
        for row in table
    }


def texts(*phrases):
    """Return one example, of these words of one token each."""
    sequences = make_sequences([2 + len(phrases)])
    sequences.token_ids[1:-1] = phrases
    return sequences


@pytest.fixture(scope="module")
def phrases(vocabulary, tmp_path_factory):
    """120 documents of words of one or two tokens and a few phrases, some held out, [UNK] among the words."""
    rng = np.random.default_rng(0)
    words = [[5], [7], [8, 9], [10], [11, 12], [13], [1]]
    kinds = [*([word] for word in words), [[5], [7], [8, 9]], [[10], [11, 12]], [[13], [5], [7], [10], [7]]]
    documents = []
    for _ in range(120):
        drawn = (rng.integers(0, len(kinds), size=rng.integers(1, 7)) for _ in range(rng.integers(1, 4)))
        documents.append([[t for kind in sentence for word in kinds[kind] for t in word] for sentence in drawn])
    folder = tmp_path_factory.mktemp("phrases")
    return WrittenCorpus(documents=documents, vocabulary=vocabulary, folder=folder, held_out=tuple(range(0, 120, 9)))


def count_by_loop(corpus):
    """Return how often each run of 1 to 5 words stands in the training sentences, by its words, and of each length."""
    counts = Counter()
    for number, document in enumerate(corpus.documents):
        if corpus.is_held_out[number]:
            continue
        for sentence in document:
            stretches = [[]]
            for token in sentence:
                if token == 1:
                    stretches.append([])
                elif token % 3 == 0 and stretches[-1]:
                    stretches[-1][-1] += (token,)
                else:
                    stretches[-1].append((token,))
            for stretch in stretches:
                for length in range(1, 6):
                    counts.update(tuple(stretch[i : i + length]) for i in range(len(stretch) - length + 1))
    totals = Counter()
    for run, count in counts.items():
        totals[len(run)] += count
    return counts, totals


def cuts_of(run):
    """Yield every way to cut a run into two parts or more."""
    for bits in range(1, 2 ** (len(run) - 1)):
        edges = [0, *(i + 1 for i in range(len(run) - 1) if bits >> i & 1), len(run)]
        yield [run[a:b] for a, b in pairwise(edges)]


def test_the_measure_of_a_collocation_written_out(vocabulary, tmp_path):
    """18 words, 8 runs of two and 3 of three; the best cut of three words is after the second, (5/8) (7/18)."""
    corpus = WrittenCorpus(
        documents=[[[5, 7, 8]] * 3, [[5, 7]] * 2, [[8]] * 4, [[10]]], vocabulary=vocabulary, folder=tmp_path
    )
    found = rows_of(corpus, count_collocations(corpus, 3))
    assert {run: row[:2] for run, row in found.items()} == {(5, 7): (2, 5), (7, 8): (2, 3), (5, 7, 8): (3, 3)}
    assert found[5, 7][2] == pytest.approx(log((5 / 8) / (5 / 18 * 5 / 18)))
    assert found[7, 8][2] == pytest.approx(log((3 / 8) / (5 / 18 * 7 / 18)))
    assert found[5, 7, 8][2] == pytest.approx(log((3 / 3) / (5 / 8 * 7 / 18)))


@pytest.mark.parametrize("chunk", [1_000_000, 40])
def test_collocations_are_those_of_a_loop_over_all_segmentations(phrases, monkeypatch, chunk):
    """Words of several tokens, no run across sentences, documents or [UNK], nothing of what is held out."""
    monkeypatch.setattr(collocations, "_CHUNK", chunk)
    counts, totals = count_by_loop(phrases)
    expected = {}
    for run, count in counts.items():
        if count >= 4 and len(run) > 1:
            shares = (sum(log(counts[part] / totals[len(part)]) for part in cut) for cut in cuts_of(run))
            score = log(count / totals[len(run)]) - max(shares)
            if score > 0:
                expected[sum(run, ())] = (len(run), count, pytest.approx(score))
    table = count_collocations(phrases, 4)
    assert rows_of(phrases, table) == expected and {row[0] for row in expected.values()} == {2, 3, 4, 5}
    for length in range(2, 6):
        assert (np.diff(table["score"][table["words"] == length]) <= 0).all()
    assert (np.diff(table["words"]) >= 0).all()


def test_what_is_seen_least_is_forgotten_where_there_is_too_much(phrases, monkeypatch):
    monkeypatch.setattr(collocations, "_CHUNK", 40)
    exact = rows_of(phrases, count_collocations(phrases, 4))
    monkeypatch.setattr(collocations, "_MOST", 12)
    found = rows_of(phrases, count_collocations(phrases, 4))
    assert found and found.keys() < exact.keys()
    assert all(exact[run][1] - 10 <= row[1] <= exact[run][1] for run, row in found.items())


def test_the_list_has_half_of_two_words_a_quarter_of_three_and_eighths():
    counted = np.zeros(40, dtype=COLLOCATION)
    counted["words"] = np.repeat([2, 3, 4, 5], 10)
    counted["start"] = np.tile(np.arange(10), 4)
    chosen = choose_collocations(counted, 8)
    assert np.bincount(chosen["words"])[2:].tolist() == [4, 2, 1, 1]
    assert sorted(chosen["start"][chosen["words"] == 2].tolist()) == [0, 1, 2, 3]  # the best
    few = counted[(counted["words"] != 4) | (counted["start"] < 1)]
    assert np.bincount(choose_collocations(few, 16)["words"])[2:].tolist() == [9, 4, 1, 2]
    assert len(choose_collocations(counted, 100)) == 40


def test_a_unit_is_the_longest_collocation():
    """The README of the authors' list: "the united states air force" is one unit, whatever is within it."""
    keys = keys_of((5, 7), (7, 8), (5, 7, 8), (8, 10), (11, 13), (11, 13, 5, 7, 8))
    units = cut_collocations(sequences := texts(10, 11, 13, 5, 7, 8, 10, 7, 8, 13), keys, 5, draws_for(sequences))
    # 8 10 overlaps with the five words, and chance decides: either these and 10, or 8 10 and the others as words
    assert units.units.tolist() in ([0, 1, 1, 1, 1, 1, 2, 3, 3, 4], [0, 1, 2, 3, 4, 5, 5, 6, 6, 7])
    units = cut_collocations(sequences := texts(10, 5, 7, 8, 13, 7, 8, 13), keys, 5, draws_for(sequences))
    assert units.units.tolist() == [0, 1, 1, 1, 2, 3, 3, 4]
    units = cut_collocations(sequences, keys, 2, draws_for(sequences))  # longest=2: 5 7 or 7 8
    assert units.units.tolist() in ([0, 1, 1, 2, 3, 4, 4, 5], [0, 1, 2, 2, 3, 4, 4, 5])


def test_of_two_that_overlap_either_is_a_unit():
    """ "By the way out", of "by the way" and "the way out"."""
    keys = keys_of((5, 7, 8), (7, 8, 10))
    sequences = make_sequences([6] * 1000)
    sequences.token_ids[~sequences.is_special] = np.tile([5, 7, 8, 10], 1000)
    units = cut_collocations(sequences, keys, 5, draws_for(sequences)).units.reshape(1000, 4)
    seen = Counter(map(tuple, (units - units[:, :1]).tolist()))
    assert seen.keys() == {(0, 0, 0, 1), (0, 1, 1, 1)} and abs(seen[0, 0, 0, 1] - 500) < 52  # p = .001


def test_no_collocation_spans_what_is_taken_or_two_sentences():
    keys = keys_of((5, 7))
    sequences = texts(5, 7, 13, 5, 7, 13, 5, 7)
    object.__setattr__(sequences.layout, "pieces", np.array([-1, 0, 0, 0, 0, 1, 1, 1, 1, -1]))
    taken = sequences.with_tokens(np.array([1]), 7)
    assert cut_collocations(taken, keys, 5, draws_for(taken)).units.tolist() == [0, 1, 2, 3, 4, 5, 5]


def test_intervals_are_taken_in_the_order_of_chance():
    rng = np.random.default_rng(0)
    for _ in range(200):
        starts = np.flatnonzero(rng.random(60) < 0.5)
        ends = np.maximum.accumulate(starts + rng.integers(2, 6, size=len(starts)))
        apart = np.diff(ends, prepend=-1) > 0
        starts, ends = starts[apart], np.minimum(ends[apart], starts[apart] + 5)
        order = rng.permutation(len(starts)).astype(np.uint64)
        expected = np.zeros(len(starts), dtype=bool)
        for each in np.argsort(order):
            expected[each] = not (expected & (starts < ends[each]) & (starts[each] < ends)).any()
        assert np.array_equal(take_apart(starts, ends, order), expected)


def corrupt(corpus, spec, sequences, tables, examples=None):
    (objective,) = build_objectives(spec)
    count = sequences.num_examples
    context = Context(vocabulary=corpus.vocabulary, tables=tables, progress=np.ones(count))
    draws = Draws(seed=0, examples=np.arange(count) if examples is None else examples)
    return objective.corrupt(sequences, draws, context)


def test_collocations_are_hidden_whole_and_as_one(phrases):
    """At 15 % of the tokens; hidden, random or kept as a unit, as the authors say."""
    tables, sequences = Tables(phrases), make_sequences([66] * 300)
    sequences.token_ids[~sequences.is_special] = np.tile([13, 5, 7, 10, 7, 199, 197, 196], 8 * 300)
    made = corrupt(phrases, "mlm:strategy=pmi,min_count=4,mask_token_rate=0.5,random_token_rate=0", sequences, tables)
    asked = made.targets["original_ids"].positions
    assert np.bincount(sequences.rows[asked], minlength=300).mean() == pytest.approx(10, abs=0.5)
    place = (sequences.places[asked] - 1) % 8
    whole = sequences.rows[asked] * 8 + (sequences.places[asked] - 1) // 8
    inside = place < 5  # 13 5 7 10 7, which the text has as a phrase
    chosen = np.bincount(whole[inside])
    assert set(chosen.tolist()) == {0, 5} and (chosen == 5).sum() > 100
    hidden = np.bincount(whole[inside], made.sequences.token_ids[asked][inside] == 4)
    assert set(hidden.tolist()) == {0, 5}


def test_a_list_of_one_makes_one_unit(phrases):
    tables = Tables(phrases)
    keys = collocation_keys(tables, 1, 4)
    best = count_collocations(phrases, 4)[0]
    assert best["words"] == 2 and len(keys) == 1
    assert len(collocation_keys(tables, 800_000, 4)) == len(count_collocations(phrases, 4))


def test_the_selection_of_an_example_does_not_depend_on_its_batch(phrases):
    """Invariant 10."""
    tables, spec = Tables(phrases), "mlm:strategy=pmi,min_count=4"
    together, alone = make_sequences([40, 60, 80]), make_sequences([60])
    ids = np.random.default_rng(1).choice([5, 7, 8, 10, 13], size=60)
    for sequences, first in ((together, 40), (alone, 0)):
        ordinary = slice(first + 1, first + 59)
        sequences.token_ids[ordinary] = ids[1:59]
    chosen = corrupt(phrases, spec, together, tables).targets["original_ids"].positions
    expected = corrupt(phrases, spec, alone, tables, np.array([1])).targets["original_ids"].positions
    assert np.array_equal(together.places[chosen[together.rows[chosen] == 1]], expected)


def test_the_list_is_kept_beside_the_store(phrases, monkeypatch):
    expected = collocation_keys(Tables(phrases), 20, 4)
    monkeypatch.setattr(collocations, "count_collocations", lambda *_: pytest.fail("counted again"))
    assert np.array_equal(collocation_keys(Tables(phrases), 20, 4), expected)


def test_a_text_without_collocations_has_words_for_units(corpus):
    flat = open_stream(corpus, "mlm:strategy=pmi").build(np.arange(20))
    words = open_stream(corpus, "mlm:strategy=words,decided_by=unit").build(np.arange(20))
    assert len(collocation_keys(Tables(corpus), 800_000, 11)) == 0
    assert np.array_equal(flat.sequences.token_ids, words.sequences.token_ids)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mlm:strategy=pmi,longest=6", "collocations are counted up to 5 words"),
        ("mlm:strategy=words,num_collocations=10", "num_collocations is for strategy pmi"),
        ("mlm:strategy=pmi,min_count=0", "min_count is for strategy pmi, and at least 1"),
        ("mlm:min_count=5", "min_count is for strategy pmi"),
    ],
)
def test_impossible_options_are_refused_in_one_line(spec, message):
    with pytest.raises(UserError, match=message):
        build_objectives(spec)
