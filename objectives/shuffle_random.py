"""Detection of shuffled and of random tokens, three-way."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head
from .heads_detection import TokenClassHead, entropy_of
from .masking import choose_tokens
from .rts import draw_others
from .sequences import Context, Sequences, Target
from .token_shuffle import check_variant, shuffle_tokens


@dataclass(frozen=True, kw_only=True)
class ShuffleRandomDetection(Objective):
    """Tell whether a token is original, shuffled or random (Yamaguchi et al., 2021, https://arxiv.org/abs/2109.01819).

    `shuffle_rate` of the ordinary tokens are shuffled, and `random_rate` of the others replaced, by any other ordinary
    token. `manipulation` says what a token is; one that reads as the original after all is original, which the authors'
    code labels by selection. Their shuffling copies tokens (`variant=copy`); see `token_shuffle`. Special tokens are
    not asked.
    """

    name: ClassVar[str] = "shuffle_random"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"manipulation": ("original", "shuffled", "random")}

    shuffle_rate: float = 0.1
    random_rate: float = 0.1
    variant: str = "permute"

    def __post_init__(self) -> None:
        check_variant(self.variant)

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        free = np.bincount(sequences.rows, sequences.is_free)
        num_shuffled = np.rint(free * self.shuffle_rate)
        num_random = np.rint((free - num_shuffled) * self.random_rate)
        moved = choose_tokens(sequences, num_shuffled, draws)
        changed = sequences.with_tokens(moved, shuffle_tokens(sequences, moved, draws, self.variant))
        random = choose_tokens(changed, num_random, draws.within("random"))
        words = draws.per_token("substitute", sequences.rows[random], sequences.places[random])
        changed = changed.with_tokens(random, draw_others(sequences.token_ids[random], words, context.vocabulary))
        manipulation = np.zeros_like(sequences.token_ids)
        manipulation[moved], manipulation[random] = 1, 2
        manipulation *= changed.token_ids != sequences.token_ids
        asked = np.flatnonzero(sequences.is_free)
        target = Target(positions=asked, values=manipulation[asked])
        return Corruption(sequences=changed, targets={"manipulation": target})

    def build_head(self, setting: HeadSetting) -> Head:
        return TokenClassHead(setting.config, "manipulation", num_classes=3)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 3": log(3), "rates": entropy_of(self.shuffle_rate, (1 - self.shuffle_rate) * self.random_rate)}
