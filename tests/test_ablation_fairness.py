"""What arms of a study have alike for each seed: the encoder that they start from, and the order of the text."""

import numpy as np
import pytest

from ablation.plan import hash_encoder
from tests.small_runs import make_config, make_run

OTHERS = [
    {"objective": "rtd"},
    {"objective": "rtd", "generator": "masked_lm:sharing=hard"},
    {"objective": "rtd", "generator": "masked_lm:sharing=gdes"},
    {"objective": "nsp"},
    {"objective": "mlm+sentence_shuffle"},
    {"objective": "data2vec"},
    {"objective": "simcse", "dropout": 0.1},
    {"objective": "tsdae"},
    {"mix": "2*mlm; 1*causal_lm"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fair")


@pytest.fixture(scope="module")
def plain(folder):
    return {seed: make_run(make_config(folder, objective="mlm", seed=seed)) for seed in (0, 1)}


@pytest.mark.parametrize("changes", OTHERS, ids=lambda changes: " ".join(map(str, changes.values())))
def test_all_arms_start_from_one_encoder_at_each_seed(folder, plain, changes):
    ours = make_run(make_config(folder, seed=1, **changes)).model.encoder
    assert hash_encoder(ours) == hash_encoder(plain[1].model.encoder) != hash_encoder(plain[0].model.encoder)
    if changes.get("generator", "").endswith("gdes"):  # its word table is the sum of two
        return
    theirs = plain[1].model.encoder.state_dict()
    assert ours.state_dict().keys() == theirs.keys()
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.state_dict().items())


def order_of(run, count: int = 300) -> np.ndarray:
    """Return where in the text the first examples of a run begin."""
    stream = run.train.stream
    return stream.passages.starts[stream.passage_indices(np.arange(count))]


def test_arms_that_use_the_same_passages_read_them_in_the_same_order(folder, plain):
    for changes in ({"objective": "rtd"}, {"objective": "data2vec"}, {"objective": "causal_lm"}):
        assert np.array_equal(order_of(make_run(make_config(folder, **changes))), order_of(plain[0]))
    assert not np.array_equal(order_of(plain[0]), order_of(plain[1]))


def test_arms_that_can_not_use_all_passages_read_the_others_in_the_same_order(folder, plain):
    shuffled = make_run(make_config(folder, objective="sentence_shuffle"))
    used = shuffled.train.stream.passages.starts
    one = order_of(plain[0], len(plain[0].train.stream.passages))  # an epoch each
    other = order_of(shuffled, len(used))
    assert len(used) < len(one)
    assert np.array_equal(one[np.isin(one, used)], other[np.isin(other, one)])
