"""What probes are drawn from: documents as sentences and words, split by document, and the items that come of it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from corpora.errors import UserError
from corpora.sentences import RuleSegmenter

from .probe import DEV, TEST, TRAIN, WHOLE_TEXT, Probe
from .words import Span, cut_words, find_words

Document = list[str]  # its paragraphs
Place = tuple[str, int, int]  # a text, and characters [start, end) of it

SHARES = {TRAIN: 0.6, DEV: 0.15, TEST: 0.25}  # of the documents' sentences, and of a probe's items
FEWEST = {TRAIN: 200, DEV: 50, TEST: 100}  # with fewer items a probe is refused
SPLIT_NAMES = {TRAIN: "training", DEV: "development", TEST: "test"}
FEWEST_DOCUMENTS = 30  # a text of fewer is cut into stretches of paragraphs that count as documents


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence, and where it stands."""

    text: str
    document: int
    paragraph: int  # in its document
    number: int  # in its paragraph
    is_new: bool  # no sentence before it has this text, whatever the case
    words: tuple[Span, ...]  # characters [start, end) of each word

    def word(self, index: int) -> str:
        start, end = self.words[index]
        return self.text[start:end]


@dataclass(kw_only=True)
class Pool:
    """D documents, each a list of paragraphs, each a list of sentences; `order` is the one that all probes draw in."""

    documents: list[list[list[Sentence]]]
    split: np.ndarray  # (D,) int8
    counts: Mapping[str, int]  # of words in lower case
    seed: int
    order: list[Sentence] = field(init=False)  # those that are new, shuffled

    def __post_init__(self) -> None:
        found = [s for document in self.documents for paragraph in document for s in paragraph if s.is_new]
        self.order = [found[i] for i in self.draw("order").permutation(len(found))]

    def draw(self, purpose: str) -> np.random.Generator:
        """Return the random numbers of one purpose, the same whichever other probes are built."""
        return np.random.default_rng([self.seed, crc32(purpose.encode())])

    def split_of(self, sentence: Sentence) -> int:
        return int(self.split[sentence.document])

    def sentences(self, fewest: int = 5, most: int = 28) -> Iterator[Sentence]:
        """Yield the new sentences of so many words (SentEval's 5 to 28), in the common order."""
        return (sentence for sentence in self.order if fewest <= len(sentence.words) <= most)

    def part_of(self, word: str) -> int:
        """Return the split that a word type belongs to, in probes whose types are disjoint; by the word alone."""
        place = crc32(f"{self.seed} {word}".encode()) / 2**32
        return TRAIN if place < 0.45 else DEV if place < 0.65 else TEST


def build_pool(
    documents: Iterable[Document], *, seed: int, language: str = "en", counts: Mapping[str, int] | None = None
) -> Pool:
    """Split documents into sentences and words, and deal the documents out to training, development and test.

    Raises UserError where there are fewer than three stretches of text to deal out.
    """
    segmenter = RuleSegmenter(language)
    seen: set[str] = set()
    own_counts: Counter[str] = Counter()
    pool: list[list[list[Sentence]]] = []
    for document in cut_long(list(documents)):
        paragraphs: list[list[Sentence]] = []
        for text in document:
            sentences: list[Sentence] = []
            for start, end in segmenter.split(text):
                sentence = text[start:end]
                key = " ".join(sentence.casefold().split())
                words = tuple(find_words(sentence))
                sentences.append(
                    Sentence(
                        text=sentence,
                        document=len(pool),
                        paragraph=len(paragraphs),
                        number=len(sentences),
                        is_new=key not in seen,
                        words=words,
                    )
                )
                seen.add(key)
                if counts is None:
                    own_counts.update(sentence[first:last].lower() for first, last in words)
            if sentences:
                paragraphs.append(sentences)
        if paragraphs:
            pool.append(paragraphs)
    if len(pool) < 3:
        raise UserError(f"the text has {len(pool)} documents with words; probes need 3 to keep training and test apart")
    sizes = [sum(map(len, document)) for document in pool]
    return Pool(documents=pool, split=deal(sizes, seed), counts=counts if counts is not None else own_counts, seed=seed)


