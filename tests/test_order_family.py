"""What the order objectives do to sentences, read off a corpus in which every token is another."""

from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from corpora.errors import UserError
from objectives import build_objectives
from objectives.draws import Draws
from objectives.ordering import move_some, permute_within, swap_neighbours
from tests.conftest import WrittenCorpus
from tests.test_objectives import open_stream
from tests.test_pair_family import FIRST_ID, number_documents, write_numbered

SHUFFLES = {
    "adjacent_swap": "sentence_shuffle:hardness=adjacent_swap",
    "moved": "sentence_shuffle:hardness=moved,num_moved=3",
    "ends": "sentence_shuffle:keep_ends=true",
    "swap_inside": "sentence_shuffle:hardness=adjacent_swap,keep_ends=true",
}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    return write_numbered(tmp_path_factory.mktemp("numbered"))


def read_orders(corpus, spec, num_examples, max_length=128):
    """Return the sentences of each example as they now stand, by their place in the passage's text, and the targets."""
    stream = open_stream(corpus, spec, max_length=max_length)
    flat = stream.build(np.arange(num_examples))
    orders, first_tokens = [], []
    for start, end in pairwise(flat.sequences.offsets.tolist()):
        places = flat.sequences.token_ids[start + 1 : end - 1] - FIRST_ID
        sentences = np.searchsorted(corpus.sentence_offsets, places, side="right") - 1
        changes = np.flatnonzero(np.diff(sentences, prepend=-1))
        whole = [np.arange(corpus.sentence_offsets[s], corpus.sentence_offsets[s + 1]) for s in sentences[changes]]
        assert np.array_equal(places, np.concatenate(whole))  # each sentence whole, in its own order
        orders.append((sentences[changes] - sentences.min()).tolist())
        first_tokens.append(start + 1 + changes)
    return stream, orders, first_tokens, flat.targets[spec.split(":")[0]]


@pytest.mark.parametrize("kind", SHUFFLES)
def test_a_harder_shuffle_changes_what_it_says(numbered, kind):
    """Invariants 31 and 32: never the identity, all sentences there, and only so many out of place."""
    stream, orders, _, targets = read_orders(numbered, SHUFFLES[kind], 400)
    labels = targets["is_shuffled"].values
    assert labels.sum() == 200
    assert (stream.passages.num_fair >= {"adjacent_swap": 3, "moved": 3}.get(kind, 4)).all()
    for order, label in zip(orders, labels, strict=True):
        displaced = [place for place, sentence in enumerate(order) if place != sentence]
        assert sorted(order) == list(range(len(order)))
        assert bool(displaced) == bool(label)
        if label and "swap" in kind:
            assert len(displaced) == 2 and displaced[1] == displaced[0] + 1
        if label and kind == "moved":
            assert len(displaced) == 3
        if kind in ("ends", "swap_inside"):
            assert order[0] == 0 and order[-1] == len(order) - 1


@pytest.mark.parametrize(
    "spec",
    [
        "sentence_shuffle:min_sentences=2",
        "shuffle_boundaries:min_sentences=2",
        "sentence_unshuffle:num_blocks=2",
        "sentence_position:num_sentences=3",
        "rotation:min_sentences=2",
        "sop",
    ],
)
def test_within_a_paragraph_no_example_goes_beyond_one(numbered, spec):
    """Chen et al., 2019, section 3.3: the sentences of an item are from one paragraph."""
    spec += "," if ":" in spec else ":"
    stream = open_stream(numbered, spec + "within=paragraph", max_length=64)
    paragraph_of = np.cumsum(numbered.paragraph_starts)
    flat = stream.build(np.arange(200))
    for start, end in pairwise(flat.sequences.offsets.tolist()):
        tokens = flat.sequences.token_ids[start:end]
        places = tokens[~flat.sequences.is_special[start:end]] - FIRST_ID
        sentences = np.searchsorted(numbered.sentence_offsets, places, side="right") - 1
        assert len(set(paragraph_of[sentences])) == 1 and len(set(sentences)) > 1
    with pytest.raises(UserError, match="document or paragraph"):
        build_objectives(spec + "within=page")


def test_three_sentences_with_fixed_ends_are_refused(tmp_path):
    """Invariant 31: with n = 3 and both ends fixed every permutation is the identity."""
    corpus = number_documents([[5, 5, 5]] * 3 + [[5, 5, 5, 5]], tmp_path)
    stream = open_stream(corpus, "sentence_shuffle:keep_ends=true")
    assert stream.passages.num_sentences.tolist() == [4]


