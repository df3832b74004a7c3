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
        counts = setting.tables.unigram_counts.astype(np.float64)
        counts[list(setting.vocabulary.special_ids)] = 0
        return UnigramProposer(torch.from_numpy(np.cumsum(counts) / counts.sum()))


class UnigramProposer(Proposer):
    """Looks the token up in the cumulative frequencies (V,), float64: float32 would never draw the rarest."""

    cumulative: torch.Tensor
    log_probabilities: torch.Tensor

    def __init__(self, cumulative: torch.Tensor) -> None:
        super().__init__()
        log_probabilities = cumulative.diff(prepend=cumulative.new_zeros(1)).log().float()
        self.register_buffer("cumulative", cumulative, persistent=False)
        self.register_buffer("log_probabilities", log_probabilities, persistent=False)

    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        uniforms = proposal.uniforms.double()
        if proposal.excludes_original:  # take its share out of the unit interval
            after = self.cumulative[proposal.original_ids]
            before = torch.where(
                proposal.original_ids > 0, self.cumulative[(proposal.original_ids - 1).clamp(min=0)], 0.0
            )
            before, after = (each.view(-1, *[1] * (uniforms.dim() - 1)) for each in (before, after))
            uniforms = uniforms * (1 - (after - before))
            uniforms = torch.where(uniforms >= before, uniforms + (after - before), uniforms)
        drawn = torch.searchsorted(self.cumulative, uniforms, right=True).clamp_(max=len(self.cumulative) - 1)
        shape = (len(proposal.positions), len(self.cumulative))
        return Proposed(drawn, None, self.log_probabilities.expand(shape))
