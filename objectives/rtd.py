"""Replaced token detection."""

from dataclasses import dataclass, replace
from math import log
from typing import ClassVar

import numpy as np
import torch

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .batch import Batch, DeviceTarget, Filling
from .draws import Draws, to_uniforms
from .heads import DetectionHead, Head
from .masking import choose_tokens, count_exactly, hide_tokens
from .sequences import Context, Proposal, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class ReplacedTokenDetection(Objective):
    """Tell for every token whether a generator replaced it (Clark et al., 2020, section 2, https://arxiv.org/abs/2003.10555).

    `is_replaced` is 1 where the token differs from the original: a generator that guesses right leaves an original.
    All tokens are asked, [CLS] and [SEP] too as in the authors' code, but for those that another objective has hidden;
    or the `selected` alone, which is ELECTRA 15% (section 3.4). Selection is without replacement, where their code
    selects some tokens twice. `kept_rate` of the selected tokens the generator sees unhidden: 0 as in the paper, .15 in
    the authors' code. With `disallow_correct`, an option of theirs, the generator can't draw the original.
    """

    name: ClassVar[str] = "rtd"
    uses_generator: ClassVar[bool] = True
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_replaced": ("original", "replaced")}

    weight: float = 50.0
    mask_rate: float = 0.15
    kept_rate: float = 0.0
    asked: str = "all"
    disallow_correct: bool = False

    def __post_init__(self) -> None:
        if self.asked not in ("all", "selected"):
            raise ValueError(f"asked is '{self.asked}'; it must be all or selected")
        if self.asked == "selected" and self.disallow_correct:
            raise ValueError("asked=selected with disallow_correct leaves one answer, replaced; give one of them")

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        positions = choose_tokens(sequences, count_exactly(sequences, self.mask_rate), draws)
        shown = hide_tokens(
            sequences, positions, draws, context.vocabulary, mask_token_rate=1 - self.kept_rate, random_token_rate=0
        )
        rows, places = sequences.rows[positions], sequences.places[positions]
        proposal = Proposal(
            positions=positions,
            original_ids=sequences.token_ids[positions],
            uniforms=to_uniforms(draws.per_token("propose", rows, places)),
            excludes_original=self.disallow_correct,
        )
        asked = positions if self.asked == "selected" else np.flatnonzero(sequences.is_free | sequences.is_special)
        original = Target(positions=asked, values=sequences.token_ids[asked])
        return Corruption(
            sequences=sequences.with_tokens(positions, shown), targets={"is_replaced": original}, proposal=proposal
        )

    def judge(self, targets: dict[str, DeviceTarget], batch: Batch, filling: Filling | None) -> dict[str, DeviceTarget]:
        original = targets["is_replaced"]
        is_replaced = batch.input_ids.flatten()[original.positions] != original.values
        if filling is not None:  # what an objective behind this one has hidden was not replaced
            is_replaced &= torch.isin(original.positions, filling.proposal.positions)
        return {"is_replaced": replace(original, values=is_replaced.long())}

    def build_head(self, setting: HeadSetting) -> Head:
        return DetectionHead(setting.config, "is_replaced")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2)}
