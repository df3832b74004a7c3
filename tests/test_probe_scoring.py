"""Each rule against arithmetic written out, one text and one masked token at a time."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    ElectraConfig,
    ElectraForPreTraining,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

from corpora.errors import UserError
from corpora.tokenizer import train_tokenizer
from objectives.heads import DetectionHead
from objectives.heads_detection import EnergyHead, TokenClassHead
from probes.heads import HeadSite, TrainedHead, find_heads, load_head
from probes.scoring import (
    DEFAULT_RULES,
    RULES,
    differing_tokens,
    encode_texts,
    first_character_labels,
    masked_log_probabilities,
    score_pairs,
)

PROSE = ["The quick brown fox jumps over the lazy dog, and the small cats sleep in the houses of their people."] * 20
TEXTS = ["The lazy dog jumps.", "The cats sleep in brownhouses.", "Dogs sleep", "The small, small fox!", "unfoxed"]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
DETECTOR = ("original", "replaced")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(PROSE), vocab_size=200)


def shape_for(tokenizer, **more):
    return {**SHAPE, "vocab_size": len(tokenizer), "initializer_range": 0.5, **more}


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def load_only_head(folder):
    (site,) = find_heads(folder).found
    return load_head(site, device="cpu")


@pytest.fixture(scope="module")
def masked_lm(tokenizer, tmp_path_factory):
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**shape_for(tokenizer)))
    return load_only_head(save(model, tokenizer, tmp_path_factory.mktemp("mlm")))


def write_out_pll(head, text, *, within_word):
    """One text, one token at a time, all logits: the definition."""
    framed = head.tokenizer(text, return_tensors="pt")
    ids, words = framed["input_ids"][0], framed.word_ids(0)
    total = []
    for place, word in enumerate(words):
        if word is None:
            continue
        later = [p for p, other in enumerate(words) if other == word and p >= place] if within_word else [place]
        hidden = ids.clone()
        hidden[later] = head.tokenizer.mask_token_id
        with torch.no_grad():
            logits = head.model(input_ids=hidden[None]).logits[0, place]
        total.append(float(F.log_softmax(logits.double(), -1)[ids[place]]))
    return total


@pytest.mark.parametrize("within_word", [False, True])
def test_pseudo_log_likelihood_is_the_sum_over_tokens_masked_one_by_one(within_word, masked_lm):
    encoded = encode_texts(masked_lm.tokenizer, TEXTS)
    found = masked_log_probabilities(masked_lm, encoded, within_word=within_word, max_tokens=40)
    for text, values in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(values, write_out_pll(masked_lm, text, within_word=within_word), atol=1e-5)
    assert sum(len(set(text.words)) for text in encoded) < sum(len(text.words) for text in encoded)  # words in pieces


def test_the_three_rules_of_a_masked_lm(masked_lm):
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[3])]
    alone = [write_out_pll(masked_lm, text, within_word=False) for pair in pairs for text in pair]
    in_word = [write_out_pll(masked_lm, text, within_word=True) for pair in pairs for text in pair]
    for name, expected in {
        "pll_sum": [sum(each) for each in alone],
        "pll_mean": [sum(each) / len(each) for each in alone],
        "pll_within_word_l2r": [sum(each) for each in in_word],
    }.items():
        scores = score_pairs(masked_lm, pairs, RULES[name])
        np.testing.assert_allclose(np.stack([scores.good, scores.bad], 1).ravel(), expected, atol=1e-5)


def test_a_batch_s_size_does_not_change_a_score(masked_lm):
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[3])]
    small, large = (score_pairs(masked_lm, pairs, RULES["pll_sum"], max_tokens=size) for size in (1, 10_000))
    np.testing.assert_allclose(small.good, large.good, atol=1e-5)
    np.testing.assert_allclose(small.bad, large.bad, atol=1e-5)


class SuspiciousLogits(torch.nn.Module):
    """Says "replaced" (logit 4) of planted tokens, "original" (logit -2) of all others."""

    def __init__(self, planted):
        super().__init__()
        self.planted = torch.tensor(sorted(planted))

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=torch.where(torch.isin(input_ids, self.planted), 4.0, -2.0))


def toy_head(model, tokenizer, kind="detection", labels=DETECTOR):
    site = HeadSite(location="toy", name="toy", place="toy", kind=kind, class_name="Toy", load_with="", labels=labels)
    return TrainedHead(site=site, model=model, tokenizer=tokenizer, max_length=None, device=torch.device("cpu"))


def test_a_detector_that_marks_planted_tokens_ranks_every_pair(tokenizer):
    words = [token for token in tokenizer.get_vocab() if token.isalpha() and len(token) > 2]
    good, planted = words[:4], words[4:8]
    head = toy_head(SuspiciousLogits(tokenizer.convert_tokens_to_ids(planted)), tokenizer)
    chance = np.random.default_rng(0)
    pairs = []
    for _ in range(100):
        text = chance.choice(good, size=chance.integers(2, 9)).tolist()
        corrupted = text.copy()
        corrupted[chance.integers(len(text))] = chance.choice(planted)
        pairs.append((" ".join(text), " ".join(corrupted)))
    for name in ("rtd_sum", "rtd_mean", "rtd_max", "rtd_difference"):
        scores = score_pairs(head, pairs, RULES[name])
        assert (scores.good > scores.bad).mean() == 1, name
        assert scores.num_fallbacks == 0


def test_sum_and_mean_of_a_detector_disagree_where_a_longer_text_has_one_suspicious_token(tokenizer):
    """Every original costs log(1 + e^-2) = 0.127, a suspicious token log(1 + e^4) = 4.018: 40 originals 5.08."""
    head = toy_head(SuspiciousLogits(tokenizer.convert_tokens_to_ids(["dog"])), tokenizer)
    pair = (" ".join(["the"] * 40), "the dog")
    original, suspicious = math.log1p(math.exp(-2)), math.log1p(math.exp(4))
    summed, mean = (score_pairs(head, [pair], RULES[name]) for name in ("rtd_sum", "rtd_mean"))
    assert summed.good[0] == pytest.approx(-40 * original, abs=1e-6)
    assert summed.bad[0] == pytest.approx(-original - suspicious, abs=1e-6)
    assert summed.good[0] < summed.bad[0]
    assert mean.good[0] > mean.bad[0]
    highest = score_pairs(head, [pair], RULES["rtd_max"])
    assert (highest.good[0], highest.bad[0]) == pytest.approx((-original, -suspicious), abs=1e-6)


def test_special_tokens_are_not_scored(tokenizer):
    special = SuspiciousLogits([tokenizer.cls_token_id, tokenizer.sep_token_id])
    scores = score_pairs(toy_head(special, tokenizer), [("the dog", "the the dog")], RULES["rtd_max"])
    assert scores.good[0] == scores.bad[0] == pytest.approx(-math.log1p(math.exp(-2)), abs=1e-6)


def test_difference_scores_the_differing_tokens_and_falls_back_where_a_side_has_none(tokenizer):
    head = toy_head(SuspiciousLogits(tokenizer.convert_tokens_to_ids(["dog"])), tokenizer)
    scores = score_pairs(head, [("the fox", "the dog"), ("the fox", "the the fox")], RULES["rtd_difference"])
    original, suspicious = math.log1p(math.exp(-2)), math.log1p(math.exp(4))
    length = len(encode_texts(tokenizer, ["fox"])[0].places)
    assert scores.good.tolist() == pytest.approx([-original * length, -original * (length + 1)], abs=1e-6)
    assert scores.bad.tolist() == pytest.approx([-suspicious, -original * (length + 2)], abs=1e-6)
    assert scores.num_fallbacks == 1


def test_differing_tokens_are_those_that_the_common_ones_leave():
    assert differing_tokens([1, 2, 3, 4], [1, 9, 8, 3, 4]) == ([1], [1, 2])
    assert differing_tokens([1, 2], [1, 2]) == ([], [])
    assert differing_tokens([1, 2], [2, 1]) == ([0], [1]) or differing_tokens([1, 2], [2, 1]) == ([1], [0])


def test_electra_s_discriminator_is_a_detector_by_its_one_logit(tokenizer, tmp_path):
    torch.manual_seed(1)
    model = ElectraForPreTraining(ElectraConfig(**shape_for(tokenizer, embedding_size=16))).eval()
    head = load_only_head(save(model, tokenizer, tmp_path))
    assert (head.site.kind, head.site.labels) == ("detection", DETECTOR)
    expected = []
    for text in TEXTS[:2]:
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0, 1:-1]
        expected.append(float(F.logsigmoid(-logits.double()).sum()))
    scores = score_pairs(head, [(TEXTS[0], TEXTS[1])], RULES["rtd_sum"])
    assert [scores.good[0], scores.bad[0]] == pytest.approx(expected, abs=1e-5)


def test_of_several_classes_the_first_is_the_original_and_all_others_are_not(tokenizer, tmp_path):
    torch.manual_seed(2)
    labels = {0: "original", 1: "shuffled", 2: "random"}
    model = BertForTokenClassification(BertConfig(**shape_for(tokenizer, id2label=labels))).eval()
    head = load_only_head(save(model, tokenizer, tmp_path))
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS[0], return_tensors="pt")).logits[0, 1:-1]
    scores = score_pairs(head, [(TEXTS[0], TEXTS[1])], RULES["rtd_sum"])
    assert scores.good[0] == pytest.approx(float(F.log_softmax(logits.double(), -1)[:, 0].sum()), abs=1e-5)


def test_a_sequence_head_gives_the_probability_that_a_text_is_in_order(tokenizer, tmp_path):
    torch.manual_seed(3)
    labels = {0: "in_order", 1: "shuffled"}
    model = BertForSequenceClassification(BertConfig(**shape_for(tokenizer, id2label=labels))).eval()
    head = load_only_head(save(model, tokenizer, tmp_path))
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS[1], return_tensors="pt")).logits[0]
    scores = score_pairs(head, [(TEXTS[0], TEXTS[1])], RULES[DEFAULT_RULES["sequence"]])
    assert scores.bad[0] == pytest.approx(float(F.log_softmax(logits.double(), -1)[0]), abs=1e-5)


def test_label_scoring_ties_where_two_tokens_share_their_label(tokenizer, tmp_path):
    """The classes are first letters: "dog" and "dogs" begin alike, and equal contexts then give equal scores."""
    torch.manual_seed(4)
    labels = dict(enumerate([*"abcdefghijklmnopqrstuvwxyz", "other"]))
    model = BertForTokenClassification(BertConfig(**shape_for(tokenizer, id2label=labels))).eval()
    head = load_only_head(save(model, tokenizer, tmp_path))
    assert head.site.kind == "token_label"
    by_token = first_character_labels(tokenizer, head.site.labels)
    for piece, label in {"dog": "d", "##d": "d", "The": "t", ",": "other"}.items():
        assert labels[by_token[tokenizer.convert_tokens_to_ids(piece)]] == label
    framed = tokenizer("dog", return_tensors="pt")["input_ids"]
    hidden = torch.where(torch.arange(framed.shape[1]) == 1, tokenizer.mask_token_id, framed)
    with torch.no_grad():
        expected = float(F.log_softmax(model(input_ids=hidden).logits[0, 1].double(), -1)[3])
    scores = score_pairs(head, [("dog", "fox")], RULES["label_sum"])
    assert scores.good[0] == pytest.approx(expected, abs=1e-5)


def test_the_electric_score_adds_the_generator(tokenizer, masked_lm):
    head = toy_head(SuspiciousLogits(tokenizer.convert_tokens_to_ids(["dog"])), tokenizer)
    scores = score_pairs(head, [("the dog", "the the")], RULES["rtd_with_generator"], generator=masked_lm)
    for found, odds, text in ((scores.good, 2.0 - 4.0, "the dog"), (scores.bad, 2.0 + 2.0, "the the")):
        expected = odds + sum(write_out_pll(masked_lm, text, within_word=False))
        assert found[0] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(UserError, match="needs the generator"):
        score_pairs(head, [("a", "b")], RULES["rtd_with_generator"])


def test_a_masked_lm_whose_head_was_never_trained_is_refused(tokenizer, tmp_path):
    model = BertModel(BertConfig(**shape_for(tokenizer), architectures=["BertForMaskedLM"]))
    folder = save(model, tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
    (site,) = find_heads(folder).found
    with pytest.raises(UserError, match="no trained BertForMaskedLM: its weights lack cls.predictions"):
        load_head(site)


def test_bert_s_two_heads_leave_the_masked_lm(tokenizer, tmp_path):
    head = load_only_head(save(BertForPreTraining(BertConfig(**shape_for(tokenizer))), tokenizer, tmp_path))
    assert (type(head.model).__name__, head.site.kind) == ("BertForMaskedLM", "masked_lm")


@pytest.mark.parametrize(
    ("model", "labels", "reason"),
    [
        (BertModel, None, "BertModel is an encoder without a head"),
        (BertForTokenClassification, ["O", "B-PER"], "tags tokens as O, B-PER"),
        (BertForSequenceClassification, ["positive", "negative"], "tells positive, negative apart"),
    ],
)
def test_a_head_that_has_no_score_of_a_text_is_left_out_with_the_reason(model, labels, reason, tokenizer, tmp_path):
    config = BertConfig(**shape_for(tokenizer, **({"id2label": dict(enumerate(labels))} if labels else {})))
    heads = find_heads(save(model(config), tokenizer, tmp_path))
    assert heads.found == ()
    assert reason in next(iter(heads.skipped.values()))


def write_run(folder, encoder, tokenizer, entries):
    """Write a run's folder as the exporter does: the encoder, and a record of what lies beneath."""
    save(encoder, tokenizer, folder)
    here = {"class": type(encoder).__name__, "load_with": "AutoModel", "untrained": []}
    (folder / "export.json").write_text(json.dumps({"format": 1, "folders": {".": here, **entries}}))


