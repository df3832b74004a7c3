"""What the objectives of token detection do to tokens, and what they ask."""

from collections import Counter
from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from corpora.errors import UserError
from corpora.tables import Tables
from generators import GENERATORS
from objectives import build_objectives
from objectives.base import TextStatistics, levels_of
from objectives.batch import Batch, DeviceProposal, DeviceTarget, Encoded, Filling, View
from objectives.draws import Draws
from objectives.heads_detection import EnergyHead, MultiChoiceHead, TokenClassHead, entropy_of
from objectives.rts import draw_others
from objectives.token_shuffle import cycle_within
from tests.conftest import WrittenCorpus
from tests.test_objectives import make_model, open_stream
from training.model import choose_generator
from training.stream import to_batch

EXAMPLES = np.arange(300)


def plain_text(corpus, examples=EXAMPLES):
    return open_stream(corpus, "mlm:mask_rate=0").build(examples).sequences


def build(corpus, spec, examples=EXAMPLES):
    """Return the sequences, the one target of the objective that is named first, and its proposal."""
    flat = open_stream(corpus, spec).build(examples)
    name = spec.partition(":")[0]
    (target,) = flat.targets[name].values()
    return flat.sequences, target, flat.proposals.get(name)


def filled(corpus, spec, examples=EXAMPLES):
    """Return the batch after the run's generator has filled in, and the judged targets."""
    model = make_model(corpus, spec).eval()
    batch = to_batch(open_stream(corpus, spec).build(examples), corpus.vocabulary)
    with torch.no_grad():
        after, fillings, _ = model._fill(batch, {})
    (objective,) = build_objectives(spec)
    return batch, after, objective.judge(batch.targets[objective.name], after, fillings[objective.name])


def test_rtd_can_ask_about_the_selected_alone(corpus):
    """ELECTRA 15% (Clark et al., 2020, section 3.4)."""
    _, target, proposal = build(corpus, "rtd:asked=selected")
    assert np.array_equal(target.positions, proposal.positions)
    assert np.array_equal(target.values, proposal.original_ids)
    with pytest.raises(UserError, match="must be all or selected"):
        build_objectives("rtd:asked=some")
    with pytest.raises(UserError, match="leaves one answer"):
        build_objectives("rtd:asked=selected,disallow_correct=true")


@pytest.mark.parametrize("name", ["rtd", "cluster_rts"])
def test_what_a_later_objective_hides_is_not_labelled_replaced(corpus, name):
    model = make_model(corpus, f"{name}+mlm").eval()
    batch = to_batch(open_stream(corpus, f"{name}+mlm").build(np.arange(64)), corpus.vocabulary)
    with torch.no_grad():
        after, fillings, _ = model._fill(batch, {})
    judged = model.objectives[name].judge(batch.targets[name], after, fillings[name])["is_replaced"]
    replaced = judged.positions[judged.values == 1]
    assert torch.isin(replaced, batch.proposals[name].positions).all() and len(replaced) > 100
    assert not (after.input_ids.flatten()[replaced] == corpus.vocabulary.mask_id).any()


def test_rtd_can_forbid_the_right_guess(corpus):
    """Invariant 21: then what is selected is replaced."""
    for spec, every in (("rtd:disallow_correct=true", True), ("rtd", False)):
        model = make_model(corpus, spec)
        with torch.no_grad():  # a generator that is always right
            model.generators["rtd"].head.bias.copy_(1e4 * (torch.arange(200) == 50))
        batch = to_batch(open_stream(corpus, spec).build(np.arange(64)), corpus.vocabulary)
        proposal = batch.proposals["rtd"]
        right = DeviceProposal(
            proposal.positions,
            torch.full_like(proposal.original_ids, 50),
            proposal.uniforms,
            proposal.fills,
            proposal.excludes_original,
        )
        drawn = model.generators["rtd"](batch, right).token_ids
        assert (drawn == 50).all().item() is not every and (drawn != 50).all().item() is every


