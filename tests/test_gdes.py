"""How generator and encoder hang together: gradient-disentangled sharing, two weights, two optimisers."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM

from corpora.tables import Tables
from generators import GENERATORS
from objectives import build_objectives
from tests.small_runs import make_config, make_run
from tests.test_objectives import make_model, open_stream
from training.encoders import EncoderSpec, build_encoder
from training.export import export_run
from training.loop import accumulate, batches_by_step, clip_gradients
from training.model import PretrainingModel
from training.stream import to_batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def batch_of(corpus):
    return to_batch(open_stream(corpus, "rtd").build(np.arange(16)), corpus.vocabulary)


def moved(model):
    """Return the model away from its start, where the difference is zero and the classifier almost."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def gradients_of(model, batch, weights):
    """Return the gradients of a weighted sum of the losses, by parameter."""
    model.zero_grad(set_to_none=True)
    losses = model(batch)
    sum(weights[name] * loss.total / loss.count for name, loss in losses.items()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def tables_of(model):
    table = model.encoder.get_input_embeddings()
    return table.generator_table.weight, table.difference


def test_the_detectors_gradient_reaches_the_rows_that_it_read_and_nothing_of_the_generator(corpus):
    """Invariant 41: of the encoder's own table, and not of the generator's."""
    model, batch = moved(make_model(corpus, "rtd", sharing="gdes")), batch_of(corpus)
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, __, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    gradients_of(model, batch, {"rtd": 50.0, "rtd_generator": 0.0})
    generator_table, difference = tables_of(model)
    assert generator_table.grad is None or not generator_table.grad.any()
    read = torch.zeros(200, dtype=torch.bool)
    read[seen[0].unique()] = True
    touched = difference.grad.abs().sum(1) > 0
    padding = corpus.vocabulary.pad_id
    assert torch.equal(touched[padding + 1 :], read[padding + 1 :])


@pytest.mark.slow
def test_the_generators_table_learns_the_same_whatever_the_detectors_weight(corpus):
    """Invariant 41; under hard sharing it does not."""
    for sharing, same in (("gdes", True), ("hard", False)):
        model, batch = moved(make_model(corpus, "rtd", sharing=sharing)), batch_of(corpus)
        name = next(n for n, p in model.named_parameters() if p.shape == (200, 128) and "difference" not in n)
        alone = gradients_of(model, batch, {"rtd": 0.0, "rtd_generator": 1.0})[name]
        both = gradients_of(model, batch, {"rtd": 50.0, "rtd_generator": 1.0})[name]
        assert torch.equal(alone, both) is same


def test_without_a_difference_the_encoder_reads_as_under_hard_sharing(corpus):
    """Invariant 41: the forward pass is the same, to the last bit."""
    losses = [make_model(corpus, "rtd", sharing=sharing)(batch_of(corpus)) for sharing in ("gdes", "hard")]
    assert all(torch.equal(losses[0][name].total, losses[1][name].total) for name in losses[1])


def test_what_is_exported_is_the_sum_of_the_two_tables(corpus, tmp_path):
    """Invariant 41: a table that `transformers` loads; the generator's is its own alone."""
    model = moved(make_model(corpus, "rtd", sharing="gdes", width_rate=1.0))
    generator_table, difference = (each.detach().clone() for each in tables_of(model))
    export_run(tmp_path, model, corpus.load_tokenizer(), tuple(model.objectives.values()), vocabulary=corpus.vocabulary)
    encoder = AutoModel.from_pretrained(tmp_path).get_input_embeddings().weight
    assert difference.abs().max() > 0.05
    assert torch.allclose(encoder, generator_table + difference, atol=1e-7)
    generator = AutoModelForMaskedLM.from_pretrained(tmp_path / "generator").get_input_embeddings().weight
    assert torch.equal(generator, generator_table)


@pytest.mark.parametrize("options", [{"sharing": "none"}, {"sharing": "gdes"}, {"towers": "two"}])
def test_a_hard_shared_table_is_one_and_others_are_not(corpus, options):
    """Invariant 42: changing the generator's table changes what the encoder reads, where they share it."""
    model, batch = make_model(corpus, "rtd", width_rate=1.0, **options), batch_of(corpus)
    generator = model.generators["rtd"]
    network = generator.rightward if "towers" in options else generator.network
    table = network.get_input_embeddings()
    own = options.get("sharing") == "none"
    before = model.encoder(input_ids=batch.input_ids).last_hidden_state
    with torch.no_grad():
        table.weight.mul_(2.0)
        table.weight[7] += 1.0
    assert torch.equal(before, model.encoder(input_ids=batch.input_ids).last_hidden_state) is own
    if "towers" in options:
        assert generator.leftward.get_input_embeddings() is table
        assert table is model.encoder.get_input_embeddings()


def test_a_step_follows_the_generators_loss_plus_fifty_times_the_detectors(folder):
    """Invariant 43 (Clark et al., 2020, section 3.1), in the loop's own gradients, over uneven micro-batches."""
    run = make_run(make_config(folder, objective="rtd"))
    moved(run.model)
    (batches,) = batches_by_step(run, 3, 4)
    counts = {n: sum(run.model.count_targets(b)[n] for _, b in batches) for n in ("rtd", "rtd_generator")}
    accumulate(run, batches, counts)
    found = {name: parameter.grad.clone() for name, parameter in run.model.named_parameters()}
    run.model.zero_grad(set_to_none=True)
    for _, batch in batches:
        losses = run.model(batch)
        total = losses["rtd_generator"].total / counts["rtd_generator"] + 50 * losses["rtd"].total / counts["rtd"]
        total.backward()
    for name, parameter in run.model.named_parameters():
        assert torch.allclose(found[name], parameter.grad, rtol=1e-5, atol=1e-7), name


def decoupled_run(folder, **changes):
    generator = "masked_lm:sharing=gdes,decoupled=true,learning_rate_factor=3"
    return make_run(make_config(folder, **({"objective": "rtd", "generator": generator} | changes)))


@pytest.mark.parametrize("loss", ["rtd", "rtd_generator"])
def test_a_step_of_one_leaves_the_other_bit_for_bit(folder, loss):
    """Invariant 44: decoupled training."""
    run = decoupled_run(folder)
    moved(run.model)
    generator = {id(p) for p in run.model.generators.parameters()}
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    (batches,) = batches_by_step(run, 0, 1)
    losses = run.model(batches[0][1])
    losses[loss].total.backward()
    clip_gradients(run)
    run.optimizer.param_groups[0]["lr"] = 0.1
    run.optimizer.step()
    changed = {name for name, p in run.model.named_parameters() if not torch.equal(p, before[name])}
    own = {name for name, p in run.model.named_parameters() if id(p) in generator}
    assert changed and (changed <= own if loss == "rtd_generator" else not changed & own)


def test_decoupled_gradients_are_clipped_apart(folder):
    """A generator whose gradient explodes does not scale the encoder's down; together it does."""
    for generator, untouched in (
        ("masked_lm:sharing=gdes,decoupled=true", True),
        ("masked_lm:sharing=gdes", False),
    ):
        gradients = []
        for factor in (1.0, 1e6):
            run = decoupled_run(folder, generator=generator)
            moved(run.model)
            (batches,) = batches_by_step(run, 0, 1)
            losses = run.model(batches[0][1])
            (losses["rtd"].total + factor * losses["rtd_generator"].total).backward()
            clip_gradients(run)
            gradients.append(torch.cat([p.grad.flatten() for p in run.model.encoder.layers.parameters()]))
        assert torch.equal(gradients[0], gradients[1]) is untouched


def test_the_generator_has_a_learning_rate_of_its_own(folder):
    run = decoupled_run(folder)
    factors = {(group["rate_factor"], group["apart"]) for group in run.optimizer.param_groups}
    assert factors == {(1.0, False), (3.0, True)}
    apart = {id(p) for group in run.optimizer.param_groups if group["apart"] for p in group["params"]}
    assert apart == {id(p) for p in run.model.generators.parameters()}


def test_the_difference_does_not_reach_the_generator_of_any_kind(corpus):
    """Invariant 41 for the generators that build on a masked LM."""
    for name, options in (("masked_lm", {"towers": "two"}), ("mixture", {"num_taps": 2}), ("curriculum", {})):
        torch.manual_seed(0)
        network = build_encoder(
            EncoderSpec(name="tiny", vocabulary=corpus.vocabulary, max_length=64, dropout=0.0, attention="eager")
        )
        setting = GENERATORS[name](sharing="gdes", **options)
        model = moved(PretrainingModel(network, build_objectives("rtd"), setting, Tables(corpus), "eager"))
        gradients_of(model, batch_of(corpus), {"rtd": 50.0, "rtd_generator": 0.0})
        generator_table, difference = tables_of(model)
        assert difference.grad.any()
        assert generator_table.grad is None or not generator_table.grad.any()
