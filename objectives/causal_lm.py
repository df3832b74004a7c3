"""Causal language modelling on an encoder."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head, MaskedLMHead
from .sequences import Context, Sequences, Target, TextView


@dataclass(frozen=True, kw_only=True)
class CausalLanguageModeling(Objective):
    """Name each next token from those before it (Radford et al., 2018, section 3.1), the encoder's attention causal.

    Beside masked objectives, as in GPT-BERT (Charpentier and Samuel, 2024, section 3, https://arxiv.org/abs/2410.24159:
    `--mix "15*mntp; 1*causal_lm"`), or before them (`--mix "causal_lm@0-0.25; mlm@0.25-1"`). It reads a text of its
    own, and has a head of its own, where GPT-BERT has one head for both.
    """

    name: ClassVar[str] = "causal_lm"
    reads: ClassVar[tuple[str, ...]] = ("text",)
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"next_ids": ()}

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        text = sequences.restored()
        asked = np.flatnonzero(np.append(~text.is_special[1:], False))  # the token before an ordinary one
        target = Target(positions=asked, values=text.token_ids[asked + 1], view="text")
        views = {"text": TextView(sequences=text, attention="causal")}
        return Corruption(sequences=sequences, targets={"next_ids": target}, views=views)

    def build_head(self, setting: HeadSetting) -> Head:
        return MaskedLMHead(setting.config, setting.table_width, setting.vocabulary.mask_id, target="next_ids")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln V": log(statistics.num_ordinary), "unigram": statistics.unigram_entropy}
