"""Reading Universal Dependencies treebanks (CoNLL-U, https://universaldependencies.org/format.html)."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import conllu
import numpy as np

from corpora.errors import CorpusError, UserError

from .probe import DEV, TEST, TRAIN
from .raw_pool import SHARES, deal
from .words import Span

COLUMNS = 10
DOCUMENT_SENTENCES = 20  # taken for a document where a treebank doesn't mark them

Files = str | Path | Sequence[str | Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A syntactic word."""

    form: str
    upos: str
    features: dict[str, str]
    head: int  # number of its head in the sentence, -1 for the root
    relation: str  # without its subtype
    span: Span  # characters of the sentence's text
    is_shared: bool  # the span belongs to several words: a contraction that isn't their forms one after another


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A sentence of W words, whose heads form a tree."""

    text: str
    words: tuple[Word, ...]
    split: int
    group: int  # its document

    @property
    def root(self) -> int:
        return next(i for i, word in enumerate(self.words) if word.head < 0)

    def children(self, head: int) -> list[int]:
        return [i for i, word in enumerate(self.words) if word.head == head]

    def depth(self) -> int:
        """Return the arcs on the longest path from the root."""
        depths: list[int] = []
        for i in range(len(self.words)):
            steps = 0
            while self.words[i].head >= 0:
                i = self.words[i].head
                steps += 1
            depths.append(steps)
        return max(depths)


def read_treebank(train_files: Files, dev_files: Files = (), test_files: Files = (), *, seed: int = 0) -> list[Tree]:
    """Read a treebank's sentences, plain or gzip.

    Without test files everything is split by document; without development files a fifth of the training documents take
    their place. Raises CorpusError, with file and line, for what is no CoNLL-U.
    """
    lists = {TRAIN: list_paths(train_files), DEV: list_paths(dev_files), TEST: list_paths(test_files)}
    trees: list[Tree] = []
    for split, paths in lists.items():
        for path in paths:
            trees += read_conllu(path, split, first_group=trees[-1].group + 1 if trees else 0)
    if not trees:
        raise UserError("the treebank has no sentence; name CoNLL-U files")
    if not lists[TEST]:
        return assign(trees, range(3), seed)
    if not lists[DEV]:
        training = [tree for tree in trees if tree.split == TRAIN]
        return assign(training, (TRAIN, DEV), seed) + [tree for tree in trees if tree.split == TEST]
    return trees


def list_paths(files: Files) -> list[Path]:
    return [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]


def assign(trees: list[Tree], splits: Sequence[int], seed: int) -> list[Tree]:
    """Deal the documents out to the splits, in the shares of raw text."""
    groups = sorted({tree.group for tree in trees})
    if len(groups) < len(splits):
        raise UserError(
            f"the treebank has {len(groups)} documents, and {len(splits)} are needed to split it; "
            "name files for training, development and test"
        )
    number = {group: i for i, group in enumerate(groups)}
    sizes = np.bincount([number[tree.group] for tree in trees], minlength=len(groups))
    dealt = deal(sizes.tolist(), seed, {split: SHARES[split] for split in splits})
    return [
        Tree(text=tree.text, words=tree.words, split=int(dealt[number[tree.group]]), group=tree.group) for tree in trees
    ]


def read_conllu(path: Path, split: int, first_group: int = 0) -> Iterator[Tree]:
    """Yield the sentences of a file; CorpusError names the line of a wrong column, id or head."""
    group = first_group - 1
    marked = False
    since = 0
    for number, block in read_blocks(path):
        marked |= block.startswith("# newdoc") or "\n# newdoc" in block
        is_opening = "# newdoc" in block if marked else since % DOCUMENT_SENTENCES == 0
        group += is_opening or group < first_group
        since += 1
        yield parse_block(block, number, path, split, group)


def read_blocks(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each sentence's lines and the number of the first, with their columns counted."""
    lines: list[str] = []
    first = 1
    try:
        with gzip.open(path, "rt", encoding="utf-8") if is_gzip(path) else open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                line = line.rstrip("\n").rstrip("\r")
                if not line.strip():
                    if has_words(lines):
                        yield first, "\n".join(lines)
                    lines = []
                    continue
                if not lines:
                    first = number
                columns = line.count("\t") + 1
                if not line.startswith("#") and columns != COLUMNS:
                    raise CorpusError(
                        f"{path}, line {number}: {columns} columns where CoNLL-U has {COLUMNS}, separated by tabs; "
                        "mend the line"
                    )
                lines.append(line)
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 ({error.reason}); convert it first") from error
    if has_words(lines):
        yield first, "\n".join(lines)


