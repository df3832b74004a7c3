"""`python ablate.py`: from a file to a report, stopped and gone on with, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ablation import command, probing, queue
from ablation.arms import UNTRAINED
from ablation.results import read_study_results
from corpora.errors import UserError
from tests.small_study import QueueHere, without_times, write_study
from training.checkpoint import lock_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def here():
    """Let the queue do its jobs in this process."""
    patch = pytest.MonkeyPatch()
    patch.setattr(queue, "Queue", QueueHere)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A study of two objectives, run to its end; its file lies beside its folder."""
    folder = tmp_path_factory.mktemp("study")
    assert command.run([str(write_study(folder)), "--out", str(folder / "done")]) == 0
    return folder


@pytest.fixture
def copied(small, tmp_path) -> Path:
    """A copy of the finished study's folder, under the same path: runs know theirs."""
    shutil.copytree(small / "done", tmp_path / "kept")
    yield small / "done"
    shutil.rmtree(small / "done")
    shutil.copytree(tmp_path / "kept", small / "done")


def go_on(folder: Path) -> tuple[int, list[list[str]]]:
    """Give the study's command again; return its status and what it started."""
    QueueHere.started = []
    return command.run([str(folder)]), QueueHere.started


def read_plain(folder: Path) -> dict:
    return without_times(json.loads((folder / "results.json").read_text()))


def test_a_study_is_run_probed_and_reported(small):
    results = read_study_results(small / "done" / "results.json")
    assert [(arm.name, arm.kind, arm.steps) for arm in results.arms] == [
        ("mlm", "trained", 6),
        ("rtd", "trained", 6),
        (UNTRAINED, "untrained", 0),
    ]
    assert [(run.arm, run.seed, run.status, run.steps) for run in results.runs] == [
        (arm, seed, "finished", 6) for seed in (0, 1) for arm in ("mlm", "rtd")
    ]
    assert results.find_arm("rtd").generator == "uniform" and results.find_arm("mlm").generator is None
    assert "--seed" not in results.find_arm("mlm").command and "--max_steps 6" in results.find_arm("mlm").command
    run = results.runs[0]
    assert run.flops == 6 * results.find_arm("mlm").flops_per_step and run.peak_memory > 10**8 and run.seconds > 0
    assert [point.step for point in run.curve] == [1, 2, 3, 4, 5, 6]
    assert run.curve[-1].losses["mlm"] == run.held_out["mlm"]["loss"]
    assert run.example is not None and run.example.startswith("text: ") and "mlm, original_ids" in run.example
    assert (small / "done" / "report" / "index.html").is_file()
    assert results.failures == () and results.threats[0].startswith("2 seeds of each arm")


def test_every_two_arms_are_compared_on_every_probe(small):
    results = read_study_results(small / "done" / "results.json")
    assert results.probes is not None
    assert [encoder.name for encoder in results.probes.encoders] == [
        f"{arm} {seed}" for arm in ("mlm", "rtd", UNTRAINED) for seed in (0, 1)
    ]
    pairs = [("mlm", "rtd"), ("mlm", UNTRAINED), ("rtd", UNTRAINED)]
    assert [(each.probe, each.a, each.b) for each in results.probes.comparisons] == [
        (probe, a, b) for probe in ("sentence_length", "casing") for a, b in pairs
    ]
    assert [(point.arm, point.seed, point.step) for point in results.trajectories] == [
        (arm, seed, step) for arm in ("mlm", "rtd") for seed in (0, 1) for step in (2, 6)
    ]
    assert {point.probe for point in results.trajectories} == {"casing"}


def test_the_untrained_arm_is_what_all_arms_start_from(small):
    runs = small / "done" / "runs"
    started = load_file(runs / "mlm" / "seed0" / "snapshots" / "0" / "model.safetensors")
    other = load_file(runs / "mlm" / "seed1" / "snapshots" / "0" / "model.safetensors")
    assert any(not tensor.equal(other[name]) for name, tensor in started.items())
    assert not (runs / "rtd" / "seed0" / "snapshots" / "0").exists()
    results = read_study_results(small / "done" / "results.json")
    assert [encoder.is_trained for encoder in results.probes.encoders] == [True] * 4 + [False] * 2


