"""Cluster-based random token substitution."""

from dataclasses import dataclass, replace
from math import log
from typing import ClassVar

import numpy as np
import torch

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .batch import Batch, DeviceTarget, Filling
from .draws import Draws, to_uniforms
from .heads import DetectionHead, Head
from .heads_detection import entropy_of
from .masking import choose_tokens, count_exactly
from .sequences import Context, Proposal, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class ClusterRandomTokenSubstitution(Objective):
    """Tell which tokens were replaced, from clusters that were mistaken (Di Liello et al., 2022, https://arxiv.org/abs/2210.13536).

    The generator `cluster` has learned from this objective's own mistakes which cluster to draw a substitute from; it
    reads no text, so that none is hidden from it. `is_replaced` is 1 where the token differs from the original; the
    authors label what was selected, even where the draw gives the token itself. Every token is asked.
    """

    name: ClassVar[str] = "cluster_rts"
    uses_generator: ClassVar[bool] = True
    generator: ClassVar[str | None] = "cluster"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_replaced": ("original", "replaced")}

    weight: float = 50.0
    replace_rate: float = 0.15

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        positions = choose_tokens(sequences, count_exactly(sequences, self.replace_rate), draws)
        originals = sequences.token_ids[positions]
        words = draws.per_token("propose", sequences.rows[positions], sequences.places[positions])
        proposal = Proposal(positions=positions, original_ids=originals, uniforms=to_uniforms(words))
        asked = np.flatnonzero(sequences.is_free | sequences.is_special)
        return Corruption(
            sequences=sequences.with_tokens(positions, originals),
            targets={"is_replaced": Target(positions=asked, values=sequences.token_ids[asked])},
            proposal=proposal,
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
        return {"ln 2": log(2), "replaced rate": entropy_of(self.replace_rate)}
