"""Mixtures: shares, spans, mistakes; losses over their own targets; the same run on any machine, after any stop."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from corpora.errors import UserError
from tests.small_runs import make_config, make_run, read_log
from tests.test_processes import read_trace, trace_of
from training import loop
from training.loop import Stopped, accumulate, batches_by_step, pretrain
from training.mixture import choose_arm, parse_mix

THREE = "15*mlm; 4*nsp; 1*sentence_shuffle"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mixtures")


def names_of(mix):
    return [tuple(objective.name for objective in arm.objectives) for arm in parse_mix(mix)]


def test_arms_are_read_with_their_weights_options_and_spans():
    arms = parse_mix("15*mlm:mask_rate=0.3+nsp@0.25-1; rtd@0-0.5; sentence_shuffle")
    assert names_of("15*mlm:mask_rate=0.3+nsp@0.25-1; rtd@0-0.5; sentence_shuffle") == [
        ("mlm", "nsp"),
        ("rtd",),
        ("sentence_shuffle",),
    ]
    assert [(arm.weight, arm.start, arm.end) for arm in arms] == [(15, 0.25, 1), (1, 0, 0.5), (1, 0, 1)]
    assert arms[0].objectives[0].mask_rate == 0.3


def test_a_mapping_says_the_same():
    written = parse_mix("15*mlm:mask_rate=0.3@0-0.5; nsp")
    assert parse_mix({"mlm:mask_rate=0.3": {"weight": 15, "end": 0.5}, "nsp": None}) == written


@pytest.mark.parametrize(
    ("mix", "problem"),
    [
        ("", "--mix is empty; write '15*mlm; 1*causal_lm'"),
        (" ; ", "--mix is empty"),
        ("mlm; nsp+mlm", "--mix has mlm more than once"),
        ("0*mlm; nsp", "the weight of mlm is 0; it must be above 0"),
        ("-1*mlm", "the weight of mlm is -1; it must be above 0"),
        ("inf*mlm", "the weight of mlm is inf"),
        ("nan*mlm", "the weight of mlm is nan"),
        ("often*mlm", "weight, start and end of mlm must be numbers"),
        ("mlm@0.5", "'0.5' is no part of a run; write it as @0-0.25"),
        ("mlm@0.5-0.5", "mlm is from 0.5 to 0.5; a span lies within 0-1 and is not empty"),
        ("mlm@0-2", "mlm is from 0 to 2"),
        ("mlm@0-0.5", "nothing to do from 0.5 of the run on"),
        ("mlm@0.5-1", "nothing to do from 0 of the run on"),
        ("mlm@0-0.3; nsp@0.5-1", "nothing to do from 0.3 of the run on"),
        ("mlm; npsp", "objective 'npsp' is unknown; did you mean 'nsp'?"),
        ("nsp+sentence_shuffle", "both decide which sentences stand where"),
        ({"mlm": {"wieght": 2}}, "--mix can't use {'wieght': 2} of mlm"),
        ({"mlm": 15}, "--mix can't use 15 of mlm"),
        ({"mlm": {"weight": "often"}}, "must be numbers"),
    ],
)
def test_a_mistake_is_one_line(mix, problem):
    with pytest.raises(UserError) as caught:
        parse_mix(mix)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_any_stretch_of_micro_batches_has_the_arms_in_proportion():
    """15 : 4 : 1, within two of its share in any 100 in a row, and exact to .001 in 20,000."""
    arms = parse_mix(THREE)
    chosen = np.array([choose_arm(arms, number, 0.5, seed=3) for number in range(20_000)])
    shares = np.bincount(chosen, minlength=3) / len(chosen)
    assert np.abs(shares - [0.75, 0.2, 0.05]).max() < 1e-3
    for arm, share in enumerate([0.75, 0.2, 0.05]):
        counts = np.convolve(chosen == arm, np.ones(100), mode="valid")
        assert np.abs(counts - 100 * share).max() <= 2


def test_seeds_choose_other_micro_batches():
    arms = parse_mix("mlm; nsp")
    chosen = {seed: [choose_arm(arms, number, 0, seed) for number in range(64)] for seed in (0, 1)}
    assert chosen[0] != chosen[1]


def test_an_arm_has_its_span_of_the_run_and_no_more():
    arms = parse_mix("mlm@0-0.25; nsp@0.25-1; 2*sentence_shuffle@0.5-1")
    seen = {
        progress: {choose_arm(arms, number, progress, 0) for number in range(100)}
        for progress in (0, 0.249, 0.25, 0.499, 0.5, 0.999, 1)
    }
    assert seen == {0: {0}, 0.249: {0}, 0.25: {1}, 0.499: {1}, 0.5: {1, 2}, 0.999: {1, 2}, 1: {1, 2}}


def test_one_arm_alone_is_always_chosen():
    assert {choose_arm(parse_mix("0.1*mlm"), number, 0, 0) for number in range(10)} == {0}


def test_each_micro_batch_is_for_its_own_arm(folder):
    run = make_run(make_config(folder, mix="2*mlm; rtd+nsp", batch_size=24))
    seen = set()
    for number in range(24):
        names = tuple(run.train[number].targets)
        assert names == [("mlm",), ("rtd", "nsp")][run.train.arm_of(number)]
        seen.add(names)
    assert len(seen) == 2


def test_an_arm_reads_the_examples_that_it_would_read_alone(folder):
    mixed = make_run(make_config(folder, mix="mlm; nsp")).train
    alone = make_run(make_config(folder, objective="mlm")).train
    number = next(number for number in range(100) if mixed.arm_of(number) == 0)
    assert torch.equal(mixed[number].input_ids, alone[number].input_ids)


def test_a_loss_is_over_its_own_targets_and_has_its_arms_share(folder):
    """The gradient of a step is the sum of each arm's, over its own targets, times the share of its examples."""
    config = make_config(folder, mix="3*mlm; nsp", batch_size=16)
    run = make_run(config)
    step = next(step for step in range(20) if 0 < run.train.shares_at(step)["nsp"] < 1)
    (batches,) = batches_by_step(run, step, step + 1)
    run.step = step
    shares = run.train.shares_at(step)
    assert sum(shares.values()) == pytest.approx(1) and 4 * shares["nsp"] == sum("nsp" in b.targets for _, b in batches)

    counts = {name: sum(run.model.count_targets(b)[name] for _, b in batches) for name in run.model.weights}
    accumulate(run, batches, counts)
    found = run.model.encoder.get_input_embeddings().weight.grad.clone()
    run.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros(())
    for name, share in shares.items():
        losses = [run.model(batch)[name] for _, batch in batches if name in batch.targets]
        total = total + share * sum(loss.total for loss in losses) / sum(loss.count for loss in losses)
    total.backward()
    expected = run.model.encoder.get_input_embeddings().weight.grad
    assert float((found - expected).abs().max()) <= 1e-6 * max(1.0, float(expected.abs().max()))


