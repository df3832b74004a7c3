"""The artefact gate: it fails the builds that give their labels away, and passes the controlled ones."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import scipy.sparse as sparse

from probes.gate import (
    BASELINES,
    ArtefactError,
    chance_score,
    pass_gate,
    score_baselines,
    score_features,
    score_labels,
    standard_error,
)
from probes.probe import DEV, TEST, TRAIN, Probe
from probes.raw_edits import build_replacement_sentence
from probes.raw_order import build_sentence_ordering
from probes.raw_pool import Item, balance, build_pool, make_probe, whole

from .raw_documents import invent_documents

SIZE = 1200


@pytest.fixture(scope="module")
def pool():
    return build_pool(invent_documents(count=80), seed=0)


def make(labels, texts=None, **more):
    """A probe of one sentence an item: 60 % training, 15 % development, 25 % test."""
    count = len(labels)
    split = np.repeat([TRAIN, DEV, TEST], [count * 60 // 100, count * 15 // 100, count * 25 // 100]).astype(np.int8)
    fields = {
        "name": "made",
        "question": "?",
        "texts": tuple(texts or (f"text {i}" for i in range(count))),
        "places": np.array([[[i, -1, -1]] for i in range(count)]),
        "labels": np.array(labels),
        "label_names": ("no", "yes"),
        "split": split,
        "groups": np.arange(count),
    }
    return Probe(**(fields | more))


def build_naive_ordering(pool, size):
    """The first two sentences of each paragraph, in either order."""
    items = []
    for document in pool.documents:
        for paragraph in document:
            first, second = paragraph[:2]
            label = len(items) % 2
            shown = (second, first) if label else (first, second)
            places = tuple(whole(sentence.text) for sentence in shown)
            items.append(Item(places=places, label=label, split=pool.split_of(first), group=first.document))
    return make_probe(
        balance(items, size, 2),
        name="naive_ordering",
        seed=0,
        question="?",
        label_names=("in order", "swapped"),
        combine="difference",
    )


def build_naive_replacement(pool, size):
    """One word of the sentence replaced by any word of the vocabulary, whatever its frequency, or none."""
    draws = np.random.default_rng(0)
    vocabulary = np.array(sorted(pool.counts))
    items = []
    for sentence in pool.sentences():
        label = len(items) % 2
        text = sentence.text
        if label:
            start, end = sentence.words[int(draws.integers(1, len(sentence.words)))]
            text = text[:start] + str(draws.choice(vocabulary)) + text[end:]
        items.append(Item(places=(whole(text),), label=label, split=pool.split_of(sentence), group=sentence.document))
    return make_probe(
        balance(items, size, 2), name="naive_replacement", seed=0, question="?", label_names=("original", "replaced")
    )


def test_the_first_two_sentences_of_paragraphs_fail_and_controlled_pairs_pass(pool):
    naive = build_naive_ordering(pool, SIZE)
    with pytest.raises(
        ArtefactError, match=r"^probe naive_ordering: the baseline 'words' scores \d+\.\d, where chance is 50\.0"
    ):
        pass_gate(naive, at_chance=("words",))
    with pytest.raises(ArtefactError, match="the baseline 'first' scores"):
        pass_gate(naive, at_chance=("first",))
    surface = build_sentence_ordering(pool, SIZE).surface
    assert set(surface) == {"first", "second", "words", "length", "overlap"}
    assert max(surface["first"], surface["second"], surface["words"]) < 0.59  # 300 test items: three errors are .087


@pytest.mark.slow
def test_uniform_replacement_fails_by_frequency_and_matched_replacement_passes():
    pool = build_pool(invent_documents(count=80, exponent=1.8), seed=0)
    naive = build_naive_replacement(pool, SIZE)
    with pytest.raises(ArtefactError, match="probe naive_replacement: the baseline 'frequency' scores"):
        pass_gate(naive, at_chance=("frequency",), counts=pool.counts)
    surface = build_replacement_sentence(pool, SIZE).surface
    assert surface["frequency"] < 0.59 and surface["words"] < 0.59


def test_a_recorded_baseline_may_carry_signal_and_is_written_down(pool):
    naive = build_naive_ordering(pool, SIZE)
    passed = pass_gate(replace(naive, surface={"known": 0.5}), recorded=("words",))
    assert passed.surface["words"] > 0.8 and passed.surface["known"] == 0.5
    assert naive.surface == {}


def test_weak_cues_are_found():
    """A word in 55 % of one class and 45 % of the other: 55 % is right, and a fit that stops early says 50 %."""
    draws = np.random.default_rng(0)
    labels = draws.integers(2, size=8000)
    fillers = [f"word{i}" for i in range(200)]
    marked = draws.random(8000) < np.where(labels == 1, 0.56, 0.44)
    texts = [" ".join([*draws.choice(fillers, 12), "sign" if mark else "none"]) for mark in marked]
    score = score_baselines(make(labels, texts), ["words"])["words"]
    tested = np.arange(6000, 8000)
    assert (marked == labels)[tested].mean() == pytest.approx(0.56, abs=0.02)
    assert 0.53 < score < 0.58


def test_scores_are_of_the_test_items_and_fitted_on_the_training_items_alone():
    labels = np.tile([0, 1], 200)
    probe = make(labels)
    seen = sparse.csr_matrix(np.where(probe.split == TEST, 1 - labels, labels)[:, None].astype(float))
    assert score_features(seen, probe) == 0.0  # right in training, wrong in each test item
    assert score_features(sparse.csr_matrix(labels[:, None].astype(float)), probe) == 1.0
    blank = sparse.csr_matrix(np.zeros((400, 1)))
    assert score_features(blank, probe) == 0.5
    ranked = make(labels, metric="auroc")
    assert score_features(seen, ranked) == 0.0 and score_features(blank, ranked) == 0.5


def test_chance_and_its_error_are_those_of_the_formulas():
    probe = make([0, 0, 0, 1] * 100)
    assert chance_score(probe) == 0.75
    assert standard_error(probe) == pytest.approx(sqrt(0.75 * 0.25 / 100))
    ranked = replace(probe, metric="auroc")
    assert chance_score(ranked) == 0.5
    assert standard_error(ranked) == pytest.approx(sqrt(101 / (12 * 25 * 75)))
    assert score_labels(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), "macro_f1") == pytest.approx(
        (4 / 5 + 2 / 3) / 2
    )


def test_three_standard_errors_decide():
    """Of 100 test items 65 right is the limit; 64 pass, 66 fail."""
    labels = np.tile([0, 1], 200)
    tested = np.arange(300, 400)
    for right, fails in ((64, False), (66, True)):
        texts = ["yes" if label else "no" for label in labels]
        for i in tested[right:]:
            texts[i] = "no" if labels[i] else "yes"
        probe = make(labels, texts)
        if fails:
            with pytest.raises(
                ArtefactError, match="scores 66.0, where chance is 50.0 and 65.0 the limit for 100 test"
            ):
                pass_gate(probe, at_chance=("words",))
        else:
            assert pass_gate(probe, at_chance=("words",)).surface == {"words": 0.64}


def test_each_baseline_sees_what_it_is_named_for():
    labels = np.tile([0, 1], 200)
    words = ["aa", "bb"]
    probes = {
        "first": [(f"{words[label]} x", "same y") for label in labels],
        "second": [("same y", f"{words[label]} x") for label in labels],
        "shapes": [("Ab cd" if label else "ab cd", "s") for label in labels],
        "length": [("w " * (3 + label), "s") for label in labels],
        "overlap": [(f"u{i} v", f"u{i if label else i + 1} w") for i, label in enumerate(labels)],
        "bigrams": [("a b c" if label else "b a c", "s") for label in labels],
    }
    for name, pairs in probes.items():
        texts = [text for pair in pairs for text in pair]
        places = np.array([[[2 * i, -1, -1], [2 * i + 1, -1, -1]] for i in range(400)])
        scores = score_baselines(make(labels, texts, places=places, combine="pair"), [name, "words"])
        assert scores[name] == 1.0, name
        if name not in ("first", "second"):
            assert scores["words"] <= 0.6, name


def test_baselines_of_words_see_the_word_its_place_and_what_stands_around():
    labels = np.tile([0, 1], 200)
    texts = [f"one {'yes' if label else 'no'} and {'ab' if i % 4 < 2 else 'ba'} end" for i, label in enumerate(labels)]
    spans = [[[i, texts[i].index("and") + 4, texts[i].index("end") - 1]] for i in range(400)]
    probe = make(labels, texts, places=np.array(spans))
    scores = score_baselines(probe, ["words", "characters", "context", "position"])
    assert scores == {"words": 0.5, "characters": 0.5, "context": 1.0, "position": 0.5}
    early = [f"x {'y ' * label}word end here now" for label in labels]
    spans = [[[i, early[i].index("word"), early[i].index("word") + 4]] for i in range(400)]
    probe = make(labels, early, places=np.array(spans))
    assert score_baselines(probe, ["position", "words"]) == {"position": 1.0, "words": 0.5}


def test_distance_and_direction_are_seen_for_arcs():
    labels = np.tile([0, 1], 200)
    texts = ["a b c d e f"] * 400
    starts = [(0, 2) if label else (0, 8) for label in labels]
    places = np.array([[[i, s, s + 1] for s in pair] for i, pair in enumerate(starts)])
    probe = make(labels, texts, places=places, combine="arc")
    assert score_baselines(probe, ["distance"]) == {"distance": 1.0}
    turned = np.array([[[i, 0, 1], [i, 4, 5]][:: 1 if label else -1] for i, label in enumerate(labels)])
    assert score_baselines(make(labels, texts, places=turned, combine="arc"), ["distance"]) == {"distance": 1.0}


def test_frequency_goes_by_the_counts_that_are_given():
    labels = np.tile([0, 1], 200)
    texts = [f"w{i}" for i in range(400)]
    counts = {f"w{i}": 100 if label else 2 for i, label in enumerate(labels)}
    assert score_baselines(make(labels, texts), ["frequency"], counts) == {"frequency": 1.0}
    assert score_baselines(make(labels, texts), ["frequency"])["frequency"] == 0.5  # each once in these texts


def test_an_unknown_baseline_is_named():
    with pytest.raises(ValueError, match="baseline 'bow' is unknown; known: words, first"):
        score_baselines(make([0, 1] * 50), ["bow"])
    assert {"words", "length", "frequency"} <= set(BASELINES)
