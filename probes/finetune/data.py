"""Labelled text from files and `datasets` names: words with a tag each, or texts with one label.

    read_tokens(location, column=..., words_column=...) -> TokenData
    read_sequences(location, text=..., second=..., label=...) -> SequenceData

Files are plain, gzip or zstd, UTF-8. What is wrong with one is told by file and line (CorpusError).
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from corpora import hub
from corpora.errors import CorpusError

from .columns import number_lines, read_columns

WORDS = ("tokens", "words")  # where records keep their words, unless told
TAGS = ("ner_tags", "tags", "labels", "pos_tags", "upos")
TEXTS = ("sentence", "sentence1", "text", "premise", "question1", "question")
SECONDS = ("sentence2", "hypothesis", "question2", "text_pair")
LABELS = ("label", "labels", "score", "gold_label")

_TABLES = {".tsv": "\t", ".csv": ","}
_COMPRESSED = (".gz", ".zst", ".zstd")


@dataclass(frozen=True, kw_only=True)
class TokenData:
    """Sentences of words, a tag for each. `names` are the labels in their order, where the data say so."""

    words: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[str, ...], ...]
    places: tuple[str, ...]  # "file:line" of each sentence's first word, for messages
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.words)

    def select(self, chosen: np.ndarray) -> Self:
        """Return the sentences of these numbers, in that order."""
        parts = {name: _pick(getattr(self, name), chosen) for name in ("words", "tags", "places")}
        return type(self)(**parts, names=self.names)


@dataclass(frozen=True, kw_only=True)
class SequenceData:
    """Texts, or pairs of texts, with a label each. `names` are the labels in their order, where the data say so."""

    first: tuple[str, ...]
    second: tuple[str, ...]  # empty where there are no pairs
    labels: tuple[str, ...]
    places: tuple[str, ...]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.first)

    def select(self, chosen: np.ndarray) -> Self:
        """Return the texts of these numbers, in that order."""
        parts = {name: _pick(getattr(self, name), chosen) for name in ("first", "second", "labels", "places")}
        return type(self)(**parts, names=self.names)


def _pick(values: Sequence[Any], chosen: np.ndarray) -> tuple[Any, ...]:
    return tuple(values[number] for number in chosen) if values else ()


def choose_share(count: int, rate: float, seed: int) -> np.ndarray:
    """Return the first int(rate * count) of a shuffle: what `Dataset.shuffle(seed).select(range(...))` keeps.

    At rate 1 all stay, in their order.
    """
    if rate >= 1:
        return np.arange(count)
    return np.random.default_rng(seed).permutation(count)[: int(rate * count)]


def read_tokens(location: str, *, column: str = "", words_column: str = "") -> TokenData:
    """Read CoNLL-U, PAN-X, any CoNLL column file, JSON lines, or a dataset by name ("name:config:split").

    Column files: a word a line, columns parted by tabs, or by spaces where the first line has no tab; a blank line ends
    a sentence. `column` is a name of CoNLL-U's columns ("upos", unless told), a number from 1 (the last, unless told),
    or in records the name of the list of tags. The word is the second column where the first counts (CoNLL-U, PAN-X),
    otherwise the first.
    """
    kind, path = _find_kind(location)
    if kind == "dataset":
        return _read_dataset_tokens(location, column, words_column)
    if kind == "jsonl":
        return _read_json_tokens(path, column, words_column)
    words, tags, places = read_columns(path, column)
    return TokenData(words=words, tags=tags, places=places)


def read_sequences(location: str, *, text: str = "", second: str = "", label: str = "") -> SequenceData:
    """Read a table with a header line (TSV, CSV), JSON lines, or a dataset by name ("name:config:split").

    `text`, `second` and `label` name columns; unless told, the common names are looked for (`sentence`, `sentence2`,
    `label`, ...). TSV is read without quoting, as GLUE's files are written.
    """
    kind, path = _find_kind(location)
    names: tuple[str, ...] = ()
    if kind == "dataset":
        dataset = hub.load(location)
        columns = list(dataset.column_names)
        wanted = _find_columns(columns, text, second, label, location)
        names = tuple(getattr(dataset.features[wanted[2]], "names", None) or ())
        rows: Iterator[tuple[str, dict[str, Any]]] = (
            (f"{location}, row {number}", row) for number, row in enumerate(dataset, start=1)
        )
    elif kind == "jsonl":
        rows = _read_json(path)
        (place, row), rows = _peek(rows, path)
        wanted = _find_columns(list(row), text, second, label, path)
    else:
        rows = _read_table(path, _TABLES.get(_suffix(path), "\t"))
        (place, row), rows = _peek(rows, path)
        wanted = _find_columns(list(row), text, second, label, path)
    return _gather_sequences(rows, wanted, names, location)


def _gather_sequences(
    rows: Iterator[tuple[str, dict[str, Any]]], wanted: tuple[str, str, str], names: tuple[str, ...], location: str
) -> SequenceData:
    firsts: list[str] = []
    seconds: list[str] = []
    labels: list[str] = []
    places: list[str] = []
    for place, row in rows:
        for name, kept in zip(wanted, (firsts, seconds, labels), strict=True):
            if not name:
                continue
            value = row.get(name)
            if value is None or value == "" or (name == wanted[2] and names and value == -1):
                raise CorpusError(f"{place}: column {name!r} is empty; every row needs one")
            kept.append(names[value] if kept is labels and names else str(value))
        places.append(place)
    if not places:
        raise CorpusError(f"{location} holds no texts")
    return SequenceData(
        first=tuple(firsts), second=tuple(seconds), labels=tuple(labels), places=tuple(places), names=names
    )


def _find_columns(columns: list[str], text: str, second: str, label: str, where: Path | str) -> tuple[str, str, str]:
    """Return the columns of text, second text ("" without) and label."""
    asked = {"--text_column": text, "--second_column": second, "--column": label}
    for option, name in asked.items():
        if name and name not in columns:
            raise CorpusError(f"{where} has no column {name!r}; set {option} to one of: {', '.join(columns[:12])}")
    first = text or next((name for name in TEXTS if name in columns), "")
    answer = label or next((name for name in LABELS if name in columns), "")
    for option, name in (("--text_column", first), ("--column", answer)):
        if not name:
            raise CorpusError(f"{where}: which column? set {option} to one of: {', '.join(columns[:12])}")
    if not second and not text:
        second = next((name for name in SECONDS if name in columns), "")
        if first == "question" and not second and "sentence" in columns:
            second = "sentence"
        if first == "sentence" and "question" in columns:  # QNLI
            first, second = "question", "sentence"
    return first, second, answer


def _find_kind(location: str) -> tuple[str, Path]:
    path = Path(location).expanduser()
    if path.is_file():
        return ("jsonl" if _suffix(path) in (".jsonl", ".json", ".ndjson") else "columns"), path
    if hub.may_be_dataset(location) or path.is_dir():
        return "dataset", path
    raise CorpusError(f"there is no file {location!r}; give a file, or a dataset as NAME, NAME:CONFIG or NAME::SPLIT")


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSED]
    return suffixes[-1] if suffixes else ""


def _read_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in number_lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{path}:{number}: not JSON; one object a line is wanted") from error
        if not isinstance(record, dict):
            raise CorpusError(f"{path}:{number}: {type(record).__name__} where an object is wanted")
        yield f"{path}:{number}", record


def _read_table(path: Path, separator: str) -> Iterator[tuple[str, dict[str, Any]]]:
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    lines = (line.rstrip("\r") for _, line in number_lines(path))
    reader = csv.reader(lines, delimiter=separator, quoting=quoting, strict=True)  # type: ignore[arg-type]  # an int
    header: list[str] = []
    try:
        for cells in reader:
            if not any(cells):
                continue
            if not header:
                header = cells
                continue
            if len(cells) != len(header):
                raise CorpusError(f"{path}:{reader.line_num}: {len(cells)} columns where the header has {len(header)}")
            yield f"{path}:{reader.line_num}", dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise CorpusError(f"{path}:{reader.line_num}: {error}") from error


def _peek(rows: Iterator[tuple[str, dict[str, Any]]], path: Path) -> tuple[tuple[str, dict[str, Any]], Iterator[Any]]:
    """Return the first row, and all rows again."""
    first = next(rows, None)
    if first is None:
        raise CorpusError(f"{path} holds no rows")

    def again() -> Iterator[tuple[str, dict[str, Any]]]:
        yield first
        yield from rows

    return first, again()


def _read_json_tokens(path: Path, column: str, words_column: str) -> TokenData:
    (_, row), rows = _peek(_read_json(path), path)
    words, tags = _find_lists(list(row), column, words_column, path)
    return _gather_tokens(rows, words, tags, (), str(path))


def _read_dataset_tokens(location: str, column: str, words_column: str) -> TokenData:
    dataset = hub.load(location)
    words, tags = _find_lists(list(dataset.column_names), column, words_column, location)
    feature = getattr(dataset.features[tags], "feature", None)
    names = tuple(getattr(feature, "names", None) or ())
    rows = ((f"{location}, row {number}", row) for number, row in enumerate(dataset, start=1))
    return _gather_tokens(rows, words, tags, names, location)


def _find_lists(columns: list[str], column: str, words_column: str, where: Path | str) -> tuple[str, str]:
    found = []
    for option, asked, usual in (("--words_column", words_column, WORDS), ("--column", column, TAGS)):
        name = asked or next((name for name in usual if name in columns), "")
        if name not in columns:
            what = f"has no column {name!r}" if name else "has no column of a known name"
            raise CorpusError(f"{where} {what}; set {option} to one of: {', '.join(columns[:12])}")
        found.append(name)
    return found[0], found[1]


def _gather_tokens(
    rows: Iterator[tuple[str, dict[str, Any]]], words: str, tags: str, names: tuple[str, ...], location: str
) -> TokenData:
    all_words, all_tags, places = [], [], []
    for place, row in rows:
        one, other = row.get(words), row.get(tags)
        if not isinstance(one, list) or not isinstance(other, list):
            raise CorpusError(f"{place}: {words!r} and {tags!r} must be lists, a tag for each word")
        if len(one) != len(other):
            raise CorpusError(f"{place}: {len(one)} words and {len(other)} tags; each word needs one")
        if not one:
            continue
        all_words.append(tuple(str(word) for word in one))
        all_tags.append(tuple(names[tag] if names else str(tag) for tag in other))
        places.append(place)
    if not places:
        raise CorpusError(f"{location} holds no sentences")
    return TokenData(words=tuple(all_words), tags=tuple(all_tags), places=tuple(places), names=names)