def cut_long(documents: list[Document]) -> list[Document]:
    """Cut the documents of a text that has few, so that each split, and a bootstrap over documents, gets enough."""
    if len(documents) >= FEWEST_DOCUMENTS:
        return documents
    limit = max(sum(len(paragraph) for document in documents for paragraph in document) // (2 * FEWEST_DOCUMENTS), 1)
    pieces: list[Document] = []
    for document in documents:
        piece: Document = []
        size = 0
        for paragraph in document:
            piece.append(paragraph)
            size += len(paragraph)
            if size >= limit:
                pieces.append(piece)
                piece, size = [], 0
        if piece:
            pieces.append(piece)
    return pieces


def deal(sizes: Sequence[int], seed: int, shares: Mapping[int, float] = SHARES) -> np.ndarray:
    """Return a split for each document, int8 (D,): in random order, each to the split that lacks most of its share."""
    split = np.zeros(len(sizes), np.int8)
    filled = dict.fromkeys(shares, 0.0)
    for document in np.random.default_rng([seed, crc32(b"deal")]).permutation(len(sizes)):
        wanting = min(shares, key=lambda name: filled[name] / shares[name])
        split[document] = wanting
        filled[wanting] += sizes[document]
    return split


def count_words(documents: Iterable[Document]) -> Counter[str]:
    """Return how often each word, in lower case, occurs."""
    counts: Counter[str] = Counter()
    for document in documents:
        for paragraph in document:
            counts.update(cut_words(paragraph.lower()))
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question: places, and the answer."""

    places: tuple[Place, ...]
    label: int
    split: int
    group: int
    subsets: tuple[str, ...] = ()  # those that it belongs to


def whole(text: str) -> Place:
    return (text, WHOLE_TEXT, WHOLE_TEXT)


def quota(size: int, split: int) -> int:
    """Return how many of `size` items a split gets."""
    return round(size * SHARES[split])


def balance(items: Iterable[Item], size: int, num_classes: int, stratum: Any = None) -> list[Item]:
    """Return at most `size` items, in their order, with as many of each class in each split.

    `stratum` maps an item's place in the list to a stratum: each has then as many of every class, too.
    """
    cells: dict[tuple[int, Any], list[list[int]]] = defaultdict(lambda: [[] for _ in range(num_classes)])
    every = list(items)
    for i, item in enumerate(every):
        cells[item.split, None if stratum is None else stratum[i]][item.label].append(i)
    kept: list[int] = []
    for split in SHARES:
        rows = []  # each has one item of every class
        for (where, _), classes in cells.items():
            if where == split:
                rows += list(zip(*classes, strict=False))
        rows.sort(key=max)
        for row in rows[: quota(size, split) // num_classes]:
            kept += row
    return [every[i] for i in sorted(kept)]


def check_counts(name: str, found: Mapping[int, int]) -> None:
    """Raise UserError where a split has too few items."""
    if any(found.get(split, 0) < least for split, least in FEWEST.items()):
        counts = ", ".join(f"{found.get(split, 0):,} {SPLIT_NAMES[split]}" for split in FEWEST)
        needed = ", ".join(str(least) for least in FEWEST.values())
        raise UserError(f"probe {name}: the text gives {counts} items, and {needed} are needed; give more text")


def make_probe(
    items: Sequence[Item], *, name: str, seed: int, subset_names: Sequence[str] = (), **fields: Any
) -> Probe:
    """Put items together, shuffled; UserError where a split has too few or training lacks a class."""
    check_counts(name, Counter(item.split for item in items))
    items = [items[i] for i in np.random.default_rng([seed, crc32(name.encode())]).permutation(len(items))]
    index: dict[str, int] = {}
    places = [[(index.setdefault(text, len(index)), start, end) for text, start, end in i.places] for i in items]
    return Probe(
        name=name,
        texts=tuple(index),
        places=np.array(places, dtype=np.int64),
        labels=np.array([item.label for item in items], dtype=np.int64),
        split=np.array([item.split for item in items], dtype=np.int8),
        groups=np.array([item.group for item in items], dtype=np.int64),
        subsets={subset: np.array([subset in item.subsets for item in items]) for subset in subset_names},
        **fields,
    )
