"""The loops that build batches, compiled by numba: what the same functions with numpy give, bit for bit.

Each walks once over the tokens, where numpy makes an array of each step. `loops` says whether they are used.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

# Machine code is kept by what this file contains, so that the numbers of `draws` and `masking` stand here once more.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)
LOW = np.uint64(2**24 - 1)

_ONE = np.uint64(1)
_HALF = np.uint64(32)  # bits
_TOP = np.uint64(56)  # bits below those that keys are put into buckets by
_HIGH = ~LOW
_BUCKETS = 256


def _compile(loop: Callable[..., Any]) -> Any:
    """Compile at the first call, and keep the machine code where there is a folder to write it to."""
    build = partial(njit, nogil=True, error_model="numpy")
    try:
        return build(cache=True)(loop)
    except RuntimeError:  # numba finds none
        return build()(loop)


def is_kept() -> bool:
    """Say whether the machine code of these loops has been kept by an earlier process."""
    folder = frame.stats.cache_path
    written = Path(__file__).stat().st_mtime
    kept = Path(folder).glob(f"{Path(__file__).stem}.frame-*.nbi") if folder else ()
    return any(each.stat().st_mtime >= written for each in kept)


@_compile
def _draw(key: np.uint64, counter: int) -> np.uint64:
    """Return the word of an example, for the key of a purpose; of a slot, for the word of an example."""
    word = key + (np.uint64(counter) + _ONE) * GOLDEN
    word ^= word >> np.uint64(30)
    word *= FIRST
    word ^= word >> np.uint64(27)
    word *= SECOND
    return word ^ (word >> np.uint64(31))


@_compile
def frame(
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
    """Return offsets (B + 1,), ids, which are special, and where each stands in the store (T,), 0 for special ones."""
    lengths = np.full(num_examples, 2)
    has_second = np.zeros(num_examples, dtype=np.bool_)
    for piece in range(len(starts)):
        lengths[rows[piece]] += ends[piece] - starts[piece]
        if segments[piece] == 1 and not has_second[rows[piece]]:
            has_second[rows[piece]] = True
            lengths[rows[piece]] += num_separators
    offsets = np.zeros(num_examples + 1, dtype=np.int64)
    for row in range(num_examples):
        offsets[row + 1] = offsets[row] + lengths[row]
    total = offsets[num_examples]
    ids = np.full(total, sep_id, dtype=np.int64)
    is_special = np.ones(total, dtype=np.bool_)
    source = np.zeros(total, dtype=np.int64)
    for row in range(num_examples):
        ids[offsets[row]] = cls_id
    place, row, in_second = 0, -1, False
    for piece in range(len(starts)):
        if rows[piece] != row:
            row, in_second = rows[piece], False
            place = offsets[row] + 1
        if segments[piece] == 1 and not in_second:
            in_second = True
            place += num_separators
        for at in range(starts[piece], ends[piece]):
            ids[place] = tokens[at]
            is_special[place] = False
            source[place] = at
            place += 1
    return offsets, ids, is_special, source


@_compile
def pad(ids: np.ndarray, offsets: np.ndarray, length: int, fill: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids in padded rows (B, L), and 1 where they stand, 0 at the padding."""
    padded = np.empty((len(offsets) - 1, length), dtype=np.int64)
    mask = np.empty((len(offsets) - 1, length), dtype=np.int64)
    for row in range(len(offsets) - 1):
        first, count = offsets[row], offsets[row + 1] - offsets[row]
        for place in range(count):
            padded[row, place] = ids[first + place]
            mask[row, place] = 1
        for place in range(count, length):
            padded[row, place] = fill
            mask[row, place] = 0
    return padded, mask


@_compile
def locate(positions: np.ndarray, offsets: np.ndarray, length: int) -> np.ndarray:
    """Return where each token (N,) stands in padded rows: row x L + place."""
    located = np.empty(len(positions), dtype=np.int64)
    row = 0
    for number, position in enumerate(positions):
        if position < 0 or position >= offsets[-1]:
            raise IndexError("a position is beyond the tokens of the micro-batch")
        if not offsets[row] <= position < offsets[row + 1]:
            row = np.searchsorted(offsets, position, side="right") - 1
        located[number] = row * length + position - offsets[row]
    return located


