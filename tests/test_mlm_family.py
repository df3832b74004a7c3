"""What the strategies of masked language modelling select; invariants by their numbers in the research."""

import numpy as np
import pytest
import torch
from transformers import DataCollatorForLanguageModeling

from corpora.errors import UserError
from corpora.tables import Tables
from objectives import build_objectives
from objectives.batch import Encoded
from objectives.masking import count_by_chance, count_exactly, count_upwards
from objectives.sequences import Context
from objectives.strategies import choose_by, cut_units
from objectives.units import choose_units, cut_words, join_words, ngram_rates, span_rates
from tests.test_masking import draws_for, make_sequences
from tests.test_objectives import make_model, open_stream
from training.stream import to_batch

STRATEGIES = ["words", "ngrams", "spans"]


def with_words(lengths, word=3, seed=0):
    """Examples in which about every `word`-th token begins a word, the first one of a text does."""
    sequences = make_sequences(lengths, seed=seed)
    starts = np.random.default_rng(seed + 1).random(len(sequences.token_ids)) < 1 / word
    starts[sequences.offsets[:-1] + 1] = True
    object.__setattr__(sequences.layout, "is_word_start", starts & ~sequences.is_special)
    return sequences


def runs_of(positions):
    """Lengths of the runs of neighbouring positions."""
    return np.diff(np.flatnonzero(np.concatenate([[True], np.diff(positions) != 1, [True]])))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("count", ["exact", "bernoulli", "probabilistic"])
def test_units_are_chosen_once_and_never_of_special_or_taken_tokens(strategy, count):
    """Invariants 1, 6 and 8: google-research/bert's whole words and ALBERT's n-grams run on across [SEP]."""
    sequences = with_words([64, 5, 2, 128] * 30)
    taken = sequences.with_tokens(np.arange(0, len(sequences.token_ids), 7), 9)
    units = cut_units(strategy, taken, draws_for(taken))
    assert np.array_equal(units.positions, np.flatnonzero(taken.is_free))
    same_unit = np.diff(units.units) == 0
    assert (np.diff(units.positions)[same_unit] == 1).all()
    assert (np.diff(units.words)[~same_unit] == 1).all()  # a unit ends where a word does
    positions, firsts = choose_by(strategy, count, taken, 0.15, draws_for(taken))
    assert taken.is_free[positions].all() and (np.diff(positions) > 0).all() and len(positions) > 500
    assert (taken.rows[positions] == taken.rows[firsts]).all() and (firsts <= positions).all()


def test_no_unit_spans_two_sentences_that_were_brought_together():
    sequences = make_sequences([128] * 50)
    pieces = np.where(sequences.is_special, -1, sequences.places // 10)
    object.__setattr__(sequences.layout, "pieces", pieces)
    units = cut_units("spans", sequences, draws_for(sequences))
    for unit in np.split(pieces[units.positions], np.flatnonzero(np.diff(units.units)) + 1):
        assert len(set(unit.tolist())) == 1


def test_whole_words_are_selected_whole():
    sequences = with_words([128] * 200)
    positions, _ = choose_by("words", "exact", sequences, 0.15, draws_for(sequences))
    words = cut_words(sequences)
    chosen = np.isin(words.positions, positions)
    assert (np.bincount(words.words, chosen) % np.bincount(words.words) == 0).all()
    counts = np.bincount(sequences.rows[positions], minlength=200)
    assert counts.max() == 19 and counts.mean() > 18.9  # a word that is too long is passed over, as in BERT's code


def test_one_unit_is_selected_however_long_it_is():
    """Invariant 12: of a text of one word of ten tokens, BERT's code selects nothing."""
    sequences = make_sequences([12])
    object.__setattr__(sequences.layout, "is_word_start", np.arange(12) == 1)
    for strategy in STRATEGIES[:2]:
        assert len(choose_by(strategy, "exact", sequences, 0.15, draws_for(sequences))[0]) == 10
    assert len(choose_by("spans", "exact", sequences, 0.15, draws_for(sequences))[0]) == 2


def test_words_are_taken_in_turn_while_they_fit():
    """By hand: units of 3, 1, 2, 4, 1 tokens in the order that the draws give, into every room."""
    sequences = make_sequences([13])
    object.__setattr__(sequences.layout, "is_word_start", np.isin(np.arange(13), [1, 4, 5, 7, 11]))
    words, draws = cut_words(sequences), draws_for(sequences)
    order = np.argsort(draws.per_token("choose", np.zeros(5, dtype=int), np.array([1, 4, 5, 7, 11])))
    for room in range(1, 12):
        expected, left = set(), room
        for number, unit in enumerate(order):
            size = [3, 1, 2, 4, 1][unit]
            left = max(left, size) if number == 0 else left
            if size <= left:
                expected.add(int(unit))
                left -= size
        chosen = choose_units(sequences, words, np.array([room]), draws, "unit")
        assert set(words.units[chosen].tolist()) == expected


def test_ngrams_are_of_one_to_three_words_as_often_as_one_over_n():
    """Lan et al., 2020, section 4.2: 6/11, 3/11, 2/11."""
    assert ngram_rates(3).tolist() == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    sequences = with_words([500] * 100)
    units = cut_units("ngrams", sequences, draws_for(sequences))
    firsts = np.flatnonzero(np.diff(units.units, prepend=-1))
    lengths = np.diff(np.append(units.words[firsts], units.words[-1] + 1))
    shares = np.bincount(lengths, minlength=4)[1:] / len(lengths)
    assert shares == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=0.015)


