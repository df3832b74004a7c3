"""Selection by units: whole words, n-grams, spans and collocations, of any tokenizer."""

from dataclasses import dataclass

import numpy as np

from .draws import Draws, to_uniforms
from .sequences import Sequences


@dataclass(frozen=True, kw_only=True)
class Units:
    """A partition of the N free tokens of a micro-batch: every one is in just one word, and in just one unit.

    Words and units are runs of neighbouring tokens of one piece, so that none spans a special token, a token that
    another objective has taken, or two sentences that were brought together.
    """

    positions: np.ndarray  # (N,) int64, ascending
    words: np.ndarray  # (N,) int64 0, 0, 1, ...: which word a token is in
    units: np.ndarray  # (N,) int64, likewise

    @property
    def firsts(self) -> np.ndarray:  # (N,)
        """The position of the first token of each token's unit."""
        return self.positions[np.searchsorted(self.units, self.units)]


def cut_words(sequences: Sequences) -> Units:
    """Return the words, each a unit."""
    positions = np.flatnonzero(sequences.is_free)
    words = np.cumsum(opens_stretch(sequences, positions) | sequences.is_word_start[positions]) - 1
    return Units(positions=positions, words=words, units=words)


def cut_runs(sequences: Sequences, length_rates: np.ndarray, draws: Draws) -> Units:
    """Return runs of words: of k + 1 words with probability `length_rates[k]`, shorter at the end of a stretch.

    The runs lie end to end, and it is they that are chosen among. SpanBERT's code chooses a start and then a length, by
    which the first words of a text are hidden less often than the others. Here spans hide the last word of 64 about a
    tenth more often: what is cut off at the end is shorter, and fits more often.
    """
    words = cut_words(sequences)
    first = np.searchsorted(words.words, np.arange(words.words[-1] + 1 if len(words.words) else 0))  # (W,) into (N,)
    heads = words.positions[first]
    uniforms = to_uniforms(draws.per_token("run", sequences.rows[heads], sequences.places[heads]))
    lengths = np.searchsorted(np.cumsum(length_rates)[:-1], uniforms, side="right") + 1
    return join_words(sequences, words, lengths)


def join_words(sequences: Sequences, words: Units, lengths: np.ndarray) -> Units:
    """Return units made by reading each stretch from its start: at word w, a unit of `lengths[w]` words (W,) begins."""
    first = np.searchsorted(words.words, np.arange(len(lengths)))
    opens = opens_stretch(sequences, words.positions)[first]
    begins = opens.copy()
    here = np.flatnonzero(opens)  # one word of each stretch at a time
    ends = np.append(here[1:], len(lengths))
    while len(here):
        here = here + lengths[here]
        inside = here < ends
        here, ends = here[inside], ends[inside]
        begins[here] = True
    return Units(positions=words.positions, words=words.words, units=(np.cumsum(begins) - 1)[words.words])


def opens_stretch(sequences: Sequences, positions: np.ndarray) -> np.ndarray:
    """Say of each free token (N,) whether the token before it is not free, or of another piece or example."""
    before = np.maximum(positions - 1, 0)  # position 0 is special
    return ~sequences.is_free[before] | (sequences.pieces[before] != sequences.pieces[positions])


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
    rows, firsts = sequences.rows[units.positions], units.firsts
    words = draws.per_token("choose", rows, sequences.places[firsts])
    parts = {"unit": units.units, "word": units.words, "token": np.arange(len(rows))}[within]
    backwards = (words & np.uint64(1)).astype(bool) & (within != "unit")
    order = np.lexsort((np.where(backwards, -parts, parts), units.units, words >> np.uint64(1), rows))
    is_first = np.diff(parts[order], prepend=-1) != 0
    atoms = np.empty_like(order)
    atoms[order] = np.cumsum(is_first) - 1
    heads = order[is_first]
    taken = _take(rows[heads], units.units[heads], np.bincount(atoms, minlength=len(heads)), counts)
    return taken[atoms]


def _take(rows: np.ndarray, groups: np.ndarray, sizes: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Take atoms (M,) in order while they fit into the room (B,) of their rows; return which were taken (M,).

    Once one of a group does not fit, the rest of that group is passed over, too.
    """
    room, taken, left = room.copy(), np.zeros(len(rows), dtype=bool), np.arange(len(rows))
    opening = np.flatnonzero(np.diff(rows, prepend=-1) != 0)
    room[rows[opening]] = np.where(room[rows[opening]] > 0, np.maximum(room[rows[opening]], sizes[opening]), 0)
    while len(left):
        row, size = rows[left], sizes[left]
        before = np.cumsum(size) - size
        starts = np.searchsorted(row, row)  # the first of its row
        fits = before - before[starts] + size <= room[row]
        taken[left[fits]] = True
        room -= np.bincount(row[fits], size[fits], len(room)).astype(room.dtype)
        left = left[~fits]
        group_opens = np.diff(groups[left], prepend=-1) != 0
        too_long = group_opens & (sizes[left] > room[rows[left]])
        left = left[~np.repeat(too_long[group_opens], np.diff(np.append(np.flatnonzero(group_opens), len(left))))]
    return taken
