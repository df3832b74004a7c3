"""Objectives that set the examples of a micro-batch against each other: texts, loss, several processes."""

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import multiprocessing

from objectives.batch import DeviceTarget, Encoded
from objectives.gather import gather_rows
from objectives.heads_contrast import ContrastHead
from tests.small_heads import make_config as make_encoder_config
from tests.small_runs import make_config
from tests.test_masking import draws_for, make_sequences
from tests.test_objectives import make_model, open_stream
from tests.test_processes import trace_of
from tests.test_recovery_family import context_of, plain_of
from training.stream import to_batch


def rows_of(sequences):
    return [
        sequences.token_ids[a:b].tolist() for a, b in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
    ]


@pytest.mark.parametrize("spec", ["scl", "mlm+scl", "rtd+scl"])
def test_a_crop_is_a_run_of_the_text_between_its_special_tokens(corpus, spec):
    """Invariant 33: COCO-LM's SpanDataset can cut [CLS] off. The crop is of the text as it was."""
    flat, plain = open_stream(corpus, spec).build(np.arange(300)), plain_of(corpus, 300)
    crop = flat.views["scl"]["crop"].sequences
    for cut, whole in zip(rows_of(crop), rows_of(plain), strict=True):
        assert (cut[0], cut[-1]) == (corpus.vocabulary.cls_id, corpus.vocabulary.sep_id)
        inner, size = whole[1:-1], len(cut) - 2
        assert size == max(int(len(inner) * 0.9), 1)
        assert any(inner[start : start + size] == cut[1:-1] for start in range(len(inner) - size + 1))
    assert np.array_equal(crop.is_special, np.isin(crop.token_ids, [2, 3]))


def test_a_crop_keeps_a_second_text_in_its_segment(corpus):
    flat = open_stream(corpus, "nsp+scl").build(np.arange(100))
    crop = flat.views["scl"]["crop"].sequences
    assert (crop.token_ids[crop.offsets[:-1]] == 2).all() and (crop.token_ids[crop.offsets[1:] - 1] == 3).all()
    for row in range(100):
        segments = crop.segments[crop.offsets[row] : crop.offsets[row + 1]]
        assert (np.diff(segments) >= 0).all() and segments[-1] == 1


def test_a_crop_begins_anywhere_alike(corpus):
    from objectives import OBJECTIVES

    sequences = make_sequences([42] * 5000)
    ids = np.where(sequences.is_special, sequences.token_ids, 4 + sequences.places)
    sequences = replace(sequences, token_ids=ids, original_ids=ids)
    corruption = OBJECTIVES["scl"]().corrupt(sequences, draws_for(sequences), context_of(corpus, sequences))
    crop = corruption.views["crop"].sequences
    starts = np.bincount(crop.token_ids[crop.offsets[:-1] + 1] - 5)
    assert len(starts) == 5 and ((starts - 1000) ** 2 / 1000).sum() < 18.5  # chi-square, 4 degrees of freedom, .001
    assert (crop.lengths == 38).all()


def test_both_readings_of_simcse_are_of_the_plain_text(corpus):
    flat, plain = open_stream(corpus, "mlm+simcse").build(np.arange(20)), plain_of(corpus, 20)
    for view in flat.views["simcse"].values():
        assert np.array_equal(view.sequences.token_ids, plain.token_ids)
    assert not np.array_equal(flat.sequences.token_ids, plain.token_ids)
    batch = to_batch(flat, corpus.vocabulary)
    model = make_model(corpus, "mlm+simcse")
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"]), with_kwargs=True)
    model(batch)
    assert [ids.tolist() for ids in seen] == [batch.input_ids.tolist()] + [
        batch.views["simcse"]["first"].input_ids.tolist()
    ] * 2


def test_quick_thoughts_halves_make_up_the_passage(corpus):
    """Logeswaran and Lee, 2018, section 3: the second text is what follows the first."""
    stream = open_stream(corpus, "quick_thoughts")
    flat = stream.build(np.arange(300))
    first, second = (rows_of(flat.views["quick_thoughts"][name].sequences) for name in ("first", "second"))
    passages, offsets = (
        stream.passages.select(stream.passage_indices(np.arange(300))),
        set(corpus.sentence_offsets.tolist()),
    )
    for row, (one, other) in enumerate(zip(first, second, strict=True)):
        start, end = int(passages.starts[row]), int(passages.ends[row])
        assert one[1:-1] + other[1:-1] == corpus.token_ids[start:end].tolist()
        assert start < start + len(one) - 2 < end and start + len(one) - 2 in offsets
        assert (one[0], one[-1], other[0], other[-1]) == (2, 3, 2, 3)


# ---- the loss


@pytest.fixture
def contrast():
    """Return a function that makes a head, two sides of five texts, and its question."""

    def make(temperature, symmetric):
        torch.manual_seed(0)
        head = ContrastHead(make_encoder_config("bert"), "partner", temperature, symmetric=symmetric)
        torch.nn.init.normal_(head.dense.weight, std=0.5)
        sides = [torch.randn(5, 3, 16) for _ in range(2)]
        return head, sides

    def ask(head, sides, order=slice(None)):
        ids = torch.zeros(5, 3, dtype=torch.long)
        one, other = (Encoded(side[order], ids, torch.empty(0)) for side in sides)
        encoded = Encoded(one.hidden, ids, torch.empty(0), others={"second": other})
        return head(encoded, {"partner": DeviceTarget(torch.arange(5) * 3, torch.zeros(5, dtype=torch.long))})

    return make, ask


