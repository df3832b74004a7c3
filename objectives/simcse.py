"""SimCSE: the same text twice."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head
from .heads_contrast import ContrastHead
from .sequences import Context, Sequences, Target, TextView


@dataclass(frozen=True, kw_only=True)
class SimCSE(Objective):
    """Find a text's other encoding, which differs by dropout alone (Gao et al., 2021, section 3, https://arxiv.org/abs/2104.08821).

    The candidates are the examples of the micro-batches that all processes have at once. The encoder needs dropout, or
    both encodings are one: `--dropout 0.1`.
    """

    name: ClassVar[str] = "simcse"
    reads: ClassVar[tuple[str, ...]] = ("first", "second")
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"partner": ("its_own",)}
    compares_rows: ClassVar[bool] = True

    temperature: float = 0.05

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        view = TextView(sequences=sequences.restored())
        firsts = sequences.offsets[:-1]
        target = Target(positions=firsts, values=np.zeros(len(firsts), dtype=np.int64), view="first")
        return Corruption(sequences=sequences, targets={"partner": target}, views={"first": view, "second": view})

    def build_head(self, setting: HeadSetting) -> Head:
        return ContrastHead(setting.config, "partner", self.temperature)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln B": log(max(statistics.rows, 1))}
