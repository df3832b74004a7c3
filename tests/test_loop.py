"""Training: exact under any cut of a step, resumed bit for bit, and stopped before it does harm."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from corpora.errors import CheckpointError, CorpusError, TrainingError, UserError
from tests.small_runs import make_config, make_run, read_log
from training import loop
from training.loop import Stopped, accumulate, batches_by_step, pretrain
from training.progress import load_progress
from training.schedule import SCHEDULES, learning_rate_at

OBJECTIVES = ["mlm", "rtd", "nsp", "sentence_shuffle", "mlm+nsp", "rtd+sentence_shuffle"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def test_trackers_are_ended_and_the_process_group_is_left_to_the_model(tmp_path, monkeypatch):
    ended = []

    class Tracker:
        name = "tensorboard"

        def log(self, *_, **__):
            pass

        def finish(self):
            ended.append(self)

    tracker = Tracker()
    monkeypatch.setattr("accelerate.Accelerator.init_trackers", lambda self, *_: self.trackers.append(tracker))
    monkeypatch.setattr("accelerate.Accelerator.end_training", None)  # it would take the group away
    pretrain(make_config(tmp_path, max_steps=1, trackers=("tensorboard",)))
    assert ended == [tracker]


def gradients_of(config):
    run = make_run(config)
    for head in run.model.heads.values():  # away from the start, where classifiers are almost zero
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    (batches,) = batches_by_step(run, 3, 4)
    counts = [run.model.count_targets(batch) for _, batch in batches]
    accumulate(run, batches, {name: sum(each[name] for each in counts) for name in run.model.weights})
    uneven = [len({each[name] for each in counts}) > 1 for name in run.model.weights if name in ("mlm", "rtd")]
    return {name: p.grad for name, p in run.model.named_parameters()}, uneven


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_do_not_depend_on_how_a_step_is_cut(folder, objective):
    """Invariant 45: 1 x 8, 2 x 4 and 8 x 1, with uneven numbers of targets, to 1e-6 of the largest."""
    whole, _ = gradients_of(make_config(folder, objective=objective, micro_batch_size=8))
    for size in (4, 1):
        cut, uneven = gradients_of(make_config(folder, objective=objective, micro_batch_size=size))
        assert size > 1 or all(uneven)
        for name, gradient in whole.items():
            scale = max(1.0, float(gradient.abs().max()))
            assert float((cut[name] - gradient).abs().max()) <= 1e-6 * scale, name


def test_a_mean_of_means_would_not_pass(folder):
    """The bug that the test above is for: dividing by each micro-batch's own count."""
    config = make_config(folder, micro_batch_size=1)
    run = make_run(config)
    (batches,) = batches_by_step(run, 3, 4)
    for pair in batches:
        accumulate(run, [pair], {"mlm": run.model.count_targets(pair[1])["mlm"] * len(batches)})
    whole, _ = gradients_of(make_config(folder, micro_batch_size=8))
    naive = run.model.encoder.get_input_embeddings().weight.grad
    assert float((naive - whole["encoder.embeddings.tok_embeddings.weight"]).abs().max()) > 1e-4


@pytest.mark.parametrize("objective", ["mlm", "rtd+sentence_shuffle"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, objective):
    straight = make_config(tmp_path, objective=objective, out=str(tmp_path / "straight"), save_every=2, max_steps=8)
    pretrain(straight)
    broken = make_config(tmp_path, objective=objective, out=str(tmp_path / "broken"), save_every=2, max_steps=8)
    for stop in (3, 6):  # an odd step: after the last checkpoint, with a log window open
        interrupt_at(stop, broken)
        broken = make_config(tmp_path, **{**broken.as_dict(), "trackers": (), "resume": str(tmp_path / "broken")})
    pretrain(broken)
    assert read_log(tmp_path / "straight") == read_log(tmp_path / "broken")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "broken"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class Interruption(BaseException):
    """Ends a run as a kill would: nothing is saved on the way out."""


def interrupt_at(step, config):
    taken = loop.take_step

    def take_step(run, batches, received):
        if run.step == step:
            raise Interruption
        return taken(run, batches, received)

    loop.take_step = take_step
    try:
        with pytest.raises(Interruption):
            pretrain(config)
    finally:
        loop.take_step = taken


def test_a_signal_ends_the_run_after_the_step_and_saves_it(tmp_path, monkeypatch):
    taken = loop.take_step

    def take_step(run, batches, received):
        if run.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            received = signal.SIGTERM
        return taken(run, batches, received)

    monkeypatch.setattr(loop, "take_step", take_step)
    with pytest.raises(Stopped, match="after step 5 of 12.*--resume") as stopped:
        pretrain(make_config(tmp_path))
    assert stopped.value.exit_code == 143
    assert (tmp_path / "run" / "checkpoints" / "step-00000005").is_dir()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path, poison):
    run = make_run(make_config(tmp_path))
    with torch.no_grad():
        run.model.heads["mlm"].bias[7] = poison
    before = {name: parameter.clone() for name, parameter in run.model.named_parameters()}
    with pytest.raises(TrainingError, match=r"mlm.* step 1 .*examples 0 to 7"):
        loop.take_step(run, next(batches_by_step(run, 0, 1)), 0)
    for name, parameter in run.model.named_parameters():
        assert torch.equal(parameter.nan_to_num(9), before[name].nan_to_num(9))


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        pretrain(make_config(tmp_path))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_a_changed_corpus_is_not_resumed(tmp_path):
    config = make_config(tmp_path, max_steps=3)
    pretrain(config)
    text = tmp_path / "text.txt"
    text.write_text(text.read_text().replace("Bar", "Tar", 1))
    run = make_run(make_config(tmp_path, max_steps=3, resume=config.out))
    with pytest.raises(CheckpointError, match="corpus has changed"):
        load_progress(run)


def test_a_corpus_smaller_than_a_batch_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="--batch_size"):
        make_run(make_config(tmp_path, batch_size=4096, micro_batch_size=8))


def test_a_finished_run_says_what_it_did(tmp_path):
    config = make_config(tmp_path, objective="mlm+nsp", max_steps=6)
    pretrain(config)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["steps_done"] == 6 and record["config"]["objective"] == "mlm+nsp"
    assert record["chance"]["nsp"]["ln 2"] == pytest.approx(np.log(2))
    assert {row["split"] for row in read_log(tmp_path / "run")} == {"train", "held_out"}
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-00000003",
        "step-00000006",
    ]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rate_rises_to_its_peak_and_falls_without_reaching_zero(schedule):
    rates = [learning_rate_at(s, peak=1.0, schedule=schedule, warmup_rate=0.1, max_steps=100) for s in range(100)]
    assert rates[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert max(rates) == rates[10] == 1.0
    assert all(one >= other > 0 for one, other in zip(rates[10:], rates[11:], strict=False)) and rates[-1] < 0.15


def test_constant_then_decay_falls_in_the_share_of_the_steps_that_was_asked_for():
    def rates(decay_rate: float) -> list[float]:
        shape = {"peak": 1.0, "schedule": "constant_then_decay", "warmup_rate": 0.0, "max_steps": 100}
        return [learning_rate_at(step, **shape, decay_rate=decay_rate) for step in range(100)]

    assert rates(0.4)[60] == 1.0 > rates(0.4)[61]
    assert rates(0.4)[80] == pytest.approx(0.5)
    assert rates(1.0) == pytest.approx([1 - step / 100 for step in range(100)])
