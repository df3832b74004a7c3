"""Sequence contrastive learning."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .batch import MAIN
from .draws import Draws, to_integers
from .heads import Head
from .heads_contrast import ContrastHead
from .sequences import Context, Sequences, Target, TextView, expand_ranges


@dataclass(frozen=True, kw_only=True)
class SequenceContrast(Objective):
    """Find the text that a crop is from (Meng et al., 2021, section 3.2, https://arxiv.org/abs/2102.08473).

    The crop is a run of `crop_rate` of the example's tokens, at a place of its own, and keeps its [CLS] and last [SEP],
    which the authors' code can cut off. The other side is the main text as corrupted by what it is composed with:
    `corrective_lm+scl`. Both sides look for their partner.
    """

    name: ClassVar[str] = "scl"
    reads: ClassVar[tuple[str, ...]] = (MAIN, "crop")
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"partner": ("its_own",)}
    compares_rows: ClassVar[bool] = True

    crop_rate: float = 0.9
    temperature: float = 1.0

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        text = sequences.restored()
        inner = text.lengths - 2
        kept = np.maximum((inner * self.crop_rate).astype(np.int64), np.minimum(inner, 1))
        first = to_integers(draws.per_example("crop")[:, 0], inner - kept + 1)
        lengths = kept + 2
        source = expand_ranges(text.offsets[:-1] + first, lengths)
        ends = np.cumsum(lengths)
        source[ends - lengths], source[ends - 1] = text.offsets[:-1], text.offsets[1:] - 1
        firsts = sequences.offsets[:-1]
        return Corruption(
            sequences=sequences,
            targets={"partner": Target(positions=firsts, values=np.zeros(len(firsts), dtype=np.int64))},
            views={"crop": TextView(sequences=text.rearranged(source, lengths))},
        )

    def build_head(self, setting: HeadSetting) -> Head:
        return ContrastHead(setting.config, "partner", self.temperature, symmetric=True)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln B": log(max(statistics.rows, 1))}