def test_random_substitutes_differ_and_are_as_many_as_are_selected(corpus):
    """Invariants 16 and 23: the reference labels the 1/V of the substitutes that equal the original."""
    plain = plain_text(corpus)
    changed, target, _ = build(corpus, "rts")
    differs = changed.token_ids != plain.token_ids
    assert np.array_equal(target.positions, np.arange(len(plain.token_ids)))
    assert np.array_equal(target.values == 1, differs)
    counts = np.bincount(plain.rows, differs)
    eligible = np.bincount(plain.rows, ~plain.is_special)
    assert np.array_equal(counts, np.minimum(np.maximum(np.rint(plain.lengths * 0.15), 1), eligible))
    assert changed.token_ids[differs].min() >= 5


def test_others_are_drawn_alike_and_never_the_token_itself(vocabulary):
    token_ids = np.repeat([5, 90, 199, 1], 50_000)  # the first, one within, the last, and [UNK], which is not ordinary
    words = Draws(seed=0, examples=np.zeros(1, dtype=np.int64)).per_token(
        "test", np.zeros(len(token_ids), dtype=np.int64), np.arange(len(token_ids))
    )
    drawn = draw_others(token_ids, words, vocabulary)
    assert not (drawn == token_ids).any() and drawn.min() == 5 and drawn.max() == 199
    for original in (5, 90, 199, 1):
        counts = np.bincount(drawn[token_ids == original], minlength=200)[5:]
        others = counts if original == 1 else np.delete(counts, original - 5)
        expected = 50_000 / len(others)
        assert ((others - expected) ** 2 / expected).sum() < 262  # chi-square, 193 degrees of freedom, p = .0007


@pytest.mark.parametrize("variant", ["permute", "copy"])
def test_a_shuffled_label_is_that_of_a_difference(corpus, variant):
    """Invariant 24: of the reference's labels, 4.5 to 52 % are on tokens that did not change."""
    plain = plain_text(corpus)
    changed, target, _ = build(corpus, f"token_shuffle:variant={variant}")
    assert np.array_equal(target.positions, np.arange(len(plain.token_ids)))
    assert np.array_equal(target.values == 1, changed.token_ids != plain.token_ids)
    assert 0.12 < target.values.mean() < 0.17


@pytest.mark.parametrize("variant", ["permute", "copy"])
def test_shuffled_tokens_come_from_the_same_example_and_never_from_padding(corpus, variant):
    """Invariants 1 and 24; permuted, an example keeps its words, and copies are of words that it had."""
    plain = plain_text(corpus)
    changed, _, _ = build(corpus, f"token_shuffle:variant={variant}")
    for start, end in zip(plain.offsets[:-1], plain.offsets[1:], strict=True):
        before, after = plain.token_ids[start:end].tolist(), changed.token_ids[start:end].tolist()
        assert (before[0], before[-1]) == (after[0], after[-1])
        if variant == "permute":
            assert Counter(before) == Counter(after)
        else:
            assert set(after) <= set(before)
            moved = [new for old, new in zip(before, after, strict=True) if old != new]
            assert not Counter(moved) - Counter(before[1:-1])  # no token is copied twice


def test_selected_tokens_all_move(corpus, vocabulary, tmp_path):
    """With distinct tokens, every selected one is labelled, but for one that is alone."""
    corpus = WrittenCorpus(
        documents=[[list(range(5 + n, 5 + n + 40))] for n in range(100)], vocabulary=vocabulary, folder=tmp_path
    )
    _, target, _ = build(corpus, "token_shuffle", np.arange(100))
    assert target.values.sum() == 100 * round(42 * 0.15)


def test_cycles_are_one_for_each_row_and_alike_likely():
    rows = np.repeat(np.arange(8_000), 4)
    words = Draws(seed=0, examples=np.arange(8_000)).per_token("cycle", rows, np.tile(np.arange(4), 8_000))
    order = cycle_within(rows, words).reshape(-1, 4) - 4 * np.arange(8_000)[:, None]
    counts = Counter(map(tuple, order.tolist()))
    assert len(counts) == 6  # (4 - 1)! cycles
    assert all(sorted(each) == [0, 1, 2, 3] and each[each[0]] != 0 and each[0] != 0 for each in counts)
    expected = 8_000 / 6
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 20.5  # chi-square, 5 degrees of freedom: .001
    assert cycle_within(np.array([0, 1, 1]), np.array([3, 2, 1], dtype=np.uint64)).tolist() == [0, 2, 1]


