"""Sentences and blocks of sentences in other orders, vectorised over the examples of a micro-batch."""

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from corpora.passages import UNITS, Passages

from .base import Objective
from .draws import Draws, mix, to_integers
from .sequences import Pieces, Selection, expand_ranges

_TRIES = 64


@dataclass(frozen=True, kw_only=True)
class OrderObjective(Objective):
    """An objective on the order of a passage's sentences, a first one whose length tells its place left out.

    `within=paragraph` cuts passages from single paragraphs, as DiscoEval does (Chen et al., 2019, section 3.3,
    https://arxiv.org/abs/1909.00142): the sentence that opens one is known by its words, while in passages that go on
    into the next paragraph, such a sentence stands last about as often, and words alone tell little.
    """

    within: str = "document"

    def __post_init__(self) -> None:
        if self.within not in UNITS:
            raise ValueError(f"within is '{self.within}'; it must be {' or '.join(UNITS)}")

    @property
    def unit(self) -> str:
        return self.within

    @property
    @abstractmethod
    def least(self) -> int:
        """How many sentences there must be."""

    @property
    def needs(self) -> str:
        unit = "" if self.within == "document" else " of one paragraph"
        return f"passages{unit} of {self.least} sentences or more, beside a first that does not open a {self.within}"

    def can_carry(self, passages: Passages) -> np.ndarray:
        return passages.num_fair >= self.least


@dataclass(frozen=True, kw_only=True)
class WholePassageObjective(OrderObjective):
    """An objective on the order of all of them, however many they are."""

    min_sentences: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_sentences < 2:
            raise ValueError(f"min_sentences is {self.min_sentences}; at least 2 are needed for an order to change")

    @property
    def least(self) -> int:
        return self.min_sentences


def places_within(rows: np.ndarray) -> np.ndarray:
    """Return the place of each piece (N,) in its row, 0, 1, ...; `rows` never decreases."""
    return np.arange(len(rows)) - np.searchsorted(rows, rows)


def fair_sentences_of(selection: Selection) -> Pieces:
    """Return each passage sentence by sentence, in order, without a first one whose length says that it is the first.

    See `Passages.fair_firsts`.
    """
    passages = selection.passages
    rows = np.repeat(np.arange(len(passages)), passages.num_fair)
    sentences = expand_ranges(passages.fair_firsts, passages.num_fair)
    offsets = np.asarray(selection.corpus.sentence_offsets)
    return Pieces(starts=offsets[sentences], ends=offsets[sentences + 1], rows=rows, segments=np.zeros_like(rows))


def reorder(pieces: Pieces, order: np.ndarray) -> Pieces:
    """Return the pieces in `order` (N,), which keeps each in its row."""
    return replace(pieces, starts=pieces.starts[order], ends=pieces.ends[order])


def merge(pieces: Pieces, begins: np.ndarray) -> Pieces:
    """Return blocks of pieces that stand side by side in the text: one from each piece where `begins` (N,) is true."""
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(begins))[: len(first)] - 1
    return Pieces(
        starts=pieces.starts[first], ends=pieces.ends[last], rows=pieces.rows[first], segments=pieces.segments[first]
    )


def cut_into(pieces: Pieces, num_blocks: int, draws: Draws) -> Pieces:
    """Return `num_blocks` blocks of each row's pieces, cut at places drawn uniformly; a row has as many pieces."""
    places = places_within(pieces.rows)
    words = draws.per_token("blocks", pieces.rows, places)
    words = np.where(places == 0, np.uint64(0), words | np.uint64(1))  # the first piece always begins a block
    order = np.lexsort((words, pieces.rows))
    begins = np.zeros(len(places), dtype=bool)
    begins[order[places < num_blocks]] = True
    return merge(pieces, begins)


def permute_within(rows: np.ndarray, is_shuffled: np.ndarray, draws: Draws) -> np.ndarray:
    """Return an order (N,) of the pieces that permutes those of each shuffled row.

    It is uniform among the permutations but the identity.
    """
    identity = np.arange(len(rows))
    counts = np.bincount(rows, minlength=len(is_shuffled))
    places = identity - np.repeat(np.cumsum(counts) - counts, counts)
    order = identity
    pending = is_shuffled & (counts >= 2)
    for attempt in range(_TRIES):  # a draw is the identity with probability 1 / n!, so that few attempts are ever made
        if not pending.any():
            break
        words = draws.per_token(f"permute{attempt}", rows, places)
        drawn = np.lexsort((words, rows))
        order = np.where(pending[rows], drawn, order)
        moved = np.bincount(rows[order != identity], minlength=len(is_shuffled)) > 0
        pending = pending & ~moved
    return order


def swap_neighbours(rows: np.ndarray, is_shuffled: np.ndarray, draws: Draws) -> np.ndarray:
    """Return an order (N,) in which two neighbours of each shuffled row, drawn uniformly, have changed places."""
    counts = np.bincount(rows, minlength=len(is_shuffled))
    chosen = np.flatnonzero(is_shuffled & (counts >= 2))
    steps = to_integers(draws.per_example("swap")[chosen, 0], counts[chosen] - 1)
    earlier = np.searchsorted(rows, chosen) + steps
    order = np.arange(len(rows))
    order[earlier], order[earlier + 1] = earlier + 1, earlier
    return order


def move_some(rows: np.ndarray, is_shuffled: np.ndarray, num_moved: int, draws: Draws) -> np.ndarray:
    """Return an order (N,) in which `num_moved` pieces of each shuffled row, drawn uniformly, went round in a ring."""
    places = places_within(rows)
    drawn = np.lexsort((draws.per_token("move", rows, places), rows))
    taken = drawn[is_shuffled[rows] & (places < num_moved)]  # of each row those that the words put first
    ring = places_within(rows[taken])
    following = np.roll(taken, -1)
    last = np.flatnonzero(np.diff(rows[taken], append=-1) != 0)
    following[last] = taken[last - ring[last]]
    order = np.arange(len(rows))
    order[taken] = following
    return order


def text_keys(selection: Selection, pieces: Pieces) -> np.ndarray:
    """Return a word (N,) for each piece that is the same for pieces of the same tokens, and hardly for others."""
    lengths = pieces.ends - pieces.starts
    places = expand_ranges(np.zeros_like(lengths), lengths).astype(np.uint64)
    tokens = selection.corpus.token_ids[expand_ranges(pieces.starts, lengths)].astype(np.uint64)
    words = mix((tokens + np.uint64(1)) ^ (places << np.uint64(32)))
    return mix(np.add.reduceat(words, np.cumsum(lengths) - lengths))


def reads_differently(selection: Selection, before: Pieces, after: Pieces) -> np.ndarray:
    """Say for each example whether its text changed (B,), which equal sentences can prevent."""
    changed = np.zeros(len(selection.indices), dtype=bool)
    tokens = selection.corpus.token_ids
    moved = np.flatnonzero(before.starts != after.starts)
    for row in np.unique(before.rows[moved]):
        pieces = np.flatnonzero(before.rows == row)
        old, new = (
            np.concatenate([tokens[start:end] for start, end in zip(p.starts[pieces], p.ends[pieces], strict=True)])
            for p in (before, after)
        )
        changed[row] = not np.array_equal(old, new)
    return changed
