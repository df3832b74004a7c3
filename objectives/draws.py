"""Counter-based random draws.

Each is a pure function of (seed, purpose, example, slot), whatever the batch it is made in.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

GOLDEN = np.uint64(
    0x9E3779B97F4A7C15
)  # SplitMix64 (Steele et al., 2014): the increment and the two multipliers of its finaliser
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)


def mix(words: np.ndarray) -> np.ndarray:
    """Scramble uint64 words one to one (SplitMix64's finaliser)."""
    words = words ^ (words >> np.uint64(30))
    words *= FIRST
    words ^= words >> np.uint64(27)
    words *= SECOND
    words ^= words >> np.uint64(31)
    return words


@lru_cache(maxsize=4096, typed=True)
def hash_fields(*fields: int | str) -> int:
    """Return 64 bits that depend on every field separately: (1, 0) and (0, 1) differ, unlike their sums."""
    text = "\x1f".join(f"{type(field).__name__}:{field}" for field in fields)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def to_uniforms(words: np.ndarray) -> np.ndarray:
    """Turn words into float32 numbers in [0, 1), multiples of 2**-24."""
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def to_integers(words: np.ndarray, bounds: np.ndarray | int) -> np.ndarray:
    """Turn words into int64 numbers in [0, bound), for bounds below 2**32.

    This is multiply and shift; the bias is below bound / 2**32.
    """
    return (((words >> np.uint64(32)) * np.asarray(bounds, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)


def happens(words: np.ndarray, rate: float) -> np.ndarray:
    """Say for each word whether an event of probability `rate` happens.

    It is decided by an integer threshold, so that 0 is never and 1 is always.
    """
    return (words >> np.uint64(32)) < np.uint64(threshold(rate))


def threshold(rate: float) -> int:
    """Return what the upper 32 bits of a word are below with probability `rate`."""
    return round(rate * 2**32)


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The draws of some examples, known by their places in the run's endless stream of examples.

    `purpose` keeps streams apart: a new use of chance takes a new purpose, and shifts no other.
    """

    seed: int
    examples: np.ndarray  # (B,) int64, places in the stream
    scope: str = ""

    def within(self, scope: str) -> "Draws":
        """Return the same examples' draws under a name of their own, so that two objectives never share a stream."""
        return Draws(seed=self.seed, examples=self.examples, scope=f"{self.scope}/{scope}")

    def per_example(self, purpose: str, slots: int = 1) -> np.ndarray:
        """Return words (B, slots)."""
        return self._words(self._states(purpose, self.examples)[:, None], np.arange(slots)[None, :])

    def per_token(self, purpose: str, rows: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """Return a word for each (row of this batch, slot within the example), both (T,)."""
        return self._words(self._states(purpose, self.examples)[rows], slots)

    def per_place(self, purpose: str, offsets: np.ndarray) -> np.ndarray:
        """Return a word (T,) for every token of the batch, that of `per_token`; example b is offsets[b] to [b + 1]."""
        # state + (place + 1) x golden, with the token's place in its example as its place among the T less the offset.
        states = self._states(purpose, self.examples) - offsets[:-1].astype(np.uint64) * GOLDEN
        multiples = np.arange(1, offsets[-1] + 1, dtype=np.uint64) * GOLDEN
        return mix(np.repeat(states, np.diff(offsets)) + multiples)

    def halves(self, purpose: str) -> np.ndarray:
        """Return fair bits (B,) that are exactly balanced: of examples 2i and 2i + 1 one is true and one is false."""
        bits = self._states(purpose, self.examples >> 1) >> np.uint64(63)
        return (bits.astype(np.int64) ^ (self.examples & 1)).astype(bool)

    def key(self, purpose: str) -> np.uint64:
        """Return what a purpose's words hang on besides the example and the slot."""
        return np.uint64(hash_fields(self.seed, f"{self.scope}/{purpose}"))

    def _states(self, purpose: str, counters: np.ndarray) -> np.ndarray:
        return mix(self.key(purpose) + (counters.astype(np.uint64) + np.uint64(1)) * GOLDEN)

    @staticmethod
    def _words(states: np.ndarray, slots: np.ndarray) -> np.ndarray:
        return mix(states + (slots.astype(np.uint64) + np.uint64(1)) * GOLDEN)
