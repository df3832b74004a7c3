"""Permutation: where did this token come from."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head
from .heads_recovery import PointerHead
from .masking import choose_tokens, count_exactly
from .sequences import Context, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class TokenPermutation(Objective):
    """Point from each permuted place to where its token now stands (Cui et al., 2022, section 3, https://arxiv.org/abs/2203.06906).

    PERT permutes 15 % of the tokens of an example among themselves. The answer is one of the permuted places; where a
    token occurs twice among them, the one that was drawn. Recalled from the paper; no reference code was at hand.
    """

    name: ClassVar[str] = "permutation"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"moved_to": ("a_place_of_the_row",)}

    permute_rate: float = 0.15

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        counts = np.maximum(count_exactly(sequences, self.permute_rate), 2 if self.permute_rate else 0)
        positions = choose_tokens(sequences, counts, draws)
        rows = sequences.rows[positions]
        words = draws.per_token("permute", rows, sequences.places[positions])
        source = positions[np.lexsort((words, rows))]  # which token now stands at each place; may be its own
        moved_to = np.empty_like(positions)
        moved_to[np.searchsorted(positions, source)] = positions
        target = Target(positions=positions, values=np.zeros_like(positions), pointers={"place": moved_to})
        changed = sequences.with_tokens(positions, sequences.token_ids[source])
        return Corruption(sequences=changed, targets={"moved_to": target})

    def build_head(self, setting: HeadSetting) -> Head:
        return PointerHead(setting.config, "moved_to", "place")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        lengths = statistics.lengths if statistics.lengths is not None else np.array([128])
        counts = np.maximum(
            np.rint(lengths * self.permute_rate), 2
        )  # of the places to choose from, for as many targets
        return {"ln places": float((counts * np.log(counts)).sum() / counts.sum())}
