"""--profile: what it writes and tells, and that it changes nothing that is learned."""

import json
from types import SimpleNamespace

import pytest
import torch

from tests.small_runs import make_config, make_run, read_log
from training import profile
from training.command import parse
from training.loop import pretrain

STEPS = profile.SKIPPED + profile.TIMED + profile.TRACED


@pytest.mark.slow
def test_a_profiled_run_learns_the_same_and_leaves_a_trace(tmp_path, capsys):
    changes = {"objective": "rtd", "max_steps": STEPS, "eval_every": 100, "save_every": 100}
    plain = pretrain(make_config(tmp_path, out=str(tmp_path / "plain"), **changes))
    capsys.readouterr()
    traced = pretrain(make_config(tmp_path, out=str(tmp_path / "traced"), profile=True, **changes))
    assert read_log(plain) == read_log(traced)
    assert (plain / "model.safetensors").read_bytes() == (traced / "model.safetensors").read_bytes()
    names = {event.get("name") for event in json.loads((traced / profile.TRACE).read_text())["traceEvents"]}
    parts = {"forward: encoder", "forward: heads", "forward: generators"}
    assert parts | {profile.STEP, profile.BUILDING, profile.BACKWARD} <= names
    assert not (plain / profile.TRACE).exists()
    told = [line for line in capsys.readouterr().err.splitlines() if line]
    begin = next(number for number, line in enumerate(told) if line.startswith("a step takes"))
    end = next(number for number, line in enumerate(told) if line.startswith("trace: "))
    assert all(len(line) <= 80 for line in told[begin:end])
    rows = [line.split() for line in told[begin + 1 : end] if line.endswith("%") and "=" not in line]
    first = [float(row[-1][:-1]) for row in rows[:7]]
    assert sum(first) == pytest.approx(100, abs=0.5)  # the parts make up the step
    assert any(line.startswith("model FLOPs utilisation = F / (t x P) = ") for line in told)


def test_a_run_that_is_too_short_says_so(tmp_path, capsys):
    run = make_run(make_config(tmp_path, profile=True))
    with profile.watch_steps(run) as watch_step:
        watch_step()
    assert capsys.readouterr().err == f"no profile: it takes {STEPS} steps, and this was 1\n"


def test_without_the_option_nothing_is_watched(tmp_path, capsys):
    run = make_run(make_config(tmp_path))
    with profile.watch_steps(run) as watch_step:
        for _ in range(STEPS + 1):
            watch_step()
    assert capsys.readouterr().err == "" and not run.folder.exists()


def test_a_trace_that_is_cut_short_is_ended(tmp_path):
    run = make_run(make_config(tmp_path, profile=True))
    with profile.watch_steps(run) as watch_step:
        for _ in range(profile.SKIPPED + profile.TIMED):
            watch_step()
        assert run.model.encoder._forward_pre_hooks
    assert not run.model.encoder._forward_pre_hooks


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::bmm", "matrix products"),
        ("aten::_flash_attention_forward", "attention kernels"),
        ("aten::_log_softmax_backward_data", "softmax and loss"),
        ("aten::native_layer_norm", "norms"),
        ("aten::native_dropout", "dropout"),
        ("aten::_fused_adamw_", "optimizer"),
        ("aten::index_select", "gathering and scattering"),
        ("aten::add_", "sums, products, masks"),
        ("aten::cumsum", "sums, products, masks"),
        ("aten::sort", "the rest"),
    ],
)
def test_operations_have_a_kind(name, kind):
    assert profile.kind_of(name) == kind


def test_times_are_those_of_a_step(monkeypatch):
    """Parts by their whole time, operations by their own, each divided by the traced steps."""
    microseconds = profile.TRACED * 1e6
    events = [
        ("step", 10, 1),
        ("building batches", 2, 2),
        ("forward: encoder", 3, 1),
        ("backward", 4, 0),
        ("Optimizer.step#AdamW.step", 1, 0.5),
        ("aten::mm", 5, 5),
        ("aten::addmm", 1, 0.5),
    ]
    table = [
        SimpleNamespace(key=key, cpu_time_total=total * microseconds, self_cpu_time_total=own * microseconds)
        for key, total, own in events
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    parts, operations = profile.read_times(SimpleNamespace(key_averages=lambda: table))
    rest = "the rest of the step"
    assert parts == {"building batches": 2, "forward: encoder": 3, "backward": 4, "optimizer": 1, rest: 2}
    assert operations == {"matrix products": 5.5}


def test_the_peak_is_that_of_the_fastest_product():
    rate, size = profile.measure_peak(torch.device("cpu"), torch.float32)
    assert rate > 1e8 and size in (512, 1024, 2048)


def test_a_step_is_counted_by_the_tokens_it_reads(tmp_path):
    run = make_run(make_config(tmp_path))
    run.step = 1
    flops, used = profile.count_step(run)
    batches = [run.train[number] for number in (0, 1)]
    positions = sum(batch.input_ids.numel() for batch in batches)
    assert used == sum(batch.num_tokens for batch in batches) / positions
    layers = [p for name, p in run.model.encoder.named_parameters() if p.ndim == 2 and "embed" not in name]
    tokens = sum(batch.num_tokens for batch in batches)
    dense = 6 * tokens * sum(p.numel() for p in layers)  # forward, and backward for weights and inputs
    assert dense < flops < 1.5 * dense  # attention, the head


def test_the_command_line_takes_it():
    assert parse(["--profile"]).profile is True and parse([]).profile is False
