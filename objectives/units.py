"""Selection by units: whole words, n-grams, spans and collocations, of any tokenizer."""

from dataclasses import dataclass

import numpy as np

from .draws import Draws, to_uniforms
from .loops import compiled_loops
from .sequences import Sequences, expand_ranges


@dataclass(frozen=True, kw_only=True)
class Units:
    """A partition of the N free tokens of a micro-batch: every one is in just one word, and in just one unit.

    Words and units are runs of neighbouring tokens of one piece, so that none spans a special token, a token that
    another objective has taken, or two sentences that were brought together.
    """

    positions: np.ndarray  # (N,) int64, ascending
    word_starts: np.ndarray  # (W,) int64, ascending: which of the N tokens begin a word
    unit_starts: np.ndarray  # (U,) int64, likewise

    @property
    def words(self) -> np.ndarray:  # (N,) 0, 0, 1, ...: which word a token is in
        return np.repeat(np.arange(len(self.word_starts)), self.lengths_of(self.word_starts))

    @property
    def units(self) -> np.ndarray:  # (N,)
        return np.repeat(np.arange(len(self.unit_starts)), self.lengths_of(self.unit_starts))

    @property
    def firsts(self) -> np.ndarray:  # (N,)
        """The position of the first token of each token's unit."""
        return np.repeat(self.positions[self.unit_starts], self.lengths_of(self.unit_starts))

    def lengths_of(self, starts: np.ndarray) -> np.ndarray:
        """Return the number of tokens from each start (M,) to the next."""
        return np.diff(starts, append=len(self.positions))


def cut_words(sequences: Sequences) -> Units:
    """Return the words, each a unit."""
    if (loops := compiled_loops()) is not None:
        positions, starts = loops.cut_words(sequences.is_free, sequences.pieces, sequences.is_word_start)
        return Units(positions=positions, word_starts=starts, unit_starts=starts)
    positions = np.flatnonzero(sequences.is_free)
    starts = np.flatnonzero((opens_stretch(sequences) | sequences.is_word_start)[positions])
    return Units(positions=positions, word_starts=starts, unit_starts=starts)


def cut_runs(sequences: Sequences, length_rates: np.ndarray, draws: Draws) -> Units:
    """Return runs of words: of k + 1 words with probability `length_rates[k]`, shorter at the end of a stretch.

    The runs lie end to end, and it is they that are chosen among. SpanBERT's code chooses a start and then a length, by
    which the first words of a text are hidden less often than the others. Here spans hide the last word of 64 about a
    tenth more often: what is cut off at the end is shorter, and fits more often.
    """
    words = cut_words(sequences)
    heads = words.positions[words.word_starts]
    uniforms = to_uniforms(draws.per_place("run", sequences.offsets)[heads])
    lengths = np.searchsorted(np.cumsum(length_rates)[:-1], uniforms, side="right") + 1
    return join_words(sequences, words, lengths)


def join_words(sequences: Sequences, words: Units, lengths: np.ndarray) -> Units:
    """Return units made by reading each stretch from its start: at word w, a unit of `lengths[w]` words (W,) begins."""
    opens = opens_stretch(sequences)[words.positions[words.word_starts]]
    begins = opens.copy()
    here = np.flatnonzero(opens)  # one word of each stretch at a time
    ends = np.append(here[1:], len(lengths))
    while len(here):
        here = here + lengths[here]
        inside = here < ends
        here, ends = here[inside], ends[inside]
        begins[here] = True
    return Units(positions=words.positions, word_starts=words.word_starts, unit_starts=words.word_starts[begins])


def opens_stretch(sequences: Sequences) -> np.ndarray:
    """Say of each token (T,), if it is free, whether the one before it is not, or of another piece or example."""
    opens = np.ones(len(sequences.is_free), dtype=bool)
    opens[1:] = ~sequences.is_free[:-1] | (sequences.pieces[1:] != sequences.pieces[:-1])
    return opens


def ngram_rates(longest: int) -> np.ndarray:
    """Return p(n) proportional to 1/n for n of 1 to `longest` (Lan et al., 2020, section 4.2)."""
    rates = 1 / np.arange(1, longest + 1)
    return rates / rates.sum()


