"""Figures of the probes that someone else counts too: floors of real data, entity F1, pseudo-log-likelihood.

The data lie in the folder that PRETEXT_DATA names, or in ../shared/data: English EWT (`ud_english_ewt`) and paradigms
of BLiMP (`blimp`). What needs them, or a library that isn't there, is skipped.
"""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from seqeval.metrics import f1_score, precision_score, recall_score
from transformers import BertConfig, BertForMaskedLM

from corpora.tokenizer import train_tokenizer
from probes import treebank_words
from probes.finetune.token_task import score_tags
from probes.heads import find_heads, load_head
from probes.minimal_pairs import read_paradigms, shorter_is_better
from probes.scoring import RULES, score_pairs
from probes.treebank import TREEBANK_PROBES, read_treebank

DATA = Path(os.environ.get("PRETEXT_DATA", Path(__file__).parents[2] / "shared" / "data"))
EWT, BLIMP = DATA / "ud_english_ewt", DATA / "blimp"
wants_ewt = pytest.mark.skipif(not EWT.is_dir(), reason="English EWT is not there; PRETEXT_DATA names its folder")
wants_blimp = pytest.mark.skipif(not BLIMP.is_dir(), reason="BLiMP is not there; PRETEXT_DATA names its folder")


@pytest.fixture(scope="module")
def trees():
    files = ([str(EWT / f"en_ewt-ud-{part}.conllu.gz")] for part in ("train", "dev", "test"))
    return read_treebank(*files)


@wants_ewt
@pytest.mark.slow
def test_without_an_encoder_ewt_gives_the_floors_that_were_counted_apart(trees, monkeypatch):
    """Research on these files, with other code: majority 16.4, each form's commonest tag 86.2, forms seen 90.9."""
    monkeypatch.setattr(treebank_words, "score_baselines", lambda probe, names: {})  # they take minutes on all words
    probe = TREEBANK_PROBES["pos"](trees, 0, None)
    assert 100 * probe.majority == pytest.approx(16.4, abs=0.05)
    assert 100 * probe.surface["type_majority"] == pytest.approx(86.2, abs=0.05)
    assert 100 * treebank_words.control_ceiling(probe) == pytest.approx(90.9, abs=0.05)


@wants_ewt
@pytest.mark.slow
def test_neighbours_are_joined_in_43_percent_of_ewts_arcs(trees):
    probe = TREEBANK_PROBES["dependency_tree"](trees, 0, None)
    assert 100 * probe.surface["linear_chain"] == pytest.approx(43.0, abs=0.05)


@pytest.mark.slow
@wants_blimp
def test_the_shorter_sentence_is_a_coin_in_blimp():
    """51.0 over all 67 paradigms (research, with other code); here it is counted again for those at hand."""
    shares = []
    for path in sorted(BLIMP.glob("*.jsonl*")):
        lines = (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8")
        with lines:
            pairs = [json.loads(line) for line in lines]
        lengths = [(len(pair["sentence_good"].split()), len(pair["sentence_bad"].split())) for pair in pairs]
        shares.append(np.mean([(good < bad) + (good == bad) / 2 for good, bad in lengths]))
    result = shorter_is_better(read_paradigms(BLIMP))
    assert result.overall.accuracy == pytest.approx(np.mean(shares), abs=1e-12)
    if len(shares) == 34:  # those that the project's text on minimal pairs was measured on
        assert 100 * result.overall.accuracy == pytest.approx(51.4, abs=0.05)


def list_spans(tags):
    """conlleval's spans, written out: (type, first, last); an I- that goes on with nothing opens one."""
    spans, start = set(), None
    for i, tag in enumerate([*tags, "O"]):
        if start is not None and (tag[:2] != "I-" or tag[2:] != tags[start][2:]):
            spans.add((tags[start][2:], start, i - 1))
            start = None
        if tag != "O" and start is None:
            start = i
    return spans


@pytest.mark.slow
def test_entity_f1_is_seqevals_and_conllevals_on_a_thousand_random_taggings():
    rng = np.random.default_rng(0)
    names = ["O", "O", *(f"{prefix}-{kind}" for kind in ("LOC", "ORG", "PER") for prefix in "BI")]
    for _ in range(1000):
        lengths = rng.integers(1, 12, size=rng.integers(1, 5))
        truth, found = ([[names[i] for i in rng.integers(len(names), size=n)] for n in lengths] for _ in range(2))
        found = [
            [one if keep else other for one, other, keep in zip(*pair, rng.random(len(pair[0])) < 0.6, strict=True)]
            for pair in zip(truth, found, strict=True)
        ]
        figures = score_tags(truth, found, "entity_f1", True)
        gold, guessed = (
            {(n, *span) for n, tags in enumerate(side) for span in list_spans(tags)} for side in (truth, found)
        )
        right = len(gold & guessed)
        f1 = 2 * right / (len(gold) + len(guessed)) if gold or guessed else 0.0
        assert figures["entity_f1"] == pytest.approx(f1, abs=1e-12)
        assert figures["entity_f1"] == pytest.approx(f1_score(truth, found, zero_division=0), abs=1e-12)
        assert figures["entity_precision"] == pytest.approx(precision_score(truth, found, zero_division=0), abs=1e-12)
        assert figures["entity_recall"] == pytest.approx(recall_score(truth, found, zero_division=0), abs=1e-12)


PROSE = ["The quick brown fox jumps over the lazy dog, and the small cats sleep in the houses of their people."] * 20
PAIRS = [("The lazy dog jumps.", "The lazy dogs jumps"), ("The cats sleep in brownhouses.", "unfoxed sleep the the")]


@pytest.mark.parametrize(("rule", "metric"), [("pll_sum", "original"), ("pll_within_word_l2r", "within_word_l2r")])
def test_pseudo_log_likelihood_is_that_of_minicons(rule, metric, tmp_path, monkeypatch):
    """`tests/test_probe_scoring.py` compares with the definition written out, where minicons is not installed."""
    scorer = pytest.importorskip("minicons.scorer")
    tokenizer = train_tokenizer(iter(PROSE), vocab_size=200)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, **shape)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (site,) = find_heads(str(tmp_path)).found
    found = score_pairs(load_head(site, device="cpu"), PAIRS, RULES[rule])
    # minicons 0.3.39 calls a tokenizer by the name that this had before transformers 5
    monkeypatch.setattr(type(tokenizer), "batch_encode_plus", type(tokenizer).__call__, raising=False)
    other = scorer.MaskedLMScorer(model, "cpu", tokenizer=tokenizer)
    texts = [text for pair in PAIRS for text in pair]
    assert any(len(tokenizer.tokenize(word)) > 1 for text in texts for word in text.split())  # words in pieces
    wanted = other.sequence_score(texts, reduction=lambda each: each.sum(0).item(), PLL_metric=metric)
    assert np.stack([found.good, found.bad], axis=1).ravel() == pytest.approx(wanted, abs=1e-5)
