"""Cluster-based random token substitution."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .batch import Batch, DeviceTarget, Filling
from .draws import Draws
from .heads import DetectionHead, Head
from .heads_detection import entropy_of
from .proposals import ask_originals, mark_replaced, propose_replacements
from .sequences import Context, Sequences


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
        shown, proposal = propose_replacements(sequences, self.replace_rate, draws, context, kept_rate=1)
        return Corruption(sequences=shown, targets={"is_replaced": ask_originals(sequences)}, proposal=proposal)

    def judge(self, targets: dict[str, DeviceTarget], batch: Batch, filling: Filling | None) -> dict[str, DeviceTarget]:
        return {"is_replaced": mark_replaced(targets["is_replaced"], batch, filling)}

    def build_head(self, setting: HeadSetting) -> Head:
        return DetectionHead(setting.config, "is_replaced")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2), "replaced rate": entropy_of(self.replace_rate)}
