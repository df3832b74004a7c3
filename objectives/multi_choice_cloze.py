"""Multi-choice cloze with a reject option."""

from dataclasses import dataclass, replace
from math import log
from typing import ClassVar

import numpy as np
import torch

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .batch import Batch, DeviceTarget, Filling
from .draws import Draws, to_uniforms
from .heads import Head
from .heads_detection import MultiChoiceHead
from .proposals import propose_replacements
from .sequences import Context, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class MultiChoiceCloze(Objective):
    """Choose what stood in a token's place among candidates, or reject them (Xu et al., 2020, https://arxiv.org/abs/2006.05744).

    MC-BERT. The generator draws `num_candidates` tokens for each selected one, and the first of them is shown. `choice`
    is 0, reject, where that is the original; else 1, and candidate 1 is the original. Scores are products with the word
    table and know no place, so that it tells nothing. A candidate that repeats the shown token or the original is left
    out: it would be a second right answer. The authors ask at every token, with candidates of a generator that may see
    it; here the selected are asked, where it can't.
    """

    name: ClassVar[str] = "multi_choice_cloze"
    uses_generator: ClassVar[bool] = True
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"choice": ("reject", "original")}

    weight: float = 50.0
    mask_rate: float = 0.15
    num_candidates: int = 10

    def __post_init__(self) -> None:
        if self.num_candidates < 2:
            raise ValueError(f"num_candidates is {self.num_candidates}; at least 2 are needed for a choice")

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        hidden, proposal = propose_replacements(sequences, self.mask_rate, draws, context)
        rows, places = sequences.rows[proposal.positions], sequences.places[proposal.positions]
        slots = places[:, None] * self.num_candidates + np.arange(self.num_candidates)  # (N, K)
        uniforms = to_uniforms(draws.per_token("candidates", rows[:, None], slots))
        choice = Target(positions=proposal.positions, values=proposal.original_ids)
        return Corruption(sequences=hidden, targets={"choice": choice}, proposal=replace(proposal, uniforms=uniforms))

    def judge(self, targets: dict[str, DeviceTarget], batch: Batch, filling: Filling | None) -> dict[str, DeviceTarget]:
        assert filling is not None
        original = targets["choice"].values[:, None]
        shown, others = filling.token_ids[:, :1], filling.token_ids[:, 1:]
        right = torch.where(shown == original, -1, original)
        others = torch.where((others == shown) | (others == original), -1, others)
        candidates = torch.cat([right, others], dim=1)
        values = (right >= 0).long().squeeze(1)
        return {"choice": replace(targets["choice"], values=values, extras={"candidates": candidates})}

    def build_head(self, setting: HeadSetting) -> Head:
        return MultiChoiceHead(setting.config, setting.table_width, "choice")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln (K + 1)": log(self.num_candidates + 1)}
