"""Examples as flat arrays: arranged pieces of text, then framed sequences, for a whole micro-batch at once.

Dimensions, here and everywhere: B examples or rows, L positions of a row, T tokens of a micro-batch, P passages, N
targets, D hidden, V vocabulary, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from corpora import Corpus, Vocabulary
from corpora.passages import Passages
from corpora.tables import Tables

from .batch import MAIN
from .loops import compiled_loops


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an objective may know besides the text of its examples."""

    vocabulary: Vocabulary
    tables: Tables  # what can be counted over the training text
    progress: np.ndarray  # (B,) how far the run is at each example, from 0 to 1; 1 in evaluations


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The passages that B examples start from, and all that they were selected from.

    The latter are for a second text from elsewhere.
    """

    corpus: Corpus
    pool: Passages  # every passage that the objective can use, in the order of the corpus
    indices: np.ndarray  # (B,) places in the pool
    max_tokens: int  # room for the text of one example, its special tokens not counted
    context: Context

    @property
    def passages(self) -> Passages:
        return self.pool.select(self.indices)


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """N runs of the store's tokens in the order in which they will be read; `rows` never decreases."""

    starts: np.ndarray  # (N,) first token in the store
    ends: np.ndarray  # (N,)
    rows: np.ndarray  # (N,) which example
    segments: np.ndarray  # (N,) 0 or 1, never decreasing within an example


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """What an objective made of its passages, and what it asks.

    Questions are target name -> values: of an example as a whole, asked at its [CLS], or of a piece, asked at its first
    token, where -1 means that a piece is not asked. `views` are other texts that the objective reads beside the main
    one, for the same examples.
    """

    pieces: Pieces
    targets: dict[str, np.ndarray] = field(default_factory=dict)  # (B,)
    piece_targets: dict[str, np.ndarray] = field(default_factory=dict)  # (N,)
    views: dict[str, Pieces] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Target:
    """N questions with a known answer: which token to ask at, and the answer.

    The name that it goes by says what 1 means.
    """

    positions: np.ndarray  # (N,) int64, ascending, into the T tokens of its view
    values: np.ndarray  # (N,) int64, or float32 where a number is asked for
    pointers: dict[str, np.ndarray] = field(default_factory=dict)  # other positions (N,) int64 in the view, -1: none
    extras: dict[str, np.ndarray] = field(default_factory=dict)  # plain numbers (N, ...)
    view: str = MAIN  # or the name of one of the objective's own


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """N tokens of the main text for which a generator is asked to propose replacements.

    `uniforms` are all the chance that it may use: one for each token, or K for K proposals, of which the first fills
    in. A learning generator is trained to name the original ids of all of them, or of those that it `learns`.
    """

    positions: np.ndarray  # (N,) int64, ascending
    original_ids: np.ndarray  # (N,) int64
    uniforms: np.ndarray  # (N,) or (N, K) float32 in [0, 1)
    fills: np.ndarray | None = None  # (N,) bool: whether the proposal is put into the text; None: all are
    excludes_original: bool = False  # the token that was there can't be drawn
    learns: np.ndarray | None = None  # (N,) bool: whether a generator is trained to name it; None: all are


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the tokens of B framed examples stand, one example after another, and what holds whatever the tokens are.

    It is shared by all sequences that differ in their ids alone. What few objectives ask for is made when it is.
    """

    offsets: np.ndarray  # (B + 1,) int64
    is_special: np.ndarray  # (T,) bool, [CLS] and [SEP]
    make_segments: Callable[[], np.ndarray]
    make_word_starts: Callable[[], np.ndarray]
    make_pieces: Callable[[], np.ndarray]

    @cached_property
    def lengths(self) -> np.ndarray:  # (B,)
        return np.diff(self.offsets)

    @cached_property
    def rows(self) -> np.ndarray:  # (T,)
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @cached_property
    def places(self) -> np.ndarray:  # (T,) within the example
        return np.arange(len(self.is_special)) - np.repeat(self.offsets[:-1], self.lengths)

    @cached_property
    def is_inside(self) -> np.ndarray:  # (B, L) bool: padded rows, as long as the longest, and where they hold tokens
        return np.arange(self.lengths.max()) < self.lengths[:, None]

    @cached_property
    def segments(self) -> np.ndarray:  # (T,)
        return self.make_segments()

    @cached_property
    def is_word_start(self) -> np.ndarray:  # (T,)
        return self.make_word_starts()

    @cached_property
    def pieces(self) -> np.ndarray:  # (T,)
        return self.make_pieces()


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """B framed examples, one after another. Arrays are (T,) but for `offsets`; none is ever changed in place."""

    token_ids: np.ndarray  # int64
    original_ids: np.ndarray  # int64, as they were framed, whatever was done since; -1: a token that was inserted
    is_free: np.ndarray  # bool: ordinary tokens that no objective has taken yet
    layout: Layout

    @property
    def num_examples(self) -> int:
        return len(self.layout.offsets) - 1

    @property
    def offsets(self) -> np.ndarray:  # (B + 1,) int64
        return self.layout.offsets

    @property
    def lengths(self) -> np.ndarray:  # (B,)
        return self.layout.lengths

    @property
    def rows(self) -> np.ndarray:
        return self.layout.rows

    @property
    def places(self) -> np.ndarray:  # within the example
        return self.layout.places

    @property
    def is_special(self) -> np.ndarray:  # bool, [CLS] and [SEP]
        return self.layout.is_special

    @property
    def segments(self) -> np.ndarray:  # int64, the token type
        return self.layout.segments

    @property
    def is_word_start(self) -> np.ndarray:  # bool
        return self.layout.is_word_start

    @property
    def pieces(self) -> np.ndarray:  # int64, which piece of its example it belongs to, 0, 1, ...; -1 at special tokens
        return self.layout.pieces

    def with_tokens(self, positions: np.ndarray, token_ids: np.ndarray) -> "Sequences":
        """Return a copy with other ids at `positions`, which then are no longer free."""
        changed, free = self.token_ids.copy(), self.is_free.copy()
        changed[positions] = token_ids
        free[positions] = False
        return replace(self, token_ids=changed, is_free=free)

    def restored(self) -> "Sequences":
        """Return the text as it was framed, before anything was done to it.

        Only where nothing was inserted.
        """
        if (self.original_ids < 0).any():
            raise ValueError("tokens were inserted into this text; an objective that needs the plain one must go first")
        return replace(self, token_ids=self.original_ids, is_free=~self.is_special)

    def rearranged(self, source: np.ndarray, lengths: np.ndarray) -> "Sequences":
        """Return examples of other `lengths` (B,) made of these tokens: `source` (T',) says which stands where.

        -1 makes an empty place, for a token to be inserted: it has the id 0 until `with_tokens` gives it another, its
        original id stays -1, and it counts as ordinary, not free, in the segment and piece of the token before it.
        """
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        empty = source < 0
        last = np.maximum.accumulate(np.where(empty, 0, np.arange(len(source))))  # an example starts with its [CLS]
        nearest = source[last]
        layout = Layout(
            offsets=offsets,
            is_special=self.is_special[nearest] & ~empty,
            make_segments=lambda: self.segments[nearest],
            make_word_starts=lambda: self.is_word_start[nearest] & ~empty,
            make_pieces=lambda: self.pieces[nearest],
        )
        return Sequences(
            token_ids=np.where(empty, 0, self.token_ids[nearest]),
            original_ids=np.where(empty, -1, self.original_ids[nearest]),
            is_free=self.is_free[nearest] & ~empty,
            layout=layout,
        )


@dataclass(frozen=True, kw_only=True)
class TextView:
    """A text of an objective's own, beside the main one."""

    sequences: Sequences
    attention: str = "full"  # or "causal", or "reverse": see objectives.batch.View


def in_order(selection: Selection) -> Pieces:
    """Return each passage as it stands in the text: one piece, one segment."""
    pool, indices = selection.pool, selection.indices
    rows = np.arange(len(indices))
    return Pieces(starts=pool.starts[indices], ends=pool.ends[indices], rows=rows, segments=np.zeros_like(rows))


def sentences_of(selection: Selection) -> Pieces:
    """Return each passage sentence by sentence, in order, one segment."""
    passages = selection.passages
    counts = passages.num_sentences
    rows = np.repeat(np.arange(len(passages)), counts)
    sentences = expand_ranges(passages.first_sentences, counts)
    offsets = np.asarray(selection.corpus.sentence_offsets)
    return Pieces(starts=offsets[sentences], ends=offsets[sentences + 1], rows=rows, segments=np.zeros_like(rows))


def expand_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return starts[0], starts[0] + 1, ... (lengths[0] of them), then the same for starts[1], and so on."""
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def frame(corpus: Corpus, pieces: Pieces, num_examples: int, vocabulary: Vocabulary) -> Sequences:
    """Read the pieces and put special tokens around them: [CLS] A [SEP], or [CLS] A [SEP] B [SEP].

    RoBERTa: two separators between A and B.
    """
    loops = compiled_loops()
    build = _frame_by_arrays if loops is None else loops.frame
    offsets, token_ids, is_special, source = build(
        corpus.token_ids,
        pieces.starts,
        pieces.ends,
        pieces.rows,
        pieces.segments,
        num_examples,
        vocabulary.cls_id,
        vocabulary.sep_id,
        vocabulary.num_separators,
    )

    def spread(values: np.ndarray, at_special: int) -> np.ndarray:
        spread = np.full(len(token_ids), at_special, dtype=np.int64)
        spread[~is_special] = np.repeat(values, pieces.ends - pieces.starts)
        return spread

    def make_segments() -> np.ndarray:
        if not pieces.segments.any():
            return np.zeros(len(token_ids), dtype=np.int64)
        segments = spread(pieces.segments, 0)
        segments[offsets[1:] - 1] = np.bincount(pieces.rows, pieces.segments, num_examples) > 0
        return segments

    def number_pieces() -> np.ndarray:  # within their example
        return spread(np.arange(len(pieces.rows)) - np.searchsorted(pieces.rows, pieces.rows), -1)

    def find_word_starts() -> np.ndarray:
        return corpus.gather_word_starts(source) & ~is_special

    layout = Layout(
        offsets=offsets,
        is_special=is_special,
        make_segments=make_segments,
        make_word_starts=find_word_starts,
        make_pieces=number_pieces,
    )
    return Sequences(token_ids=token_ids, original_ids=token_ids, is_free=~is_special, layout=layout)


def _frame_by_arrays(
    tokens: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    segments: np.ndarray,
    num_examples: int,
    cls_id: int,
    sep_id: int,
    num_separators: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what `compiled.frame` does."""
    lengths = ends - starts
    room = np.bincount(rows, lengths, num_examples).astype(np.int64)
    is_second = segments == 1
    has_second = np.zeros(num_examples, dtype=np.int64)
    has_second[rows[is_second]] = 1
    offsets = np.zeros(num_examples + 1, dtype=np.int64)
    np.cumsum(room + 2 + has_second * num_separators, out=offsets[1:])

    before = np.cumsum(lengths) - lengths  # tokens of the pieces before, then of those before in the same example
    before -= (np.cumsum(room) - room)[rows]
    firsts = offsets[rows] + 1 + segments * num_separators + before  # where each piece comes to stand
    total = int(offsets[-1])
    reach = np.diff(firsts, append=total)  # up to the next piece; the special tokens between them are put in below
    reach[:1] += firsts[:1]

    pairs = np.flatnonzero(has_second)
    between = offsets[pairs] + 1 + np.bincount(rows, lengths * ~is_second, num_examples).astype(np.int64)[pairs]
    separators = [between + number for number in range(num_separators)]
    special = np.concatenate([offsets[:-1], offsets[1:] - 1, *separators])
    source = np.arange(total) + np.repeat(starts - firsts, reach)
    source[special] = 0
    token_ids = tokens[source].astype(np.int64)
    token_ids[special] = sep_id
    token_ids[offsets[:-1]] = cls_id
    is_special = np.zeros(total, dtype=bool)
    is_special[special] = True
    return offsets, token_ids, is_special, source
