"""TSDAE: the text from one vector of what is left of it."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head
from .heads_decoder import TeacherForcedHead
from .masking import choose_tokens
from .sequences import Context, Sequences, Target, TextView


@dataclass(frozen=True, kw_only=True)
class DenoisingAutoencoder(Objective):
    """Say a text again from one vector of what deletion left of it (Wang et al., 2021, section 3, https://arxiv.org/abs/2104.06979).

    `deletion_rate` of the tokens are deleted, at least one kept; a decoder of one layer names each token of the text
    from those before it and the [CLS] of the rest. The paper deletes words and decodes with as many layers as the
    encoder's, tied to it.
    """

    name: ClassVar[str] = "tsdae"
    reads: ClassVar[tuple[str, ...]] = ("rest",)
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"next_ids": ()}

    deletion_rate: float = 0.6

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        text = sequences.restored()
        ordinary = np.bincount(text.rows, text.is_free, text.num_examples).astype(np.int64)
        counts = np.minimum(np.rint(ordinary * self.deletion_rate).astype(np.int64), ordinary - 1)
        kept = np.ones(len(text.token_ids), dtype=bool)
        kept[choose_tokens(text, counts, draws)] = False
        lengths = np.bincount(text.rows[kept], minlength=text.num_examples)
        rest = text.rearranged(np.flatnonzero(kept), lengths)
        asked = np.flatnonzero(np.append(~text.is_special[1:], False))
        target = Target(positions=asked, values=text.token_ids[asked + 1], view="text")
        views = {"rest": TextView(sequences=rest), "text": TextView(sequences=text)}
        return Corruption(sequences=sequences, targets={"next_ids": target}, views=views)

    def build_head(self, setting: HeadSetting) -> Head:
        return TeacherForcedHead(setting.config, setting.table_width, "next_ids")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln V": log(statistics.num_ordinary), "unigram": statistics.unigram_entropy}