def test_a_run_offers_each_of_its_heads_and_says_why_not_the_others(tokenizer, tmp_path):
    torch.manual_seed(5)
    shape = shape_for(tokenizer, max_position_embeddings=32)
    models = {
        "heads/mlm": (BertForMaskedLM(BertConfig(**shape)), []),
        "heads/rtd": (ElectraForPreTraining(ElectraConfig(**shape, embedding_size=16)), list(DETECTOR)),
        "heads/nsp": (BertForNextSentencePrediction(BertConfig(**shape)), ["is_next", "is_random_next"]),
        "generator": (BertForMaskedLM(BertConfig(**shape)), []),
    }
    entries = {}
    for path, (model, labels) in models.items():
        save(model, tokenizer, tmp_path / path)
        entries[path] = {"class": type(model).__name__, "head_class": "objectives.heads.Head", "untrained": []}
        if path != "generator":
            entries[path] |= {"objective": path[6:], "labels": {"target": labels}}
    entries["heads/other"] = entries["heads/mlm"] | {"objective": "other", "untrained": ["cls.predictions.bias"]}
    write_run(tmp_path, BertModel(BertConfig(**shape)), tokenizer, entries)
    heads = find_heads(str(tmp_path))
    assert {site.name: site.kind for site in heads.found} == {
        "mlm": "masked_lm",
        "rtd": "detection",
        "generator": "masked_lm",
    }
    assert heads.skipped == {
        "nsp": "BertForNextSentencePrediction judges two segments, and a minimal pair has two single texts",
        "other": "never trained: cls.predictions.bias",
    }
    loaded = {site.name: load_head(site, device="cpu") for site in heads.found}
    assert (loaded["rtd"].site.labels, loaded["rtd"].max_length) == (DETECTOR, 32)
    pairs = [(TEXTS[0], TEXTS[1])]
    scores = score_pairs(loaded["rtd"], pairs, RULES["rtd_with_generator"], generator=loaded["generator"])
    assert scores.good[0] != scores.bad[0]


