"""Labelled text as it comes: every format, and what is said of a file that isn't one."""

import gzip
import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from corpora.errors import CorpusError
from probes.finetune.data import choose_share, read_sequences, read_tokens

CONLLU = """\
# sent_id = 1
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\tV\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\tP\t_\t1\tobj\t_\t_
3\tmar\tmar\tNOUN\tN\t_\t1\tobl\t_\t_
3.1\tva\tir\tVERB\tV\t_\t_\t_\t_\t_

# sent_id = 2
1-2\tdel\t_\t_\t_\t_\t_\t_\t_\t_
1\tde\tde\tADP\tE\t_\t2\tcase\t_\t_
2\t#\t#\tSYM\tS\t_\t0\troot\t_\t_
"""


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_conllu_gives_the_words_of_the_tree(tmp_path):
    data = read_tokens(write(tmp_path, "a.conllu", CONLLU))
    assert data.words == (("vamos", "nos", "mar"), ("de", "#"))
    assert data.tags == (("VERB", "PRON", "NOUN"), ("ADP", "SYM"))
    assert [place.rpartition(":")[2] for place in data.places] == ["4", "11"]
    assert read_tokens(write(tmp_path, "a.conllu", CONLLU), column="deprel").tags[0] == ("root", "obj", "obl")


def test_panx_is_number_word_tag(tmp_path):
    path = tmp_path / "panx.conllu.gz"
    path.write_bytes(gzip.compress(b"0\tR.H.\tB-ORG\n1\tSaunders\tI-ORG\n2\t(\tO\n\n0\t#\tO\n"))
    data = read_tokens(str(path))
    assert data.words == (("R.H.", "Saunders", "("), ("#",))
    assert data.tags == (("B-ORG", "I-ORG", "O"), ("O",))


def test_wikianns_own_files_lose_the_language_of_each_word(tmp_path):
    data = read_tokens(write(tmp_path, "train", "it:Roma\tB-LOC\nit::\tO\n\nit:it:a\tO\n"))
    assert data.words == (("Roma", ":"), ("it:a",))
    mixed = read_tokens(write(tmp_path, "train", "it:Roma\tB-LOC\nRoma\tO\n"))
    assert mixed.words == (("it:Roma", "Roma"),)


def test_conll_with_spaces_keeps_a_word_that_is_a_number_sign(tmp_path):
    text = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\n# NN I-NP O\n\n# NN B-NP O\n"
    data = read_tokens(write(tmp_path, "eng.train", text))
    assert data.words == (("EU", "#"), ("#",)) and data.tags == (("B-ORG", "O"), ("O",))
    assert read_tokens(write(tmp_path, "eng.train", text), column="2").tags[0] == ("NNP", "NN")


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("a\tO\nb\tO\n\nc O\n", "", "a.txt:4: 1 columns where the first line has 2"),
        ("a\tO\n\n\tO\n", "", "a.txt:3: the word is empty"),
        ("a\tO\n", "7", "a.txt:1: --column 7 is not there; give a number, 1 to 2"),
        ("a\tO\n", "1", "a.txt:1: column 1 holds the words"),
        ("x\tw\tw\tNOUN\tN\t_\t0\troot\t_\t_\n", "", "a.txt:1: 'x' is no number of a CoNLL-U word"),
        ("\n\n", "", "holds no sentences"),
    ],
)
def test_what_is_wrong_with_a_column_file_is_said_by_line(tmp_path, text, column, said):
    with pytest.raises(CorpusError) as error:
        read_tokens(write(tmp_path, "a.txt", text), column=column)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_records_have_lists_of_words_and_tags(tmp_path):
    rows = [{"tokens": ["a", "b"], "ner_tags": ["O", "B-X"]}, {"tokens": [], "ner_tags": []}]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_tokens(path).tags == (("O", "B-X"),)
    path = write(tmp_path, "b.jsonl", json.dumps({"tokens": ["a", "b"], "ner_tags": ["O"]}))
    with pytest.raises(CorpusError, match="b.jsonl:1: 2 words and 1 tags"):
        read_tokens(path)
    path = write(tmp_path, "c.jsonl", json.dumps({"tokens": ["a"], "chunks": ["O"]}))
    with pytest.raises(CorpusError, match="set --column to one of: tokens, chunks"):
        read_tokens(path)


@pytest.fixture
def dataset(tmp_path):
    """A folder that `datasets` loads, with the names of its classes, as PAN-X on the hub has them."""
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
    rows = {"tokens": [["Ada", "Lovelace"], ["in", "Rome"]], "ner_tags": [[1, 2], [0, 3]]}
    folder = tmp_path / "panx"
    folder.mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(folder / "validation.parquet")
    return folder


def test_a_dataset_by_name_has_its_names_in_its_order(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = read_tokens(f"{dataset}::validation")
    assert data.names == ("O", "B-PER", "I-PER", "B-LOC")
    assert data.tags == (("B-PER", "I-PER"), ("O", "B-LOC"))


def test_a_share_is_what_datasets_would_select():
    """The published recipe: shuffle(seed=0), then the first int(.084 n) (Tunstall et al., 2022, chapter 4)."""
    shuffled = Dataset.from_dict({"n": list(range(500))}).shuffle(seed=0).select(range(int(0.084 * 500)))
    assert choose_share(500, 0.084, 0).tolist() == shuffled["n"][:]
    assert [len(choose_share(count, 0.084, 0)) for count in (20_000, 10_000)] == [1680, 840]
    assert np.array_equal(choose_share(5, 1.0, 0), np.arange(5))


def test_tables_keep_quotation_marks_where_there_is_no_quoting(tmp_path):
    data = read_sequences(write(tmp_path, "a.tsv", 'sentence\tlabel\n"Stop\t1\nA "b" c\t0\n'))
    assert data.first == ('"Stop', 'A "b" c') and data.labels == ("1", "0") and data.second == ()
    data = read_sequences(write(tmp_path, "a.csv", 'text,label\n"one, two",yes\n'))
    assert data.first == ("one, two",) and data.labels == ("yes",)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("sentence1\tsentence2\tlabel", ("a", "b", "c")),
        ("premise\thypothesis\tlabel", ("a", "b", "c")),
        ("question\tsentence\tlabel", ("a", "b", "c")),
        ("question1\tquestion2\tlabel", ("a", "b", "c")),
    ],
)
def test_pairs_are_found_by_the_names_of_glue(tmp_path, header, found):
    data = read_sequences(write(tmp_path, "a.tsv", f"{header}\na\tb\tc\n"))
    assert (data.first[0], data.second[0], data.labels[0]) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sentence\tlabel\na\t1\nb\n", "a.tsv:3: 1 columns where the header has 2"),
        ("sentence\tlabel\na\t\n", "a.tsv:2: column 'label' is empty"),
        ("words\tlabel\na\t1\n", "set --text_column to one of: words, label"),
        ("", "holds no rows"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_by_line(tmp_path, text, said):
    with pytest.raises(CorpusError) as error:
        read_sequences(write(tmp_path, "a.tsv", text))
    assert said in str(error.value)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(CorpusError, match="there is no file './no.conllu'"):
        read_tokens("./no.conllu")
