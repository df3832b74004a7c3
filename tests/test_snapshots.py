"""Snapshots: the encoder as it was at chosen steps, and a run that is none the wiser."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from corpora.errors import UserError
from probes.encoder import load_encoder
from tests.small_runs import make_config, read_log
from training.checkpoint import load_newest
from training.command import parse
from training.config import Config
from training.folders import verify_folder
from training.loop import Stopped, pretrain


def read_encoder(folder: Path) -> dict:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs of eight steps: without snapshots, with them, and with them and stopped after the fifth step."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {"objective": "rtd+nsp", "max_steps": 8, "save_every": 5, "dropout": 0.1, "encoder": "bert-tiny"}
    plain = pretrain(make_config(folder, out=str(folder / "plain"), **settings))
    kept = pretrain(make_config(folder, out=str(folder / "kept"), snapshots=(0, 3, 5, 8, 99), **settings))
    return plain, kept


@pytest.mark.slow
def test_snapshots_change_nothing_of_what_is_learned(runs):
    plain, kept = runs
    one, other = (load_newest(run / "checkpoints").tensors for run in runs)
    for part in ("model", "optimizer"):
        assert one[part].keys() == other[part].keys()
        assert all(tensor.equal(other[part][name]) for name, tensor in one[part].items())
    assert read_log(plain) == read_log(kept)
    assert not (plain / "snapshots").exists()


@pytest.mark.slow
def test_each_snapshot_is_the_encoder_of_its_step_whole(runs):
    _, kept = runs
    assert sorted(int(folder.name) for folder in (kept / "snapshots").iterdir()) == [0, 3, 5, 8]
    for folder in (kept / "snapshots").iterdir():
        verify_folder(folder)
        assert load_encoder(folder).tokenizer.cls_token is not None
    last, final = read_encoder(kept / "snapshots" / "8"), read_encoder(kept)
    assert all(tensor.equal(final[name]) for name, tensor in last.items())
    first, third = read_encoder(kept / "snapshots" / "0"), read_encoder(kept / "snapshots" / "3")
    changed = [name for name, tensor in first.items() if not tensor.equal(third[name])]
    assert "embeddings.word_embeddings.weight" in changed and len(changed) > len(first) / 2


@pytest.mark.slow
def test_a_resumed_run_makes_the_snapshots_that_are_left(runs, tmp_path, monkeypatch):
    _, kept = runs
    config = make_config(tmp_path, out=str(tmp_path / "run"), corpus=str(kept.parent / "text.txt"), objective="rtd+nsp")
    config = Config.from_dict(
        config.as_dict()
        | {"max_steps": 8, "save_every": 5, "dropout": 0.1, "encoder": "bert-tiny", "snapshots": [0, 3, 5, 8]}
    )
    from training import loop

    steps = []
    taken = loop.take_step

    def take(run, batches, received):
        steps.append(run.step)
        return taken(run, batches, 15 if run.step == 4 and len(steps) == 5 else received)

    monkeypatch.setattr(loop, "take_step", take)
    with pytest.raises(Stopped):
        pretrain(config)
    (tmp_path / "run" / "snapshots" / ".tmp-1-0123456789abcdef").mkdir()
    pretrain(Config.from_dict(config.as_dict() | {"resume": str(tmp_path / "run")}))
    assert steps == [*range(5), *range(5, 8)]
    assert sorted(each.name for each in (tmp_path / "run" / "snapshots").iterdir()) == ["0", "3", "5", "8"]
    for step in ("0", "3", "5", "8"):
        one, other = (read_encoder(run / "snapshots" / step) for run in (kept, tmp_path / "run"))
        assert all(tensor.equal(other[name]) for name, tensor in one.items())


def test_snapshots_are_steps_with_commas_between_them(tmp_path):
    assert parse(["--snapshots", "0,10,20"]).snapshots == (0, 10, 20)
    assert parse(["--snapshots", "10"]).snapshots == (10,)
    (tmp_path / "run.yaml").write_text("snapshots: [1, 2]\n")
    assert parse(["--config", str(tmp_path / "run.yaml")]).snapshots == (1, 2)
    with pytest.raises(UserError, match="--snapshots is 'x'; it must be a whole number or several"):
        parse(["--snapshots", "x"])
    with pytest.raises(UserError, match="--snapshots has -3; steps are counted from 0"):
        parse(["--snapshots", "4,-3"])
