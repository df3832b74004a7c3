"""Pairs of texts: a passage cut in two, second texts from elsewhere, and sentences of one paragraph or of two.

All texts are runs of the store's tokens, one for each of B examples.
"""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from corpora import Corpus
from corpora.passages import SHORTEST, Passages

from .base import HeadSetting, Objective, TextStatistics
from .draws import Draws, happens, to_integers
from .heads import Head, SequenceHead
from .heads_pairs import SegmentPairHead, check_pooling
from .sequences import Pieces, Selection, expand_ranges

TRIES = 8  # draws of a text from elsewhere, of which the first is taken that begins with a sentence that fits


@dataclass(frozen=True, kw_only=True)
class PairObjective(Objective):
    """Name how two texts are related: the classes of its one target, asked once for each example.

    By default the first text is one side of a cut in a passage's fair part; see `draw_cuts`. `pooling=segments` asks
    the mean vectors of both texts instead of [CLS]; see `SegmentPairHead`.
    """

    num_segments: ClassVar[int] = 2
    labels: ClassVar[dict[str, tuple[str, ...]]]

    pooling: str = "cls"

    def __post_init__(self) -> None:
        check_pooling(self.pooling)

    @property
    def needs(self) -> str:
        return "passages of three sentences or more, or of two that open a document, from at least two documents"

    def can_carry(self, passages: Passages) -> np.ndarray:
        return has_two_documents(passages, passages.num_fair >= 2)

    def build_head(self, setting: HeadSetting) -> Head:
        ((name, classes),) = self.labels.items()
        head = SequenceHead if self.pooling == "cls" else SegmentPairHead
        return head(setting.config, name, len(classes))

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        ((_, classes),) = self.labels.items()
        return {f"ln {len(classes)}": log(len(classes))}


@dataclass(frozen=True, kw_only=True)
class Texts:
    """One run of tokens for each example, (B,) each."""

    starts: np.ndarray
    ends: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts


def between(corpus: Corpus, firsts: np.ndarray, lasts: np.ndarray) -> Texts:
    """Return the texts of the sentences from `firsts` up to before `lasts`."""
    offsets = np.asarray(corpus.sentence_offsets)
    return Texts(starts=offsets[firsts], ends=offsets[lasts])


def choose(condition: np.ndarray, yes: Texts, no: Texts) -> Texts:
    """Return `yes` where the condition (B,) holds, else `no`."""
    return Texts(starts=np.where(condition, yes.starts, no.starts), ends=np.where(condition, yes.ends, no.ends))


def pair_up(first: Texts, second: Texts) -> Pieces:
    """Return each first text as segment 0 and each second one as segment 1."""
    rows = np.arange(len(first.starts))
    return Pieces(
        starts=np.stack([first.starts, second.starts], 1).ravel(),
        ends=np.stack([first.ends, second.ends], 1).ravel(),
        rows=np.repeat(rows, 2),
        segments=np.tile([0, 1], len(rows)),
    )


def draw_in_turn(draws: Draws, purpose: str, num_classes: int) -> np.ndarray:
    """Return a class for each example (B,) int64, exactly balanced: of examples Ci ... Ci + C - 1 each has another."""
    turns, places = np.divmod(draws.examples, num_classes)
    words = Draws(seed=draws.seed, examples=turns, scope=draws.scope).per_example(purpose, num_classes)
    return words.argsort(axis=1, kind="stable")[np.arange(len(turns)), places]


def draw_cuts(passages: Passages, draws: Draws) -> np.ndarray:
    """Return a sentence (B,) for each passage's fair part to be cut before, so that each side has one at least."""
    return passages.fair_firsts + 1 + to_integers(draws.per_example("cut")[:, 0], passages.num_fair - 1)


