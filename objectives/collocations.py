"""Collocations: runs of words that come together more often than their parts, counted once and found again in examples.

Levine et al., 2021, section 3, https://arxiv.org/abs/2010.01825. Dimensions: N tokens, W words, K collocations.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from corpora import Corpus
from corpora.tables import Tables

from .draws import Draws, mix
from .sequences import Sequences, expand_ranges
from .units import Units, cut_words, join_words, opens_stretch

LONGEST = 5  # words
SHARES = {2: 0.5, 3: 0.25, 4: 0.125, 5: 0.125}  # of the list, by the number of words
# A run's example as a range of the store's tokens, its number of words, how often it occurs, and its PMI in nats.
COLLOCATION = np.dtype([(name, np.int64) for name in ("start", "end", "words", "count")] + [("score", np.float64)])
_CHUNK = 1_000_000  # tokens counted at once
_MOST = 8_000_000  # different runs that are counted at once; what is seen least is forgotten where there are more
_BASE = np.uint64(0xD1342543DE82EF95)  # odd, so that it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))
_CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]  # lists of another version are not ours


class WordRuns:
    """The words of a text, and 64-bit keys of their runs: equal for equal tokens, wherever they stand, else hardly."""

    def __init__(self, token_ids: np.ndarray, is_word_start: np.ndarray, opens: np.ndarray) -> None:
        """Take N tokens, where words start, and where a stretch opens that no run leaves, (N,) each."""
        self.firsts = np.flatnonzero(is_word_start | opens)  # (W,) first token of each word
        self.edges = np.append(self.firsts, len(token_ids))
        stretches = np.cumsum(opens)[self.firsts]
        self.lasts = np.searchsorted(stretches, stretches, side="right")  # (W,) first word of the next stretch
        powers = np.cumprod(np.full(len(token_ids), _BASE)) if len(token_ids) else np.zeros(0, np.uint64)
        self._shifts = np.cumprod(np.full(len(token_ids), _INVERSE)) if len(token_ids) else powers
        values = mix(token_ids.astype(np.uint64) * np.uint64(2) + is_word_start + np.uint64(1))
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values * powers)])

    def whole(self, length: int) -> np.ndarray:
        """Return the words at which a run of `length` words begins."""
        words = np.arange(len(self.firsts))
        return words[words + length <= self.lasts]

    def keys(self, words: np.ndarray, length: int) -> np.ndarray:
        """Return the keys (M,) of the runs of `length` words that begin at `words` (M,)."""
        starts, ends = self.edges[words], self.edges[words + length]
        return (self._sums[ends] - self._sums[starts]) * self._shifts[starts]


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Different runs of one length, by ascending key, (M,) each."""

    keys: np.ndarray  # uint64
    counts: np.ndarray
    starts: np.ndarray  # of the first of its occurrences, in the store
    ends: np.ndarray

    def select(self, which: np.ndarray) -> "Counted":
        return Counted(**{name: getattr(self, name)[which] for name in self.__dataclass_fields__})

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """Say of each key whether it is among these."""
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return self.keys[places] == keys if len(self.keys) else np.zeros(len(keys), dtype=bool)


def merge(parts: list[Counted]) -> Counted:
    """Return what several parts of the text have counted, earlier ones first, as one."""
    keys, counts, starts, ends = (
        np.concatenate([getattr(part, name) for part in parts]) for name in Counted.__dataclass_fields__
    )
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    firsts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    counts = np.add.reduceat(counts[order], firsts) if len(firsts) else counts
    return Counted(keys=keys[firsts], counts=counts, starts=starts[order[firsts]], ends=ends[order[firsts]])