OWN_HEADS = {
    "one logit": (lambda config: DetectionHead(config, "is_replaced"), DETECTOR),
    "three classes": (lambda config: TokenClassHead(config, "manipulation", 3), ("original", "shuffled", "random")),
    "energy": (lambda config: EnergyHead(config, "is_noise"), ("data", "noise")),
}


@pytest.mark.parametrize("architecture", ["roberta", "modernbert"])
@pytest.mark.parametrize("kind", OWN_HEADS)
def test_a_head_for_which_transformers_has_no_class_is_read_as_it_is(kind, architecture, tokenizer, tmp_path):
    torch.manual_seed(6)
    build, labels = OWN_HEADS[kind]
    if architecture == "roberta":
        config = RobertaConfig(**shape_for(tokenizer, max_position_embeddings=40, pad_token_id=0))
        encoder = RobertaModel(config, add_pooling_layer=False).eval()
    else:
        ids = {
            f"{name}_token_id": number for name, number in {"pad": 0, "cls": 2, "sep": 3, "bos": 2, "eos": 3}.items()
        }
        config = ModernBertConfig(**shape_for(tokenizer, max_position_embeddings=39, **ids))
        encoder = ModernBertModel(config).eval()
    trained = build(config).eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    entry = {"objective": "own", "class": None, "labels": {"target": labels}}
    entry |= {"head_class": f"objectives.heads.{type(trained).__name__}"}
    write_run(tmp_path, encoder, tokenizer, {"heads/own": entry})
    (tmp_path / "heads/own").mkdir(parents=True)
    save_file(trained.state_dict(), tmp_path / "heads/own/head.safetensors")
    (site,) = find_heads(str(tmp_path)).found
    assert (site.load_with, site.kind) == ("", "energy" if kind == "energy" else "detection")
    head = load_head(site, device="cpu")
    assert head.max_length == 39
    rows = tokenizer(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        hidden = encoder(input_ids=rows["input_ids"]).last_hidden_state
        if kind == "energy":
            expected = trained.energies(hidden)
        else:
            expected = trained.classifier(trained.transform(hidden)).squeeze(-1)
    torch.testing.assert_close(head.logits(rows["input_ids"], rows["attention_mask"]), expected, atol=1e-5, rtol=1e-5)
    score = score_pairs(head, [(TEXTS[0], TEXTS[1])], RULES[DEFAULT_RULES[site.kind]]).good[0]
    if kind == "energy":
        assert score == pytest.approx(-float(expected[0, 1:-1].sum()), abs=1e-4)
    elif kind == "one logit":
        assert score == pytest.approx(float(F.logsigmoid(-expected[0, 1:-1]).sum()), abs=1e-4)
    else:
        assert score == pytest.approx(float(F.log_softmax(expected[0, 1:-1], -1)[:, 0].sum()), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["bert-tiny", "roberta-tiny", "modernbert-tiny"])
def test_what_pretraining_exports_is_found(encoder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{PROSE[0]} Number {number} is here. It sleeps." for number in range(60)))
    options = {
        "objective": "mlm+rtd",
        "encoder": encoder,
        "corpus": text,
        "vocab_size": 200,
        "max_steps": 1,
        "batch_size": 16,
    }
    options |= {"out": tmp_path / "run", "cache": tmp_path / "cache", "threads": 1}
    command = [sys.executable, "pretrain.py", *(f"--{name}={value}" for name, value in options.items())]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    heads = find_heads(str(tmp_path / "run"))
    assert {site.name: site.kind for site in heads.found} == {
        "mlm": "masked_lm",
        "rtd": "detection",
        "generator": "masked_lm",
    }
    for site in heads.found:
        scores = score_pairs(load_head(site, device="cpu"), [("a dog", "the cats")], RULES[DEFAULT_RULES[site.kind]])
        assert scores.good[0] != scores.bad[0]


@pytest.mark.parametrize(
    ("texts", "message"), [(["dog", " "], "text 2 of 2 has no token"), (["dog " * 40, "dog"], "longer than the 32")]
)
def test_a_text_that_can_t_be_scored_is_named(texts, message, tokenizer):
    with pytest.raises(UserError, match=message):
        encode_texts(tokenizer, texts, 32)


def test_a_rule_of_another_kind_of_head_is_refused_with_those_that_fit(masked_lm):
    with pytest.raises(UserError, match="rules for it: pll_sum, pll_mean, pll_within_word_l2r"):
        score_pairs(masked_lm, [("a", "b")], RULES["rtd_sum"])


@pytest.mark.parametrize("place", ["absent/folder", "empty"])
def test_a_location_without_a_model_is_named(place, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=place):
        find_heads(str(tmp_path / place))