def room_beside(selection: Selection, places: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return how many tokens the fair part of the passages at `places` of the pool may have beside `lengths` of it."""
    pool, offsets = selection.pool, np.asarray(selection.corpus.sentence_offsets)
    return selection.max_tokens - (offsets[pool.fair_firsts[places]] - pool.starts[places]) - lengths


def draw_others(selection: Selection, draws: Draws) -> np.ndarray:
    """Return passages of other documents as places in the pool (B, TRIES), uniformly."""
    own_first, own_count = _own_document(selection)
    others = to_integers(draws.per_example("other", TRIES), len(selection.pool) - own_count)
    return others + own_count * (others >= own_first)


def draw_siblings(selection: Selection, draws: Draws) -> np.ndarray:
    """Return other passages of the same documents as places in the pool (B, TRIES), uniformly."""
    own_first, own_count = _own_document(selection)
    siblings = own_first + to_integers(draws.per_example("sibling", TRIES), own_count - 1)
    return siblings + (siblings >= selection.indices[:, None])


def _own_document(selection: Selection) -> tuple[np.ndarray, np.ndarray]:
    """Return where in the pool the passages of each example's document begin, and their number, (B, 1) each."""
    pool = selection.pool
    documents = pool.documents[selection.indices]
    first = np.searchsorted(pool.documents, documents, side="left")[:, None]
    return first, np.searchsorted(pool.documents, documents, side="right")[:, None] - first


def draw_cuts_of(pool: Passages, places: np.ndarray, draws: Draws, purpose: str = "other_cut") -> np.ndarray:
    """Return where the passages at `places` (B, TRIES) would be cut, as by `draw_cuts`."""
    return pool.fair_firsts[places] + 1 + to_integers(draws.per_example(purpose, TRIES), pool.num_fair[places] - 1)


def take_fitting(corpus: Corpus, sentences: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Return which column of `sentences` (B, TRIES) is the first of a sentence that fits into `room` (B,), else 0."""
    offsets = np.asarray(corpus.sentence_offsets)
    return (offsets[sentences + 1] - offsets[sentences] <= room[:, None]).argmax(axis=1)


def fill_from(corpus: Corpus, sentences: np.ndarray, lasts: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Return how many whole sentences (B,), from `sentences` up to before `lasts`, fit into `room`; 1 at least."""
    offsets = np.asarray(corpus.sentence_offsets)
    fitting = np.searchsorted(offsets, offsets[sentences] + room, side="right") - 1
    return np.maximum(np.minimum(fitting, lasts) - sentences, 1)


def take_sentences(corpus: Corpus, sentences: np.ndarray, counts: np.ndarray, room: np.ndarray) -> Texts:
    """Return the texts of `counts` sentences, cut short where a single one doesn't fit into `room` (B,)."""
    texts = between(corpus, sentences, sentences + counts)
    return Texts(starts=texts.starts, ends=np.minimum(texts.ends, texts.starts + room))


def fill_elsewhere(selection: Selection, others: np.ndarray, cuts: np.ndarray, room: np.ndarray) -> Texts:
    """Return texts that begin at the first of the `cuts` of `others` (B, TRIES) that fits, and fill `room` (B,)."""
    corpus, rows, chosen = selection.corpus, np.arange(len(room)), take_fitting(selection.corpus, cuts, room)
    cut, document = cuts[rows, chosen], selection.pool.documents[others[rows, chosen]]
    lasts = np.asarray(corpus.document_offsets)[document + 1]
    return take_sentences(corpus, cut, fill_from(corpus, cut, lasts, room), room)


def cut_beside(selection: Selection, others: list[np.ndarray], draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Return the examples' own passages and the `others` (B, TRIES) in a stack, and where each would be cut.

    Of these tries the first should be taken in which each second text could stand in the others' place: passages that
    change their second texts in all directions have equal lengths of them.
    """
    own = np.repeat(selection.indices[:, None], TRIES, axis=1)
    places = np.stack([own, *others])
    cuts = [draw_cuts_of(selection.pool, each, draws, f"cut{i}") for i, each in enumerate(places)]
    return places, np.stack(cuts)


def measure_rest(selection: Selection, places: np.ndarray, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the length of the sentence after each cut, and how many tokens there are for it and what follows."""
    offsets = np.asarray(selection.corpus.sentence_offsets)
    before = offsets[cuts] - offsets[selection.pool.fair_firsts[places]]
    return offsets[cuts + 1] - offsets[cuts], room_beside(selection, places, before)


def draw_leads(draws: Draws) -> np.ndarray:
    """Return a fair coin for each example (B,)."""
    return happens(draws.per_example("lead")[:, 0], 0.5)


def has_two_documents(passages: Passages, enough: np.ndarray) -> np.ndarray:
    """Return `enough` (P,), or False for all where it leaves passages of one document only."""
    return enough & (len(np.unique(passages.documents[enough])) >= 2)


def draw_two_paragraphs(selection: Selection, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Return two different sentences of a paragraph (B, 2), and two of another of the passage, or of it again (B, 2).

    Paragraphs are drawn uniformly from those of which a passage holds two sentences or more of SHORTEST tokens, and
    sentences uniformly from theirs: all four come from the same distribution.
    """
    corpus, passages = selection.corpus, selection.passages
    offsets, counts = np.asarray(corpus.sentence_offsets), passages.num_sentences
    sentences = expand_ranges(passages.first_sentences, counts)
    rows = np.repeat(np.arange(len(passages)), counts)
    paragraphs = np.cumsum(np.asarray(corpus.paragraph_starts)[sentences] | (np.diff(rows, prepend=-1) != 0))
    is_long = offsets[sentences + 1] - offsets[sentences] >= SHORTEST
    sentences, rows, paragraphs = sentences[is_long], rows[is_long], paragraphs[is_long]

    firsts = np.flatnonzero(np.diff(paragraphs, prepend=-1) != 0)  # of each paragraph's sentences
    sizes = np.diff(np.append(firsts, len(paragraphs)))
    firsts, sizes = firsts[sizes >= 2], sizes[sizes >= 2]
    owners = rows[firsts]
    begins = np.searchsorted(owners, np.arange(len(passages)))
    words = draws.per_token("paragraph", owners, np.arange(len(owners)) - begins[owners])
    order = np.lexsort((words, owners))
    has_second = np.bincount(owners, minlength=len(passages)) >= 2

    def draw_two(paragraph: np.ndarray, purpose: str) -> np.ndarray:
        size, words = sizes[paragraph], draws.per_example(purpose, 2)
        one, other = to_integers(words[:, 0], size), to_integers(words[:, 1], size - 1)
        return sentences[firsts[paragraph][:, None] + np.stack([one, other + (other >= one)], 1)]

    return draw_two(order[begins], "sentences"), draw_two(order[begins + has_second], "other_sentences")
