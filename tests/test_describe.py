"""The report: its figures are those of the text, and it fits a terminal."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpora import Corpus, CorpusSettings, TextSource, prepare_corpus
from corpora.describe import Description, _percent, describe_corpus, format_description

DOCUMENTS = [
    "The river ran past the old mill. It was cold.\nNobody had seen the miller since winter.",
    "Letters came on Monday. They stayed in the hall.",
    "A silver engine stood alone in the yard.",
    "Every garden has a wall; every wall has a gate. The gate was open. So was the window. Nobody came.",
]


def prepare(folder: Path, documents: list[str], **changes: Any) -> Corpus:
    (folder / "text.txt").write_text("\n\n".join(documents) + "\n")
    source = TextSource(location=str(folder / "text.txt"), documents=changes.pop("cut", "blank_line"))
    settings = CorpusSettings(**({"source": source, "vocab_size": 120, "held_out_rate": 0.0} | changes))
    return prepare_corpus(settings, folder / "cache", progress=False)


def describe(folder: Path, documents: list[str], **changes: Any) -> Description:
    return describe_corpus(prepare(folder, documents, **changes))


def test_figures_are_those_of_the_text(tmp_path: Path) -> None:
    corpus = prepare(tmp_path, DOCUMENTS)
    found = describe_corpus(corpus)
    assert (found.documents, found.paragraphs, found.sentences) == (4, 5, 10)
    assert found.words == sum(len(text.split()) for text in DOCUMENTS)
    assert found.tokens == corpus.num_tokens and found.tokens_per_word == found.tokens / found.words
    assert found.usable_documents == {"tokens": 4, "pairs": 3, "order": 2}
    assert found.sentences_per_document["min"] == 1 and found.sentences_per_document["max"] == 4
    assert found.sentences_per_document["median"] == 2
    lengths = np.diff(corpus.sentence_offsets)
    assert (found.tokens_per_sentence["min"], found.tokens_per_sentence["max"]) == (lengths.min(), lengths.max())
    assert sum(found.sentence_lengths.values()) == 10
    assert found.sentence_lengths["5-9"] == ((lengths >= 5) & (lengths < 10)).sum()
    assert found.sentence_lengths["128+"] == (lengths >= 128).sum()
    assert (found.duplicate_documents, found.duplicate_sentences, found.unknown_rate) == (0, 0, 0.0)
    assert found.unigram_entropy == corpus.unigram_entropy
    assert found.warnings == ()


def test_held_out_documents_and_dropped_sentences_are_told(tmp_path: Path) -> None:
    documents = [f"The same greeting. Number {word} is here." for word in "one two three four five six seven".split()]
    found = describe(tmp_path, documents, held_out_rate=0.5)
    assert 0 < found.held_out_documents == found.held_out_sentences == found.held_out_sentences_dropped < 7
    text = format_description(found)
    assert f"{found.held_out_documents} held out, with {found.held_out_sentences} sentences" in text
    assert "left out of these, as training has them too" in text


def test_samples_are_sentences_of_the_text(tmp_path: Path) -> None:
    corpus = prepare(tmp_path, DOCUMENTS)
    found = describe_corpus(corpus, num_samples=3)
    plain = "".join("".join(DOCUMENTS).split())
    assert len(found.samples) == 3
    assert all(sample.replace(" ", "") in plain for sample in found.samples)
    assert found.sample_pieces.replace(" ##", "").replace(" ", "") == found.samples[0].replace(" ", "")
    assert describe_corpus(corpus, num_samples=0).samples == ()
    assert len(describe_corpus(corpus, num_samples=100).samples) == 10


@pytest.mark.parametrize("num_documents", [1, 4, 400])
def test_the_report_fits_eighty_columns(num_documents: int, tmp_path: Path) -> None:
    folder = tmp_path / ("a-folder-with-a-long-name" * 4)
    folder.mkdir()
    found = describe(folder, (DOCUMENTS * 100)[:num_documents], held_out_rate=0.02)
    *lines, last = format_description(found).splitlines()
    assert last.startswith("prepared in ")  # a path that may be copied is never cut
    assert [line for line in lines if len(line) > 80 or line != line.rstrip()] == []


def test_large_numbers_have_separators_and_stay_aligned(tmp_path: Path) -> None:
    found = describe(tmp_path, DOCUMENTS)
    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    large = Description(**fields | {"documents": 12_345_678, "sentences": 2_345_678_901, "tokens": 98_765_432_109})
    text = format_description(large)
    assert "12,345,678" in text and "98,765,432,109" in text
    ends = [
        line.index(number) + len(number) for line in text.splitlines() for number in ["12,345,678"] if number in line
    ]
    ends += [line.index("98,765,432,109") + 14 for line in text.splitlines() if "98,765,432,109" in line]
    assert len(set(ends)) == 1


def test_a_tokenizer_for_other_text_is_warned_of(tmp_path: Path) -> None:
    tokenizer = prepare(tmp_path, DOCUMENTS).tokenizer_folder
    found = describe(tmp_path, ["Ведро упало. Дом стоит.", *DOCUMENTS[:2]], tokenizer=str(tokenizer))
    assert found.unknown_rate >= 0.05
    (warning,) = [each for each in found.warnings if "unknown" in each]
    assert "leave out --tokenizer" in warning


@pytest.mark.parametrize(("cut", "remedy"), [("line", "blank_line"), ("blank_line", "--documents file")])
def test_documents_of_one_sentence_are_warned_of(cut: str, remedy: str, tmp_path: Path) -> None:
    texts = [text for document in DOCUMENTS for text in document.replace(". ", ".\n").split("\n")]
    found = describe(tmp_path, texts, cut=cut)
    assert found.usable_documents == {"tokens": 10, "pairs": 0, "order": 0}
    (warning,) = found.warnings
    assert "single sentence" in warning and remedy in warning


def test_copies_are_warned_of_from_a_tenth_on(tmp_path: Path) -> None:
    others = [f"Page {number} is {number} pages from the start. Turn it." for number in range(18)]
    few = [text.replace("Turn", f"{text[5:7]}turn") for text in others]
    assert describe(tmp_path, [*few, few[0]]).warnings == ()
    found = describe(tmp_path, [*few, few[0], few[1]])
    assert (found.duplicate_documents, found.duplicate_document_rate) == (2, 0.1)
    assert ["copies" in warning for warning in found.warnings] == [True, True]


def test_a_corpus_of_one_document_says_that_nothing_is_held_out(tmp_path: Path) -> None:
    found = describe(tmp_path, DOCUMENTS[:1], held_out_rate=0.02)
    assert any("nothing is held out" in warning for warning in found.warnings)
    assert "warning: nothing is held out" in format_description(found)


def test_the_description_survives_json(tmp_path: Path) -> None:
    fields = describe(tmp_path, DOCUMENTS).as_dict()
    assert json.loads(json.dumps(fields)) == fields | {"samples": list(fields["samples"]), "warnings": []}


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "0 %"), (1, "100 %"), (0.00001, "< 0.01 %"), (0.0042, "0.42 %"), (0.5, "50.0 %"), (0.99999, "99.9 %")],
)
def test_percentages_never_round_to_nothing_or_everything(rate: float, text: str) -> None:
    assert _percent(rate) == text
