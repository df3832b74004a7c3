"""What objectives on a hidden token's attributes hide, and which text their labels are of."""

import os
import subprocess
import sys
from collections import Counter
from hashlib import blake2b
from math import log

import numpy as np
import pytest

from corpora.tables import Tables
from objectives import OBJECTIVES
from objectives.base import TextStatistics
from objectives.token_type import find_stop_words
from tests.conftest import WrittenCorpus, word_of
from tests.test_objectives import open_stream

WORDWISE = ["token_type", "first_char", "casing", "length", "ascii", "random_class"]
DISTURB = "mlm:mask_rate=0.4,mask_token_rate=0,random_token_rate=1"  # puts other tokens beside the hidden ones


def words_of(original_ids, is_special):
    """Return for each token the pieces of its word (T,), spelled out: every third id continues a word."""
    words, current = [None] * len(original_ids), []
    for place, token_id in enumerate(original_ids):
        if is_special[place]:
            current = []
            continue
        if token_id % 3 or not current:
            current = []
        current.append(int(token_id))
        words[place] = current
    return words


def spell(pieces):
    return "".join(word_of(piece).removeprefix("##") for piece in pieces)


def labels_of(name, texts, ids, corpus, **options):
    classes = OBJECTIVES[name](**options).classify(texts, np.array(ids), Tables(corpus))
    assert classes.dtype == np.int64 and len(classes) == len(texts)
    return classes.tolist()


@pytest.mark.parametrize("name", WORDWISE)
def test_labels_are_of_the_word_as_the_text_had_it(corpus, name):
    """Invariant 27: not of what another objective has put in its place, and of the whole word."""
    flat = open_stream(corpus, f"{DISTURB}+{name}").build(np.arange(100))
    plain = open_stream(corpus, "mlm:mask_rate=0").build(np.arange(100)).sequences
    (target,) = flat.targets[name].values()
    words = words_of(plain.token_ids, plain.is_special)
    asked = [words[position] for position in target.positions]
    assert target.values.tolist() == labels_of(name, list(map(spell, asked)), [word[0] for word in asked], corpus)
    changed = flat.sequences.token_ids[~plain.is_special] != plain.token_ids[~plain.is_special]
    assert 0.4 < changed.mean() < 0.6
    assert (flat.sequences.token_ids[target.positions] == corpus.vocabulary.mask_id).all()


@pytest.mark.parametrize("name", WORDWISE)
def test_pieces_of_a_word_share_its_label_unless_pieces_are_asked(corpus, name):
    """Invariant 27: the references label each piece by itself."""
    plain = open_stream(corpus, "mlm:mask_rate=0").build(np.arange(100)).sequences
    words = words_of(plain.token_ids, plain.is_special)
    (target,) = open_stream(corpus, f"{name}:mask_rate=0.5").build(np.arange(100)).targets[name].values()
    labels = {}
    for position, value in zip(target.positions, target.values.tolist(), strict=True):
        labels.setdefault(id(words[position]), []).append(value)
    several = [values for values in labels.values() if len(values) > 1]
    assert len(several) > 50 and all(len(set(values)) == 1 for values in several)

    spec = f"{name}:mask_rate=0.5,whole_word=false"
    (single,) = open_stream(corpus, spec).build(np.arange(100)).targets[name].values()
    ids = plain.token_ids[single.positions]
    assert single.values.tolist() == labels_of(name, [spell([i]) for i in ids], ids, corpus, whole_word=False)
    assert single.values.tolist() != target.values.tolist()


@pytest.mark.parametrize("name", ["length", "ascii"])
def test_inserted_tokens_are_no_part_of_a_word(corpus, name):
    flat = open_stream(corpus, f"insertion:insert_rate=0.4+{name}").build(np.arange(100))
    kept = np.flatnonzero(flat.sequences.original_ids >= 0)
    words = words_of(flat.sequences.original_ids[kept], flat.sequences.is_special[kept])
    (target,) = flat.targets[name].values()
    asked = [words[place] for place in np.searchsorted(kept, target.positions)]
    assert target.values.tolist() == labels_of(name, list(map(spell, asked)), [word[0] for word in asked], corpus)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("first_char", {"apple": 0, "Zoo": 25, "été": 4, "İ": 8, "(": 26, "7up": 27, "ß": 28, "жук": 28, "": 28}),
        ("casing", {"apple": 0, "Apple": 1, "NASA": 2, "iPhone": 2, "A": 1, "42": 3, "'": 3, "3D": 1, "": 3}),
        ("length", {"": 0, "a": 0, "été": 2, "elevenchars": 10, "twelve chars": 11, "much longer than that": 11}),
        ("ascii", {"a": 97 % 5, "ab": (97 + 98) % 5, "é": 233 % 5, "": 0}),
    ],
)
def test_words_have_the_classes_that_the_papers_give_them(corpus, name, expected):
    assert dict(zip(expected, labels_of(name, list(expected), [5] * len(expected), corpus), strict=True)) == expected


