"""What objectives do that put tokens right: named, copied or pointed at."""

from collections import Counter
from dataclasses import fields
from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from corpora.tables import Tables
from objectives import OBJECTIVES, build_objectives
from objectives.batch import DeviceTarget, Encoded
from objectives.draws import Draws
from objectives.heads_recovery import CopyHead, PointerHead
from objectives.sequences import Context
from tests.small_heads import make_config
from tests.test_masking import draws_for, make_sequences
from tests.test_objectives import make_model, open_stream
from training.stream import to_batch

OURS = (
    "token_type first_char casing frequency length ascii random_class all_tokens_mlm corrective_lm word_order "
    "permutation "
    "simcse scl data2vec causal_lm mntp tsdae retromae"
).split()


def context_of(corpus, sequences):
    progress = np.ones(sequences.num_examples)
    return Context(vocabulary=corpus.vocabulary, tables=Tables(corpus), progress=progress)


def plain_of(corpus, count):
    return open_stream(corpus, "mlm:mask_rate=0").build(np.arange(count)).sequences


@pytest.mark.parametrize("name", OURS)
def test_a_corruption_leaves_what_it_was_given_alone(corpus, name):
    """Invariant 50: the collator of `transformers` masks its input in place."""
    sequences = plain_of(corpus, 20)
    names = ("token_ids", "original_ids", "is_free", "offsets", "segments", "is_special", "is_word_start", "pieces")
    before = {name: getattr(sequences, name).copy() for name in names}
    (objective,) = build_objectives(name)
    objective.corrupt(sequences, Draws(seed=0, examples=np.arange(20)), context_of(corpus, sequences))
    assert all(np.array_equal(array, getattr(sequences, key)) for key, array in before.items())


@pytest.mark.parametrize("name", ["all_tokens_mlm", "corrective_lm", "word_order", "permutation", "data2vec", "mntp"])
def test_putting_the_answers_in_place_gives_the_text_back(corpus, name):
    """Invariant 49."""
    flat, plain = open_stream(corpus, name).build(np.arange(100)), plain_of(corpus, 100)
    restored = flat.sequences.token_ids.copy()
    target = next(iter(flat.targets[name].values()))
    if name == "permutation":
        restored[target.positions] = flat.sequences.token_ids[target.pointers["place"]]
    else:
        restored[target.positions + (name == "mntp")] = target.values
    assert (restored != flat.sequences.token_ids).sum() > 50
    assert np.array_equal(restored, plain.token_ids)


# ---- copying

WIDTH, VOCABULARY = 16, 12


@pytest.fixture
def copying():
    """Return what makes a copy head with large random weights, two rows of four tokens, and the head's parts."""

    def make(corrective):
        torch.manual_seed(0)
        config = make_config("bert", vocab_size=VOCABULARY)
        head = CopyHead(config, WIDTH, 4, corrective=corrective).eval()
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
        hidden = torch.randn(2, 4, WIDTH, requires_grad=True)
        shown = torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]])
        return head, Encoded(hidden, shown, torch.randn(VOCABULARY, WIDTH))

    return make


def mixture(head, encoded, position):
    """Return p(x) = d 1[x is shown] + (1 - d) softmax(x), in float64, of a token (V,)."""
    state = encoded.hidden.detach().flatten(0, 1)[position]
    d = 1 / (1 + np.exp(-float(head.copying(state)[0].detach())))
    logits = head.naming.logits(state[None], encoded.word_table)[0].detach().double().numpy()
    named = np.exp(logits) / np.exp(logits).sum()
    is_shown = np.arange(VOCABULARY) == int(encoded.input_ids.flatten()[position])
    return d * is_shown + (1 - d) * named, d


def test_all_tokens_are_named_by_the_mixture_of_copy_and_language_model(copying):
    """Clark et al., 2020, section 3.4: of each token, kept or replaced."""
    head, encoded = copying(corrective=False)
    positions, values = [1, 2, 5, 6], [5, 9, 7, 10]  # 1 and 5 stand there already
    loss = head(encoded, {"original_ids": DeviceTarget(torch.tensor(positions), torch.tensor(values))})
    spread = [mixture(head, encoded, position)[0] for position in positions]
    assert [float(each.sum()) for each in spread] == pytest.approx([1.0] * 4)
    expected = -sum(log(each[value]) for each, value in zip(spread, values, strict=True))
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5) and loss.count == 4
    likeliest = [int(each.argmax()) == value for each, value in zip(spread, values, strict=True)]
    assert float(loss.statistics["correct"]) == sum(likeliest)


