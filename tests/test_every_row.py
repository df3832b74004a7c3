"""Every objective of the table for 200 steps of `tiny` on the built-in text: it starts at chance, learns, and resumes;
and the data are the same bytes in one process and in two, with workers and without.

    pytest tests/test_every_row.py -m long --numprocesses auto       splits by objective
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from objectives import OBJECTIVES
from tests.small_runs import read_log
from tests.test_processes import finish, read_trace, start
from tests.trace_run import main as write_traces
from training.config import Config
from training.loop import pretrain

pytestmark = pytest.mark.long
STEPS, HALF, WINDOW, BATCH = 200, 100, 20, 8
SETTINGS = {
    "corpus": "builtin",
    "encoder": "tiny",
    "max_length": 64,
    "batch_size": BATCH,
    "micro_batch_size": BATCH,
    "max_steps": STEPS,
    "log_every": 1,
    "eval_every": STEPS,
    "eval_examples": 16,
    "save_every": HALF,
    "mixed_precision": "no",
    "threads": 1,
}
OF_ITS_OWN = {
    "simcse": {"dropout": 0.1},  # without dropout, both encodings are one
    # Few questions a row: the first loss of eight rows would be that of chance but for noise.
    "word_order": {"batch_size": 64, "micro_batch_size": 64},
    "permutation": {"batch_size": 64, "micro_batch_size": 64},
    **{  # which need passages of three sentences and more
        name: {"max_length": 96}
        for name in (
            "same_paragraph",
            "sentence_shuffle",
            "shuffle_boundaries",
            "sentence_unshuffle",
            "sentence_position",
            "rotation",
        )
    },
}
WITH_WORKERS = ("mlm", "rtd", "nsp")
# Why the loss can't be expected to fall in 200 steps of 8 rows: it must not rise above chance, but for noise.
FEW_QUESTIONS = "one for each example or sentence, a few thousand in all: nsp beside mlm leaves ln 2 after some 15,000"
CANNOT_FALL = dict.fromkeys(
    (
        "nsp",
        "sop",
        "sentence_structure",
        "sentence_distance",
        "adjacent_sentence",
        "same_sentence",
        "same_paragraph",
        "sentence_shuffle",
        "sentence_unshuffle",
        "sentence_position",
        "rotation",
        "shuffle_boundaries",
        "quick_thoughts",
    ),
    FEW_QUESTIONS,
)
NOISE = 1.03


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where the prepared text lies, for all processes of xdist."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache-of-every-row"


def settings_of(name, cache, out, **changes):
    return SETTINGS | OF_ITS_OWN.get(name, {}) | {"objective": name, "cache": str(cache), "out": str(out)} | changes


@pytest.mark.parametrize("name", OBJECTIVES)
def test_200_steps_start_at_chance_learn_and_resume_bit_for_bit(tmp_path, cache, name):
    config = Config.from_dict(settings_of(name, cache, tmp_path / "straight"))
    pretrain(config)
    check_losses(name, tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / f"step-{STEPS:08}")
    pretrain(replace(config, resume=str(tmp_path / "broken")))
    assert read_log(tmp_path / "straight") == read_log(tmp_path / "broken")
    assert weights_of(tmp_path / "straight") == weights_of(tmp_path / "broken")
    for folder in ("straight", "broken"):
        shutil.rmtree(tmp_path / folder)  # 60 MB an objective


def check_losses(name: str, folder: Path) -> None:
    """Assert what the log of a finished run must show of each loss."""
    rows = [row["losses"] for row in read_log(folder) if row["split"] == "train"]
    levels = {loss: next(iter(each.values())) for loss, each in read_record(folder)["chance"].items()}
    assert len(rows) == STEPS and rows[0].keys() == levels.keys()
    for loss, chance in levels.items():
        values = np.array([row[loss] for row in rows])
        assert np.isfinite(values).all(), loss
        assert values[0] == pytest.approx(chance, rel=0.1), loss
        if name in CANNOT_FALL:
            assert values[HALF:].mean() < NOISE * chance, loss
        else:
            assert values[-WINDOW:].mean() < values[:WINDOW].mean(), loss


def read_record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def weights_of(folder: Path) -> dict[str, bytes]:
    """Return the files of the last checkpoint: every weight, buffer and moment of the optimizer, to the bit."""
    last = folder / "checkpoints" / f"step-{STEPS:08}"
    files = {path.name: path.read_bytes() for path in sorted(last.glob("*.safetensors"))}
    assert files.keys() == {"model.safetensors", "optimizer.safetensors"}
    return files


def test_one_process_and_two_see_the_same_200_steps_of_every_objective(tmp_path, cache):
    dealt = {"batch_size": BATCH, "micro_batch_size": BATCH // 2}
    runs = {name: settings_of(name, cache, tmp_path / "run", **dealt) for name in OBJECTIVES}
    with_workers = {f"{name}-workers": runs[name] | {"workers": 2} for name in WITH_WORKERS}
    process = start(["tests/trace_run.py", json.dumps(runs | with_workers), tmp_path / "two", STEPS], processes=2)
    write_traces(runs, tmp_path / "one", STEPS)
    finish(process, timeout=1800)
    for name in runs:
        one, two = (read_trace(tmp_path / world / name) for world in ("one", "two"))
        assert len(list((tmp_path / "two" / name).glob("trace-*.txt"))) == 2
        assert [example for _, examples, _ in one for example in examples] == list(range(BATCH * STEPS))
        assert len({digest for _, _, digest in one}) == 2 * STEPS, f"{name}: micro-batches are alike"
        assert one == two, f"{name}: two processes see something else than one"
        if name in WITH_WORKERS:
            assert one == read_trace(tmp_path / "two" / f"{name}-workers"), f"{name}: workers see something else"
