"""Shuffled token detection."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import DetectionHead, Head
from .heads_detection import entropy_of
from .masking import ask_changes, choose_tokens, count_exactly
from .sequences import Context, Sequences

VARIANTS = ("permute", "copy")


@dataclass(frozen=True, kw_only=True)
class TokenShuffleDetection(Objective):
    """Tell for every token whether another of the example stands in its place (Panda et al., 2021, https://aclanthology.org/2021.naacl-srw.12).

    By default the selected tokens change places among themselves, so that the example keeps its words; the authors
    shuffle words. With `variant=copy` (Yamaguchi et al., 2021, https://arxiv.org/abs/2109.01819) each is overwritten by
    a copy of any other token, which stays where it was; their code may take padding for it, and labels what was
    selected. `is_shuffled` is 1 where the token differs from the original. Every token is asked, [CLS] and [SEP] too.
    """

    name: ClassVar[str] = "token_shuffle"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_shuffled": ("original", "shuffled")}

    shuffle_rate: float = 0.15
    variant: str = "permute"

    def __post_init__(self) -> None:
        check_variant(self.variant)

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        positions = choose_tokens(sequences, count_exactly(sequences, self.shuffle_rate), draws)
        changed = sequences.with_tokens(positions, shuffle_tokens(sequences, positions, draws, self.variant))
        return Corruption(sequences=changed, targets={"is_shuffled": ask_changes(sequences, changed)})

    def build_head(self, setting: HeadSetting) -> Head:
        return DetectionHead(setting.config, "is_shuffled")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2), "selected rate": entropy_of(self.shuffle_rate)}


def check_variant(variant: str) -> None:
    """Raise a ValueError where `shuffle_tokens` has no such variant."""
    if variant not in VARIANTS:
        raise ValueError(f"variant is '{variant}'; it must be {' or '.join(VARIANTS)}")


def shuffle_tokens(sequences: Sequences, positions: np.ndarray, draws: Draws, variant: str) -> np.ndarray:
    """Return another token of the same example for each of the ascending `positions` (N,).

    "permute": each takes the place of another of them. "copy": each is a copy of any other free token. No token is
    taken twice, and only one that is alone in its example stays where it is.
    """
    pool = positions if variant == "permute" else np.flatnonzero(sequences.is_free)
    rows = sequences.rows[pool]
    source = pool[cycle_within(rows, draws.per_token("cycle", rows, sequences.places[pool]))]
    return sequences.token_ids[source[np.searchsorted(pool, positions)]]


def cycle_within(rows: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return a permutation (N,) that is, within each of the ascending `rows`, one cycle, all of them alike likely."""
    order = np.lexsort((words, rows))
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    before = np.arange(len(rows)) - 1
    before[firsts] = np.append(firsts[1:], len(rows)) - 1
    source = np.empty_like(order)
    source[order] = order[before]
    return source
