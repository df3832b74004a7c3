"""Trees planted in vectors, and figures written out by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from corpora.errors import UserError
from probes.structural import fit_structural
from probes.trees import distance_spearman, linear_chain_uuas, minimum_spanning_tree, tree_distances

WIDTH = 12


def random_heads(rng, count):
    """A tree in which every word but a random root hangs from one that was placed before it."""
    order = rng.permutation(count)
    heads = np.full(count, -1)
    for place in range(1, count):
        heads[order[place]] = order[rng.integers(place)]
    return heads


def planted(num_sentences, rng):
    """Sentences whose word vectors are sums of one unit vector for each edge on the way from the root."""
    all_heads, vectors, offsets = [], [], [0]
    for _ in range(num_sentences):
        count = int(rng.integers(5, WIDTH))
        heads = random_heads(rng, count)
        edges = np.eye(WIDTH)[rng.permutation(WIDTH)[:count]]
        made = np.zeros((count, WIDTH))
        for word in range(count):
            above = word
            while above >= 0 and heads[above] >= 0:
                made[word] += edges[above]
                above = heads[above]
        all_heads.append(heads)
        vectors.append(made)
        offsets.append(offsets[-1] + count)
    return np.concatenate(vectors), np.concatenate(all_heads), np.array(offsets)


def test_distances_of_a_tree_by_hand():
    # 1 is the root; 0 and 2 hang from it, 3 from 2
    assert tree_distances(np.array([1, -1, 1, 2])).tolist() == [[0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1], [3, 2, 1, 0]]


@pytest.mark.parametrize("heads", [[-1, -1], [1, 0], [1, 2, 1, -1], [5, -1]])
def test_what_is_no_tree_is_refused(heads):
    with pytest.raises(UserError, match="form no tree"):
        tree_distances(np.array(heads))


def test_a_spanning_tree_of_tree_distances_is_the_tree():
    rng = np.random.default_rng(0)
    for _ in range(20):
        heads = random_heads(rng, 15)
        found = {tuple(sorted(edge)) for edge in minimum_spanning_tree(tree_distances(heads).astype(float)).tolist()}
        assert found == {tuple(sorted((word, head))) for word, head in enumerate(heads.tolist()) if head >= 0}


def test_rank_correlations_are_scipys():
    rng = np.random.default_rng(1)
    made, true = rng.random((7, 7)), rng.integers(0, 3, (7, 7))
    theirs = [spearmanr(first, second).statistic for first, second in zip(made, true, strict=True)]
    assert distance_spearman(made, true) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.slow
def test_a_planted_tree_is_recovered_in_its_layer_only():
    rng = np.random.default_rng(2)
    vectors, heads, offsets = planted(300, rng)
    turned = vectors @ np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    noise = rng.normal(size=vectors.shape)
    split = np.repeat([0, 1, 2], [220, 40, 40])
    found = fit_structural(np.stack([noise, turned]), heads, offsets, split, learning_rate=1e-2, max_epochs=60)
    assert found.uuas[1] == 1.0
    assert found.dspr[1] > 0.95  # of equal distances in the tree, the fitted ones are never quite equal
    assert found.uuas[0] < 0.5
    assert abs(found.dspr[0]) < 0.5
    assert found.best_layer == 1
    assert (found.right_edges[1, split == 2] == np.diff(offsets)[split == 2] - 1).all()


def test_a_rank_too_small_for_the_trees_loses_edges():
    rng = np.random.default_rng(3)
    vectors, heads, offsets = planted(200, rng)
    split = np.repeat([0, 1, 2], [140, 30, 30])
    found = fit_structural(vectors[None], heads, offsets, split, rank=2, learning_rate=2e-2)
    assert 0.3 < found.uuas[0] < 0.95


def test_the_linear_chain_by_hand():
    # "a b , c": b is the root, a and c hang from it; the comma is no word, so b and c are neighbours
    heads, is_punctuation = np.array([1, -1, 1, 1]), np.array([False, False, True, False])
    assert linear_chain_uuas(heads, np.array([0, 4]), is_punctuation) == 1.0
    assert linear_chain_uuas(heads, np.array([0, 4])) == 2 / 3
    two = np.array([1, -1, 1, 1, 2, 2, -1])  # in the second "c", the last word, has both others
    assert linear_chain_uuas(two, np.array([0, 4, 7])) == 3 / 5


def test_punctuation_has_no_edges():
    rng = np.random.default_rng(4)
    vectors, heads, offsets = planted(90, rng)
    is_punctuation = np.zeros(len(heads), dtype=bool)
    is_punctuation[offsets[:-1]] = True  # the first of each sentence
    split = np.repeat([0, 1, 2], 30)
    found = fit_structural(vectors[None], heads, offsets, split, is_punctuation=is_punctuation, max_epochs=1)
    touching = [
        sum(1 for word, head in enumerate(heads[begin:end]) if head >= 0 and 0 in (word, head))
        for begin, end in zip(offsets[:-1], offsets[1:], strict=True)
    ]
    assert (found.num_edges == np.diff(offsets) - 1 - np.array(touching)).all()


def test_a_split_without_sentences_is_said():
    vectors, heads, offsets = planted(9, np.random.default_rng(5))
    with pytest.raises(UserError, match="no test sentence"):
        fit_structural(vectors[None], heads, offsets, np.repeat([0, 1], [6, 3]))