@pytest.mark.parametrize("variant", ["permute", "copy"])
def test_a_tenth_is_shuffled_and_a_tenth_of_the_rest_random(corpus, variant):
    """Invariant 25: shares .10, .09 and the rest of the ordinary tokens; special ones are not asked."""
    plain = plain_text(corpus, np.arange(2000))
    changed, target, _ = build(corpus, f"shuffle_random:variant={variant}", np.arange(2000))
    assert np.array_equal(target.positions, np.flatnonzero(~plain.is_special))
    differs = changed.token_ids[target.positions] != plain.token_ids[target.positions]
    assert np.array_equal(target.values > 0, differs)
    shares = np.bincount(target.values, minlength=3) / len(target.values)
    assert shares[1] == pytest.approx(0.10, abs=0.01) and shares[2] == pytest.approx(0.09, abs=0.006)
    random = changed.token_ids[target.positions[target.values == 2]]
    assert random.min() >= 5
    rows = plain.rows[target.positions]
    own = np.isin(rows * 1000 + changed.token_ids[target.positions], rows * 1000 + plain.token_ids[target.positions])
    assert own[target.values == 1].all() and own[target.values == 2].mean() < 0.4


@pytest.mark.parametrize("drawn", ["uniform", "unigram"])
def test_taking_the_inserted_tokens_out_gives_the_text_back(corpus, drawn):
    """Invariant 49."""
    longer, target, _ = build(corpus, f"insertion:drawn={drawn}")
    inserted = target.positions[target.values == 1]
    assert np.array_equal(target.positions, np.arange(len(longer.token_ids)))
    assert (longer.original_ids[inserted] == -1).all()
    assert longer.token_ids[inserted].min() >= 5
    for step in (-1, 1):  # what it would be like to have been inserted instead
        assert (longer.token_ids[inserted] != longer.token_ids[inserted + step]).mean() > 0.999
        assert not np.isin(inserted + step, inserted).any()
    assert not longer.is_special[inserted - 1].any()
    kept = np.setdiff1d(np.arange(len(longer.token_ids)), inserted)
    lengths = np.bincount(longer.rows[kept])
    again = longer.token_ids[kept]
    stream = open_stream(corpus, "insertion")
    passages = stream.passages.select(stream.passage_indices(EXAMPLES))
    texts = [corpus.token_ids[s:e] for s, e in zip(passages.starts, passages.ends, strict=True)]
    assert np.array_equal(again, np.concatenate([[2, *text, 3] for text in texts]))
    counts = np.bincount(longer.rows[inserted])
    assert np.array_equal(counts, np.maximum(np.rint((lengths - 2) * 0.15), 1))


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.5, 1.0])
def test_room_is_kept_for_what_will_be_inserted(rate):
    (objective,) = build_objectives(f"insertion:insert_rate={rate}")
    for room in range(1, 200):
        reserved = objective.reserve(room)
        tokens = room - reserved
        assert tokens + int(objective._count(np.array(tokens))) <= room
        assert tokens + 1 + int(objective._count(np.array(tokens + 1))) > room or reserved == 0


def test_inserted_tokens_are_as_frequent_as_the_text_has_them(corpus):
    longer, target, _ = build(corpus, "insertion", np.arange(3000))
    drawn = longer.token_ids[target.positions[target.values == 1]]
    expected = corpus.unigram_counts / corpus.unigram_counts.sum()
    found = np.bincount(drawn, minlength=200) / len(drawn)
    assert np.corrcoef(found[5:], expected[5:])[0, 1] > 0.8
    uniform, target, _ = build(corpus, "insertion:drawn=uniform", np.arange(3000))
    drawn = uniform.token_ids[target.positions[target.values == 1]]
    counts = np.bincount(drawn, minlength=200)[5:]
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 264  # chi-square, 194 degrees of freedom, p = .0007


