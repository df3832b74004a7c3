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
from .proposals import check_asked, propose_replacements
from .sequences import Context, Proposal, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class MultiChoiceCloze(Objective):
    """Choose what stood in a token's place among candidates, or reject them (Xu et al., 2020, https://arxiv.org/abs/2006.05744).

    MC-BERT. The generator draws `num_candidates` tokens for every ordinary token, and at the selected ones the first of
    them is shown. `choice` is 1, and candidate 1 the original, where another token is shown; else 0, reject. Scores are
    products with the word table and know no place, so that it tells nothing. A candidate that repeats the shown token
    or the original is left out: it would be a second right answer. As in the authors' code the generator is trained at
    the selected tokens alone, and sees the others; special tokens have no candidates here. `asked=selected` asks at the
    selected alone, for a seventh of the generator's logits.
    """

    name: ClassVar[str] = "multi_choice_cloze"
    uses_generator: ClassVar[bool] = True
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"choice": ("reject", "original")}

    weight: float = 50.0
    mask_rate: float = 0.15
    num_candidates: int = 10
    asked: str = "all"

    def __post_init__(self) -> None:
        if self.num_candidates < 2:
            raise ValueError(f"num_candidates is {self.num_candidates}; at least 2 are needed for a choice")
        check_asked(self.asked)

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        hidden, proposal = propose_replacements(sequences, self.mask_rate, draws, context)
        asked = proposal.positions if self.asked == "selected" else np.flatnonzero(sequences.is_free)
        originals, is_selected = sequences.token_ids[asked], np.isin(asked, proposal.positions)
        rows, places = sequences.rows[asked], sequences.places[asked]
        slots = places[:, None] * self.num_candidates + np.arange(self.num_candidates)  # (N, K)
        uniforms = to_uniforms(draws.per_token("candidates", rows[:, None], slots))
        proposal = Proposal(
            positions=asked, original_ids=originals, uniforms=uniforms, fills=is_selected, learns=is_selected
        )
        choice = Target(positions=asked, values=originals)
        return Corruption(sequences=hidden, targets={"choice": choice}, proposal=proposal)

    def judge(self, targets: dict[str, DeviceTarget], batch: Batch, filling: Filling | None) -> dict[str, DeviceTarget]:
        assert filling is not None
        choice, drawn = targets["choice"], filling.token_ids  # (N,), (N, K)
        original, shown = choice.values, batch.input_ids.flatten()[choice.positions]
        is_replaced = filling.proposal.fills & (shown != original)
        candidates = torch.where((drawn == shown[:, None]) | (drawn == original[:, None]), -1, drawn)
        candidates[:, 0] = torch.where(is_replaced, original, candidates[:, 0])
        return {"choice": replace(choice, values=is_replaced.long(), extras={"candidates": candidates})}

    def build_head(self, setting: HeadSetting) -> Head:
        return MultiChoiceHead(setting.config, setting.table_width, "choice")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln (K + 1)": log(self.num_candidates + 1)}