def test_a_step_without_an_arm_has_no_loss_of_it(folder):
    run = make_run(make_config(folder, mix="mlm@0-0.5; nsp@0.5-1"))
    assert [run.train.shares_at(step) for step in (0, 5, 6, 11)] == [
        {"mlm": 1.0, "nsp": 0.0},
        {"mlm": 1.0, "nsp": 0.0},
        {"mlm": 0.0, "nsp": 1.0},
        {"mlm": 0.0, "nsp": 1.0},
    ]


@pytest.mark.slow
def test_a_stopped_mixture_goes_on_bit_for_bit(folder, monkeypatch):
    settings = {"mix": "mlm; 2*rtd+nsp@0.25-1", "max_steps": 8, "eval_every": 4}
    straight = make_config(folder, out=str(folder / "straight"), **settings)
    pretrain(straight)
    broken = make_config(folder, out=str(folder / "broken"), **settings)
    take_step = loop.take_step

    def stop_after_four(run, batches, received):
        row = take_step(run, batches, received)
        return row | {"signal": 15 if run.step == 4 else 0}

    with monkeypatch.context() as patched:
        patched.setattr(loop, "take_step", stop_after_four)
        with pytest.raises(Stopped):
            pretrain(broken)
    pretrain(make_config(folder, out=str(folder / "broken"), resume=str(folder / "broken"), **settings))
    assert read_log(folder / "straight") == read_log(folder / "broken")
    one, other = (load_file(folder / name / "model.safetensors") for name in ("straight", "broken"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    held_out = [row for row in read_log(folder / "straight") if row["split"] == "held_out"]
    assert set(held_out[-1]["losses"]) >= {"mlm", "rtd", "rtd_generator", "nsp"}


@pytest.mark.slow
def test_one_process_and_two_see_the_same_mixture(tmp_path):
    config = make_config(tmp_path, mix=THREE, max_steps=40)
    one, two = (trace_of(config, tmp_path / str(processes), processes, 40) for processes in (1, 2))
    assert len(list(two.glob("trace-*.txt"))) == 2
    assert len(read_trace(one)) == 80 and read_trace(one) == read_trace(two)


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path):
    config = make_config(tmp_path, mix="mlm; rtd+nsp", batch_size=16)
    one, two = (
        load_file(trace_of(config, tmp_path / str(processes), processes, 0) / "gradients.safetensors")
        for processes in (1, 2)
    )
    for name, gradient in one.items():
        assert float((gradient - two[name]).abs().max()) <= 1e-6 * max(1.0, float(gradient.abs().max())), name