def test_spans_have_the_papers_mean_length():
    """Invariant 7 (Joshi et al., 2020, section 3.1): 3.797 words, and 1 with probability .2241."""
    rates = span_rates(0.2, 10)
    assert rates @ np.arange(1, 11) == pytest.approx(3.797, abs=5e-4) and rates[0] == pytest.approx(0.2241, abs=5e-5)
    sequences = make_sequences([5002] * 20)
    units = cut_units("spans", sequences, draws_for(sequences))
    lengths = np.bincount(units.units)
    assert lengths.max() == 10
    assert lengths.mean() == pytest.approx(3.797, abs=0.05)
    assert (lengths == 1).mean() == pytest.approx(0.2241, abs=0.01)


@pytest.mark.parametrize("length", [3, 12, 22, 130])
def test_spans_meet_their_budget_exactly(length):
    """Invariant 5: ceil(n x rate), the last span cut off; 3 of 20, where floating point says 3.0000000000000004."""
    sequences = with_words([length] * 50)
    positions, _ = choose_by("spans", "exact", sequences, 0.15, draws_for(sequences))
    expected = {3: 1, 12: 2, 22: 3, 130: 20}[length]
    assert np.bincount(sequences.rows[positions], minlength=50).tolist() == [expected] * 50


def test_spans_of_a_long_text_are_whole_but_for_the_last():
    sequences = make_sequences([402] * 30)
    positions, firsts = choose_by("spans", "exact", sequences, 0.15, draws_for(sequences))
    units = cut_units("spans", sequences, draws_for(sequences))
    sizes = np.bincount(units.units)
    taken = np.bincount(units.units[np.searchsorted(units.positions, positions)], minlength=len(sizes))
    cut = np.flatnonzero((taken > 0) & (taken < sizes))
    rows = sequences.rows[units.positions[np.searchsorted(units.units, cut)]]
    assert len(np.unique(rows)) == len(rows) > 10
    assert runs_of(positions).max() > 6


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_place_is_left_out(strategy):
    """Invariant 9: DeBERTa's n-gram masks fall from .167 to 0 in the last seven of 128 places."""
    sequences = make_sequences([66] * 2000)
    positions, _ = choose_by(strategy, "exact", sequences, 0.15, draws_for(sequences))
    counts = np.bincount(sequences.places[positions], minlength=66)[1:65]
    expected = 2000 * 10 / 64
    assert counts.sum() == 2000 * 10
    assert ((counts - expected) ** 2 / expected).sum() < 104  # chi-square, 63 degrees of freedom, p = .001