def test_the_options_of_shuffling_do_not_move_the_draws_of_the_default(numbered):
    default = open_stream(numbered, "sentence_shuffle").build(np.arange(100))
    options = "sentence_shuffle:hardness=any,num_moved=5,keep_ends=false"
    same = open_stream(numbered, options).build(np.arange(100))
    assert np.array_equal(default.sequences.token_ids, same.sequences.token_ids)


@pytest.mark.parametrize(
    ("reorder", "num_orders"),
    [
        (swap_neighbours, 3),
        (lambda rows, shuffled, draws: move_some(rows, shuffled, 2, draws), 6),
        (lambda rows, shuffled, draws: move_some(rows, shuffled, 4, draws), 6),
        (permute_within, 23),
    ],
)
def test_orders_are_uniform_among_those_allowed(reorder, num_orders):
    """Of four sentences: 3 swaps of neighbours, 6 of any two, 6 rings of all four, 23 orders but their own."""
    num = 23_000
    rows = np.repeat(np.arange(num), 4)
    draws = Draws(seed=0, examples=np.arange(num))
    order = reorder(rows, np.ones(num, dtype=bool), draws).reshape(num, 4) - 4 * np.arange(num)[:, None]
    counts = Counter(map(tuple, order.tolist()))
    expected = num / num_orders
    assert len(counts) == num_orders and (0, 1, 2, 3) not in counts
    # chi-square, p = .001 of 22 degrees of freedom; stricter than that for fewer would be 13.8 and 20.5
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 48.3


def test_the_first_length_tells_a_shuffled_passage_unless_it_is_left_out(tmp_path):
    """All lengths from one distribution; the statistic is Kolmogorov and Smirnov's, of 3,000 passages a class."""
    rng = np.random.default_rng(1)
    lengths = [np.minimum(2 + rng.geometric(0.05, size=40), 60).tolist() for _ in range(200)]
    corpus = number_documents(lengths, tmp_path)
    found = []
    for spec in ("sentence_shuffle:fair_lengths=false", "sentence_shuffle"):
        flat = open_stream(corpus, spec, max_length=128).build(np.arange(6000))
        labels = flat.targets["sentence_shuffle"]["is_shuffled"].values == 1
        first = np.bincount(flat.sequences.rows, flat.sequences.pieces == 0)
        found.append(ks_2samp(first[labels], first[~labels]).statistic)
    assert found[0] > 0.12 and found[1] < 0.06


def test_breaks_are_where_neighbours_were_not(numbered):
    _, orders, first_tokens, targets = read_orders(numbered, "shuffle_boundaries", 400)
    target = targets["is_break"]
    expected = [[int(b != a + 1) for a, b in pairwise(order)] for order in orders]
    assert target.values.tolist() == sum(expected, [])
    assert target.positions.tolist() == np.concatenate([tokens[1:] for tokens in first_tokens]).tolist()
    assert all(order != sorted(order) for order in orders)
    assert 0.35 < target.values.mean() < 0.5  # blocks meet again by chance


def test_all_boundaries_are_cut_at_rate_one_and_one_at_rate_zero(numbered):
    _, orders, *_ = read_orders(numbered, "shuffle_boundaries:cut_rate=0", 200)
    assert all(sum(b != a + 1 for a, b in pairwise(order)) == 1 for order in orders)
    _, orders, _, targets = read_orders(numbered, "shuffle_boundaries:cut_rate=1", 2000)
    triples = Counter(tuple(order) for order in orders if len(order) == 3)
    assert len(triples) == 5 and (0, 1, 2) not in triples


