"""Probes from raw text: every rule of their construction, on invented prose."""

import json
import re
from collections import defaultdict

import numpy as np
import pytest

from corpora import CorpusSettings, TextSource, prepare_corpus
from corpora.errors import CorpusError, UserError
from probes import raw_pool
from probes.probe import DEV, TEST, TRAIN
from probes.raw_pool import SHARES, build_pool, cut_long, deal
from probes.raw_text import RAW_PROBES, build_raw_suite, count_words, held_out_documents, read_documents
from probes.words import bin_count, cut_tokens, cut_words, lower_in_place, name_shape

from .raw_documents import invent_documents

SIZE = 480


@pytest.fixture(scope="module")
def documents():
    return invent_documents()


@pytest.fixture(scope="module")
def pool(documents):
    return build_pool(documents, seed=0)


@pytest.fixture(scope="module")
def sentences(pool):
    return {s.text: s for document in pool.documents for paragraph in document for s in paragraph}


@pytest.fixture(scope="module")
def probes(documents):
    return {probe.name: probe for probe in build_raw_suite(documents, size=SIZE)}


def texts_of(probe, item):
    return [probe.texts[text] for text in probe.places[item, :, 0]]


def word_of(probe, item):
    text, start, end = probe.places[item, 0]
    return probe.texts[text][start:end]


def test_every_probe_is_built(probes):
    assert list(probes) == [name for name in RAW_PROBES if name != "sentence_position"]  # too few windows of five


def test_no_document_is_in_two_splits_and_classes_are_balanced(probes):
    for probe in probes.values():
        for split in SHARES:
            here = probe.split == split
            assert not set(probe.groups[here]) & set(probe.groups[~here]), probe.name
            counts = np.bincount(probe.labels[here], minlength=len(probe.label_names))
            assert counts.min() == counts.max() > 0, probe.name
        assert len(set(probe.texts)) == len(probe.texts)
        assert len(probe.labels) <= SIZE


def test_a_seed_fixes_the_items_and_a_probe_does_not_depend_on_the_others(documents, probes):
    (again,) = build_raw_suite(documents, size=SIZE, names=["long_swap"])
    (other,) = build_raw_suite(documents, size=SIZE, names=["long_swap"], seed=1)
    first = probes["long_swap"]
    assert again.texts == first.texts and np.array_equal(again.places, first.places)
    assert np.array_equal(again.labels, first.labels) and again.surface == first.surface
    assert other.texts != first.texts


def test_sentence_length_counts_words(probes):
    probe = probes["sentence_length"]
    for i in range(len(probe.labels)):
        low, high = map(int, probe.label_names[probe.labels[i]].split("-"))
        assert low <= len(cut_words(texts_of(probe, i)[0])) <= high
    assert (probe.places[:, 0, 1:] == -1).all()


def test_a_sentence_holds_its_target_word_once_and_no_other(probes):
    probe = probes["word_content"]
    for i in range(len(probe.labels)):
        held = [word for word in cut_words(texts_of(probe, i)[0].lower()) if word in probe.label_names]
        assert held == [probe.label_names[probe.labels[i]]]


@pytest.fixture(scope="module")
def by_length(sentences):
    found = defaultdict(list)
    for text in sentences:
        found[len(cut_words(text))].append(cut_words(text))
    return found


def find_changes(text, by_length):
    """Return the words of `text`, those of the sentence nearest to it, and the numbers of those that differ."""
    words = cut_words(text)
    before = min(by_length[len(words)], key=lambda theirs: sum(map(str.__ne__, words, theirs)))
    return words, before, [i for i, (a, b) in enumerate(zip(words, before, strict=True)) if a != b]


def test_a_shifted_bigram_is_two_inner_neighbours_of_one_case(probes, sentences, by_length):
    probe = probes["bigram_shift"]
    shifted = [i for i in np.flatnonzero(probe.labels == 1)][:40]
    for i in shifted:
        (text,) = texts_of(probe, i)
        words, before, changed = find_changes(text, by_length)
        a, b = changed
        assert b == a + 1 and (words[a], words[b]) == (before[b], before[a])
        assert a > 0 and words[a][0].isupper() == words[b][0].isupper()
        assert f"{words[a]} {words[b]}" in text
    assert all(texts_of(probe, i)[0] in sentences for i in np.flatnonzero(probe.labels == 0))