def test_the_language_model_does_not_teach_the_copying(copying):
    """Meng et al., 2021, section 3.2: the gradient is stopped at the copy probability; both values are the paper's."""
    head, encoded = copying(corrective=True)
    selected = DeviceTarget(torch.tensor([2, 6]), torch.tensor([9, 8]))
    asked = DeviceTarget(torch.arange(8), torch.tensor([1, 1, 0, 1, 1, 1, 1, 1]))
    losses = head(encoded, {"original_ids": selected, "is_original": asked})
    naming, copied = losses["corrective_lm"], losses["corrective_lm_copy"]
    assert (naming.count, copied.count) == (2, 8)
    expected = -sum(log(mixture(head, encoded, p)[0][v]) for p, v in [(2, 9), (6, 8)])
    assert float(naming.total.detach()) == pytest.approx(expected, rel=1e-5)
    d = [mixture(head, encoded, p)[1] for p in range(8)]
    assert float(copied.total.detach()) == pytest.approx(
        -sum(log(d[p] if p != 2 else 1 - d[p]) for p in range(8)), rel=1e-5
    )

    naming.total.backward(retain_graph=True)
    assert head.copying.weight.grad is None and head.copying.bias.grad is None
    assert all(p.grad.abs().sum() > 0 for p in head.naming.parameters())
    for parameter in head.naming.parameters():
        parameter.grad = None
    copied.total.backward()
    assert head.copying.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in head.naming.parameters())


def test_corrective_terms_have_counts_and_weights_of_their_own(corpus):
    """Meng et al., 2021, section 3.2: all tokens are asked whether, the selected ones what; 50 to 1."""
    (objective,) = build_objectives("corrective_lm")
    assert {name: (term.weight, term.targets) for name, term in objective.terms.items()} == {
        "corrective_lm": (1.0, ("original_ids",)),
        "corrective_lm_copy": (50.0, ("is_original",)),
    }
    flat = open_stream(corpus, "corrective_lm").build(np.arange(16))
    model = make_model(corpus, "corrective_lm")
    batch = to_batch(flat, corpus.vocabulary)
    losses = model(batch)
    selected, tokens = len(flat.proposals["corrective_lm"].positions), len(flat.sequences.token_ids)
    assert selected < 0.2 * tokens
    counts = {"corrective_lm": selected, "corrective_lm_copy": tokens, "corrective_lm_generator": selected}
    assert {name: loss.count for name, loss in losses.items()} == counts == model.count_targets(batch)
    assert model.weights == {"corrective_lm": 1.0, "corrective_lm_copy": 50.0, "corrective_lm_generator": 1.0}


def test_a_lucky_guess_is_original(corpus):
    """Invariant 19, with the polarity that the paper's copy probability has."""
    flat = open_stream(corpus, "corrective_lm").build(np.arange(16))
    batch = to_batch(flat, corpus.vocabulary)
    proposal = batch.proposals["corrective_lm"]
    guesses = proposal.original_ids.clone()
    guesses[::2] = 5 + (guesses[::2] - 4) % 195
    (objective,) = build_objectives("corrective_lm")
    judged = objective.judge(batch.targets["corrective_lm"], batch.with_ids(proposal.positions, guesses), None)
    asked = judged["is_original"]
    assert asked.positions[asked.values == 0].tolist() == proposal.positions[::2].tolist()
    assert asked.values.sum() == len(flat.sequences.token_ids) - len(proposal.positions[::2])


@pytest.mark.parametrize("name", ["all_tokens_mlm", "corrective_lm"])
def test_what_was_hidden_by_another_objective_is_not_asked(corpus, name):
    flat = open_stream(corpus, f"mlm+{name}").build(np.arange(50))
    masked = flat.targets["mlm"]["original_ids"].positions
    for target in flat.targets[name].values():
        assert not np.intersect1d(masked, target.positions).size
    assert not np.intersect1d(masked, flat.proposals[name].positions).size
    asked = max(flat.targets[name].values(), key=lambda target: len(target.positions))
    special = 0 if name == "all_tokens_mlm" else 2 * 50
    assert len(asked.positions) == len(flat.sequences.token_ids) - len(masked) - 2 * 50 + special


# ---- order


def test_shuffled_trigrams_are_of_whole_words_apart_and_in_another_order(corpus):
    """Wang et al., 2020, section 2.2; in the code at hand all six orders are drawn, the old one too."""
    flat, plain = open_stream(corpus, "word_order:shuffle_rate=0.3").build(np.arange(600)), plain_of(corpus, 600)
    positions = flat.targets["word_order"]["original_ids"].positions
    assert (np.diff(positions) > 0).all()  # none in two trigrams
    trigrams = positions.reshape(-1, 3)
    assert (trigrams == trigrams[:, :1] + np.arange(3)).all() and len(trigrams) > 300
    assert not plain.is_special[trigrams].any()
    ids = plain.token_ids
    starts = plain.is_special | (ids % 3 != 0) | np.append(True, plain.is_special[:-1])
    assert starts[trigrams].all() and starts[trigrams + 1].all()  # each token is a word and the next begins another
    before, after = ids[trigrams], flat.sequences.token_ids[trigrams]
    assert np.array_equal(np.sort(before), np.sort(after))
    distinct = (np.diff(np.sort(before)) > 0).all(1)
    assert (before != after).any(1)[distinct].all()
    untouched = np.setdiff1d(np.arange(len(ids)), positions)
    assert np.array_equal(flat.sequences.token_ids[untouched], ids[untouched])


