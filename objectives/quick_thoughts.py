"""Quick thoughts: which text comes next, among those of the batch."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from corpora.passages import Passages

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws, to_integers
from .heads import Head
from .heads_contrast import ContrastHead
from .sequences import Arrangement, Context, Pieces, Selection, Sequences, Target, in_order


@dataclass(frozen=True, kw_only=True)
class QuickThoughts(Objective):
    """Find the text that follows, among those of the micro-batch (Logeswaran and Lee, 2018, section 3, https://arxiv.org/abs/1803.02893).

    A passage is cut after a random sentence, and its two halves are read apart. The likeness is the cosine over a
    temperature; the paper's is the inner product, and olfmlm's (Aroca-Ouellette and Rudzicz, 2020) a cosine without a
    temperature, whose loss can't fall far below ln B.
    """

    name: ClassVar[str] = "quick_thoughts"
    reads: ClassVar[tuple[str, ...]] = ("first", "second")
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"partner": ("its_own",)}
    compares_rows: ClassVar[bool] = True

    temperature: float = 0.05

    @property
    def needs(self) -> str:
        return "passages of two sentences or more"

    def can_carry(self, passages: Passages) -> np.ndarray:
        return passages.num_sentences >= 2

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        passages, offsets = selection.passages, np.asarray(selection.corpus.sentence_offsets)
        cuts = passages.first_sentences + 1 + to_integers(draws.per_example("cut")[:, 0], passages.num_sentences - 1)
        rows, segments = np.arange(len(passages)), np.zeros(len(passages), dtype=np.int64)
        middle = offsets[cuts]
        halves = {
            "first": Pieces(starts=passages.starts, ends=middle, rows=rows, segments=segments),
            "second": Pieces(starts=middle, ends=passages.ends, rows=rows, segments=segments),
        }
        return Arrangement(pieces=in_order(selection), views=halves)

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        firsts = sequences.offsets[:-1]  # of the main text, which no head reads: one question an example
        target = Target(positions=firsts, values=np.zeros(len(firsts), dtype=np.int64))
        return Corruption(sequences=sequences, targets={"partner": target})

    def build_head(self, setting: HeadSetting) -> Head:
        return ContrastHead(setting.config, "partner", self.temperature, symmetric=True)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln B": log(max(statistics.rows, 1))}
