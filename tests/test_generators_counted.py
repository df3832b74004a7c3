"""Generators that draw from counts over the training text."""

import numpy as np
import pytest
import torch

from corpora.tables import Tables
from generators import GENERATORS, GeneratorSetting
from objectives.batch import Batch, DeviceProposal, View


@pytest.fixture
def setting(corpus):
    table = torch.nn.Embedding(200, 8)
    return GeneratorSetting(
        config=None, word_embeddings=table, vocabulary=corpus.vocabulary, tables=Tables(corpus), attention="eager"
    )


def ask(before, originals, uniforms, excludes_original=False):
    """A batch with rows of [CLS], the token before, [MASK], [SEP], and a proposal for the masks."""
    rows = torch.tensor([[2, token, 4, 3] for token in before])
    batch = Batch(main=View(rows, torch.ones_like(rows), torch.zeros_like(rows)), targets={}, proposals={})
    positions = torch.arange(len(before)) * 4 + 2
    fills = torch.ones(len(before), dtype=torch.bool)
    return batch, DeviceProposal(positions, torch.tensor(originals), uniforms, fills, excludes_original)


def follow(corpus, token):
    """Count by hand what follows a token within the training sentences."""
    counts = np.zeros(200)
    for document in corpus.documents[:50]:
        for sentence in document:
            for one, other in zip(sentence, sentence[1:], strict=False):
                counts[other] += one == token
    return counts / counts.sum()


def test_ngram_is_the_mixture_of_bigram_and_unigram(corpus, setting):
    frequent = int(np.argmax(corpus.unigram_counts))
    proposer = GENERATORS["ngram"](unigram_rate=0.25).build(setting)
    batch, proposal = ask([frequent, 4, 2], [7, 8, 9], torch.tensor([0.1, 0.5, 0.9]))
    probabilities = proposer(batch, proposal).log_probabilities.double().exp().numpy()
    unigram = corpus.unigram_counts / corpus.unigram_counts.sum()
    assert probabilities[0] == pytest.approx(0.75 * follow(corpus, frequent) + 0.25 * unigram, abs=1e-6)
    for alone in (1, 2):  # after [MASK] and [CLS]
        assert probabilities[alone] == pytest.approx(unigram, abs=1e-6)


def test_ngram_draws_as_it_says(corpus, setting):
    frequent = int(np.argmax(corpus.unigram_counts))
    uniforms = ((torch.arange(20_000) + 0.5) / 20_000).view(1, -1).float()
    proposer = GENERATORS["ngram"]().build(setting)
    drawn = proposer(*ask([frequent], [7], uniforms)).token_ids
    assert drawn.shape == (1, 20_000)
    shares = np.bincount(drawn.flatten().numpy(), minlength=200) / 20_000
    expected = 0.9 * follow(corpus, frequent) + 0.1 * corpus.unigram_counts / corpus.unigram_counts.sum()
    assert np.abs(shares - expected).max() < 2e-4


def test_a_follower_that_is_always_the_original_gives_way_to_the_unigram(corpus, setting):
    proposer = GENERATORS["ngram"](unigram_rate=0.0).build(setting)
    rows = np.diff(proposer.offsets.numpy())
    only = int(np.flatnonzero(rows == rows[rows > 0].min())[0])
    proposer.rates.zero_()
    start = int(proposer.offsets[only])
    proposer.rates[start] = 1.0
    original = int(proposer.followers[start])
    uniforms = ((torch.arange(1000) + 0.5) / 1000).view(1, -1).float()
    assert (proposer(*ask([only], [original], uniforms)).token_ids == original).all()
    drawn = proposer(*ask([only], [original], uniforms, excludes_original=True)).token_ids
    assert not (drawn == original).any() and len(drawn.unique()) > 150 and (drawn >= 5).all()


def test_similar_is_uniform_among_the_nearest(corpus, setting):
    uniforms = ((torch.arange(1000) + 0.5) / 1000).view(1, -1).float()
    proposed = GENERATORS["similar"](num_neighbours=5).build(setting)(*ask([9], [42], uniforms))
    ids, counts = np.unique(proposed.token_ids.numpy(), return_counts=True)
    assert ids.tolist() == sorted(Tables(corpus).neighbours(5)[42].tolist()) and counts.tolist() == [200] * 5
    assert proposed.log_probabilities.exp().sum() == pytest.approx(1)
    assert (proposed.log_probabilities > -torch.inf).sum() == 5


def test_a_low_temperature_draws_the_nearest(corpus, setting):
    uniforms = torch.rand(1, 50, generator=torch.Generator().manual_seed(0))
    nearest = Tables(corpus).neighbours(5)[42, 0]
    proposer = GENERATORS["similar"](num_neighbours=5, temperature=1e-4).build(setting)
    assert (proposer(*ask([9], [42], uniforms)).token_ids == nearest).all()
    mild = GENERATORS["similar"](num_neighbours=5, temperature=1.0).build(setting)
    vectors = Tables(corpus).embeddings(64)
    cosines = torch.from_numpy(vectors[Tables(corpus).neighbours(5)[42]] @ vectors[42])
    ids = torch.from_numpy(Tables(corpus).neighbours(5)[42].copy())
    found = mild(*ask([9], [42], uniforms)).log_probabilities[0, ids]
    assert found.tolist() == pytest.approx(cosines.log_softmax(-1).tolist(), abs=1e-5)