@pytest.mark.parametrize("strategy", ["tokens", *STRATEGIES])
def test_the_selection_of_an_example_does_not_depend_on_its_batch(strategy):
    """Invariant 10."""
    together, alone = make_sequences([40, 60, 80]), make_sequences([60])
    draws = draws_for(together)
    object.__setattr__(draws_alone := draws_for(alone), "examples", np.array([1]))
    for count in ("exact", "bernoulli", "probabilistic"):
        chosen = choose_by(strategy, count, together, 0.3, draws)[0]
        expected = choose_by(strategy, count, alone, 0.3, draws_alone)[0]
        assert np.array_equal(together.places[chosen[together.rows[chosen] == 1]], expected)


def test_the_probabilistic_count_is_fairseqs():
    """Invariant 4 (mask_tokens_dataset.py): the floor or one more, p n on average."""
    sequences = make_sequences([39] * 10_000)  # 37 ordinary tokens: 5.55
    counts = count_by_chance(sequences, 0.15, draws_for(sequences))
    assert set(counts.tolist()) == {5, 6}
    assert counts.mean() == pytest.approx(5.55, abs=0.02)
    chosen = choose_by("tokens", "probabilistic", sequences, 0.15, draws_for(sequences))[0]
    assert np.array_equal(np.bincount(sequences.rows[chosen]), counts)


def test_independent_selection_has_the_rates_of_transformers_collator(corpus):
    """Oracle O5: DataCollatorForLanguageModeling on the same text, 100,000 selected tokens, to .005."""
    sequences = make_sequences([130] * 5300)
    mlm = build_objectives("mlm:count=bernoulli")[0]
    context = Context(vocabulary=corpus.vocabulary, tables=None, progress=np.ones(5300))
    made = mlm.corrupt(sequences, draws_for(sequences), context)
    asked = made.targets["original_ids"].positions
    shown, original = made.sequences.token_ids[asked], sequences.token_ids[asked]
    collator = DataCollatorForLanguageModeling(corpus.load_tokenizer(), seed=0)
    ids = torch.from_numpy(sequences.token_ids.reshape(5300, 130))
    special = torch.from_numpy(sequences.is_special.reshape(5300, 130)).long()
    theirs, labels = collator.torch_mask_tokens(ids.clone(), special_tokens_mask=special)
    selected = labels != -100
    assert len(asked) / (5300 * 128) == pytest.approx(float(selected.sum()) / (5300 * 128), abs=0.005)
    for ours, other in (
        (shown == 4, theirs[selected] == 4),
        (shown == original, theirs[selected] == labels[selected]),
    ):
        assert ours.mean() == pytest.approx(float(other.float().mean()), abs=0.005)
    counts = np.bincount(sequences.rows[asked], minlength=5300)
    assert counts.var() == pytest.approx(128 * 0.15 * 0.85, rel=0.06)  # binomial; the exact count has none


@pytest.mark.parametrize(("options", "together"), [("spans", True), ("words", False), ("words,decided_by=unit", True)])
def test_a_unit_is_hidden_randomised_or_kept_as_one(corpus, options, together):
    """Invariant 17: SpanBERT decides for each span; BERT's whole words decide for each token."""
    sequences = with_words([128] * 500)
    mlm = build_objectives(f"mlm:strategy={options},random_token_rate=0,mask_token_rate=0.5")[0]
    context = Context(vocabulary=corpus.vocabulary, tables=None, progress=np.ones(500))
    made = mlm.corrupt(sequences, draws_for(sequences), context)
    asked = made.targets["original_ids"].positions
    _, firsts = choose_by(mlm.strategy, "exact", sequences, 0.15, draws_for(sequences))
    hidden = np.bincount(firsts, made.sequences.token_ids[asked] == 4, minlength=firsts.max() + 1)
    sizes = np.bincount(firsts, minlength=firsts.max() + 1)
    mixed = ((hidden > 0) & (hidden < sizes)).sum()
    assert mixed == 0 if together else mixed > 1000
    assert hidden.sum() / sizes.sum() == pytest.approx(0.5, abs=0.03)


