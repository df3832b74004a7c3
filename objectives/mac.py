"""Masked language modelling as correction, with similar words for [MASK]."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws, happens, to_integers
from .heads import Head, MaskedLMHead
from .masking import count_exactly, hide_tokens
from .sequences import Context, Sequences, Target
from .units import choose_units, cut_runs


@dataclass(frozen=True, kw_only=True)
class MLMAsCorrection(Objective):
    """Name the originals where similar tokens stand (MacBERT: Cui et al., 2020, section 3.1, https://arxiv.org/abs/2004.13922).

    Selected are runs of 1 to 4 whole words, at 40, 30, 20 and 10 %. Of the selected tokens 80 % become similar ones,
    10 % random ones, and 10 % stay; [MASK] is never seen. `original_ids` is asked at all of them. The paper looks whole
    words up in a list of synonyms; here each token becomes one of its nearest distributional neighbours in the training
    text, so that a word keeps its number of tokens and any language will do.
    """

    name: ClassVar[str] = "mac"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"original_ids": ()}

    mask_rate: float = 0.15
    similar_token_rate: float = 0.8  # of the selected tokens, the share shown as a similar one
    random_token_rate: float = 0.1
    num_neighbours: int = 10  # how many of the nearest tokens by co-occurrence are drawn from

    def __post_init__(self) -> None:
        if self.num_neighbours < 1:
            raise ValueError(f"num_neighbours is {self.num_neighbours}; it must be at least 1")
        if self.similar_token_rate + self.random_token_rate > 1:
            raise ValueError("similar_token_rate and random_token_rate add up to more than 1")

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        units = cut_runs(sequences, np.array([0.4, 0.3, 0.2, 0.1]), draws)
        is_chosen = choose_units(sequences, units, count_exactly(sequences, self.mask_rate), draws, "word")
        positions = units.positions[is_chosen]
        original = sequences.token_ids[positions]
        rows, places = sequences.rows[positions], sequences.places[positions]
        neighbours = context.tables.neighbours(self.num_neighbours)
        similar = neighbours[original, to_integers(draws.per_token("similar", rows, places), neighbours.shape[1])]
        action = draws.per_token("action", rows, places)  # the one that `hide_tokens` decides by
        others = hide_tokens(
            sequences,
            positions,
            draws,
            context.vocabulary,
            mask_token_rate=self.similar_token_rate,
            random_token_rate=self.random_token_rate,
        )
        shown = np.where(happens(action, self.similar_token_rate), similar, others)
        target = Target(positions=positions, values=original)
        return Corruption(sequences=sequences.with_tokens(positions, shown), targets={"original_ids": target})

    def build_head(self, setting: HeadSetting) -> Head:
        return MaskedLMHead(setting.config, setting.table_width, setting.vocabulary.mask_id)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln V": log(statistics.num_ordinary), "unigram": statistics.unigram_entropy}
