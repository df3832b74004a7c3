"""All-tokens masked language modelling."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head
from .heads_recovery import CopyHead
from .proposals import propose_replacements
from .sequences import Context, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class AllTokensMLM(Objective):
    """Name the original of every token, in a text that a generator has changed (Clark et al., 2020, section 3.4, https://arxiv.org/abs/2003.10555).

    With a copy mechanism: d for what stands there, the language model for the rest. Logits over the vocabulary are
    needed for every token, about seven times as many as in masked language modelling at 15 %.
    """

    name: ClassVar[str] = "all_tokens_mlm"
    uses_generator: ClassVar[bool] = True
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"original_ids": ()}

    mask_rate: float = 0.15

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        asked = np.flatnonzero(sequences.is_free)
        target = Target(positions=asked, values=sequences.token_ids[asked])
        hidden, proposal = propose_replacements(sequences, self.mask_rate, draws, context)
        return Corruption(sequences=hidden, targets={"original_ids": target}, proposal=proposal)

    def build_head(self, setting: HeadSetting) -> Head:
        return CopyHead(setting.config, setting.table_width, setting.vocabulary.mask_id, corrective=False)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        """Return the loss of d = 1/2 and a uniform language model, if each replacement is wrong.

        In short texts more than `mask_rate` of the tokens are selected, as special ones count in the length.
        """
        lengths = statistics.lengths if statistics.lengths is not None else np.array([128])
        rate = np.maximum(np.rint(lengths * self.mask_rate), 1).sum() / (lengths - 2).sum()
        uniform = 1 / statistics.num_ordinary
        kept, replaced = -log(0.5 + 0.5 * uniform), -log(0.5 * uniform)
        return {"d = 1/2": float((1 - rate) * kept + rate * replaced)}