def test_a_random_unit_is_of_different_tokens(corpus):
    sequences = make_sequences([128] * 20)
    mlm = build_objectives("mlm:strategy=spans,random_token_rate=1,mask_token_rate=0")[0]
    context = Context(vocabulary=corpus.vocabulary, tables=None, progress=np.ones(20))
    made = mlm.corrupt(sequences, draws_for(sequences), context)
    shown = made.sequences.token_ids[made.targets["original_ids"].positions]
    assert len(np.unique(shown)) > 150 and (np.diff(shown) != 0).mean() > 0.98


def test_the_rate_goes_along_a_line(corpus):
    """From .3 at the start to .15 at the end (GPT-BERT's schedule); each example by its own place in the run."""
    sequences = make_sequences([102] * 3)
    mlm = build_objectives("mlm:mask_rate=0.3,final_mask_rate=0.1")[0]
    context = Context(vocabulary=corpus.vocabulary, tables=None, progress=np.array([0.0, 0.5, 1.0]))
    asked = mlm.corrupt(sequences, draws_for(sequences), context).targets["original_ids"].positions
    assert np.bincount(sequences.rows[asked]).tolist() == [31, 20, 10]
    assert count_exactly(sequences, np.array([0.0, 1.0, 0.001])).tolist() == [0, 102, 1]
    assert count_upwards(sequences, np.array([0.0, 1.0, 0.001])).tolist() == [0, 100, 1]


def test_the_default_draws_what_it_always_drew(corpus):
    """The first example's selection, which no option may shift: saved runs go on with it."""
    stream = open_stream(corpus, "mlm")
    written_out = open_stream(corpus, "mlm:strategy=tokens,count=exact,final_mask_rate=0.15,decided_by=token")
    one, other = stream.build(np.arange(50)), written_out.build(np.arange(50))
    assert np.array_equal(one.sequences.token_ids, other.sequences.token_ids)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mlm:strategy=span", "strategy is 'span'; it must be tokens, words, ngrams, spans or pmi"),
        ("mlm:count=all", "count is 'all'; it must be exact, bernoulli or probabilistic"),
        ("mlm:decided_by=word", "decided_by is 'word'; it must be token or unit"),
        ("mlm:longest=3", "longest is for strategies ngrams, spans and pmi, and at least 1"),
        ("mac:similar_token_rate=0.95", "similar_token_rate and random_token_rate add up to more than 1"),
    ],
)
def test_impossible_options_are_refused_in_one_line(spec, message):
    with pytest.raises(UserError, match=message):
        build_objectives(spec)


def test_a_unit_begins_where_the_one_before_has_ended():
    sequences = make_sequences([12, 7])
    words = cut_words(sequences)
    units = join_words(sequences, words, np.array([3, 9, 9, 1, 2, 9, 4, 9, 9, 9, 2, 9, 1, 1, 1]))
    assert units.units.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 4, 5, 6, 7]


def corrupt(corpus, spec, sequences, tables=None):
    context = Context(vocabulary=corpus.vocabulary, tables=tables, progress=np.ones(sequences.num_examples))
    (objective,) = build_objectives(spec)
    return objective.corrupt(sequences, draws_for(sequences), context)


def test_boundaries_are_the_tokens_beside_a_span(corpus):
    """By hand: spans at 3-5 and 8, which are asked, and at 1 and 18, which have a special token for a neighbour."""
    sequences = make_sequences([20])
    taken = sequences.with_tokens(np.array([1, 3, 4, 5, 8, 18]), 4)
    target = corrupt(corpus, "sbo", taken).targets["original_ids"]
    assert target.positions.tolist() == [3, 4, 5, 8]
    assert target.values.tolist() == sequences.token_ids[[3, 4, 5, 8]].tolist()
    assert target.pointers["left"].tolist() == [2, 2, 2, 7]
    assert target.pointers["right"].tolist() == [6, 6, 6, 9]
    assert target.extras["offset"].tolist() == [0, 1, 2, 0]


