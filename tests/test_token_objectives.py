"""What masked language modelling and replaced token detection do to tokens, and what they ask."""

import numpy as np
import pytest
import torch

from objectives import build_objectives
from tests.test_objectives import make_model, open_stream
from training.embeddings import DisentangledEmbedding
from training.stream import to_batch


def test_mlm_asks_for_the_originals_and_changes_nothing_else(corpus):
    """Invariants 15 and 49: putting the answers in place gives the text back."""
    plain = open_stream(corpus, "mlm:mask_rate=0").build(np.arange(200)).sequences
    flat = open_stream(corpus, "mlm").build(np.arange(200))
    target = flat.targets["mlm"]["original_ids"]
    restored = flat.sequences.token_ids.copy()
    assert (restored != plain.token_ids).sum() > 0.8 * len(target.positions)
    restored[target.positions] = target.values
    assert np.array_equal(restored, plain.token_ids)


def test_masks_differ_between_epochs(corpus):
    """Invariant 11: masking is dynamic."""
    stream = open_stream(corpus, "mlm")
    size = len(stream.passages)
    masks = {}
    for epoch in range(2):
        examples = np.arange(epoch * size, (epoch + 1) * size)
        flat = stream.build(examples)
        for row, passage in enumerate(stream.passage_indices(examples)):
            positions = flat.targets["mlm"]["original_ids"].positions
            here = positions[flat.sequences.rows[positions] == row] - flat.sequences.offsets[row]
            if flat.sequences.lengths[row] >= 30:
                masks.setdefault(passage, []).append(tuple(here))
    differing = [one != other for one, other in masks.values()]
    assert len(differing) > 30 and all(differing)


def test_composed_token_objectives_take_disjoint_tokens(corpus):
    flat = open_stream(corpus, "mlm+rtd").build(np.arange(200))
    masked = flat.targets["mlm"]["original_ids"].positions
    asked = flat.proposals["rtd"].positions
    assert not np.intersect1d(masked, asked).size
    assert not np.intersect1d(masked, flat.targets["rtd"]["is_replaced"].positions).size


def test_rtd_asks_about_every_token_and_its_generator_about_the_selected(corpus):
    flat = open_stream(corpus, "rtd").build(np.arange(50))
    assert np.array_equal(flat.targets["rtd"]["is_replaced"].positions, np.arange(len(flat.sequences.token_ids)))
    assert (flat.sequences.token_ids[flat.proposals["rtd"].positions] == corpus.vocabulary.mask_id).all()
    expected = np.maximum(np.rint(flat.sequences.lengths * 0.15), 1).sum()
    assert len(flat.proposals["rtd"].positions) <= expected


def test_a_lucky_guess_counts_as_original(corpus):
    """Invariant 19: a label is 1 exactly where the encoder's input differs from the text.

    See Clark et al., 2020, section 2.
    """
    stream = open_stream(corpus, "rtd")
    batch = to_batch(stream.build(np.arange(16)), corpus.vocabulary)
    proposal = batch.proposals["rtd"]
    guesses = proposal.original_ids.clone()
    guesses[::2] = 5 + (guesses[::2] - 4) % 195  # every second one is wrong
    filled = batch.with_ids(proposal.positions, guesses)
    (objective,) = build_objectives("rtd")
    judged = objective.judge(batch.targets["rtd"], filled, None)["is_replaced"]
    wrong = proposal.positions[::2]
    assert sorted(judged.positions[judged.values == 1].tolist()) == sorted(wrong.tolist())


def test_the_detector_sees_no_mask_and_the_text_outside_the_selection(corpus):
    """Invariant 20."""
    model = make_model(corpus, "rtd").eval()
    batch = to_batch(open_stream(corpus, "rtd").build(np.arange(16)), corpus.vocabulary)
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, __, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    model(batch)
    assert not (seen[0] == corpus.vocabulary.mask_id).any()
    selected = torch.zeros(batch.input_ids.numel(), dtype=torch.bool)
    selected[batch.proposals["rtd"].positions] = True
    assert (seen[0].flatten()[~selected] == batch.input_ids.flatten()[~selected]).all()


def gradient_of(corpus, sharing, which):
    model = make_model(corpus, "rtd", sharing=sharing)
    losses = model(to_batch(open_stream(corpus, "rtd").build(np.arange(16)), corpus.vocabulary))
    losses[which].total.backward()
    return model


def table_of(model, part):
    network = model.encoder if part == "encoder" else model.generators["rtd"].network
    return network.get_input_embeddings()


def test_without_sharing_neither_loss_reaches_the_others_table(corpus):
    assert table_of(gradient_of(corpus, "none", "rtd"), "generator").weight.grad is None
    assert table_of(gradient_of(corpus, "none", "rtd_generator"), "encoder").weight.grad is None


def test_hard_sharing_is_one_table_for_both(corpus):
    """Invariant 42."""
    for loss in ("rtd", "rtd_generator"):
        assert table_of(gradient_of(corpus, "hard", loss), "encoder").weight.grad.abs().sum() > 0
    model = make_model(corpus, "rtd", sharing="hard", width_rate=1.0)
    assert table_of(model, "encoder") is table_of(model, "generator")


def test_disentangled_sharing_keeps_the_detectors_gradient_from_the_generators_table(corpus):
    """Invariant 41 (He et al., 2023, section 3.2)."""
    table = table_of(gradient_of(corpus, "gdes", "rtd"), "encoder")
    assert isinstance(table, DisentangledEmbedding)
    assert table.generator_table.weight.grad is None and table.difference.grad.abs().sum() > 0
    table = table_of(gradient_of(corpus, "gdes", "rtd_generator"), "encoder")
    assert table.difference.grad is None and table.generator_table.weight.grad.abs().sum() > 0
    assert torch.equal(table.weight, table.generator_table.weight)  # the difference starts at zero


def test_the_detectors_loss_never_reaches_the_generator(corpus):
    for sharing in ("none", "gdes"):
        model = gradient_of(corpus, sharing, "rtd")
        assert all(parameter.grad is None for parameter in model.generators["rtd"].parameters())


def test_weights_are_the_papers(corpus):
    """Invariant 43: 1 for the generator and 50 for the detector (Clark et al., 2020, section 3.1 and appendix A)."""
    assert make_model(corpus, "rtd").weights == {"rtd": 50.0, "rtd_generator": 1.0}


@pytest.mark.parametrize("spec", ["rtd", "mlm"])
def test_a_target_that_nobody_has_costs_nothing(corpus, spec):
    """Invariant 12: nothing selected is a sum of 0 over a count of 0, not a nan."""
    model = make_model(corpus, f"{spec}:mask_rate=0")
    losses = model(to_batch(open_stream(corpus, f"{spec}:mask_rate=0").build(np.arange(4)), corpus.vocabulary))
    empty = losses["mlm" if spec == "mlm" else "rtd_generator"]
    assert float(empty.total.detach()) == 0 and empty.count == 0
