"""What a teacher or a decoder is given, and what it must not see."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from generators.network import encode
from objectives import OBJECTIVES
from objectives.batch import Encoded, View
from objectives.heads_decoder import EnhancedHead, TeacherForcedHead
from tests.small_heads import make_config
from tests.test_masking import draws_for, make_sequences
from tests.test_objectives import make_model, open_stream
from tests.test_recovery_family import context_of, plain_of
from training.config import Config
from training.encoders import EncoderSpec, build_encoder
from training.optimizer import make_optimizer
from training.stream import to_batch

# ---- a teacher


def test_the_teacher_is_asked_where_the_text_is_hidden_and_reads_all_of_it(corpus):
    """Invariant 47."""
    flat, plain = open_stream(corpus, "data2vec").build(np.arange(16)), plain_of(corpus, 16)
    target = flat.targets["data2vec"]["states"]
    masked = np.flatnonzero(flat.sequences.token_ids == corpus.vocabulary.mask_id)
    assert np.array_equal(target.positions, masked)
    batch = to_batch(flat, corpus.vocabulary)
    model = make_model(corpus, "data2vec")
    seen = []
    head = model.heads["data2vec"]
    head.teacher.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"]), with_kwargs=True)
    model(batch)
    (ids,) = seen
    assert np.array_equal(ids[batch.attention_mask.bool()].numpy(), plain.token_ids)


def test_the_loss_is_smooth_l1_to_the_mean_of_the_normed_layers(corpus):
    """Baevski et al., 2022, sections 3.3 and 3.4, written out: beta 4, the last layers, each normed, then the mean."""
    model = make_model(corpus, "data2vec:num_layers=3").eval()
    head = model.heads["data2vec"]
    batch = to_batch(open_stream(corpus, "data2vec").build(np.arange(4)), corpus.vocabulary)
    positions = batch.targets["data2vec"]["states"].positions
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.05)  # so that the teacher is another
        text = batch.views["data2vec"]["text"]
        layers = head.teacher(text.input_ids, text.attention_mask, output_hidden_states=True).hidden_states
        given = head.answer(encode(model.encoder, batch.main).flatten(0, 1)[positions]).double()
        loss = model(batch)["data2vec"]
    assert len(layers) == 5
    normed = [
        (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() for x in layers[2:]
    ]
    mean = torch.stack(normed).mean(0).flatten(0, 1)[positions].double()
    wanted = (mean - mean.mean(-1, keepdim=True)) / (mean.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    gap = (given - wanted).abs()
    expected = torch.where(gap < 4, gap**2 / 8, gap - 2).mean(-1).sum()
    assert float(loss.total) == pytest.approx(float(expected), rel=1e-4) and loss.count == len(positions)


def test_a_teacher_learns_nothing_and_moves_by_exactly_its_decay(corpus):
    """Invariant 47: .999 at the start, .9999 at the end of the run."""
    model = make_model(corpus, "data2vec")
    head = model.heads["data2vec"]
    teacher, encoder = dict(head.teacher.named_parameters()), dict(model.encoder.named_parameters())
    assert all(torch.equal(teacher[name], encoder[name]) for name in encoder) and len(teacher) == len(encoder)
    learned = {id(p) for group in make_optimizer(model, Config(), 1e-3).param_groups for p in group["params"]}
    assert not learned & {id(p) for p in teacher.values()}
    assert {id(p) for p in encoder.values()} <= learned

    batch = to_batch(open_stream(corpus, "data2vec").build(np.arange(4)), corpus.vocabulary)
    model(batch)["data2vec"].total.backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.values())

    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1.0)
    for progress, decay in [(0.0, 0.999), (0.5, 0.99945), (1.0, 0.9999)]:
        before = {name: p.clone() for name, p in teacher.items()}
        model.finish_step(progress, lambda tensor: tensor)
        for name, parameter in teacher.items():
            moved = before[name].double() + (1 - decay) * (encoder[name].detach().double() - before[name].double())
            assert torch.allclose(parameter.double(), moved, atol=2e-7), name
        assert (teacher["layers.0.mlp.Wi.weight"] - before["layers.0.mlp.Wi.weight"]).abs().max() > 0.5 * (1 - decay)


def test_a_teacher_is_restored_with_the_model_and_never_drops(corpus):
    model, other = make_model(corpus, "data2vec"), make_model(corpus, "data2vec")
    with torch.no_grad():
        for parameter in model.heads["data2vec"].teacher.parameters():
            parameter.normal_()
    other.load_state_dict(model.state_dict())
    restored = dict(other.heads["data2vec"].teacher.named_parameters())
    assert all(torch.equal(p, restored[name]) for name, p in model.heads["data2vec"].teacher.named_parameters())
    model.train()
    head = model.heads["data2vec"]
    assert head.training and not any(module.training for module in head.teacher.modules())


@pytest.mark.parametrize("spec", ["data2vec+deletion:delete_rate=0.5", "data2vec+insertion:insert_rate=0.5"])
def test_the_teachers_answer_follows_a_token_that_has_moved(corpus, spec):
    """With the same answer everywhere the loss is that of the teacher's states of the asked tokens alone."""
    model = make_model(corpus, spec)
    head = model.heads["data2vec"].eval()
    torch.nn.init.zeros_(head.answer[2].weight)
    answer = torch.nn.init.normal_(head.answer[2].bias).detach()  # not 0: normed states are all as far from it
    flat = open_stream(corpus, spec).build(np.arange(6))
    loss = model(to_batch(flat, corpus.vocabulary))["data2vec"]
    text = flat.views["data2vec"]["text"].sequences
    asked = flat.targets["data2vec"]["states"]
    states = head.teach(to_batch(flat, corpus.vocabulary).views["data2vec"]["text"])
    expected, places = 0.0, asked.extras["place"]
    for position, place, token in zip(asked.positions, places, asked.values, strict=True):
        row = int(flat.sequences.rows[position])
        assert text.token_ids[text.offsets[row] + place] == token
        state = states[row, place]
        expected += float(F.smooth_l1_loss(answer, state, beta=4.0))
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-4)
    assert (np.bincount(flat.sequences.rows) != np.bincount(text.rows)).any()


