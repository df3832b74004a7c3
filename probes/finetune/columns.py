"""Files of a word and its tag a line: CoNLL-U, PAN-X, and the columns of the CoNLL tasks."""

import re
from collections.abc import Iterator
from pathlib import Path

from corpora.errors import CorpusError
from corpora.lines import Notes, read_records

Texts = tuple[tuple[str, ...], ...]

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

_PANX_LANGUAGE = re.compile(r"([a-z]{2,3}(?:-[a-z-]+)?):.")


def number_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file, plain or compressed, from 1. CorpusError where it is no UTF-8."""
    notes = Notes()
    yield from enumerate(read_records(path, "strict", notes), start=1)
    notes.report()


def read_columns(path: Path, column: str) -> tuple[Texts, Texts, tuple[str, ...]]:
    """Return the words and tags of each sentence, and "file:line" of its first word; see `read_tokens`."""
    tabs = starts = True  # starts: the next word is a sentence's first
    width = place_of_word = place_of_tag = 0
    words: list[list[str]] = []
    tags: list[list[str]] = []
    places: list[str] = []
    for number, line in number_lines(path):
        where = f"{path}:{number}"
        line = line.removesuffix("\r")
        if not line.strip(" \t"):
            starts = True
            continue
        is_comment = tabs and starts and line.startswith("#") and "\t" not in line
        if is_comment or line.startswith("-DOCSTART-"):
            continue
        tabs = "\t" in line if not width else tabs
        cells = line.split("\t") if tabs else re.split(" +", line.strip(" "))
        if not width:
            width = len(cells)
            place_of_word, place_of_tag = _find_places(cells, column, where)
        if len(cells) != width:
            raise CorpusError(
                f"{where}: {len(cells)} columns where the first line has {width}; "
                "each line is a word with its tag, and a blank line ends a sentence"
            )
        if width == len(CONLLU) and not cells[0].isdigit():
            if re.fullmatch(r"\d+[-.]\d+", cells[0]):  # a contracted form, or an empty node: no word of the tree
                continue
            raise CorpusError(f"{where}: {cells[0]!r} is no number of a CoNLL-U word")
        word, tag = cells[place_of_word], cells[place_of_tag].strip()
        if not word or not tag:
            raise CorpusError(f"{where}: the {'tag' if word else 'word'} is empty")
        if starts:
            words.append([])
            tags.append([])
            places.append(where)
        starts = False
        words[-1].append(word)
        tags[-1].append(tag)
    if not words:
        raise CorpusError(f"{path} holds no sentences; a word and its tag a line are wanted")
    return _strip_language(tuple(map(tuple, words))), tuple(map(tuple, tags)), tuple(places)


def _find_places(cells: list[str], column: str, where: str) -> tuple[int, int]:
    """Return which column holds the word and which the tag, from 0."""
    is_conllu = len(cells) == len(CONLLU)
    counts = len(cells) > 2 and cells[0].isdigit()
    word = 1 if is_conllu or counts else 0
    if is_conllu and (not column or column.lower() in CONLLU):
        return word, CONLLU.index(column.lower() or "upos")
    if not column:
        tag = len(cells) - 1
    elif column.isdigit() and 1 <= int(column) <= len(cells):
        tag = int(column) - 1
    else:
        known = f", or one of {', '.join(CONLLU)}" if is_conllu else ""
        raise CorpusError(f"{where}: --column {column} is not there; give a number, 1 to {len(cells)}{known}")
    if tag == word:
        raise CorpusError(f"{where}: column {tag + 1} holds the words; a column of tags is wanted")
    return word, tag


def _strip_language(sentences: Texts) -> Texts:
    """Take the "it:" from every word, as WikiANN's own files have it, where all words begin with the same one."""
    match = _PANX_LANGUAGE.match(sentences[0][0])
    if not match:
        return sentences
    start = match[1] + ":"
    if not all(word.startswith(start) and len(word) > len(start) for words in sentences for word in words):
        return sentences
    return tuple(tuple(word.removeprefix(start) for word in words) for words in sentences)