def test_a_span_is_asked_about_for_twenty_tokens(corpus):
    taken = make_sequences([40]).with_tokens(np.arange(5, 30), 4)
    target = corrupt(corpus, "sbo", taken).targets["original_ids"]
    assert target.positions.tolist() == list(range(5, 25)) and set(target.pointers["right"]) == {30}


def test_boundaries_are_seen_and_in_the_same_example(corpus):
    """Invariant 37: a pair needs both of its neighbours."""
    for spec in ("sbo", "mlm:strategy=spans+sbo"):
        flat = open_stream(corpus, spec).build(np.arange(200))
        target, sequences = flat.targets["sbo"]["original_ids"], flat.sequences
        assert len(target.positions) > 500
        for side in target.pointers.values():
            assert (sequences.rows[side] == sequences.rows[target.positions]).all()
            assert not sequences.is_special[side].any() and sequences.is_free[side].all()
        if spec != "sbo":  # the very spans that the masked language model is asked about
            assert np.isin(target.positions, flat.targets["mlm"]["original_ids"].positions).all()


def test_the_boundary_head_looks_at_the_boundaries_alone(corpus):
    """SpanBERT's head is given both neighbours; olfmlm's gives each of two heads the other's inputs."""
    model = make_model(corpus, "sbo")
    batch = to_batch(open_stream(corpus, "sbo").build(np.arange(8)), corpus.vocabulary)
    hidden = torch.randn(*batch.input_ids.shape, 128, requires_grad=True)
    table = model.encoder.get_input_embeddings().weight.detach()
    model.heads["sbo"](Encoded(hidden, batch.input_ids, table), batch.targets["sbo"]).total.backward()
    seen = hidden.grad.abs().sum(-1).flatten().nonzero().flatten()
    pointers = batch.targets["sbo"]["original_ids"].pointers
    assert torch.equal(seen, torch.cat([pointers["left"], pointers["right"]]).unique())


def test_the_encoder_of_replace_mlm_sees_no_mask(corpus):
    """Invariant 18: samples of the generator stand at the selected places, and the originals are asked there."""
    model = make_model(corpus, "replace_mlm").eval()
    flat = open_stream(corpus, "replace_mlm").build(np.arange(16))
    batch = to_batch(flat, corpus.vocabulary)
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, __, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    model(batch)
    assert (batch.input_ids == 4).any() and not (seen[0] == 4).any()
    selected = flat.targets["replace_mlm"]["original_ids"]
    assert np.array_equal(selected.positions, flat.proposals["replace_mlm"].positions)
    assert np.array_equal(selected.values, flat.sequences.original_ids[selected.positions])


def test_mac_shows_similar_random_and_kept_tokens(corpus):
    """Cui et al., 2020, section 3.1: 80, 10 and 10 %, and no [MASK]; in runs of 1 to 4 words."""
    tables, sequences = Tables(corpus), make_sequences([402] * 400)
    made = corrupt(corpus, "mac", sequences, tables)
    target = made.targets["original_ids"]
    shown, original = made.sequences.token_ids[target.positions], target.values
    assert np.array_equal(original, sequences.token_ids[target.positions]) and len(original) == 400 * 60
    assert shown.min() >= 5
    is_similar = (tables.neighbours(10)[original] == shown[:, None]).any(1)
    assert is_similar.mean() == pytest.approx(0.8 + 0.1 * 10 / 195, abs=0.01)
    assert (shown == original).mean() == pytest.approx(0.1 + 0.1 / 195, abs=0.01)
    lengths = runs_of(target.positions)
    assert 2.0 < lengths.mean() < 2.6  # 2.0 where no two runs touch; then they merge
    for kept in ("similar_token_rate=0,random_token_rate=0", "mask_rate=0"):
        assert np.array_equal(
            corrupt(corpus, f"mac:{kept}", sequences, tables).sequences.token_ids, sequences.token_ids
        )
    assert (
        corrupt(corpus, "mac:similar_token_rate=1,random_token_rate=0", sequences, tables).sequences.token_ids[
            target.positions
        ]
        != original
    ).all()