def test_each_of_the_other_five_orders_is_as_likely(corpus):
    sequences = make_sequences([62] * 1500)
    sequences = type(sequences)(
        **{f.name: getattr(sequences, f.name) for f in fields(sequences)} | distinct_ids(sequences)
    )
    corruption = OBJECTIVES["word_order"](shuffle_rate=0.2).corrupt(
        sequences, draws_for(sequences), context_of(corpus, sequences)
    )
    trigrams = corruption.targets["original_ids"].positions.reshape(-1, 3)
    order = corruption.sequences.token_ids[trigrams] - sequences.token_ids[trigrams[:, :1]]
    counts = Counter(map(tuple, order.tolist()))
    assert set(counts) == {(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}
    expected = len(trigrams) / 5
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 18.5  # 4 degrees of freedom, .001
    assert len(trigrams) == 1500 * 4  # round(62 x .2 / 3)


def distinct_ids(sequences):
    """Return ids that count up within each example, so that an order can be read off them."""
    ids = np.where(sequences.is_special, sequences.token_ids, 5 + sequences.places)
    return {"token_ids": ids, "original_ids": ids}


@pytest.mark.parametrize("spec", ["mlm+word_order", "word_order+mlm"])
def test_shuffled_tokens_are_none_of_the_masked(corpus, spec):
    """Invariant 36: and each is asked for its original."""
    flat, plain = open_stream(corpus, spec).build(np.arange(200)), plain_of(corpus, 200)
    masked, shuffled = (flat.targets[name]["original_ids"] for name in ("mlm", "word_order"))
    assert not np.intersect1d(masked.positions, shuffled.positions).size
    for target in (masked, shuffled):
        assert np.array_equal(target.values, plain.token_ids[target.positions])
    assert (flat.sequences.token_ids[shuffled.positions] != corpus.vocabulary.mask_id).all()


@pytest.mark.parametrize("spec", ["word_order:shuffle_rate=0", "permutation:permute_rate=0"])
def test_a_rate_of_zero_changes_and_asks_nothing(corpus, spec):
    flat = open_stream(corpus, spec).build(np.arange(50))
    assert np.array_equal(flat.sequences.token_ids, plain_of(corpus, 50).token_ids)
    assert [len(target.positions) for targets in flat.targets.values() for target in targets.values()] == [0]


# ---- pointing


def test_permuted_tokens_are_those_of_the_row_and_point_back(corpus):
    """Cui et al., 2022, section 3: an answer is one of the permuted places, each the answer of one."""
    flat, plain = open_stream(corpus, "permutation").build(np.arange(300)), plain_of(corpus, 300)
    target = flat.targets["permutation"]["moved_to"]
    places = target.pointers["place"]
    rows = plain.rows
    assert np.array_equal(np.sort(places), target.positions)
    assert np.array_equal(rows[places], rows[target.positions])
    assert np.array_equal(flat.sequences.token_ids[places], plain.token_ids[target.positions])
    for row in range(300):
        here = slice(plain.offsets[row], plain.offsets[row + 1])
        assert Counter(flat.sequences.token_ids[here].tolist()) == Counter(plain.token_ids[here].tolist())
    wanted = np.maximum(np.rint(plain.lengths * 0.15), 2)
    assert np.bincount(rows[target.positions], minlength=300).tolist() == np.minimum(wanted, plain.lengths - 2).tolist()


def test_each_permutation_is_as_likely(corpus):
    sequences = make_sequences([20] * 6000)  # three tokens of each
    corruption = OBJECTIVES["permutation"]().corrupt(sequences, draws_for(sequences), context_of(corpus, sequences))
    target = corruption.targets["moved_to"]
    order = np.argsort(np.argsort(target.pointers["place"].reshape(-1, 3)))
    counts = Counter(map(tuple, order.tolist()))
    assert len(counts) == 6 and sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 20.5  # 5, .001


def test_a_pointer_chooses_among_the_permuted_places_of_its_row():
    torch.manual_seed(0)
    head = PointerHead(make_config("bert"), "moved_to", "place")
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    hidden = torch.randn(2, 5, 16)
    positions, places = torch.tensor([1, 2, 6, 7, 8]), torch.tensor([2, 1, 8, 6, 7])
    target = DeviceTarget(positions, torch.zeros(5, dtype=torch.long), {"place": places})
    loss = head(Encoded(hidden, torch.zeros(2, 5, dtype=torch.long), torch.empty(0)), {"moved_to": target})
    asked, offered = head.asking(hidden).flatten(0, 1), head.offering(hidden).flatten(0, 1)
    total, correct = 0.0, 0
    for row in ([1, 2], [6, 7, 8]):
        scores = asked[row] @ offered[row].T / 16**0.5
        answers = torch.tensor([row.index(int(places[positions == p])) for p in row])
        total += float(F.cross_entropy(scores, answers, reduction="sum").detach())
        correct += int((scores.argmax(-1) == answers).sum())
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-5)
    assert (loss.count, float(loss.statistics["correct"])) == (5, correct)
