"""What is counted from a corpus's training documents, against counting written out."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from corpora.errors import StorageError
from corpora.tables import WINDOW, Tables
from tests.conftest import WrittenCorpus, word_of
from training.embeddings import start_from_cooccurrences


def write(vocabulary, folder, documents, held_out=()):
    return WrittenCorpus(documents=documents, vocabulary=vocabulary, folder=folder, held_out=held_out)


@pytest.fixture(scope="module")
def pairs(vocabulary, tmp_path_factory):
    """Ids of ten come in the company of each other: sentences of 20 to 29, of 30 to 39, ... up to 69."""
    rng = np.random.default_rng(0)
    topics = [rng.integers(20 + 10 * topic, 30 + 10 * topic, size=40).tolist() for topic in range(5) for _ in range(20)]
    return write(vocabulary, tmp_path_factory.mktemp("pairs"), [[sentence] for sentence in topics])


def test_following_tokens_are_counted_within_sentences_of_training_documents(vocabulary, tmp_path):
    documents = [
        [[5, 6, 7], [5, 6]],  # 7 -> 5 spans two sentences
        [[6, 6, 6]],
        [[5, 7, 9], [9, 5]],  # held out
        [[8, 1, 5], [5]],  # 1 is special
        [[5, 6]],
    ]
    corpus = write(vocabulary, tmp_path, documents, held_out=(2,))
    counts = Tables(corpus).next_counts()
    found = {(int(a), int(b)): int(n) for a, b, n in zip(*counts.nonzero(), counts[counts.nonzero()], strict=True)}
    assert counts.shape == (200, 200)
    assert found == {(5, 6): 3, (6, 7): 1, (6, 6): 2}


def test_following_tokens_of_a_larger_corpus_are_those_of_a_loop(corpus):
    expected = Counter()
    for number, document in enumerate(corpus.documents):
        if not corpus.is_held_out[number]:
            for sentence in document:
                expected.update(zip(sentence[:-1], sentence[1:], strict=True))
    counts = Tables(corpus).next_counts().tocoo()
    assert dict(zip(zip(counts.row.tolist(), counts.col.tolist(), strict=True), counts.data.tolist(), strict=True)) == (
        expected
    )


def test_documents_are_counted_once_and_held_out_ones_never(vocabulary, tmp_path):
    documents = [[[5, 5, 6], [5]], [[6]], [[7, 5]], [[7]]]
    tables = Tables(write(vocabulary, tmp_path, documents, held_out=(3,)))
    frequency = tables.document_frequency()
    assert frequency[[5, 6, 7]].tolist() == [2, 2, 1] and frequency.sum() == 5
    assert tables.training_documents().tolist() == [[0, 4], [4, 5], [5, 7]]


def test_no_window_spans_two_documents(vocabulary, tmp_path):
    """Tokens that never share a document are never each other's context, at any distance."""
    tables = Tables(write(vocabulary, tmp_path, [[[5, 6, 7]], [[8, 9]], [[10]], [[11, 12, 13, 14]]]))
    tokens = tables._tokens()
    within = {
        1: {(5, 6), (6, 7), (8, 9), (11, 12), (12, 13), (13, 14)},
        2: {(5, 7), (11, 13), (12, 14)},
        3: {(11, 14)},
    }
    for distance in range(1, WINDOW + 1):
        counted = tables._count_pairs(tokens, distance).tocoo()
        assert set(zip(counted.row.tolist(), counted.col.tolist(), strict=True)) == within.get(distance, set())


def test_embeddings_have_length_one_where_a_token_was_seen(pairs):
    vectors = Tables(pairs).embeddings(16)
    lengths = np.linalg.norm(vectors, axis=1)
    assert vectors.shape == (200, 16) and vectors.dtype == np.float32
    assert lengths[20:70] == pytest.approx(np.ones(50), abs=1e-5)
    assert (lengths[:20] == 0).all() and (lengths[70:] == 0).all()


def test_embeddings_are_those_of_positive_mutual_information(pairs):
    """Levy et al., 2015, section 2.2 and 3.3: with all dimensions kept, products are those of the matrix itself."""
    counts = np.zeros((200, 200))
    for document in pairs.documents:
        (sentence,) = document
        for i, token in enumerate(sentence):
            for other in sentence[max(0, i - WINDOW) : i] + sentence[i + 1 : i + 1 + WINDOW]:
                counts[token, other] += 1
    totals = counts.sum(1)
    smoothed = totals**0.75 / (totals**0.75).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        matrix = np.nan_to_num(np.maximum(np.log(counts / totals[:, None] / smoothed), 0))
    left, values, _ = np.linalg.svd(matrix)
    expected = left[:, :16] * np.sqrt(values[:16])
    expected = expected[20:70] / np.linalg.norm(expected[20:70], axis=1, keepdims=True)
    vectors = Tables(pairs).embeddings(16)[20:70]
    assert np.abs(vectors @ vectors.T - expected @ expected.T).max() < 0.02


