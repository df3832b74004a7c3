"""RetroMAE: the text from one vector and half of it."""

from dataclasses import dataclass, replace
from math import log
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .batch import MAIN
from .draws import Draws
from .heads import Head
from .heads_decoder import EnhancedHead
from .sequences import Context, Sequences, Target, TextView


@dataclass(frozen=True, kw_only=True)
class RetroMAE(Objective):
    """Name every token from its place, the text's [CLS], and a random half of the others.

    See Xiao et al., 2022, section 3, https://arxiv.org/abs/2205.12035.

    The decoder has one layer; each place has a half of its own, never itself. The encoder reads the main text, which is
    the paper's where masking is composed: `mlm:mask_rate=0.3+retromae`.
    """

    name: ClassVar[str] = "retromae"
    reads: ClassVar[tuple[str, ...]] = (MAIN,)
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"original_ids": ()}

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        text = sequences.restored()
        asked = np.flatnonzero(~text.is_special)
        target = Target(positions=asked, values=text.token_ids[asked], view="text")
        words = draws.per_token("halves", text.rows, text.places) >> np.uint64(32)
        marks = replace(text, token_ids=words.astype(np.int64))
        views = {"text": TextView(sequences=text), "marks": TextView(sequences=marks)}
        return Corruption(sequences=sequences, targets={"original_ids": target}, views=views)

    def build_head(self, setting: HeadSetting) -> Head:
        return EnhancedHead(setting.config, setting.table_width, "original_ids")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln V": log(statistics.num_ordinary), "unigram": statistics.unigram_entropy}
