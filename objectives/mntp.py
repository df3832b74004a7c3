"""Masked next token prediction."""

from dataclasses import dataclass
from typing import ClassVar

from .base import Corruption, HeadSetting
from .draws import Draws
from .heads import Head, MaskedLMHead
from .mlm import MaskedLanguageModeling
from .sequences import Context, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class MaskedNextTokenPrediction(MaskedLanguageModeling):
    """Name each hidden token from the state of the token before it.

    The masked half of GPT-BERT (Charpentier and Samuel, 2024, section 3, https://arxiv.org/abs/2410.24159), so that
    masked and causal modelling ask the same of a state. The attention is over the whole row.
    """

    name: ClassVar[str] = "mntp"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"next_ids": ()}

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        corruption = super().corrupt(sequences, draws, context)
        hidden = corruption.targets["original_ids"]
        named = {"named": hidden.positions}
        before = Target(positions=hidden.positions - 1, values=hidden.values, pointers=named)  # [CLS] is never hidden
        return Corruption(sequences=corruption.sequences, targets={"next_ids": before})

    def build_head(self, setting: HeadSetting) -> Head:
        return MaskedLMHead(setting.config, setting.table_width, setting.vocabulary.mask_id, target="next_ids")
