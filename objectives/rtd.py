"""Replaced token detection."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .batch import Batch, DeviceTarget, Filling
from .draws import Draws
from .heads import DetectionHead, Head
from .heads_detection import ContextDetectionHead
from .proposals import ask_originals, check_asked, mark_replaced, propose_replacements
from .sequences import Context, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class ReplacedTokenDetection(Objective):
    """Tell for every token whether a generator replaced it (Clark et al., 2020, section 2, https://arxiv.org/abs/2003.10555).

    `is_replaced` is 1 where the token differs from the original: a generator that guesses right leaves an original.
    All tokens are asked, [CLS] and [SEP] too as in the authors' code, but for those that another objective has hidden;
    or the `selected` alone, which is ELECTRA 15% (section 3.4). Selection is without replacement, where their code
    selects some tokens twice. `kept_rate` of the selected tokens the generator sees unhidden: 0 as in the paper, .15 in
    the authors' code. With `disallow_correct`, an option of theirs, the generator can't draw the original. `head`
    is "context" in DeBERTaV3's code (He et al., 2023, https://arxiv.org/abs/2111.09543).
    """

    name: ClassVar[str] = "rtd"
    uses_generator: ClassVar[bool] = True
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_replaced": ("original", "replaced")}

    weight: float = 50.0
    mask_rate: float = 0.15
    kept_rate: float = 0.0
    asked: str = "all"
    disallow_correct: bool = False
    head: str = "token"  # what answers: "token", from the token's state alone; or "context", with [CLS] added

    def __post_init__(self) -> None:
        check_asked(self.asked)
        if self.head not in ("token", "context"):
            raise ValueError(f"head is '{self.head}'; it must be token or context")
        if self.asked == "selected" and self.disallow_correct:
            raise ValueError("asked=selected with disallow_correct leaves one answer, replaced; give one of them")

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        hidden, proposal = propose_replacements(
            sequences,
            self.mask_rate,
            draws,
            context,
            kept_rate=self.kept_rate,
            excludes_original=self.disallow_correct,
        )
        original = ask_originals(sequences)
        if self.asked == "selected":
            original = Target(positions=proposal.positions, values=proposal.original_ids)
        return Corruption(sequences=hidden, targets={"is_replaced": original}, proposal=proposal)

    def judge(self, targets: dict[str, DeviceTarget], batch: Batch, filling: Filling | None) -> dict[str, DeviceTarget]:
        return {"is_replaced": mark_replaced(targets["is_replaced"], batch, filling)}

    def build_head(self, setting: HeadSetting) -> Head:
        head = DetectionHead if self.head == "token" else ContextDetectionHead
        return head(setting.config, "is_replaced")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2)}