def span_rates(stop_rate: float, longest: int) -> np.ndarray:
    """Return the geometric distribution cut off after `longest` and scaled to 1 (Joshi et al., 2020, section 3.1)."""
    rates = (1 - stop_rate) ** np.arange(longest)
    return rates / rates.sum()


def choose_units(sequences: Sequences, units: Units, counts: np.ndarray, draws: Draws, within: str) -> np.ndarray:
    """Choose units at random until `counts` (B,) tokens of each example are selected; return which of the N are (N,).

    A unit that is too long is `within` left out ("unit") or cut at a word or a token ("word", "token"), from a side
    chosen at random; then shorter ones still have their chance, so that at most a few tokens are missing (with "token"
    none). The first unit that is drawn is taken however long it is, at one word at least.
    """
    loops = compiled_loops()
    if loops is not None and within == "unit":
        key, counts = draws.key("choose"), counts.astype(np.int64)
        return loops.choose_whole(key, draws.examples, sequences.offsets, units.positions, units.unit_starts, counts)
    parts = {"unit": units.unit_starts, "word": units.word_starts, "token": np.arange(len(units.positions))}[within]
    heads = units.positions[units.unit_starts]
    rows, words = sequences.rows[heads], draws.per_place("choose", sequences.offsets)[heads]
    order = groups = _order_within(rows, words, sequences.num_examples)
    if within != "unit":  # a unit's parts from its first or from its last
        firsts = np.searchsorted(parts, units.unit_starts)
        numbers = np.diff(firsts, append=len(parts))
        backwards = (words & np.uint64(1)).astype(bool)
        begins, steps = np.where(backwards, firsts + numbers - 1, firsts), np.where(backwards, -1, 1)
        groups = np.repeat(order, numbers[order])
        order = begins[groups] + steps[groups] * expand_ranges(np.zeros_like(order), numbers[order])
    sizes = units.lengths_of(parts)
    taken = np.zeros(len(parts), dtype=bool)
    taken[order] = _take(rows[groups], groups, sizes[order], counts)
    return np.repeat(taken, sizes)


def _order_within(rows: np.ndarray, words: np.ndarray, num_rows: int) -> np.ndarray:
    """Return the order (U,) of words by their row, which ascends, and then by size."""
    counts = np.bincount(rows, minlength=num_rows)
    inside = np.arange(counts.max(initial=0)) < counts[:, None]
    padded = np.full(inside.shape, np.uint64(2**64 - 1))
    padded[inside] = words
    return (np.argsort(padded, axis=1) + (np.cumsum(counts) - counts)[:, None])[inside]


def _take(rows: np.ndarray, groups: np.ndarray, sizes: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Take atoms (M,) in order while they fit into the room (B,) of their rows; return which were taken (M,).

    Once one of a group does not fit, the rest of that group is passed over, too.
    """
    taken, left = np.zeros(len(rows), dtype=bool), np.arange(len(rows))
    opening = np.flatnonzero(np.append(True, rows[1:] != rows[:-1])[: len(rows)])
    room = room.copy()
    room[rows[opening]] = np.where(room[rows[opening]] > 0, np.maximum(room[rows[opening]], sizes[opening]), 0)
    while len(left):
        per_row = np.bincount(rows, sizes, len(room)).astype(np.int64)
        fits = np.cumsum(sizes) <= (room + np.cumsum(per_row) - per_row)[rows]
        taken[left[fits]] = True
        room -= np.bincount(rows[fits], sizes[fits], len(room)).astype(room.dtype)
        kept = ~fits & (room > 0)[rows]
        left, rows, groups, sizes = left[kept], rows[kept], groups[kept], sizes[kept]
        opens = np.append(True, groups[1:] != groups[:-1])[: len(groups)]
        too_long = (sizes > room[rows])[opens]
        kept = ~np.repeat(too_long, np.diff(np.flatnonzero(opens), append=len(left)))
        left, rows, groups, sizes = left[kept], rows[kept], groups[kept], sizes[kept]
    return taken