@_compile
def choose(
    key: np.uint64, examples: np.ndarray, offsets: np.ndarray, is_free: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Return the positions of the `counts` (B,) free tokens of each example that have the least keys, ascending."""
    positions = np.empty(len(is_free), dtype=np.int64)
    keys = np.empty(len(is_free), dtype=np.uint64)  # of one example
    sizes = np.empty(_BUCKETS, dtype=np.int64)
    chosen = 0
    for row, example in enumerate(examples):
        state = _draw(key, example)
        first, num_free = offsets[row], 0
        for place in range(offsets[row + 1] - first):
            if is_free[first + place]:
                keys[num_free] = (_draw(state, place) & _HIGH) | np.uint64(place)
                num_free += 1
        limit = _nth(keys[:num_free], counts[row], sizes)
        for number in range(num_free):
            if counts[row] >= num_free or keys[number] < limit:
                positions[chosen] = first + np.int64(keys[number] & LOW)
                chosen += 1
    return positions[:chosen].copy()


@_compile
def choose_independently(
    key: np.uint64, examples: np.ndarray, offsets: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Say of each token (T,) whether the upper 32 bits of its word are below its example's threshold (B,)."""
    chosen = np.empty(offsets[-1], dtype=np.bool_)
    for row, example in enumerate(examples):
        state = _draw(key, example)
        for at in range(offsets[row], offsets[row + 1]):
            chosen[at] = np.int64(_draw(state, at - offsets[row]) >> _HALF) < thresholds[row]
    return chosen


@_compile
def _nth(keys: np.ndarray, place: int, sizes: np.ndarray) -> np.uint64:
    """Return the key at a place of the ascending order; any where there are not so many.

    Keys are counted by their highest bits, and only those of the bucket in which the place lies are sorted.
    """
    if place <= 0 or place >= len(keys):
        return np.uint64(0)
    sizes[:] = 0
    for key in keys:
        sizes[np.int64(key >> _TOP)] += 1
    bucket, before = 0, 0
    while before + sizes[bucket] <= place:
        before += sizes[bucket]
        bucket += 1
    inside = np.empty(sizes[bucket], dtype=np.uint64)
    found = 0
    for key in keys:
        if np.int64(key >> _TOP) == bucket:
            at = found
            while at > 0 and inside[at - 1] > key:
                inside[at] = inside[at - 1]
                at -= 1
            inside[at] = key
            found += 1
    return inside[place - before]


@_compile
def hide(
    token_ids: np.ndarray,
    offsets: np.ndarray,
    positions: np.ndarray,
    deciding: np.ndarray,
    action_key: np.uint64,
    token_key: np.uint64,
    examples: np.ndarray,
    ordinary: np.ndarray,
    mask_id: int,
    masked_below: int,
    changed_below: int,
) -> np.ndarray:
    """Return what stands at `positions` (N,) afterwards; thresholds are of a word's upper 32 bits."""
    shown = np.empty(len(positions), dtype=np.int64)
    row = -1
    action_state = token_state = np.uint64(0)
    for number, position in enumerate(positions):
        if position < 0 or position >= offsets[-1]:
            raise IndexError("a position is beyond the tokens of the micro-batch")
        if row < 0 or not offsets[row] <= position < offsets[row + 1]:
            row = np.searchsorted(offsets, position, side="right") - 1
            action_state, token_state = _draw(action_key, examples[row]), _draw(token_key, examples[row])
        action = np.int64(_draw(action_state, deciding[number] - offsets[row]) >> _HALF)
        if action < masked_below:
            shown[number] = mask_id
        elif action < changed_below:
            word = _draw(token_state, position - offsets[row])
            shown[number] = ordinary[np.int64(((word >> _HALF) * np.uint64(len(ordinary))) >> _HALF)]
        else:
            shown[number] = token_ids[position]
    return shown


@_compile
def cut_words(is_free: np.ndarray, pieces: np.ndarray, is_word_start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the free tokens (N,), and which of the N begin a word (W,)."""
    positions = np.empty(len(is_free), dtype=np.int64)
    starts = np.empty(len(is_free), dtype=np.int64)
    found = words = 0
    for at in range(len(is_free)):
        if is_free[at]:
            if at == 0 or is_word_start[at] or not is_free[at - 1] or pieces[at] != pieces[at - 1]:
                starts[words] = found
                words += 1
            positions[found] = at
            found += 1
    return positions[:found].copy(), starts[:words].copy()


@_compile
def choose_whole(
    key: np.uint64,
    examples: np.ndarray,
    offsets: np.ndarray,
    positions: np.ndarray,
    starts: np.ndarray,
    counts: np.ndarray,
) -> np.ndarray:
    """Say which of the N tokens at `positions` are in the units taken: whole ones, drawn while there is room."""
    taken = np.zeros(len(positions), dtype=np.bool_)
    words = np.empty(len(starts), dtype=np.uint64)  # of one example, like the next
    order = np.empty(len(starts), dtype=np.int64)
    sizes = np.empty(_BUCKETS + 1, dtype=np.int64)
    unit = row = 0
    while unit < len(starts):
        while positions[starts[unit]] >= offsets[row + 1]:
            row += 1
        first, state = unit, _draw(key, examples[row])
        while unit < len(starts) and positions[starts[unit]] < offsets[row + 1]:
            words[unit - first] = _draw(state, positions[starts[unit]] - offsets[row])
            unit += 1
        _sort(words[: unit - first], order[: unit - first], sizes)
        room, is_first = counts[row], True
        for number in order[: unit - first]:
            if room <= 0:
                break
            begin = starts[first + number]
            end = starts[first + number + 1] if first + number + 1 < len(starts) else len(positions)
            if end - begin <= room or is_first:
                taken[begin:end] = True
                room -= end - begin
            is_first = False
    return taken


@_compile
def _sort(words: np.ndarray, order: np.ndarray, ends: np.ndarray) -> None:
    """Put into `order` the places of the words (M,), ascending by word: by their highest bits, then one by one."""
    ends[:] = 0
    for word in words:
        ends[np.int64(word >> _TOP) + 1] += 1
    for bucket in range(_BUCKETS):
        ends[bucket + 1] += ends[bucket]
    for number in range(len(words)):
        top = np.int64(words[number] >> _TOP)
        order[ends[top]] = number
        ends[top] += 1
    for last in range(1, len(words)):
        number, at = order[last], last
        while at > 0 and words[order[at - 1]] > words[number]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = number