def is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def has_words(lines: list[str]) -> bool:
    return any(not line.startswith("#") for line in lines)


def parse_block(block: str, number: int, path: Path, split: int, group: int) -> Tree:
    where = f"{path}, sentence at line {number}"
    try:
        (tokens,) = conllu.parse(block)
    except conllu.exceptions.ParseException as error:
        raise CorpusError(f"{where}: {error}") from error
    plain = [token for token in tokens if isinstance(token["id"], int)]
    if not plain:
        raise CorpusError(f"{where}: no word has a plain number as its id; mend the sentence")
    if [token["id"] for token in plain] != list(range(1, len(plain) + 1)):
        raise CorpusError(f"{where}: its words are not numbered 1 to {len(plain)}; mend the ids")
    heads = [token["head"] for token in plain]
    check_heads(heads, where)
    text, spans, shared = place_words(tokens)
    words = tuple(
        Word(
            form=token["form"],
            upos=token["upos"] or "_",
            features=dict(token["feats"] or {}),
            head=head - 1,
            relation=(token["deprel"] or "_").split(":")[0],
            span=span,
            is_shared=is_shared,
        )
        for token, head, span, is_shared in zip(plain, heads, spans, shared, strict=True)
    )
    return Tree(text=text, words=words, split=split, group=group)


def check_heads(heads: list[int | None], where: str) -> None:
    """Raise CorpusError unless the heads (numbers from 1, 0 for the root) form one tree."""
    for i, head in enumerate(heads, start=1):
        if head is None or not 0 <= head <= len(heads) or head == i:
            raise CorpusError(f"{where}: word {i} has head {'_' if head is None else head}; heads are needed")
    if heads.count(0) != 1:
        raise CorpusError(f"{where}: {heads.count(0)} roots; a tree has 1")
    above = [head or 0 for head in heads]
    for start in range(1, len(above) + 1):
        steps, i = 0, start
        while i:
            i = above[i - 1]
            steps += 1
            if steps > len(above):
                raise CorpusError(f"{where}: word {start} is its own ancestor; a tree has no cycles")


def place_words(tokens: conllu.TokenList) -> tuple[str, list[Span], list[bool]]:
    """Return the text, each word's characters in it, and whether it shares them with other words.

    The text is the one in the comments where the forms are found in it one after another, else the forms joined as
    SpaceAfter says. A multiword token is taken apart where its words' forms make it up ("don't": "do", "n't").
    """
    ranges = {token["id"][0]: token for token in tokens if isinstance(token["id"], tuple) and token["id"][1] == "-"}
    units = []  # what stands in the text: tokens and the ids of their words
    covered = 0
    for token in tokens:
        if not isinstance(token["id"], int) or token["id"] <= covered:
            continue
        unit = ranges.get(token["id"], token)
        covered = unit["id"][2] if unit is not token else token["id"]
        units.append((unit, range(token["id"], covered + 1)))
    text = str(tokens.metadata.get("text") or "")
    starts = find_forms(text, [unit["form"] for unit, _ in units])
    if starts is None:
        text, starts = join_forms([unit for unit, _ in units])
    forms = {token["id"]: token["form"] for token in tokens if isinstance(token["id"], int)}
    spans: list[Span] = []
    shared: list[bool] = []
    for (unit, ids), start in zip(units, starts, strict=True):
        parts = [forms[i] for i in ids]
        whole = (start, start + len(unit["form"]))
        if len(parts) > 1 and "".join(parts).lower() != unit["form"].lower():
            spans += [whole] * len(parts)
            shared += [True] * len(parts)
            continue
        for part in parts:
            spans.append((start, start + len(part)))
            shared.append(False)
            start += len(part)
    return text, spans, shared


def find_forms(text: str, forms: list[str]) -> list[int] | None:
    """Return where each form begins, if the text is these forms with white space between."""
    starts = []
    end = 0
    for form in forms:
        start = text.find(form, end)
        if start < 0 or text[end:start].strip():
            return None
        starts.append(start)
        end = start + len(form)
    return starts if not text[end:].strip() else None


def join_forms(units: list[conllu.Token]) -> tuple[str, list[int]]:
    text = ""
    starts = []
    for unit in units:
        starts.append(len(text))
        spaced = (unit["misc"] or {}).get("SpaceAfter") != "No"
        text += unit["form"] + (" " if spaced else "")
    return text.rstrip(), starts
