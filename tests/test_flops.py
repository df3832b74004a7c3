"""FLOPs by arithmetic against those that torch's profiler counts in whole steps."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.small_runs import make_config, make_run
from training.flops import SAMPLES, count_products, measure_step
from training.setup import Run

OBJECTIVES = {
    "mlm": {},
    "rtd": {},
    "nsp": {},
    "sop+mlm": {},
    "causal_lm": {},
    "simcse": {"dropout": 0.1},
    "all_tokens_mlm": {},
    "data2vec": {},
    "tsdae": {},
    "sbo+mlm": {},
    "electric": {},
    "token_shuffle": {},
}
SPECIAL = {  # other architectures, and ways in which parts hang together
    "deberta": {"objective": "rtd", "encoder": "deberta-v2-tiny", "generator": "masked_lm:sharing=gdes,width_rate=1"},
    "electra": {"objective": "mlm", "encoder": "electra-tiny"},
    "hard": {"objective": "rtd", "generator": "masked_lm:sharing=hard"},
    "mixture": {"mix": "3*mlm; 1*simcse; 2*nsp@0-0.5", "dropout": 0.1},
}


def open_run(folder, **changes) -> Run:
    return make_run(make_config(folder, **({"max_steps": 100, "micro_batch_size": 8} | changes)))


def profile(run: Run, number: int) -> int:
    """Return the FLOPs of a micro-batch, forward and backward, as the profiler sees them."""
    with FlopCounterMode(display=False) as profiler:
        losses = run.model(run.train[number])
        torch.stack([loss.total for loss in losses.values()]).sum().backward()
    return profiler.get_total_flops()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("flops")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_flops_are_the_profilers_within_two_per_cent(folder, objective):
    run = open_run(folder, objective=objective, **OBJECTIVES[objective])
    counted = sum(count_products(run.model, run.train[5]).values())
    assert counted == pytest.approx(profile(run, 5), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECIAL)
def test_other_architectures_and_mixtures_are_counted_as_well(folder, name):
    run = open_run(folder, **SPECIAL[name])
    for number in range(3):
        counted = sum(count_products(run.model, run.train[number]).values())
        assert counted == pytest.approx(profile(run, number), rel=0.02), number


def test_a_step_is_the_mean_of_the_runs_steps(folder):
    run = open_run(folder, mix="3*mlm; 1*nsp@0-0.5", max_steps=40)
    costs = measure_step(run)
    every = [count_products(run.model, run.train[number]) for number in range(40)]
    mean = sum(sum(costs.values()) for costs in every) / 40
    assert costs.total == pytest.approx(mean, rel=0.03)
    assert costs.tokens == pytest.approx(sum(run.train[n].num_tokens for n in range(40)) / 40, rel=0.03)


def test_a_plain_encoder_costs_what_the_textbook_says(folder):
    run = open_run(folder, encoder="bert-tiny", objective="mlm")
    batch, config = run.train[0], run.model.encoder.config
    costs = count_products(run.model, batch)
    rows, length = batch.input_ids.shape
    width, wide = config.hidden_size, config.intermediate_size
    dense = config.num_hidden_layers * (4 * width * width + 2 * width * wide)
    assert costs["encoder", "dense"] == 3 * 2 * int(batch.attention_mask.sum()) * dense  # no padding
    assert costs["encoder", "attention"] == 3 * 2 * rows * length * length * 2 * width * config.num_hidden_layers
    asked = len(batch.targets["mlm"]["original_ids"].positions)
    assert costs["heads", "dense"] == 3 * 2 * asked * (width * width + width * config.vocab_size)
    assert set(costs) == {("encoder", "dense"), ("encoder", "attention"), ("heads", "dense")}


def test_a_teacher_and_a_second_view_are_counted_where_they_are(folder):
    latent, contrast = open_run(folder, objective="data2vec"), open_run(folder, objective="simcse", dropout=0.1)
    costs = count_products(latent.model, latent.train[0])
    taught = costs["heads", "attention"] / costs["encoder", "attention"]
    assert taught == pytest.approx(1 / 3, rel=0.15)  # forward alone, over a text of its own
    costs = count_products(contrast.model, contrast.train[0])
    assert costs["other views", "dense"] == costs["encoder", "dense"]


def test_what_has_no_gradient_is_counted_once(folder):
    run = open_run(folder, objective="mlm")
    learning = count_products(run.model, run.train[0])
    with torch.no_grad():
        reading = count_products(run.model, run.train[0])
    assert all(3 * reading[key] == pytest.approx(flops, rel=1e-3) for key, flops in learning.items())


def test_the_sample_is_of_the_size_that_is_said(folder, monkeypatch):
    run = replace(open_run(folder, objective="mlm"))
    seen = []
    monkeypatch.setattr("training.flops.count_products", lambda model, batch: seen.append(batch) or {})
    measure_step(run)
    assert len(seen) == SAMPLES
