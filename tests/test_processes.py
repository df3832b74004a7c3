"""One process or two, workers or none: the same data, the same gradients, the same run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.small_runs import make_config, read_log

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
OBJECTIVES = ["mlm", "rtd", "nsp", "sentence_shuffle", "mlm+nsp", "rtd+sentence_shuffle"]


def start(arguments, processes=1):
    """Start a Python command in the repository, under torchrun where there are several processes."""
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launcher, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process, timeout=300):
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err[-3000:]
    return out, err


def trace_of(config, out, processes, steps):
    arguments = ["tests/trace_run.py", json.dumps(config.as_dict()), out, steps]
    finish(
        start(["-m", "tests.trace_run", *arguments[1:]], processes) if processes == 1 else start(arguments, processes)
    )
    return out


def read_trace(out):
    lines = [json.loads(line) for path in sorted(out.glob("trace-*.txt")) for line in path.read_text().splitlines()]
    return sorted(lines)


@pytest.mark.parametrize("objective", ["mlm+nsp", "rtd+sentence_shuffle"])
def test_worlds_and_workers_see_the_same_200_steps(tmp_path, objective):
    traces = {}
    for processes, workers in [(1, 0), (1, 2), (2, 0), (2, 2)]:
        config = make_config(tmp_path, objective=objective, workers=workers)
        out = trace_of(config, tmp_path / f"{processes}-{workers}", processes, 200)
        assert len(list(out.glob("trace-*.txt"))) == processes
        traces[processes, workers] = read_trace(out)
    first = traces[1, 0]
    assert len(first) == 400 and len({digest for _, _, digest in first}) == 400
    assert [example for _, examples, _ in first for example in examples] == list(range(1600))
    assert all(trace == first for trace in traces.values())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_processes_have_the_gradients_of_one(tmp_path, objective):
    config = make_config(tmp_path, objective=objective)
    one, two = (
        load_file(trace_of(config, tmp_path / str(processes), processes, 0) / "gradients.safetensors")
        for processes in (1, 2)
    )
    for name, gradient in one.items():
        assert float((gradient - two[name]).abs().max()) <= 1e-6 * max(1.0, float(gradient.abs().max())), name


def command_of(config, **changes):
    settings = {**config.as_dict(), **changes}
    options = [f"--{name}={value}" for name, value in settings.items() if value is not None and name != "trackers"]
    return ["pretrain.py", *options]


def test_a_run_on_two_processes_is_that_on_one(tmp_path):
    """The data are the same; the losses agree to 1e-5 until rounding is amplified by the optimizer."""
    one = make_config(tmp_path, objective="mlm+nsp", out=str(tmp_path / "one"))
    two = make_config(tmp_path, objective="mlm+nsp", out=str(tmp_path / "two"))
    finish(start(command_of(one)))
    finish(start(command_of(two), processes=2))
    for row, other in zip(read_log(tmp_path / "one"), read_log(tmp_path / "two"), strict=True):
        assert row["losses"] == pytest.approx(other["losses"], rel=1e-5)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2


def test_a_run_on_two_processes_resumes_bit_for_bit(tmp_path):
    straight = make_config(tmp_path, objective="rtd", out=str(tmp_path / "straight"))
    finish(start(command_of(straight), processes=2))
    broken = make_config(tmp_path, objective="rtd", out=str(tmp_path / "broken"))
    process = start(command_of(broken), processes=2)
    wait_for(tmp_path / "broken" / "checkpoints" / "step-00000006")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    finish(start(["pretrain.py", "--resume", tmp_path / "broken"], processes=2))
    assert read_log(tmp_path / "straight") == read_log(tmp_path / "broken")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "broken"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def wait_for(path, seconds=120):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)


def test_a_terminated_command_says_how_to_go_on(tmp_path):
    process = start(command_of(make_config(tmp_path, max_steps=100_000)))
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000003")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "--resume" in err.splitlines()[-1] and "Traceback" not in err
