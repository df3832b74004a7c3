"""Random token substitution."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from corpora import Vocabulary

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws, to_integers
from .heads import DetectionHead, Head
from .heads_detection import entropy_of
from .masking import ask_changes, choose_tokens, count_exactly
from .sequences import Context, Sequences


@dataclass(frozen=True, kw_only=True)
class RandomTokenSubstitution(Objective):
    """Tell for every token whether a random one replaced it (Di Liello et al., 2022, https://arxiv.org/abs/2210.13536).

    `is_replaced` is 1 where the token differs from the original, and every selected token does: its substitute is drawn
    from the other ordinary tokens. The authors draw from the whole vocabulary, special tokens too, and label what was
    selected even where the draw gives the token itself. Every token is asked, [CLS] and [SEP] too, as by them.
    """

    name: ClassVar[str] = "rts"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_replaced": ("original", "replaced")}

    weight: float = 50.0
    replace_rate: float = 0.15

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        positions = choose_tokens(sequences, count_exactly(sequences, self.replace_rate), draws)
        words = draws.per_token("substitute", sequences.rows[positions], sequences.places[positions])
        changed = sequences.with_tokens(
            positions, draw_others(sequences.token_ids[positions], words, context.vocabulary)
        )
        return Corruption(sequences=changed, targets={"is_replaced": ask_changes(sequences, changed)})

    def build_head(self, setting: HeadSetting) -> Head:
        return DetectionHead(setting.config, "is_replaced")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2), "replaced rate": entropy_of(self.replace_rate)}


def draw_others(token_ids: np.ndarray, words: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Draw for each token (N,) one of the other ordinary tokens, all alike."""
    ordinary = vocabulary.ordinary_ids
    places = np.searchsorted(ordinary, token_ids)
    is_ordinary = ordinary[np.minimum(places, len(ordinary) - 1)] == token_ids  # [UNK] in a text is not
    drawn = to_integers(words, len(ordinary) - is_ordinary)
    return ordinary[drawn + ((drawn >= places) & is_ordinary)]