def test_a_boundary_that_reads_as_one_of_the_text_is_no_break(vocabulary, tmp_path):
    """Of equal sentences none is in the wrong place; of A A B only "B A" is not in the text."""
    equal = WrittenCorpus(documents=[[[7, 8]] * 4] * 8, vocabulary=vocabulary, folder=tmp_path)
    assert (
        open_stream(equal, "shuffle_boundaries")
        .build(np.arange(40))
        .targets["shuffle_boundaries"]["is_break"]
        .values.tolist()
        == [0] * 120
    )
    corpus = WrittenCorpus(documents=[[[7, 8], [7, 8], [9]]] * 8, vocabulary=vocabulary, folder=tmp_path)
    flat = open_stream(corpus, "shuffle_boundaries:cut_rate=1").build(np.arange(200))
    breaks = flat.targets["shuffle_boundaries"]["is_break"]
    texts = np.split(flat.sequences.token_ids, flat.sequences.offsets[1:-1])
    expected = {(7, 8, 7, 8, 9): [0, 0], (7, 8, 9, 7, 8): [0, 1], (9, 7, 8, 7, 8): [1, 0]}
    assert breaks.values.tolist() == sum((expected[tuple(text[1:-1].tolist())] for text in texts), [])


@pytest.mark.parametrize("num_blocks", [2, 3, 4])
def test_the_order_of_blocks_is_named(numbered, num_blocks):
    """Every order is equally frequent, and applying its inverse to the blocks restores the passage."""
    spec = f"sentence_unshuffle:num_blocks={num_blocks}"
    (objective,) = build_objectives(spec)
    flat = open_stream(numbered, spec, max_length=128).build(np.arange(480))
    labels = flat.targets["sentence_unshuffle"]["block_order"].values
    every = list(permutations(range(num_blocks)))
    assert np.bincount(labels).tolist() == [480 // len(every)] * len(every)
    for (start, end), label in zip(pairwise(flat.sequences.offsets.tolist()), labels, strict=True):
        assert objective.labels["block_order"][label] == "".join(str(block + 1) for block in every[label])
        text, pieces = flat.sequences.token_ids[start + 1 : end - 1], flat.sequences.pieces[start + 1 : end - 1]
        blocks = {block: text[pieces == place] for place, block in enumerate(every[label])}
        restored = np.concatenate([blocks[block] for block in range(num_blocks)])
        assert np.array_equal(restored, np.arange(text.min(), text.max() + 1))


def test_each_block_is_asked_its_place(numbered):
    whole = open_stream(numbered, "sentence_unshuffle").build(np.arange(60))
    flat = open_stream(numbered, "sentence_unshuffle:asked=places").build(np.arange(60))
    places = flat.targets["sentence_unshuffle"]["block_place"]
    labels = whole.targets["sentence_unshuffle"]["block_order"].values
    assert np.array_equal(flat.sequences.token_ids, whole.sequences.token_ids)
    assert places.values.reshape(60, 3).tolist() == [list(list(permutations(range(3)))[label]) for label in labels]
    assert (np.diff(flat.sequences.pieces)[places.positions - 1] != 0).all()


@pytest.mark.parametrize("num", [5, 3])
def test_one_sentence_was_moved_to_the_front(numbered, num):
    _, orders, _, targets = read_orders(numbered, f"sentence_position:num_sentences={num}", 300)
    labels = targets["position"].values.tolist()
    assert np.bincount(labels).tolist() == [300 // num] * num
    for order, label in zip(orders, labels, strict=True):
        assert order == [label, *(place for place in range(num) if place != label)]


def test_a_passage_is_turned_round_and_its_first_sentence_asked(numbered):
    _, orders, first_tokens, targets = read_orders(numbered, "rotation", 2000)
    target = targets["is_first"]
    assert target.values.tolist() == [int(sentence == 0) for order in orders for sentence in order]
    assert target.positions.tolist() == np.concatenate(first_tokens).tolist()
    for order in orders:
        start = order[0]
        assert order == [*range(start, len(order)), *range(start)]
    starts = Counter(order[0] for order in orders if len(order) == 4)
    assert len(starts) == 4 and min(starts.values()) > 0.15 * starts.total()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("sentence_shuffle:hardness=hard", "hardness is 'hard'; known: any, adjacent_swap, moved"),
        ("sentence_shuffle:hardness=moved,num_moved=1", "num_moved is 1"),
        ("sentence_unshuffle:num_blocks=6", "it must be from 2 to 5"),
        ("sentence_unshuffle:asked=all", "asked is 'all'; known: permutation, places"),
        ("sentence_position:num_sentences=6", "it must be from 2 to 5"),
        ("shuffle_boundaries:cut_rate=2", "a rate is a fraction from 0 to 1"),
        ("rotation:min_sentences=1", "at least 2"),
    ],
)
def test_impossible_options_are_refused(spec, said):
    with pytest.raises(UserError, match=said):
        build_objectives(spec)