def test_stop_words_are_the_commonest_words_in_lower_case(vocabulary, tmp_path):
    """14, 16 and 7 are a year, a digit and a point; 5 is written with a capital; 13 is 'and'."""
    document = [[7] * 9, [14] * 8, [16] * 7, [5] * 6, [10] * 5, [11] * 4, [13] * 3, [19] * 2]
    corpus = WrittenCorpus(documents=[document], vocabulary=vocabulary, folder=tmp_path)
    assert find_stop_words(Tables(corpus), 2) == {"the", "of"}
    assert find_stop_words(Tables(corpus), 100) == {"the", "of", "and", word_of(19)}  # never one that never occurs
    texts = ["zebra", "The", "of", "and", "1984", "3.5", "...", "3rd"]
    assert labels_of("token_type", texts, [5] * 8, corpus, num_stop_words=2) == [0, 1, 1, 0, 2, 2, 3, 0]


def test_term_frequency_is_the_count_in_the_example(corpus):
    """Aroca-Ouellette and Rudzicz, 2020: of the text, not of what is left of it after hiding."""
    flat = open_stream(corpus, "frequency:weighting=tf,mask_rate=0.6").build(np.arange(300))
    plain = open_stream(corpus, "mlm:mask_rate=0").build(np.arange(300)).sequences
    counts = Counter(zip(plain.rows.tolist(), plain.token_ids.tolist(), strict=True))
    target = flat.targets["frequency"]["frequency"]
    asked = zip(plain.rows[target.positions].tolist(), plain.token_ids[target.positions].tolist(), strict=True)
    assert target.values.tolist() == [min(counts[pair], 5) - 1 for pair in asked]
    assert set(target.values.tolist()) >= {0, 1, 2}


def test_levels_of_inverse_frequency_are_fifths_of_the_text(corpus):
    tables, counts = Tables(corpus), np.asarray(corpus.unigram_counts)
    levels = OBJECTIVES["frequency"]().classify([""] * 200, np.arange(200), tables)
    frequency = np.zeros(200)
    for start, end in tables.training_documents():
        frequency[np.unique(corpus.token_ids[start:end])] += 1
    idf = np.log(51 / (1 + frequency))
    for level in range(4):  # up to a level is a fifth and no more than its last tokens, which tie, too many
        upto = counts[levels <= level].sum() / counts.sum()
        without_last = counts[idf < idf[levels <= level].max()].sum() / counts.sum()
        assert without_last < (level + 1) / 5 <= upto + 1e-12
    assert np.all(np.diff(levels[np.argsort(idf, kind="stable")]) >= 0)


def test_a_repeated_token_is_more_telling(corpus):
    flat = open_stream(corpus, "frequency:mask_rate=0.6").build(np.arange(300))
    plain = open_stream(corpus, "mlm:mask_rate=0").build(np.arange(300)).sequences
    counts = Counter(zip(plain.rows.tolist(), plain.token_ids.tolist(), strict=True))
    target = flat.targets["frequency"]["frequency"]
    ids = plain.token_ids[target.positions]
    once = OBJECTIVES["frequency"]().classify([""] * len(ids), ids, Tables(corpus))
    times = np.array([counts[pair] for pair in zip(plain.rows[target.positions].tolist(), ids.tolist(), strict=True)])
    assert (target.values[times == 1] == once[times == 1]).all()
    assert (target.values[times > 1] >= once[times > 1]).all() and (target.values > once).sum() > 20


def splitmix(word):
    """SplitMix64's finaliser on Python's own integers (Steele et al., 2014)."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


def test_random_classes_hang_on_the_id_and_the_class_seed_alone(corpus):
    """In the authors' code each process draws others."""
    ids = np.arange(30_000)
    classes = OBJECTIVES["random_class"]().classify([""] * len(ids), ids, Tables(corpus))
    key = int.from_bytes(blake2b(b"int:0\x1fstr:random class", digest_size=8).digest(), "little")
    assert classes[:50].tolist() == [splitmix(splitmix(i) ^ key) * 5 >> 64 for i in range(50)]
    shares = np.bincount(classes, minlength=5)
    assert len(shares) == 5 and ((shares - 6000) ** 2 / 6000).sum() < 18.5  # chi-square, 4 degrees of freedom, .001
    texts = ["x"] * len(ids)
    assert np.array_equal(classes, OBJECTIVES["random_class"]().classify(texts, ids, Tables(corpus)))
    other = OBJECTIVES["random_class"](class_seed=1).classify(texts, ids, Tables(corpus))
    assert (classes == other).mean() == pytest.approx(0.2, abs=0.015)


@pytest.mark.slow
def test_random_classes_are_the_same_in_every_process(corpus):
    code = (
        "import numpy as np; from objectives.random_class import RandomClassPrediction as R;"
        "print(R().classify([], np.arange(200), None).tolist())"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    here = OBJECTIVES["random_class"]().classify([], np.arange(200), Tables(corpus)).tolist()
    assert said == [f"{here}\n"] * 2


def test_chance_is_the_entropy_of_the_classes_where_they_can_be_counted(corpus):
    statistics = TextStatistics(num_ordinary=195, unigram_entropy=corpus.unigram_entropy, tables=Tables(corpus))
    training = corpus.token_ids[: corpus.sentence_offsets[corpus.document_offsets[50]]]
    counts = Counter(len(spell([token_id])) for token_id in training.tolist())
    total = sum(counts.values())
    entropy = -sum(count / total * log(count / total) for count in counts.values())
    levels = OBJECTIVES["length"]().chance(statistics)
    assert levels == {"ln 12": log(12), "label frequencies": pytest.approx(entropy)}
    assert OBJECTIVES["frequency"](weighting="tf").chance(statistics) == {"ln 5": log(5)}