def test_what_is_done_is_never_done_again(small):
    before = {path: path.read_bytes() for path in (small / "done").rglob("*") if path.is_file()}
    status, started = go_on(small / "done")
    assert (status, started) == (0, [])
    changed = [path.name for path, content in before.items() if path.read_bytes() != content]
    assert changed == []  # results, page, figures and tables too, byte for byte


def test_a_run_and_its_answers_that_are_lost_are_made_again(copied):
    before = read_plain(copied)
    shutil.rmtree(copied / "runs" / "rtd" / "seed1")
    (copied / "probes" / "rtd" / "seed1.npz").unlink()
    status, started = go_on(copied)
    assert status == 0 and [words[0] for words in started] == ["--config", "probe"]
    assert read_plain(copied) == before


def test_a_run_that_died_half_way_is_gone_on_with(copied):
    before = read_plain(copied)
    folder = copied / "runs" / "mlm" / "seed1"
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({key: record[key] for key in record if key != "steps_done"}))
    for name in ("config.json", "model.safetensors", "README.md"):
        (folder / name).unlink()
    shutil.rmtree(max((folder / "checkpoints").glob("step-*")))
    (copied / "probes" / "mlm" / "seed1.npz").unlink()
    status, started = go_on(copied)
    assert status == 0 and started[0] == ["--resume", str(folder)]
    assert read_plain(copied) == before


def test_a_probe_that_fails_on_one_arm_is_a_cell_that_says_so(copied, monkeypatch):
    scored = probing.score_probe

    def fail(encoder, probe, *others):
        if (encoder.name, probe.name) == ("rtd 1", "casing"):
            raise ValueError("the solver did not converge")
        return scored(encoder, probe, *others)

    monkeypatch.setattr(probing, "score_probe", fail)
    (copied / "probes" / "rtd" / "seed1.npz").unlink()
    status, _ = go_on(copied)
    results = read_study_results(copied / "results.json")
    assert status == 1
    assert [(each.arm, each.seed, each.probe, each.error) for each in results.failures] == [
        ("rtd", 1, "casing", "the solver did not converge")
    ]
    assert results.probes.find_summary("rtd", "casing").seeds == 1
    assert results.probes.find_summary("rtd", "sentence_length").seeds == 2
    assert "the solver did not converge" in (copied / "report" / "index.html").read_text()


def test_a_run_that_fails_leaves_the_others(copied, monkeypatch):
    shutil.rmtree(copied / "runs" / "mlm" / "seed0")
    for path in [*(copied / "probes" / "mlm").glob("seed0*"), copied / "probes" / UNTRAINED / "seed0.npz"]:
        path.unlink()
    shutil.rmtree(copied / "runs" / "rtd" / "seed1")

    def fail(config):
        if "mlm" in config.out:
            raise UserError("the loss is not finite at step 3")
        return pretrain(config)

    from tests import small_study

    pretrain = small_study.pretrain
    monkeypatch.setattr(small_study, "pretrain", fail)
    status, started = go_on(copied)
    results = read_study_results(copied / "results.json")
    assert status == 1 and len(started) == 2
    assert {(run.arm, run.seed): run.status for run in results.runs} == {
        ("mlm", 0): "failed",
        ("mlm", 1): "finished",
        ("rtd", 0): "finished",
        ("rtd", 1): "finished",
    }
    assert [(each.arm, each.seed, each.probe) for each in results.failures] == [("mlm", 0, None)]
    assert command.run(["report", str(copied)]) == 1
    assert read_study_results(copied / "results.json") == results


def test_a_report_can_be_written_from_its_record_alone(small, tmp_path):
    (tmp_path / "kept").mkdir()
    shutil.copy(small / "done" / "results.json", tmp_path / "kept")
    assert command.run(["report", str(tmp_path / "kept")]) == 0
    assert (tmp_path / "kept" / "index.html").read_bytes() == (small / "done" / "report" / "index.html").read_bytes()
    with pytest.raises(UserError, match="holds no study: neither plan.json nor results.json is there"):
        command.run(["report", str(tmp_path)])


