"""What next sentence prediction and sentence shuffle detection do to passages, and what they ask."""

from collections import Counter
from math import factorial

import numpy as np
import pytest

from corpora.errors import CorpusError
from objectives.draws import Draws
from objectives.sentence_shuffle import permute_within
from tests.conftest import WrittenCorpus
from tests.test_objectives import open_stream


def texts_of(flat, vocabulary):
    """Return each example's segments as tuples of token ids."""
    examples = []
    for start, end in zip(flat.sequences.offsets[:-1], flat.sequences.offsets[1:], strict=True):
        ids = flat.sequences.token_ids[start + 1 : end].tolist()
        segments, current = [], []
        for token in ids:
            if token == vocabulary.sep_id:
                segments.append(tuple(current))
                current = []
            else:
                current.append(token)
        examples.append(segments)
    return examples


def documents_holding(corpus, text):
    """Return the documents in which the tokens stand one after another."""
    found = []
    for number, document in enumerate(corpus.documents):
        tokens = [token for sentence in document for token in sentence]
        if any(tuple(tokens[i : i + len(text)]) == text for i in range(len(tokens) - len(text) + 1)):
            found.append(number)
    return found


def test_the_second_text_follows_or_is_from_another_document(corpus):
    """Invariant 28: labelled by where the text came from, never by a coin alone."""
    flat = open_stream(corpus, "nsp").build(np.arange(300))
    labels = flat.targets["nsp"]["is_random_next"].values
    for (first, second), is_random in zip(texts_of(flat, corpus.vocabulary), labels, strict=True):
        assert is_random or documents_holding(corpus, first + second)


def test_a_random_second_text_is_never_of_the_first_ones_document(corpus):
    """Invariant 28, on texts whose first tokens stand in one document only."""
    homes = {}
    for number, document in enumerate(corpus.documents):
        tokens = [token for sentence in document for token in sentence]
        for begin in range(len(tokens) - 4):
            homes.setdefault(tuple(tokens[begin : begin + 5]), set()).add(number)
    assert all(len(found) == 1 for found in homes.values())
    flat = open_stream(corpus, "nsp").build(np.arange(3000))
    labels = flat.targets["nsp"]["is_random_next"].values
    pairs = [
        (homes[first[:5]], homes[second[:5]])
        for (first, second), is_random in zip(texts_of(flat, corpus.vocabulary), labels, strict=True)
        if is_random and len(first) >= 5 and len(second) >= 5
    ]
    assert len(pairs) > 1000
    assert all(first != second for first, second in pairs)


def test_exactly_half_of_the_pairs_are_random(corpus):
    """BERT's code gives 56 to 66 %."""
    labels = open_stream(corpus, "nsp").build(np.arange(1000)).targets["nsp"]["is_random_next"].values
    assert labels.sum() == 500


def test_lengths_do_not_tell_a_random_pair(corpus):
    """A threshold on the length of the second text, or of both, separates the classes no better than chance."""
    flat = open_stream(corpus, "nsp", max_length=64).build(np.arange(20_000))
    labels = flat.targets["nsp"]["is_random_next"].values.astype(bool)
    second = np.bincount(flat.sequences.rows, flat.sequences.segments)
    for lengths in (second, flat.sequences.lengths):
        thresholds = np.unique(lengths)
        best = max(abs((lengths[labels] <= t).mean() - (lengths[~labels] <= t).mean()) for t in thresholds) / 2
        assert best < 0.06


def test_pairs_are_framed_with_segments(corpus):
    """Invariant 34: [CLS] A [SEP] is segment 0, B [SEP] is segment 1."""
    flat = open_stream(corpus, "nsp").build(np.arange(50))
    for start, end in zip(flat.sequences.offsets[:-1], flat.sequences.offsets[1:], strict=True):
        ids, segments = flat.sequences.token_ids[start:end], flat.sequences.segments[start:end]
        first_separator = int(np.flatnonzero(ids == corpus.vocabulary.sep_id)[0])
        assert segments.tolist() == [0] * (first_separator + 1) + [1] * (len(ids) - first_separator - 1)
        assert ids[-1] == corpus.vocabulary.sep_id and (ids == corpus.vocabulary.sep_id).sum() == 2


