"""Reading pairs, averaging outcomes, the scores that see no model, and the command."""

import gzip
import json

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

from corpora.errors import UserError
from corpora.tokenizer import train_tokenizer
from probes import minimal_pairs, pairs_command
from probes.encoder import load_encoder
from probes.heads import find_heads, load_head
from probes.minimal_pairs import (
    Paradigm,
    average,
    commoner_is_better,
    compare,
    count_words,
    judge_head,
    judge_left_out,
    read_paradigms,
    shorter_is_better,
    summarise,
    wilson,
)
from probes.scoring import RULES, PairScores

NAMES = dict.fromkeys(("model", "head", "class_name", "rule", "meaning", "reduction"), "x")
ANIMALS = ["dog", "cat", "fox", "cow", "hen", "pig", "owl", "bee"]
VERBS = ["sleep", "jump", "run", "eat", "sing", "fly"]


def write_pairs(path, pairs, **more):
    lines = [json.dumps({"sentence_good": good, "sentence_bad": bad, **more}) + "\n" for good, bad in pairs]
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(lines)


def agreement(name, phenomenon, count=24, seed=0):
    """Pairs of which the good one says "the cats run" and the bad one "the cats runs"."""
    chance = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        animal, verb = chance.choice(ANIMALS), chance.choice(VERBS)
        pairs.append((f"the {animal}s {verb}", f"the {animal}s {verb}s"))
    return Paradigm(name=name, phenomenon=phenomenon, pairs=tuple(pairs))


@pytest.fixture(scope="module")
def tokenizer():
    words = [f"the {animal} {verb}s the {animal}s {verb}" for animal in ANIMALS for verb in VERBS]
    return train_tokenizer(iter(words * 5), vocab_size=150)


def save_model(cls, tokenizer, folder, **more):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    cls(BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, **shape, **more)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_plain_and_compressed_files_of_a_folder_are_read_by_paradigm(tmp_path):
    write_pairs(tmp_path / "a.jsonl", [("one", "two"), ("three", "four")], UID="first", linguistics_term="agreement")
    write_pairs(tmp_path / "b.jsonl.gz", [("five", "six")])
    (tmp_path / "notes.txt").write_text("not pairs")
    first, second = read_paradigms(tmp_path)
    assert (first.name, first.phenomenon, first.pairs) == (
        "first",
        "agreement",
        (("one", "two"), ("three", "four")),
    )
    assert (second.name, second.phenomenon, second.pairs) == ("b", "b", (("five", "six"),))
    assert [len(each.pairs) for each in read_paradigms(tmp_path, limit=1)] == [1, 1]
    assert read_paradigms(tmp_path / "b.jsonl.gz") == [second]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"sentence_good": "a", "sentence_bad": "b"}\n{"sentence_good": "a"}', r"x\.jsonl, line 2: .*'sentence_bad'"),
        ('{"sentence_good": "a", "sentence_bad": 3}', r"line 1: no text under 'sentence_bad'"),
        ("[1]", r"line 1: no text under 'sentence_good'"),
        ("good\tbad", r"line 1: not JSON"),
        ("", "holds no pair"),
    ],
)
def test_what_is_no_pair_is_named_by_file_and_line(content, message, tmp_path):
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        read_paradigms(tmp_path)


