"""Code lengths against closed forms."""

from math import log2

import numpy as np
import pytest
import torch

from corpora.errors import UserError
from probes.mdl import FRACTIONS, code_length, online_code, shuffle_units


def entropy(labels):
    shares = np.bincount(labels) / len(labels)
    return float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())


def test_a_constant_predictor_costs_the_entropy_in_bits():
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    constant = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log().expand(1000, 3)
    assert float(code_length(constant, torch.from_numpy(labels))) == pytest.approx(1000 * entropy(labels), rel=1e-9)
    assert 1000 * entropy(labels) == pytest.approx(1156.78, abs=0.01)


def test_features_that_say_nothing_cost_the_entropy():
    labels = np.random.default_rng(0).choice(3, 4000, p=[0.7, 0.2, 0.1])
    code = online_code(np.zeros((1, 4000, 4), dtype=np.float32), labels)
    assert code.uniform_bits == pytest.approx(4000 * log2(3))
    assert code.unigram_bits == pytest.approx(4000 * entropy(labels))
    assert code.unigram_bits < code.bits[0] < 1.02 * code.unigram_bits
    assert -0.03 < code.gain[0] < 0


@pytest.mark.parametrize("num_classes", [2, 17])
def test_features_that_hold_the_label_compress_more_than_tenfold(num_classes):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, num_classes, 6000)
    features = np.eye(num_classes, dtype=np.float32)[labels] + 0.01 * rng.normal(size=(6000, num_classes))
    code = online_code(features[None], labels, shuffles=1)
    assert code.compression[0] > 10
    first = max(10, round(FRACTIONS[1] * 6000)) * log2(num_classes)
    assert code.bits[0] > first


@pytest.mark.slow
def test_shuffled_labels_do_not_compress():
    rng = np.random.default_rng(2)
    labels = np.tile(np.arange(4), 500)
    features = rng.normal(size=(2, 2000, 16)).astype(np.float32)
    code = online_code(features, rng.permutation(labels), shuffles=2)
    assert (code.compression <= 1.0).all()
    assert (code.compression > 0.94).all()


def test_a_class_that_comes_late_costs_little():
    labels = np.random.default_rng(3).integers(0, 2, 2000)
    features = labels[None, :, None].astype(np.float32)
    before = online_code(features, labels, num_classes=3, shuffles=1)
    labels[1000] = 2
    after = online_code(features, labels, num_classes=3, shuffles=1)
    assert 0 < after.bits[0] - before.bits[0] < 60


@pytest.mark.slow
def test_a_better_layer_costs_fewer_bits():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 2000)
    marks = np.eye(3)[labels]
    layers = np.stack([marks + deviation * rng.normal(size=(2000, 3)) for deviation in (2.0, 1.0, 0.5)])
    code = online_code(layers.astype(np.float32), labels)
    assert code.bits[0] > 1.15 * code.bits[1] > 1.6 * code.bits[2]
    assert (code.deviation < 0.05 * code.bits).all()


def test_units_stay_together_and_blocks_end_with_them():
    units = np.repeat(np.arange(500), np.random.default_rng(5).integers(1, 9, 500))
    order, ends = shuffle_units(len(units), units, np.random.default_rng(6))
    assert sorted(order.tolist()) == list(range(len(units)))
    shuffled = units[order]
    assert np.count_nonzero(np.diff(shuffled)) == 499  # each unit is one run
    assert ends[-1] == len(units)
    assert all(shuffled[end - 1] != shuffled[end] for end in ends[:-1])
    assert min(np.diff([0, *ends])) >= 10
    whole = [round(fraction * len(units)) for fraction in FRACTIONS]
    assert ends[-4:] == pytest.approx(whole[-4:], abs=8)


def test_too_few_items_or_classes_are_said():
    with pytest.raises(UserError, match="15 items are too few"):
        online_code(np.zeros((1, 15, 2), dtype=np.float32), np.arange(15) % 2)
    with pytest.raises(UserError, match="at least 2 classes"):
        online_code(np.zeros((1, 50, 2), dtype=np.float32), np.zeros(50, dtype=int))