def test_a_long_swap_is_of_two_words_alike_in_case_and_frequency(probes, by_length, pool):
    probe = probes["long_swap"]
    for i in np.flatnonzero(probe.labels == 1)[:40]:
        words, before, changed = find_changes(*texts_of(probe, i), by_length)
        a, b = changed
        assert b - a >= 4 and (words[a], words[b]) == (before[b], before[a])
        bins = {bin_count(pool.counts[word.lower()]) // 2 for word in (words[a], words[b])}
        assert len(bins) == 1 and words[a][0].isupper() == words[b][0].isupper()


def test_a_replacement_keeps_case_ending_and_frequency_and_its_types_are_of_one_split(probes, by_length, pool):
    probe = probes["replacement_sentence"]
    parts = {split: set() for split in SHARES}
    for i in np.flatnonzero(probe.labels == 1)[:60]:
        words, before, (at,) = find_changes(*texts_of(probe, i), by_length)
        old, new = before[at], words[at]
        assert old[-2:] == new[-2:] and old[0].isupper() == new[0].isupper() and old.lower() != new.lower()
        assert bin_count(pool.counts[old.lower()]) == bin_count(pool.counts[new.lower()])
        parts[int(probe.split[i])] |= {old.lower(), new.lower()}
    assert not parts[TRAIN] & parts[TEST] and not parts[TRAIN] & parts[DEV] and not parts[DEV] & parts[TEST]


def test_replaced_and_kept_tokens_have_the_same_frequencies_and_disjoint_types(probes, pool):
    probe = probes["replacement_token"]
    assert probe.metric == "auroc"
    types = {split: set() for split in SHARES}
    for split in SHARES:
        bins = {0: [], 1: []}
        for i in np.flatnonzero(probe.split == split):
            word = word_of(probe, i).lower()
            bins[int(probe.labels[i])].append(bin_count(pool.counts[word]))
            types[split].add(word)
        assert sorted(bins[0]) == sorted(bins[1])
    assert not types[TRAIN] & types[TEST]


def test_pairs_are_neighbours_in_or_out_of_order_and_no_sentence_is_used_twice(probes, sentences):
    probe = probes["sentence_ordering"]
    assert probe.combine == "difference" and probe.label_names == ("in order", "swapped")
    for i in range(len(probe.labels)):
        first, second = (sentences[text] for text in texts_of(probe, i))
        assert second.number - first.number == (-1 if probe.labels[i] else 1)
        assert (first.document, first.paragraph) == (second.document, second.paragraph)
        assert min(first.number, second.number) >= 1 and first.paragraph >= 1
    assert len(probe.texts) == 2 * len(probe.labels)


def test_a_moved_sentence_belongs_where_its_label_says(monkeypatch):
    monkeypatch.setattr(raw_pool, "FEWEST", {TRAIN: 50, DEV: 10, TEST: 20})
    longer = invent_documents(count=30, paragraphs=3, sentences=18)
    (probe,) = build_raw_suite(longer, size=480, names=["sentence_position"])
    pool = build_pool(longer, seed=0)
    numbers = {s.text: s.number for document in pool.documents for paragraph in document for s in paragraph}
    assert probe.places.shape[1:] == (5, 3)
    for i in range(len(probe.labels)):
        moved, *rest = (numbers[text] for text in texts_of(probe, i))
        rest.insert(int(probe.labels[i]), moved)
        assert rest == list(range(rest[0], rest[0] + 5)) and rest[0] >= 1 and rest[-1] <= 16


def test_strangers_come_from_another_paragraph_of_the_same_document(probes, sentences):
    probe = probes["same_paragraph"]
    for i in range(len(probe.labels)):
        first, second = (sentences[text] for text in texts_of(probe, i))
        assert first.document == second.document
        assert (first.paragraph == second.paragraph) == (probe.labels[i] == 0)
    assert len(probe.texts) == 2 * len(probe.labels)


def test_casing_is_asked_in_lower_case_of_types_of_one_split(probes, sentences):
    probe = probes["casing"]
    originals = {text.lower(): text for text in sentences}
    types = {split: set() for split in SHARES}
    for i in range(len(probe.labels)):
        text, start, end = probe.places[i, 0]
        original = originals[probe.texts[text]]
        assert start > 0 and original[start].isupper() == bool(probe.labels[i])
        assert original[start:end].lower() == word_of(probe, i)
        types[int(probe.split[i])].add(word_of(probe, i))
    assert not types[TRAIN] & types[TEST] and not types[TRAIN] & types[DEV]
    both = {word for word in types[TEST] if any(re.search(rf"\s{word}\b", text) for text in sentences)}
    tested = (probe.split == TEST) & probe.subsets["ambiguous"]
    assert tested.any() and {word_of(probe, i) for i in np.flatnonzero(tested)} <= both


def test_frequency_bins_are_those_of_the_counts_and_their_types_of_one_split(probes, pool):
    probe = probes["frequency_bin"]
    bounds = [int(name.rstrip("+")) for name in probe.label_names]
    types = {split: set() for split in SHARES}
    for i in range(len(probe.labels)):
        word = word_of(probe, i).lower()
        assert sum(pool.counts[word] >= bound for bound in bounds) - 1 == probe.labels[i]
        types[int(probe.split[i])].add(word)
    assert not types[TRAIN] & types[TEST] and not types[TRAIN] & types[DEV]


def test_counts_of_the_pretraining_text_are_gone_by(documents):
    counts = count_words(documents * 3)
    (probe,) = build_raw_suite(documents, size=SIZE, names=["frequency_bin"], counts=counts)
    bounds = [int(name.rstrip("+")) for name in probe.label_names]
    i = int(np.flatnonzero(probe.labels == 3)[0])
    assert bounds[3] <= counts[word_of(probe, i).lower()] < bounds[4]


@pytest.mark.slow
def test_a_text_that_is_too_small_is_said_to_be(documents, capsys):
    with pytest.raises(
        UserError, match=r"^probe long_swap: the text gives \d+ training, \d+ development, \d+ test items"
    ):
        build_raw_suite(documents[:3], names=["long_swap"])
    built = build_raw_suite(documents[:12], size=400)
    said = capsys.readouterr().err
    assert built and "left out: probe sentence_ordering: the text gives" in said
    with pytest.raises(UserError, match="the text has 1 documents with words"):
        build_raw_suite([["One sentence only."]])
    with pytest.raises(UserError, match="probe 'bshift' is unknown; known: sentence_length, "):
        build_raw_suite(documents, names=["bshift"])


def test_a_script_without_case_has_no_casing_probe():
    text = [["क ख ग घ ङ च छ। ज झ ञ ट ठ ड ढ।"]] * 4
    with pytest.raises(UserError, match="no capitals within sentences"):
        build_raw_suite(text, names=["casing"], language="any")


def test_words_are_found_in_any_script():
    assert cut_words("don’t e-mail the U.S. हिन्दी में, 日本語。") == [
        "don’t",
        "e-mail",
        "the",
        "U.S",
        "हिन्दी",
        "में",
        "日本語",
    ]
    assert cut_tokens("go—now”.") == ["go", "—", "now", "”", "."]
    assert [name_shape(token) for token in ("Go", "GO", "go", "A", "12", ",", "eBay")] == [
        "Xx",
        "XX",
        "xx",
        "X",
        "9",
        ",",
        "mixed",
    ]
    assert lower_in_place("İstanbul IS") == "İstanbul is"
    assert [bin_count(n) for n in (0, 1, 2, 3, 4)] == [0, 1, 3, 4, 5]


def test_documents_are_dealt_out_in_proportion_and_few_long_ones_are_cut():
    split = deal([10] * 200, seed=0)
    assert [int((split == name).sum()) for name in (TRAIN, DEV, TEST)] == [120, 30, 50]
    pieces = cut_long([["x" * 100] * 60, ["y" * 100] * 60])
    assert len(pieces) == 60 and {len(piece) for piece in pieces} == {2}
    assert sum(map(len, pieces)) == 120


def write_run(tmp_path, documents, **more):
    corpus = tmp_path / "text.txt"
    corpus.write_text("\n\n".join("\n".join(paragraphs) for paragraphs in documents))
    settings = {
        "corpus": str(corpus),
        "documents": "blank_line",
        "text_column": "text",
        "errors": "strict",
        "held_out_rate": 0.2,
    }
    folder = tmp_path / "run"
    folder.mkdir()
    record = {"config": settings | more, "corpus": {"documents": len(documents)}}
    (folder / "run.json").write_text(json.dumps(record))
    return corpus, folder


def test_held_out_documents_are_those_of_the_store(tmp_path):
    documents = invent_documents(count=40, paragraphs=1)
    corpus, folder = write_run(tmp_path, documents)
    store = prepare_corpus(
        CorpusSettings(source=TextSource(location=str(corpus)), vocab_size=300, held_out_rate=0.2),
        cache=tmp_path / "cache",
        progress=False,
    )
    assert read_documents(str(corpus)) == documents
    expected = [document for document, held in zip(documents, store.is_held_out, strict=True) if held]
    assert 2 <= len(expected) <= 20
    assert held_out_documents(folder) == expected


def test_held_out_documents_are_the_text_that_was_given_for_it(tmp_path):
    apart = [["One one.", "Two."], ["Three."]]
    (tmp_path / "valid.txt").write_text("\n\n".join("\n".join(paragraphs) for paragraphs in apart))
    documents = invent_documents(count=5, paragraphs=1)
    _, folder = write_run(tmp_path, documents, held_out=str(tmp_path / "valid.txt"))
    assert held_out_documents(folder) == apart


def test_a_run_that_cannot_say_what_it_held_out_is_refused(tmp_path):
    documents = invent_documents(count=5, paragraphs=1)
    corpus, folder = write_run(tmp_path, documents, held_out_rate=0)
    with pytest.raises(UserError, match="held out nothing"):
        held_out_documents(folder)
    corpus.write_text("One.\n\nTwo.")
    with pytest.raises(CorpusError, match="has 2 documents, where the run in .* read 5"):
        held_out_documents(folder)
    (folder / "run.json").write_text("{}")
    with pytest.raises(UserError, match="is no record of a pretraining run"):
        held_out_documents(folder)
    with pytest.raises(UserError, match="cannot be read"):
        held_out_documents(tmp_path / "absent")


def test_reading_stops_where_it_is_told(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("One one.\nTwo.\n\nThree.\n\nFour.")
    assert read_documents(str(path)) == [["One one.", "Two."], ["Three."], ["Four."]]
    assert read_documents(str(path), max_characters=14) == [["One one.", "Two."], ["Three."]]
