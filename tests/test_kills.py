"""A run that is killed fifty times is the run that was never touched."""

import json

import pytest
from safetensors.torch import load_file

from tests.small_runs import make_config, read_log
from tests.test_processes import finish, start
from training.checkpoint import load_newest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("objective", "kills"), [("rtd+sentence_shuffle", 50)])
def test_killed_runs_end_as_the_uninterrupted_one_bit_for_bit(tmp_path, objective, kills):
    ends = {}
    for name, number in (("straight", 0), ("killed", kills)):
        config = make_config(
            tmp_path,
            objective=objective,
            out=str(tmp_path / name),
            max_steps=400,
            save_every=1,
            log_every=3,
            eval_every=50,
        )
        out, _ = finish(start(["-m", "tests.kill_runs", json.dumps(config.as_dict()), number, 7]), timeout=900)
        seen = json.loads(out.splitlines()[-1])
        assert seen["kills"] == number and not seen["finished_early"] and seen["step"] == 400
        assert number == 0 or seen["inside_saves"] >= 5
        ends[name] = load_newest(tmp_path / name / "checkpoints")
    for part in ("model", "optimizer"):
        one, other = ends["straight"].tensors[part], ends["killed"].tensors[part]
        assert one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)
    assert read_log(tmp_path / "straight") == read_log(tmp_path / "killed")
    exported = [load_file(tmp_path / name / "model.safetensors") for name in ends]
    assert all(exported[0][key].equal(exported[1][key]) for key in exported[0])
