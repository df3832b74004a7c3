"""Masked language modelling without [MASK]."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head, MaskedLMHead
from .proposals import propose_replacements
from .sequences import Context, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class ReplaceMLM(Objective):
    """Name the tokens that a generator has replaced (Clark et al., 2020, section 3.4, https://arxiv.org/abs/2003.10555).

    `original_ids` are asked at the selected places alone, also where the generator has guessed right; the encoder never
    sees [MASK]. With the generator `uniform` it is the random substitution of Di Liello et al., 2022
    (https://arxiv.org/abs/2210.13536), which they call SLM.
    """

    name: ClassVar[str] = "replace_mlm"
    uses_generator: ClassVar[bool] = True
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"original_ids": ()}

    mask_rate: float = 0.15

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        hidden, proposal = propose_replacements(sequences, self.mask_rate, draws, context)
        original = Target(positions=proposal.positions, values=proposal.original_ids)
        return Corruption(sequences=hidden, targets={"original_ids": original}, proposal=proposal)

    def build_head(self, setting: HeadSetting) -> Head:
        return MaskedLMHead(setting.config, setting.table_width, setting.vocabulary.mask_id)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln V": log(statistics.num_ordinary), "unigram": statistics.unigram_entropy}