# ---- reading in one direction


@pytest.mark.parametrize("family", ["", "bert", "electra", "roberta", "modernbert", "deberta-v2"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_row_read_in_one_direction_sees_nothing_of_the_other(corpus, family, implementation):
    """GPT-BERT: a state of causal attention must not change with a later token; nor with padding."""
    if family == "deberta-v2" and implementation == "sdpa":
        pytest.skip("transformers has no sdpa for it")
    name = f"{family}-tiny" if family else "tiny"
    torch.manual_seed(0)
    network = build_encoder(
        EncoderSpec(name=name, vocabulary=corpus.vocabulary, max_length=16, dropout=0.0, attention=implementation)
    ).eval()
    ids = torch.randint(5, 200, (2, 10))
    mask = torch.ones_like(ids)
    ids[1, 8:], mask[1, 8:] = 0, 0
    other = ids.clone()
    other[:, 4] = (ids[:, 4] - 4) % 195 + 5
    with torch.no_grad():
        for attention, kept in [("causal", slice(0, 4)), ("reverse", slice(5, 8))]:
            one, two = (encode(network, View(each, mask, 0 * ids, attention)) for each in (ids, other))
            changed = (one - two).abs().amax(-1)
            assert float(changed[:, kept].max()) < 1e-6
            reached = changed[:, 4:8] if attention == "causal" else changed[:, :5]
            assert float(reached.min()) > 1e-5
            short = encode(network, View(ids[1:, :8], mask[1:, :8], 0 * ids[1:, :8], attention))
            assert torch.allclose(one[1:, :8], short, atol=1e-5)
        one, two = (encode(network, View(each, mask, 0 * ids)) for each in (ids, other))
        assert float((one - two)[:, :8].abs().amax(-1).min()) > 1e-6


def test_each_next_token_is_named_from_the_one_before(corpus):
    """Of the text as it was, also where another objective hides; [CLS] names the first, and none names [SEP]."""
    flat, plain = open_stream(corpus, "mlm+causal_lm").build(np.arange(50)), plain_of(corpus, 50)
    target, view = flat.targets["causal_lm"]["next_ids"], flat.views["causal_lm"]["text"]
    assert np.array_equal(view.sequences.token_ids, plain.token_ids) and view.attention == "causal"
    assert np.array_equal(target.positions + 1, np.flatnonzero(~plain.is_special))
    assert np.array_equal(target.values, plain.token_ids[~plain.is_special])


def test_masked_next_tokens_are_asked_one_place_before(corpus):
    """Charpentier and Samuel, 2024, section 3; what can't be seen is the named token, not the one before it."""
    flat, plain = open_stream(corpus, "mntp:mask_rate=0.4").build(np.arange(50)), plain_of(corpus, 50)
    target = flat.targets["mntp"]["next_ids"]
    hidden = target.positions + 1
    assert np.array_equal(target.values, plain.token_ids[hidden]) and not plain.is_special[hidden].any()
    changed = np.flatnonzero(flat.sequences.token_ids != plain.token_ids)
    assert np.isin(changed, hidden).all() and len(changed) > 0.8 * len(hidden)
    loss = make_model(corpus, "mntp")(to_batch(flat, corpus.vocabulary))["mntp"]
    assert int(loss.statistics["hidden_count"]) == (flat.sequences.token_ids[hidden] == corpus.vocabulary.mask_id).sum()


# ---- a decoder

LENGTH = 12


def decode(make_head, *others, change=None, seed=0):
    """Return a head's logits (B, L, V) of three texts; `change` puts another token at a place of the decoder's text."""
    torch.manual_seed(seed)
    head = make_head(make_config("bert"), 16, "ids").eval()
    for parameter in head.answer.parameters():
        torch.nn.init.normal_(parameter)
    hidden, table = torch.randn(3, 5, 16), torch.randn(40, 16)
    ids, words = torch.randint(5, 40, (3, LENGTH)), torch.randint(0, 2**32, (3, LENGTH))
    if change is not None:
        ids[:, change] = (ids[:, change] - 4) % 35 + 5
    mask = torch.ones_like(ids)
    mask[2, 9:] = 0
    text, marks = View(ids, mask, 0 * ids), View(words, mask, 0 * ids)
    encoded = Encoded(hidden, torch.zeros(3, 5, dtype=torch.long), table, texts={"text": text, "marks": marks})
    with torch.no_grad():
        decoded = head.read(encoded, text)
        return head.layer(decoded), SimpleNamespace(head=head, encoded=encoded, text=text, decoded=decoded)


@pytest.mark.parametrize("place", range(1, LENGTH))
def test_no_token_is_named_from_itself(place):
    """Xiao et al., 2022, section 3.3: a perturbed token changes about half of the others, and never its own answer."""
    plain, _ = decode(EnhancedHead)
    changed, _ = decode(EnhancedHead, change=place)
    differs = (plain - changed).abs().amax(-1) > 1e-6
    assert not differs[:, place].any()
    if place < 9:
        assert 3 <= int(differs[:, 1:].sum()) <= 3 * LENGTH - 6
    else:
        assert not differs[2].any()  # padding of the third text is seen by none


def test_half_of_the_others_are_hidden_from_each_token(corpus):
    sequences = make_sequences([62] * 200)
    corruption = OBJECTIVES["retromae"]().corrupt(sequences, draws_for(sequences), context_of(corpus, sequences))
    marks = torch.from_numpy(corruption.views["marks"].sequences.token_ids.reshape(200, 62))
    empty = torch.empty(0)
    encoded = Encoded(empty, empty, empty, texts={"marks": View(marks, torch.ones_like(marks), 0 * marks)})
    hidden = EnhancedHead.hidden_pairs(None, encoded, None).numpy()
    assert hidden.shape == (200, 62, 62)
    assert hidden.mean() == pytest.approx(0.5, abs=0.003)
    for axis in (1, 2):  # neither a token that sees all, nor one that all see; binomial, 62 of 1/2
        shares = hidden.mean(axis)
        assert shares.std() == pytest.approx((0.25 / 62) ** 0.5, rel=0.05)
    both = (hidden == hidden.transpose(0, 2, 1)).mean()
    assert both == pytest.approx(0.5 + 0.5 / 62, abs=0.005)  # seeing is not being seen; a token's own pair is one


def test_the_decoder_always_sees_the_vector_of_the_text():
    _, made = decode(EnhancedHead)
    assert not made.decoded.unseen[:, :, 0].any()
    assert torch.equal(made.decoded.keys[:, 0], made.encoded.hidden[:, 0])
    assert made.decoded.unseen[2, :, 9:].all()


@pytest.mark.parametrize("place", range(1, LENGTH))
def test_teacher_forcing_never_sees_the_answer(place):
    """Wang et al., 2021, section 3: token `place` is named at the one before it, from nothing at or behind `place`."""
    plain, _ = decode(TeacherForcedHead)
    changed, _ = decode(TeacherForcedHead, change=place)
    differs = (plain - changed).abs().amax(-1) > 1e-6
    assert not differs[:, :place].any() and differs[:, place:].all()


@pytest.mark.parametrize("head", [TeacherForcedHead, EnhancedHead])
def test_a_decoder_reads_the_encoder_through_its_first_state_alone(head):
    plain, made = decode(head)
    hidden = made.encoded.hidden.clone()
    hidden[:, 1:] += 1
    with torch.no_grad():
        same = made.head.layer(made.head.read(Encoded(hidden, *list(vars(made.encoded).values())[1:]), made.text))
        hidden[:, 0] += torch.randn(16)
        other = made.head.layer(made.head.read(Encoded(hidden, *list(vars(made.encoded).values())[1:]), made.text))
    assert torch.equal(plain, same)
    assert ((plain - other).abs().amax(-1) > 1e-4).all()


@pytest.mark.parametrize("rate", [0.6, 1.0, 0.0])
def test_what_deletion_leaves_is_in_order_and_never_nothing(corpus, rate):
    """Wang et al., 2021, section 3.1."""
    flat, plain = open_stream(corpus, f"tsdae:deletion_rate={rate}").build(np.arange(200)), plain_of(corpus, 200)
    rest, text = (flat.views["tsdae"][name].sequences for name in ("rest", "text"))
    assert np.array_equal(text.token_ids, plain.token_ids)
    for row in range(200):
        left = rest.token_ids[rest.offsets[row] : rest.offsets[row + 1]].tolist()
        whole = iter(plain.token_ids[plain.offsets[row] : plain.offsets[row + 1]].tolist())
        assert all(token in whole for token in left)  # a subsequence
        inner = int(plain.lengths[row]) - 2
        assert len(left) - 2 == max(inner - round(inner * rate), 1)
        assert (left[0], left[-1]) == (2, 3)
    target = flat.targets["tsdae"]["next_ids"]
    assert target.view == "text" and np.array_equal(target.values, plain.token_ids[target.positions + 1])
    assert np.array_equal(target.positions + 1, np.flatnonzero(~plain.is_special))


def test_every_token_is_asked_of_the_enhanced_decoder(corpus):
    flat, plain = open_stream(corpus, "mlm+retromae").build(np.arange(50)), plain_of(corpus, 50)
    target = flat.targets["retromae"]["original_ids"]
    assert np.array_equal(target.positions, np.flatnonzero(~plain.is_special)) and target.view == "text"
    assert np.array_equal(target.values, plain.token_ids[~plain.is_special])
