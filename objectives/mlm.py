"""Masked language modelling."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head, MaskedLMHead
from .masking import choose_tokens, count_exactly, hide_tokens
from .sequences import Context, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageModeling(Objective):
    """Name the tokens that were hidden (Devlin et al., 2019, section 3.1 and appendix A.1, https://arxiv.org/abs/1810.04805).

    `original_ids` are the ids before hiding, at every selected token, the kept ones too. Random tokens come from
    ordinary ones only, where BERT's code draws from the whole vocabulary. With `mask_token_rate=1` nothing is random or
    kept (Wettig et al., 2023, section 5, find it no worse).
    """

    name: ClassVar[str] = "mlm"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"original_ids": ()}

    mask_rate: float = 0.15
    mask_token_rate: float = 0.8
    random_token_rate: float = 0.1

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        positions = choose_tokens(sequences, count_exactly(sequences, self.mask_rate), draws)
        shown = hide_tokens(
            sequences,
            positions,
            draws,
            context.vocabulary,
            mask_token_rate=self.mask_token_rate,
            random_token_rate=self.random_token_rate,
        )
        original = Target(positions=positions, values=sequences.token_ids[positions])
        return Corruption(sequences=sequences.with_tokens(positions, shown), targets={"original_ids": original})

    def build_head(self, setting: HeadSetting) -> Head:
        return MaskedLMHead(setting.config, setting.table_width, setting.vocabulary.mask_id)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln V": log(statistics.num_ordinary), "unigram": statistics.unigram_entropy}