def test_neighbours_are_the_nearest_others(pairs):
    nearest = Tables(pairs).neighbours(5)
    vectors = Tables(pairs).embeddings(64)
    assert nearest.shape == (200, 5) and nearest.min() >= 5
    assert not (nearest == np.arange(200)[:, None]).any()
    assert all(len(set(row)) == 5 for row in nearest.tolist())
    for token in range(20, 70):
        likeness = vectors[5:] @ vectors[token]
        likeness[token - 5] = -np.inf
        assert likeness[nearest[token] - 5] == pytest.approx(np.sort(likeness)[::-1][:5], abs=1e-6)
        assert (nearest[token] // 10 == token // 10).all()  # of its own topic


def test_clusters_cover_the_ordinary_tokens(pairs, corpus):
    clusters = Tables(corpus).clusters(20)
    assert (clusters[:5] == -1).all()
    assert set(clusters[5:].tolist()) == set(range(20))
    of_topics = Tables(pairs).clusters(6)  # five topics, and the tokens that were never seen
    assert [len(set(of_topics[20 + 10 * t : 30 + 10 * t].tolist())) for t in range(5)] == [1] * 5
    assert set(of_topics[5:].tolist()) == set(range(6))


def test_texts_have_no_marks_and_special_tokens_none(corpus):
    texts = Tables(corpus).token_texts
    assert texts[:5] == [""] * 5
    assert texts[5:] == [word_of(token_id).removeprefix("##") for token_id in range(5, 200)]


def test_tables_are_kept_beside_the_store_and_read_again(vocabulary, tmp_path, monkeypatch):
    documents = [[[5, 6, 7, 8] * 5], [[9, 10, 5] * 5]]
    first = Tables(write(vocabulary, tmp_path, documents))
    made = {
        "document_frequency": first.document_frequency(),
        "next_counts": first.next_counts().toarray(),
        "embeddings": first.embeddings(8),
    }
    names = sorted(path.name.rsplit("-", 1)[0] for path in (tmp_path / "tables").iterdir())
    assert names == ["document_frequency", "embeddings-8", "next_counts"]  # and nothing half written

    again = Tables(write(vocabulary, tmp_path, [[[199]]]))  # what it would count itself is another thing
    for method in ("_count_documents", "_count_next", "_factorise"):
        monkeypatch.setattr(Tables, method, lambda *_: pytest.fail("counted again"))
    assert np.array_equal(again.document_frequency(), made["document_frequency"])
    assert np.array_equal(again.next_counts().toarray(), made["next_counts"])
    assert np.array_equal(again.embeddings(8), made["embeddings"])
    for table in (first.document_frequency(), again.embeddings(8)):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1


@pytest.mark.parametrize("rest", [b"", b"\x93NUMPY\x01", None])
def test_a_broken_table_is_counted_again(vocabulary, tmp_path, rest):
    corpus = write(vocabulary, tmp_path, [[[5, 6]], [[6]]])
    expected = Tables(corpus).document_frequency().copy()
    (path,) = (tmp_path / "tables").iterdir()
    path.write_bytes(path.read_bytes()[:-8] if rest is None else rest)
    assert np.array_equal(Tables(corpus).document_frequency(), expected)
    assert np.array_equal(np.load(path), expected)


def test_a_table_that_cannot_be_written_is_named(vocabulary, tmp_path):
    (tmp_path / "tables").write_text("in the way")
    with pytest.raises(StorageError, match=r"tables/document_frequency-\w+\.npy can't be written"):
        Tables(write(vocabulary, tmp_path, [[[5, 6]]])).document_frequency()


def test_word_tables_start_from_cooccurrences_as_long_as_random_ones():
    torch.manual_seed(0)
    table = nn.Embedding(50, 8)
    before = table.weight.detach().clone()
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(50, 8)) + 3).astype(np.float32)
    vectors[:10] = 0
    counts = np.arange(50)
    start_from_cooccurrences(table, vectors, counts)
    started = table.weight.detach().numpy()
    assert np.array_equal(started[:10], before[:10].numpy())  # never seen
    assert np.linalg.norm(started[10:], axis=1) == pytest.approx([float(before.norm(dim=1).mean())] * 40, rel=1e-5)
    mean = (vectors[10:] * counts[10:, None]).sum(0) / counts[10:].sum()
    directions = (vectors[10:] - mean) / np.linalg.norm(vectors[10:] - mean, axis=1, keepdims=True)
    cosines = (started[10:] / np.linalg.norm(started[10:], axis=1, keepdims=True) * directions).sum(1)
    assert cosines == pytest.approx(np.ones(40), abs=1e-5)