def test_gaps_are_where_tokens_are_missing(corpus):
    """Invariant 49: what is left stands in the text in order, and skips at the gaps alone."""
    plain = plain_text(corpus)
    shorter, target, _ = build(corpus, "deletion")
    gaps = np.zeros(len(shorter.token_ids), dtype=bool)
    gaps[target.positions[target.values == 1]] = True
    ends = shorter.offsets[1:] - 1
    assert np.array_equal(np.setdiff1d(np.arange(len(gaps)), target.positions), ends)
    ordinary = plain.lengths - 2
    deleted = plain.lengths - shorter.lengths
    assert np.array_equal(deleted, np.minimum(np.maximum(np.rint(ordinary * 0.15), 1), ordinary - 1))
    for row in range(len(EXAMPLES)):
        before = plain.token_ids[plain.offsets[row] : plain.offsets[row + 1]].tolist()
        after = shorter.token_ids[shorter.offsets[row] : shorter.offsets[row + 1]].tolist()
        here = gaps[shorter.offsets[row] : shorter.offsets[row + 1]]
        runs, run = [], []
        for token, gap in zip(after, here, strict=True):
            run.append(token)
            if gap:
                runs.append(run)
                run = []
        assert stands_in(before, [*runs, run])


def stands_in(text, runs):
    """Say whether the text is the runs in order, with at least one token between each two."""
    ends = {0}  # where the runs so far may end
    for number, run in enumerate(runs):
        starts = ends if number == 0 else {start for start in range(len(text)) if any(start > end for end in ends)}
        ends = {start + len(run) for start in starts if text[start : start + len(run)] == run}
    return len(text) in ends


@pytest.mark.parametrize(("spec", "asked"), [("sentence_shuffle+insertion", 1), ("nsp+deletion", 1)])
def test_questions_about_an_example_stay_at_its_start_when_lengths_change(corpus, spec, asked):
    flat = open_stream(corpus, spec).build(np.arange(100))
    (target,) = flat.targets[spec.partition("+")[0]].values()
    assert np.array_equal(target.positions, flat.sequences.offsets[:-1])
    assert flat.sequences.lengths.max() <= 64


def test_clusters_fill_in_what_is_shown_unhidden(corpus):
    """Cluster-based substitution reads no text: the batch has the originals until the generator is asked."""
    plain = plain_text(corpus)
    unfilled, target, proposal = build(corpus, "cluster_rts")
    assert np.array_equal(unfilled.token_ids, plain.token_ids)
    batch, after, judged = filled(corpus, "cluster_rts", np.arange(64))
    asked = batch.proposals["cluster_rts"]
    differs = after.input_ids.flatten() != batch.input_ids.flatten()
    assert torch.equal(judged["is_replaced"].values == 1, differs[judged["is_replaced"].positions])
    assert set(differs.nonzero().squeeze(1).tolist()) <= set(asked.positions.tolist())
    assert differs.sum() > 0.9 * len(asked.positions)


def test_electric_asks_every_ordinary_token_and_labels_what_was_selected(corpus):
    """Invariant 19: label 1 even where the draw gives the original again, hence `is_noise`, not `is_replaced`."""
    plain = plain_text(corpus)
    sequences, target, proposal = build(corpus, "electric")
    assert np.array_equal(sequences.token_ids, plain.token_ids)
    assert np.array_equal(target.positions, np.flatnonzero(~plain.is_special))
    assert np.array_equal(target.values == 1, proposal.fills)
    batch = to_batch(open_stream(corpus, "electric").build(np.arange(8)), corpus.vocabulary)
    (objective,) = build_objectives("electric")
    uniform = torch.full((len(batch.proposals["electric"].positions), 200), -log(195))
    lucky = Filling(batch.proposals["electric"], batch.proposals["electric"].original_ids, uniform)
    judged = objective.judge(batch.targets["electric"], batch, lucky)["is_noise"]
    assert torch.equal(judged.values.bool(), batch.proposals["electric"].fills) and judged.values.sum() > 0