def test_one_document_is_refused(vocabulary, tmp_path):
    corpus = WrittenCorpus(documents=[[[5, 6], [7, 8], [9, 10]]], vocabulary=vocabulary, folder=tmp_path)
    with pytest.raises(CorpusError, match="at least two documents"):
        open_stream(corpus, "nsp")


def test_passages_that_cannot_carry_an_objective_are_skipped_and_counted(corpus):
    every = open_stream(corpus, "mlm")
    for spec, needed in (("nsp", 2), ("sentence_shuffle:fair_lengths=false", 3)):
        stream = open_stream(corpus, spec, max_length=64 + (spec == "nsp"))
        assert stream.num_skipped == (every.passages.num_sentences < needed).sum()
        assert (stream.passages.num_sentences >= needed).all()
    for spec, needed in (("sentence_shuffle", 3), ("sentence_shuffle:min_sentences=5", 5)):
        stream = open_stream(corpus, spec)
        assert stream.num_skipped == (every.passages.num_fair < needed).sum()
        assert stream.num_skipped > (every.passages.num_sentences < needed).sum()
        assert (stream.passages.num_fair >= needed).all()


def test_a_corpus_that_no_passage_of_can_carry_the_objective_is_refused(vocabulary, tmp_path):
    corpus = WrittenCorpus(documents=[[[5, 6]]] * 20, vocabulary=vocabulary, folder=tmp_path)
    with pytest.raises(CorpusError, match="sentence_shuffle"):
        open_stream(corpus, "sentence_shuffle")


@pytest.mark.parametrize("fair", ["true", "false"])
def test_a_shuffled_passage_has_the_same_sentences_in_another_order(corpus, fair):
    """Invariants 30 to 32: never the identity, the same multiset of tokens, each sentence whole."""
    stream = open_stream(corpus, f"sentence_shuffle:fair_lengths={fair}")
    shuffled = stream.build(np.arange(400))
    labels = shuffled.targets["sentence_shuffle"]["is_shuffled"].values
    passages = stream.passages.select(stream.passage_indices(np.arange(400)))
    firsts = passages.fair_firsts if fair == "true" else passages.first_sentences
    assert labels.mean() == 0.5
    for row, ((text,), label) in enumerate(zip(texts_of(shuffled, corpus.vocabulary), labels, strict=True)):
        offsets = corpus.sentence_offsets
        sentences = [
            tuple(corpus.token_ids[offsets[s] : offsets[s + 1]].tolist())
            for s in range(firsts[row], passages.last_sentences[row])
        ]
        original = tuple(token for sentence in sentences for token in sentence)
        assert Counter(text) == Counter(original)
        assert (text != original) == bool(label)
        assert all(any(text[i : i + len(s)] == s for i in range(len(text))) for s in sentences)


def test_permutations_are_uniform_among_those_that_are_not_the_identity():
    """Invariant 31, three sentences: five permutations, each a fifth of the time."""
    num = 30_000
    rows = np.repeat(np.arange(num), 3)
    order = permute_within(rows, np.ones(num, dtype=bool), Draws(seed=0, examples=np.arange(num))).reshape(num, 3)
    counts = Counter(map(tuple, (order - 3 * np.arange(num)[:, None]).tolist()))
    assert len(counts) == factorial(3) - 1 and (0, 1, 2) not in counts
    assert sum((n - 6000) ** 2 / 6000 for n in counts.values()) < 18.5  # chi-square, 4 degrees of freedom, p = .001


def test_equal_sentences_that_change_places_are_labelled_in_order(vocabulary, tmp_path):
    corpus = WrittenCorpus(documents=[[[7, 8], [7, 8], [7, 8]]] * 20, vocabulary=vocabulary, folder=tmp_path)
    flat = open_stream(corpus, "sentence_shuffle").build(np.arange(20))
    assert flat.targets["sentence_shuffle"]["is_shuffled"].values.sum() == 0


def test_a_permutation_of_unshuffled_rows_is_the_identity():
    rows = np.repeat(np.arange(50), 4)
    order = permute_within(rows, np.arange(50) % 2 == 0, Draws(seed=0, examples=np.arange(50)))
    assert np.array_equal(rows[order], rows)
    untouched = (rows % 2) == 1
    assert np.array_equal(order[untouched], np.flatnonzero(untouched))
