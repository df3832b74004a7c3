"""Tokens as often as the corpus has them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from objectives.batch import Batch, DeviceProposal

from .base import Generator, GeneratorSetting, Proposed, Proposer


@dataclass(frozen=True, kw_only=True)
class Unigram(Generator):
    """Draw by frequency in the training text, so that rarity does not give a replacement away.

    This is the unigram generator of Clark et al., 2020, section 3.3.
    """

    name: ClassVar[str] = "unigram"

    def build(self, setting: GeneratorSetting) -> Proposer:
        counts = setting.unigram_counts.astype(np.float64)
        counts[list(setting.vocabulary.special_ids)] = 0
        return UnigramProposer(torch.from_numpy(np.cumsum(counts) / counts.sum()))


class UnigramProposer(Proposer):
    """Looks the token up in the cumulative frequencies (V,), float64: float32 would never draw the rarest."""

    cumulative: torch.Tensor

    def __init__(self, cumulative: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("cumulative", cumulative, persistent=False)

    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        drawn = torch.searchsorted(self.cumulative, proposal.uniforms.double(), right=True)
        return Proposed(drawn.clamp_(max=len(self.cumulative) - 1), None)