def read_words(corpus: Corpus) -> Iterator[tuple[WordRuns, np.ndarray]]:
    """Yield the training text in parts: its words, no run of which leaves a sentence, and their tokens' places (N,).

    Special tokens, such as [UNK], are in no run.
    """
    offsets = np.asarray(corpus.sentence_offsets)
    held_out = np.repeat(np.asarray(corpus.is_held_out), np.diff(np.asarray(corpus.document_offsets)))
    sentences = np.flatnonzero(~held_out)
    lengths = np.diff(offsets)[sentences]
    parts = np.diff((np.cumsum(lengths) - 1) // _CHUNK, prepend=0).nonzero()[0]
    for chosen in np.split(np.arange(len(sentences)), parts):
        places = expand_ranges(offsets[sentences[chosen]], lengths[chosen])
        token_ids = np.asarray(corpus.token_ids[places])
        ordinary = ~np.isin(token_ids, list(corpus.vocabulary.special_ids))
        opens = np.append(True, ~ordinary[:-1])[: len(places)]
        opens[np.cumsum(lengths[chosen]) - lengths[chosen]] = True
        places, token_ids, opens = places[ordinary], token_ids[ordinary], opens[ordinary]
        yield WordRuns(token_ids, corpus.gather_word_starts(places), opens), places


def count_runs(corpus: Corpus, length: int, shorter: Counted | None, min_count: int) -> tuple[Counted, int]:
    """Return the runs of `length` words that occur `min_count` times or more, and the number of all.

    `shorter` are those of a word less: only a run of which both ends are among them can be as frequent. The counts are
    exact as long as there are no more than _MOST different ones; beyond that a count may miss a few occurrences.
    """
    counted, pending, total, floor = [], 0, 0, 0
    for runs, places in read_words(corpus):
        words = runs.whole(length)
        total += len(words)
        if shorter is not None:
            both = (shorter.holds(runs.keys(at, length - 1)) for at in (words, words + 1))
            words = words[np.logical_and(*both)]
        starts, ends = places[runs.firsts[words]], places[runs.edges[words + length] - 1] + 1
        one = np.ones(len(words), dtype=np.int64)
        counted.append(merge([Counted(keys=runs.keys(words, length), counts=one, starts=starts, ends=ends)]))
        pending += len(counted[-1].keys)
        if pending > len(counted[0].keys):  # as much again as is merged: each run is sorted a few times in all
            counted, pending = [merge(counted)], 0
            while len(counted[0].keys) > _MOST:
                floor += 1
                counted = [counted[0].select(counted[0].counts > floor)]
    merged = merge(counted)
    return merged.select(merged.counts >= min_count), total


def read_runs(corpus: Corpus, starts: np.ndarray, ends: np.ndarray) -> tuple[WordRuns, np.ndarray]:
    """Return ranges of the store (M,) as stretches of words, and the first word of each (M,)."""
    places = expand_ranges(starts, ends - starts)
    opens = np.zeros(len(places), dtype=bool)
    begins = np.cumsum(ends - starts) - (ends - starts)
    opens[begins] = True
    runs = WordRuns(np.asarray(corpus.token_ids[places]), corpus.gather_word_starts(places), opens)
    return runs, np.searchsorted(runs.firsts, begins)


def count_collocations(corpus: Corpus, min_count: int) -> np.ndarray:
    """Return the runs of 2 to LONGEST words with a positive PMI, as COLLOCATION (K,), the best of each length first.

    PMI(w1 ... wn) is the least of log p(w1 ... wn) / (p(s1) p(s2) ...) over all ways to cut the run into two parts or
    more (equation 3), with p the share of a run among those of as many words.
    """
    levels: list[Counted] = []
    best: list[np.ndarray] = []  # by length: the largest log probability of a run by any of its segmentations
    found = []
    for length in range(1, LONGEST + 1):
        counted, total = count_runs(corpus, length, levels[-1] if levels else None, min_count)
        whole = np.log(counted.counts / max(total, 1))
        cut = np.full(len(whole), -np.inf)
        if length > 1:
            runs, words = read_runs(corpus, counted.starts, counted.ends)
            for left in range(1, length):
                parts = ((words, left), (words + left, length - left))
                one, other = (
                    best[size - 1][np.searchsorted(levels[size - 1].keys, runs.keys(at, size))] for at, size in parts
                )
                cut = np.maximum(cut, one + other)
            rows = np.zeros(len(whole), dtype=COLLOCATION)
            rows["start"], rows["end"], rows["count"] = counted.starts, counted.ends, counted.counts
            rows["words"], rows["score"] = length, whole - cut
            found.append(rows[np.lexsort((rows["start"], -rows["score"]))])
        levels.append(counted)
        best.append(np.maximum(whole, cut))
    every = np.concatenate(found)
    return every[every["score"] > 0]


def choose_collocations(counted: np.ndarray, size: int) -> np.ndarray:
    """Return the `size` best, by SHARES of their lengths; where one has too few, the others make up for it."""
    ranks = np.arange(len(counted)) - np.searchsorted(counted["words"], counted["words"])
    shares = np.array([SHARES.get(length, np.nan) for length in range(LONGEST + 1)])[counted["words"]]
    return counted[np.argsort((ranks + 1) / shares, kind="stable")[:size]]


@lru_cache(maxsize=4)
def collocation_keys(tables: Tables, size: int, min_count: int) -> np.ndarray:
    """Return the keys (K,) uint64, ascending, of the `size` best collocations of the training text."""
    name = f"collocations-{min_count}-{_CODE}"
    chosen = choose_collocations(tables.keep(name, lambda: count_collocations(tables.corpus, min_count)), size)
    runs, words = read_runs(tables.corpus, chosen["start"], chosen["end"])
    lengths = np.diff(np.append(words, len(runs.firsts)))
    keys = [runs.keys(words[lengths == length], length) for length in range(2, LONGEST + 1)]
    return np.sort(np.concatenate(keys))


def cut_collocations(sequences: Sequences, keys: np.ndarray, longest: int, draws: Draws) -> Units:
    """Return units that are the collocations of at most `longest` words with `keys` (K,), or else words.

    One that is within another is not taken, and of those that overlap the one that chance puts first, then the first of
    those that don't overlap with it, and so on.
    """
    words = cut_words(sequences)
    opens = opens_stretch(sequences)[words.positions]
    runs = WordRuns(sequences.token_ids[words.positions], sequences.is_word_start[words.positions], opens)
    lengths = np.ones(len(runs.firsts), dtype=np.int64)
    for length in range(2, longest + 1):
        at = runs.whole(length)
        found = runs.keys(at, length)
        places = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
        lengths[at[keys[places] == found] if len(keys) else at[:0]] = length
    ends = np.arange(len(lengths)) + lengths
    before = np.append(0, np.maximum.accumulate(ends)[:-1])[: len(ends)]
    starts = np.flatnonzero((lengths > 1) & (ends > before))  # of those that are in no other, ascending as their ends
    heads = words.positions[runs.firsts[starts]]
    order = draws.per_token("collocation", sequences.rows[heads], sequences.places[heads])
    taken = starts[take_apart(starts, ends[starts], order)]
    chosen = np.ones_like(lengths)
    chosen[taken] = lengths[taken]
    return join_words(sequences, words, chosen)


def take_apart(starts: np.ndarray, ends: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Take intervals (M,) by ascending `order` (M,) unless they overlap with one that was taken; say which (M,) bool.

    Starts ascend, and ends do.
    """
    taken, left = np.zeros(len(starts), dtype=bool), np.arange(len(starts))
    while len(left):
        lowest = np.ones(len(left), dtype=bool)
        meeting = []
        for step in range(1, LONGEST):  # starts differ: no more of them can begin within an interval
            meets = np.flatnonzero(starts[left[step:]] < ends[left[:-step]])
            meeting.append((meets, meets + step))
            earlier = order[left[meets]] < order[left[meets + step]]
            lowest[np.where(earlier, meets + step, meets)] = False
        taken[left[lowest]] = True
        gone = lowest.copy()
        for one, other in meeting:
            gone[other[lowest[one]]] = True
            gone[one[lowest[other]]] = True
        left = left[~gone]
    return taken