def test_electrics_logit_is_that_of_noise_contrastive_estimation(corpus):
    """-E - ln q + ln((n - k) / k) is the log odds of data (Clark et al., 2020b, section 2), of each example's own k."""
    batch, after, judged = filled(corpus, "electric", np.arange(8))
    target = judged["is_noise"]
    model = make_model(corpus, "electric").eval()
    with torch.no_grad():
        proposed = model.generators["electric"](batch, batch.proposals["electric"])
    shown = after.input_ids.flatten()[target.positions]
    rows = target.positions // batch.input_ids.shape[1]
    n = torch.bincount(rows).double()
    k = torch.bincount(rows, target.values.double())
    q = proposed.log_probabilities.exp().double()[torch.arange(len(shown)), shown]
    assert torch.allclose(target.extras["offset"].double(), (q * (k / (n - k))[rows]).log(), atol=1e-4)

    head = EnergyHead(model.encoder.config, "is_noise")
    torch.nn.init.normal_(head.energy.weight, std=0.1)
    hidden = torch.randn(8, batch.input_ids.shape[1], 128, generator=torch.Generator().manual_seed(0))
    loss = head(Encoded(hidden, after.input_ids, torch.empty(0)), {"is_noise": target})
    p_hat = torch.exp(-head.energies(hidden.flatten(0, 1)[target.positions])).double()
    data = ((n - k)[rows] * p_hat) / ((n - k)[rows] * p_hat + k[rows] * q)
    expected = -torch.where(target.values == 1, 1 - data, data).log().sum()
    assert float(loss.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_a_token_that_noise_never_gives_has_a_finite_loss(corpus):
    """[UNK] stands in texts and is never proposed: ln q is -inf, and -inf x 0 a nan."""
    batch = to_batch(open_stream(corpus, "electric").build(np.arange(4)), corpus.vocabulary)
    target, proposal = batch.targets["electric"]["is_noise"], batch.proposals["electric"]
    log_q = torch.full((len(proposal.positions), 200), -torch.inf)
    (objective,) = build_objectives("electric")
    judged = objective.judge({"is_noise": target}, batch, Filling(proposal, proposal.original_ids, log_q))["is_noise"]
    head = EnergyHead(make_model(corpus, "electric").encoder.config, "is_noise")
    hidden = torch.randn(*batch.input_ids.shape, 128)
    loss = head(Encoded(hidden, batch.input_ids, torch.empty(0)), {"is_noise": judged})
    assert torch.isfinite(loss.total)


def test_electric_has_a_generator_that_does_not_see_what_it_names(corpus):
    (objective,) = build_objectives("electric")
    given = GENERATORS["masked_lm"](width_rate=0.5, sharing="none")
    chosen = choose_generator(objective, given)
    assert (chosen.towers, chosen.width_rate, chosen.sharing) == ("two", 0.5, "none")
    assert choose_generator(objective, GENERATORS["uniform"]()) == GENERATORS["masked_lm"](towers="two")
    (objective,) = build_objectives("cluster_rts")
    assert choose_generator(objective, given) == GENERATORS["cluster"]()
    (objective,) = build_objectives("rtd")
    assert choose_generator(objective, given) is given


def test_a_choice_is_the_original_or_to_reject(corpus):
    """MC-BERT's cases, written out: shown right, shown wrong, and candidates that repeat either."""
    (objective,) = build_objectives("multi_choice_cloze:num_candidates=4")
    drawn = torch.tensor([[50, 51, 52, 53], [60, 61, 62, 63], [70, 70, 71, 72], [80, 81, 90, 82], [90, 81, 90, 82]])
    original = torch.tensor([50, 99, 99, 90, 90])
    original, drawn = torch.cat([original, torch.tensor([20, 30])]), torch.cat([drawn, drawn[:1], drawn[1:2]])
    drawn[6, 2] = 30  # the last two are not selected: they show what the text has
    positions, fills = torch.arange(7), torch.arange(7) < 5
    proposal = DeviceProposal(positions, original, torch.zeros(7, 4), fills)
    shown = View(torch.where(fills, drawn[:, 0], original)[None], torch.ones(1, 7), torch.zeros(1, 7))
    batch = Batch(main=shown, targets={}, proposals={})
    judged = objective.judge({"choice": DeviceTarget(positions, original)}, batch, Filling(proposal, drawn, None))
    assert judged["choice"].values.tolist() == [0, 1, 1, 1, 0, 0, 0]
    assert judged["choice"].extras["candidates"].tolist() == [
        [-1, 51, 52, 53],
        [99, 61, 62, 63],
        [99, -1, 71, 72],
        [90, 81, -1, 82],
        [-1, 81, -1, 82],
        [50, 51, 52, 53],
        [60, 61, -1, 63],
    ]


def test_every_ordinary_token_has_a_choice_and_the_generator_learns_at_the_selected(corpus):
    """Xu et al., 2020; the default asks as they do, and `asked=selected` about the same draws at fewer tokens."""
    sequences, target, proposal = build(corpus, "multi_choice_cloze")
    _, few, narrow = build(corpus, "multi_choice_cloze:asked=selected")
    assert np.array_equal(target.positions, np.flatnonzero(~sequences.is_special))
    assert np.array_equal(proposal.positions, target.positions) and np.array_equal(proposal.fills, proposal.learns)
    assert np.array_equal(target.positions[proposal.fills], few.positions)
    assert np.array_equal(proposal.uniforms[proposal.fills], narrow.uniforms)
    shown = sequences.token_ids[target.positions]
    assert np.array_equal(shown == corpus.vocabulary.mask_id, proposal.fills)
    model = make_model(corpus, "multi_choice_cloze")
    batch = to_batch(open_stream(corpus, "multi_choice_cloze").build(np.arange(8)), corpus.vocabulary)
    losses, selected = model(batch), int(batch.proposals["multi_choice_cloze"].fills.sum())
    assert losses["multi_choice_cloze"].count == int((batch.input_ids > 3).sum()) > 6 * selected
    (learned,) = (loss for name, loss in losses.items() if name != "multi_choice_cloze")
    assert learned.count == selected and int(learned.statistics["hidden_count"]) == selected


def test_the_right_choice_is_to_reject_where_a_later_objective_hides(corpus):
    batch = to_batch(open_stream(corpus, spec := "multi_choice_cloze+mlm").build(np.arange(32)), corpus.vocabulary)
    model = make_model(corpus, spec).eval()
    with torch.no_grad():
        after, fillings, _ = model._fill(batch, {})
    name = "multi_choice_cloze"
    judged = model.objectives[name].judge(batch.targets[name], after, fillings[name])["choice"]
    hidden = after.input_ids.flatten()[judged.positions] == corpus.vocabulary.mask_id
    assert hidden.sum() > 100 and not judged.values[hidden].any()


def test_candidates_have_draws_of_their_own(corpus):
    _, target, proposal = build(corpus, "multi_choice_cloze")
    assert proposal.uniforms.shape == (len(target.positions), 10)
    size = proposal.uniforms.size
    assert size - len(np.unique(proposal.uniforms)) == pytest.approx(size**2 / 2**25, rel=0.2)  # of 2**24 numbers
    assert proposal.uniforms.mean(axis=0).tolist() == pytest.approx([0.5] * 10, abs=0.04)


def test_the_shown_token_is_the_first_draw(corpus):
    batch, after, judged = filled(corpus, "multi_choice_cloze", np.arange(32))
    positions = judged["choice"].positions
    shown = after.input_ids.flatten()[positions]
    original = batch.proposals["multi_choice_cloze"].original_ids
    selected = batch.proposals["multi_choice_cloze"].fills
    assert torch.equal(judged["choice"].values == 0, shown == original)
    assert torch.equal(shown[~selected], original[~selected]) and (shown != original).sum() > 0.9 * selected.sum()
    candidates = judged["choice"].extras["candidates"]
    assert not (candidates == shown[:, None]).any()
    assert torch.equal((candidates == original[:, None]).sum(1), (shown != original).long())


def test_a_choice_scores_candidates_by_their_rows_of_the_table(corpus):
    config = make_model(corpus, "mlm").encoder.config
    head = MultiChoiceHead(config, 128, "choice").eval()
    hidden, table = torch.randn(1, 3, 128), torch.randn(200, 128)
    candidates = torch.tensor([[5, -1, 7], [9, 8, 7], [-1, -1, -1]])
    logits = head.logits(hidden[0], table, candidates)
    query = head.transform(hidden[0])
    assert float(logits[1, 2].detach()) == pytest.approx(float((query[1] @ table[8]).detach()) / 128**0.5, rel=1e-4)
    assert logits[0, 2] == -torch.inf and (logits[2, 1:] == -torch.inf).all()
    target = DeviceTarget(torch.arange(3), torch.tensor([1, 3, 0]), extras={"candidates": candidates})
    loss = head(Encoded(hidden, torch.zeros(1, 3), table), {"choice": target})
    expected = F.cross_entropy(logits[:2], target.values[:2], reduction="sum")  # the last has nothing but reject
    assert float(loss.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    figures = head.summarise({name: value.numpy() for name, value in loss.statistics.items()}, 3)
    assert figures["reject_rate"] == pytest.approx(1 / 3)


def test_the_context_head_is_that_of_debertav3(corpus):
    """LN(h + h of [CLS]), dense, activation, one logit; and the chance, the gradients and counts of the contract."""
    model = make_model(corpus, "rtd:head=context")
    head, batch = model.heads["rtd"], to_batch(open_stream(corpus, "rtd").build(np.arange(8)), corpus.vocabulary)
    loss = model(batch)["rtd"]
    assert float(loss.total.detach()) / loss.count == pytest.approx(log(2), rel=0.02)
    loss.total.backward()
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())
    hidden, positions = torch.randn(2, 5, 128), torch.tensor([0, 3, 6])
    target = DeviceTarget(positions, torch.tensor([0, 1, 1]))
    found = head(Encoded(hidden, torch.zeros(2, 5), torch.zeros(200, 128)), {"is_replaced": target}).total
    seen = torch.stack([hidden[0, 0] + hidden[0, 0], hidden[0, 3] + hidden[0, 0], hidden[1, 1] + hidden[1, 0]])
    logits = head.detection.classifier(head.detection.transform(F.layer_norm(seen, (128,), eps=1e-12))).squeeze(1)
    expected = F.binary_cross_entropy_with_logits(logits, target.values.float(), reduction="sum")
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    with pytest.raises(UserError, match="head is 'cls'; it must be token or context"):
        build_objectives("rtd:head=cls")


def test_macro_f1_is_the_mean_over_classes():
    confusion = np.array([[80.0, 10, 10], [5, 5, 0], [4, 0, 6]])
    config = make_config()
    figures = TokenClassHead(config, "manipulation", 3).summarise({"confusion": confusion}, 120)
    scores = [2 * 80 / (100 + 89), 2 * 5 / (10 + 15), 2 * 6 / (10 + 16)]
    assert figures["macro_f1"] == pytest.approx(np.mean(scores)) and figures["majority"] == pytest.approx(100 / 120)
    assert figures["accuracy"] == pytest.approx(91 / 120)


def make_config():
    from transformers import BertConfig

    return BertConfig(hidden_size=16, num_attention_heads=2)


@pytest.mark.parametrize("spec", ["rts", "token_shuffle", "shuffle_random", "insertion", "deletion"])
def test_the_entropy_of_the_labels_is_what_their_rates_say(corpus, spec):
    _, target, _ = build(corpus, spec, np.arange(1000))
    statistics = TextStatistics(num_ordinary=195, unigram_entropy=4.0, tables=Tables(corpus))
    (objective,) = build_objectives(spec)
    first, second = levels_of(objective, statistics)[spec].values()
    shares = np.bincount(target.values) / len(target.values)
    assert second == pytest.approx(entropy_of(*shares[1:]), rel=0.1) and second < 0.7 * first


def test_entropy_at_its_ends():
    assert entropy_of(0.0) == 0 and entropy_of(1.0) == 0
    assert entropy_of(0.5) == pytest.approx(log(2)) and entropy_of(1 / 3, 1 / 3) == pytest.approx(log(3))


@pytest.mark.parametrize(
    ("spec", "rate"),
    [
        ("rts", "replace_rate"),
        ("cluster_rts", "replace_rate"),
        ("token_shuffle", "shuffle_rate"),
        ("insertion", "insert_rate"),
        ("deletion", "delete_rate"),
        ("multi_choice_cloze", "mask_rate"),
        ("electric", "noise_rate"),
    ],
)
def test_a_rate_of_zero_changes_nothing(corpus, spec, rate):
    """Invariant 12: and what nobody is asked costs nothing."""
    plain = plain_text(corpus, np.arange(16))
    sequences, target, _ = build(corpus, f"{spec}:{rate}=0", np.arange(16))
    assert np.array_equal(sequences.token_ids, plain.token_ids)
    losses = make_model(corpus, f"{spec}:{rate}=0")(
        to_batch(open_stream(corpus, f"{spec}:{rate}=0").build(np.arange(16)), corpus.vocabulary)
    )
    assert all(torch.isfinite(loss.total) for loss in losses.values())