def test_another_study_does_not_get_the_folder(small, tmp_path):
    path = str(small / "small.yaml")
    with pytest.raises(UserError, match="holds another study: seeds is 2 there, and 3 here"):
        command.run([path, "--out", str(small / "done"), "--seeds", "3"])
    with lock_run(small / "done"), pytest.raises(UserError, match="is in use by process"):
        command.run([str(small / "done")])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty, and no study"):
        command.run([path, "--out", str(tmp_path)])
    record = small / "done" / "runs" / "mlm" / "seed0" / "run.json"
    kept = record.read_text()
    changed = json.loads(kept)
    changed["config"]["learning_rate"] = 0.5
    record.write_text(json.dumps(changed))
    with pytest.raises(UserError, match="holds another run: learning_rate is 0.5 there, None in the study"):
        command.run([str(small / "done")])
    record.write_text(kept)


def test_what_the_text_can_not_carry_is_told_before_anything_is_written(small, tmp_path):
    path = write_study(small, arms={"mlm": "mlm", "sentence_shuffle": "sentence_shuffle"}, common={"max_length": 8})
    with pytest.raises(UserError, match="^arm sentence_shuffle: none of the"):
        command.run([str(path), "--out", str(tmp_path / "new")])
    assert not list((tmp_path / "new").glob("[!.]*"))
    path = write_study(small, budget={"flops": 1e6}, fairness="flops")
    with pytest.raises(UserError, match="of a step of the arm 'mlm'; give at least"):
        command.run([str(path), "--out", str(tmp_path / "new")])
    path = write_study(small, probes={"only": ["word_content"], "size": 4000})
    with pytest.raises(UserError, match="^probe word_content: "):
        command.run([str(path), "--out", str(tmp_path / "new")])
    assert not list((tmp_path / "new").glob("[!.]*"))
    write_study(small)


def test_a_dry_run_writes_nothing_and_tells_everything(small, tmp_path, capsys):
    path = write_study(small, fairness="flops", budget={"flops": 3e11})
    assert command.run([str(path), "--dry_run", "--out", str(tmp_path / "new")]) == 0
    write_study(small)
    assert not (tmp_path / "new").exists()
    told = capsys.readouterr().out
    for words in ("mlm", "rtd", "4 runs (2 arms x 2 seeds)", "FLOPs of a step = sum over", "MB of disk", "of training"):
        assert words in told
    apart = float(told.partition("FLOPs of the arms are ")[2].partition("%")[0])
    assert apart < 1


def test_slurm_gets_a_script_with_every_run_that_is_left(copied):
    with pytest.raises(UserError, match="all runs are finished"):
        command.run([str(copied), "--launcher", "slurm"])
    shutil.rmtree(copied / "runs" / "rtd" / "seed1")
    shutil.rmtree(copied / "runs" / "mlm" / "seed0")
    assert command.run([str(copied), "--launcher", "slurm"]) == 0
    script = (copied / "slurm.sh").read_text()
    assert "--array=0-1" in script
    assert f"RUNS=({copied}/runs/mlm/seed0 {copied}/runs/rtd/seed1)" in script
    assert (copied / "runs" / "rtd" / "seed1.yaml").is_file()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "no study was given; name a YAML file"),
        (["--sedes", "3"], "option --sedes is unknown; did you mean --seeds?"),
        (["none.yaml"], "there is no study at none.yaml"),
        (["--objectives", "mln"], "arm mln: objective 'mln' is unknown; did you mean 'mlm'?"),
        (["--objectives", "mlm", "mlm"], "two arms are called 'mlm'"),
        (["--objectives", "mlm", "--budget", "soon"], "budget is 'soon'"),
        (["--objectives", "mlm", "--jobs", "0"], "--jobs is 0; it must be at least 1"),
        (["tests"], "tests holds no study"),
        (["report"], "give the folder of one study"),
        (["probe", "x", "mlm", "0"], "x holds no study that was begun"),
    ],
)
def test_mistakes_on_the_command_line_are_told(argv, words):
    with pytest.raises(UserError) as caught:
        command.run(argv)
    assert words in str(caught.value)