@pytest.mark.parametrize("place", ["empty", "absent"])
def test_a_place_without_pairs_is_named(place, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{place} has no minimal pairs"):
        read_paradigms(tmp_path / place)


def test_a_tie_counts_half_and_rounding_is_a_tie():
    good = np.array([-1.0, -3.0, -2.0, -50.0, -1e-9])
    bad = np.array([-2.0, -1.0, -2.0, -50.0001, -2e-9])
    assert compare(good, bad).tolist() == [1, 0, 0.5, 0.5, 1]


def test_the_whole_is_the_mean_of_paradigms_however_many_pairs_each_has():
    """a: 2 of 3 and a tie = .625 of 4; b: 0 of 2. Phenomenon x = (.625 + 0) / 2, y = 1; overall (.625 + 0 + 1) / 3."""
    sizes = {"a": ("x", 4), "b": ("x", 2), "c": ("y", 1)}
    paradigms = [Paradigm(name=n, phenomenon=p, pairs=(("g", "b"),) * k) for n, (p, k) in sizes.items()]
    result = summarise(paradigms, np.array([1, 1, 0, 0.5, 0, 0, 1]), **NAMES)
    assert [share.accuracy for share in result.paradigms] == [0.625, 0, 1]
    assert [(share.name, share.accuracy) for share in result.phenomena] == [("x", 0.3125), ("y", 1)]
    assert result.overall.accuracy == pytest.approx(1.625 / 3)
    assert (result.overall.num_pairs, result.overall.num_ties) == (7, 1)
    assert result.untied_accuracy == 0.5
    assert result.outcomes["a"].tolist() == [1, 1, 0, 0.5]


def test_one_paradigm_s_interval_is_wilson_s():
    """Of 8 right of 10: (.9 plus or minus ...) computed by hand, .4902 to .9433."""
    assert wilson(0.8, 10) == pytest.approx((0.49016, 0.94331), abs=1e-5)
    assert wilson(0.0, 20)[0] == 0
    assert wilson(1.0, 20)[1] == 1
    share = average("x", [np.array([1.0] * 8 + [0.0] * 2)])
    assert (share.low, share.high) == pytest.approx((0.49016, 0.94331), abs=1e-5)
    assert share.about == "pairs"


def test_many_paradigms_are_the_sample_and_not_their_pairs():
    """Five paradigms at 0, .25, .5, .75, 1: mean .5, deviation .3953, t(4) = 2.7764, half width .4908."""
    outcomes = [np.repeat([1.0, 0.0], [n, 400 - n]) for n in (0, 100, 200, 300, 400)]
    share = average("all", outcomes)
    assert (share.low, share.high) == pytest.approx((0.5 - 0.49081, 0.5 + 0.49081), abs=1e-4)
    assert share.about == "paradigms"


def test_the_interval_over_paradigms_holds_its_level():
    chance = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        rates = np.clip(chance.normal(0.6, 0.15, size=12), 0, 1)
        share = average("x", [(chance.random(100) < rate).astype(float) for rate in rates])
        covered += share.low <= 0.6 <= share.high
    assert 0.92 <= covered / 400 <= 0.98


def test_the_shorter_text_wins_and_equal_lengths_tie():
    paradigm = Paradigm(name="p", phenomenon="p", pairs=(("a b", "a b c"), ("a b", "c d"), ("a b c", "a")))
    result = shorter_is_better([paradigm])
    assert result.outcomes["p"].tolist() == [1, 0.5, 0]
    assert (result.overall.accuracy, result.overall.num_ties, result.untied_accuracy) == (0.5, 1, 0.5)


def test_the_unigram_score_is_blind_to_order_and_prefers_common_words():
    counts = count_words(["The dog's tail. The dog.", "a tail"])
    assert counts == {"the": 2, "dog's": 1, "dog": 1, "tail": 2, ".": 2, "a": 1}
    paradigm = Paradigm(name="p", phenomenon="p", pairs=(("the tail", "a dog"), ("The dog tail", "tail the dog")))
    assert commoner_is_better([paradigm], counts).outcomes["p"].tolist() == [1, 0.5]


def score_by_suffix(_head, pairs, rule, **_options):
    """Every "s" at a word's end is worth -1."""
    scores = np.array([[-float(sum(word.endswith("s") for word in text.split())) for text in pair] for pair in pairs])
    return PairScores(good=scores[:, 0], bad=scores[:, 1], rule=rule)


def test_the_result_says_who_judged_how(tokenizer, tmp_path, monkeypatch):
    head = load_head(find_heads(save_model(BertForMaskedLM, tokenizer, tmp_path)).found[0], device="cpu")
    monkeypatch.setattr(minimal_pairs, "score_pairs", score_by_suffix)
    result = judge_head(head, [agreement("a", "x"), agreement("b", "y", seed=1)], RULES["pll_mean"])
    assert (result.model, result.head, result.class_name) == (str(tmp_path), "masked_lm", "BertForMaskedLM")
    assert (result.rule, result.reduction) == ("pll_mean", "mean")
    assert result.overall.accuracy == 1


def test_a_probe_that_never_saw_the_phenomenon_finds_what_all_phenomena_share(tokenizer, tmp_path):
    """Three phenomena under other names are one agreement: left out, it is learned from the others. One is reversed."""
    encoder = load_encoder(save_model(BertModel, tokenizer, tmp_path), device="cpu")
    paradigms = [agreement(f"p{n}", f"x{n}", count=40, seed=n) for n in range(4)]
    same = judge_left_out(encoder, paradigms)
    assert same.chosen.overall.accuracy > 0.95
    assert len(same.layers) == 3
    assert set(same.chosen_layers) == {"x0", "x1", "x2", "x3"}
    flipped = tuple((bad, good) for good, bad in paradigms[0].pairs)
    paradigms[0] = Paradigm(name="p0", phenomenon="x0", pairs=flipped)
    shares = {share.name: share.accuracy for share in judge_left_out(encoder, paradigms).layers[1].phenomena}
    assert shares["x0"] < 0.1  # judged by probes that learned the opposite: had they seen it, this would be near 1


def test_leaving_out_needs_three_phenomena(tokenizer, tmp_path):
    encoder = load_encoder(save_model(BertModel, tokenizer, tmp_path), device="cpu")
    with pytest.raises(UserError, match="needs three"):
        judge_left_out(encoder, [agreement("a", "x"), agreement("b", "y")])


@pytest.fixture
def blimp(tmp_path):
    folder = tmp_path / "blimp"
    folder.mkdir()
    for number, term in enumerate(("agreement", "binding", "islands")):
        pairs = agreement("p", "x", count=10, seed=number).pairs
        write_pairs(folder / f"p{number}.jsonl", pairs, UID=f"p{number}", linguistics_term=term)
    return folder


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_the_same_figures(blimp, tokenizer, tmp_path, capsys):
    model = save_model(BertForMaskedLM, tokenizer, tmp_path / "mlm")
    out = tmp_path / "report.json"
    assert pairs_command.main([model, "--pairs", str(blimp), "--supervised", "--out", str(out), "--device", "cpu"]) == 0
    report = json.loads(out.read_text())
    assert [(result["head"], result["rule"]) for result in report["results"]] == [
        ("masked_lm", "pll_sum"),
        ("linear probe", "left_out_probe"),
        ("linear probe", "left_out_probe"),
    ]
    assert [result["rule"] for result in report["baselines"]] == ["shorter"]
    assert (report["num_pairs"], report["num_paradigms"]) == (30, 3)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert f"{100 * report['results'][0]['overall']['accuracy']:.1f}" in printed
    assert all(term in printed for term in ("agreement", "binding", "islands", "pll_sum", "shorter"))


def test_a_wide_table_is_cut_into_blocks_and_nothing_is_abbreviated(capsys):
    names = [f"a_phenomenon_with_a_name_of_its_own_{number}" for number in range(3)]
    paradigms = [Paradigm(name=name, phenomenon=name, pairs=(("g", "b"),) * 12_000) for name in names]
    outcomes = np.repeat([1.0, 0.5, 0.0], 12_000)
    saying = NAMES | {"model": "a/long/folder/of-someone/runs/sentence_shuffle", "head": "sentence_shuffle"}
    results = [summarise(paradigms, outcomes, **saying | {"rule": "pll_within_word_l2r"}) for _ in range(8)]
    pairs_command._print_tables(results, paradigms, {})
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "\u2026" not in printed
    assert printed.count("100.0") == 8
    assert printed.count("pll_within_word_l2r") == 8
    assert printed.count("12,000") == 8


def test_a_model_without_a_fitting_head_fails_alone_and_the_status_says_so(blimp, tokenizer, tmp_path, capsys):
    good = save_model(BertForMaskedLM, tokenizer, tmp_path / "mlm")
    bad = save_model(BertForSequenceClassification, tokenizer, tmp_path / "classifier")
    assert pairs_command.main([good, bad, "--pairs", str(blimp), "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    assert "classifier has no head that scores a text" in captured.err
    assert "pll_sum" in captured.out
    assert pairs_command.main([bad, "--pairs", str(blimp), "--device", "cpu"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rule", "ppl_sum"], "rule 'ppl_sum' is unknown; did you mean pll_sum"),
        (["--limit", "0"], "--limit"),
        (["--out", "absent/report.json"], "there is no folder absent"),
        (["--pars"], "--pars"),
    ],
)
def test_what_cannot_be_understood_is_said_before_anything_is_loaded(arguments, message, blimp):
    with pytest.raises(UserError, match=message):
        pairs_command.main(["some/model", "--pairs", str(blimp), *arguments])


def test_help_fits_80_columns(capsys):
    with pytest.raises(SystemExit):
        pairs_command.main(["--help"])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert all(name in printed for name in RULES)