def written_out(head, ours, theirs, temperature):
    """Return the sum of -ln softmax(cosine / temperature) at the partner, and how often it is the likeliest."""
    one, other = (torch.tanh(head.dense(side[:, 0])).detach().double().numpy() for side in (ours, theirs))
    total, correct = 0.0, 0
    for i in range(5):
        cosines = [one[i] @ each / np.linalg.norm(one[i]) / np.linalg.norm(each) / temperature for each in other]
        total += log(sum(map(exp, cosines))) - cosines[i]
        correct += int(np.argmax(cosines)) == i
    return total, correct


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_loss_is_the_cross_entropy_of_the_cosines(contrast, temperature):
    """Invariant 46 and oracle O13 (Gao et al., 2021, section 3, equation 1): positives are the diagonal."""
    make, ask = contrast
    head, sides = make(temperature, symmetric=False)
    loss = ask(head, sides)
    total, correct = written_out(head, *sides, temperature)
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-5)
    assert (loss.count, float(loss.statistics["correct"])) == (5, correct)


def test_a_symmetric_loss_is_the_mean_of_both_directions(contrast):
    make, ask = contrast
    head, (one, other) = make(0.1, symmetric=True)
    there, back = written_out(head, one, other, 0.1)[0], written_out(head, other, one, 0.1)[0]
    assert abs(there - back) > 0.1
    assert float(ask(head, [one, other]).total.detach()) == pytest.approx((there + back) / 2, rel=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_order_of_the_rows_does_not_matter(contrast, symmetric):
    """Invariant 46."""
    make, ask = contrast
    head, sides = make(0.05, symmetric)
    mixed = ask(head, sides, torch.tensor([3, 0, 4, 1, 2]))
    assert float(mixed.total.detach()) == pytest.approx(float(ask(head, sides).total.detach()), rel=1e-5)


def test_the_papers_temperatures():
    """Gao et al., 2021, section 3: .05. Meng et al., 2021, appendix: 1."""
    from objectives import OBJECTIVES

    assert {name: OBJECTIVES[name]().temperature for name in ("simcse", "scl")} == {"simcse": 0.05, "scl": 1.0}


# ---- several processes


def test_one_process_has_only_its_own_rows():
    rows = torch.randn(3, 4)
    assert gather_rows(rows, training=True) == (rows, 0)


def contrast_on(rank, world, folder):
    """Write the loss and the gradients of this process's share of eight texts."""
    if world > 1:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.manual_seed(0)
    head = ContrastHead(make_encoder_config("bert"), "partner", 0.1, symmetric=True)
    torch.nn.init.normal_(head.dense.weight, std=0.5)
    share = slice(rank * 8 // world, (rank + 1) * 8 // world)
    sides = [torch.randn(8, 3, 16)[share].requires_grad_() for _ in range(2)]
    ids = torch.zeros(8 // world, 3, dtype=torch.long)
    other = Encoded(sides[1], ids, torch.empty(0))
    loss = head(Encoded(sides[0], ids, torch.empty(0), others={"second": other}), {})
    loss.total.backward()
    head.eval()
    alone = head(Encoded(sides[0], ids, torch.empty(0), others={"second": other}), {}).total.detach()
    made = {"loss": loss.total.detach(), "alone": alone, "weight": head.dense.weight.grad}
    torch.save(made | {"one": sides[0].grad, "other": sides[1].grad}, f"{folder}/{world}-{rank}.pt")
    if world > 1:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_loss_and_the_gradients_of_the_union(tmp_path):
    """Invariant 46: the sum over processes, with the gradient through the rows of the others."""
    contrast_on(0, 1, str(tmp_path))
    multiprocessing.spawn(contrast_on, (2, str(tmp_path)), nprocs=2)
    whole = torch.load(tmp_path / "1-0.pt")
    halves = [torch.load(tmp_path / f"2-{rank}.pt") for rank in range(2)]
    for name in ("loss", "weight"):
        assert torch.allclose(sum(half[name] for half in halves), whole[name], atol=1e-6), name
    for name in ("one", "other"):
        assert torch.allclose(torch.cat([half[name] for half in halves]), whole[name], atol=1e-6), name
        assert whole[name].abs().max() > 1e-3
    assert float(sum(half["alone"] for half in halves)) < 0.9 * float(whole["alone"])  # an evaluation gathers nothing


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["mlm+scl", "quick_thoughts"])
def test_a_step_on_two_processes_is_that_on_one_with_twice_the_rows(tmp_path, objective):
    one, two = (
        load_file(trace_of(config, tmp_path / str(processes), processes, 0) / "gradients.safetensors")
        for processes, config in (
            (1, make_config(tmp_path, objective=objective, micro_batch_size=8)),
            (2, make_config(tmp_path, objective=objective, micro_batch_size=4)),
        )
    )
    for name, gradient in one.items():
        assert float((gradient - two[name]).abs().max()) <= 1e-6 * max(1.0, float(gradient.abs().max())), name
