"""Corrective language modelling."""

from dataclasses import dataclass, replace
from math import log
from typing import ClassVar

from .base import Corruption, HeadSetting, Objective, Term, TextStatistics
from .batch import Batch, DeviceTarget, Filling
from .draws import Draws
from .heads import Head
from .heads_recovery import CopyHead
from .proposals import ask_originals, mark_replaced, propose_replacements
from .sequences import Context, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class CorrectiveLM(Objective):
    """Tell which tokens a generator has left as they were, and name the originals of the selected ones.

    See Meng et al., 2021, section 3.2, https://arxiv.org/abs/2102.08473, which adds `scl`. `is_original` is 1 where the
    token is the text's, asked of special tokens too; its loss has the weight 50. The language model's loss at selected
    places leaves the copying alone.
    """

    name: ClassVar[str] = "corrective_lm"
    uses_generator: ClassVar[bool] = True
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"original_ids": (), "is_original": ("replaced", "original")}

    copy_weight: float = 50.0
    mask_rate: float = 0.15

    @property
    def terms(self) -> dict[str, Term]:
        return {
            "corrective_lm": Term(weight=self.weight, targets=("original_ids",)),
            "corrective_lm_copy": Term(weight=self.weight * self.copy_weight, targets=("is_original",)),
        }

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        hidden, proposal = propose_replacements(sequences, self.mask_rate, draws, context)
        targets = {
            "original_ids": Target(positions=proposal.positions, values=proposal.original_ids),
            "is_original": ask_originals(sequences),
        }
        return Corruption(sequences=hidden, targets=targets, proposal=proposal)

    def judge(self, targets: dict[str, DeviceTarget], batch: Batch, filling: Filling | None) -> dict[str, DeviceTarget]:
        replaced = mark_replaced(targets["is_original"], batch, filling)
        return targets | {"is_original": replace(replaced, values=1 - replaced.values)}

    def build_head(self, setting: HeadSetting) -> Head:
        return CopyHead(setting.config, setting.table_width, setting.vocabulary.mask_id, corrective=True)

    def chance(self, statistics: TextStatistics) -> dict[str, dict[str, float]]:
        """Return for the language model the loss of d = 1/2 and a uniform guess, where each replacement is wrong."""
        naming = {"d = 1/2": log(2 * statistics.num_ordinary), "unigram": log(2) + statistics.unigram_entropy}
        return {"corrective_lm": naming, "corrective_lm_copy": {"ln 2": log(2)}}
