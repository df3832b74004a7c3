"""Any ordinary token, each as often as the other."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from objectives.batch import Batch, DeviceProposal

from .base import Generator, GeneratorSetting, Proposed, Proposer


@dataclass(frozen=True, kw_only=True)
class Uniform(Generator):
    """Draw from all ordinary tokens alike: the easiest replacements to detect.

    This is the uniform generator of Clark et al., 2020, section 3.3.
    """

    name: ClassVar[str] = "uniform"

    def build(self, setting: GeneratorSetting) -> Proposer:
        return UniformProposer(torch.from_numpy(setting.vocabulary.ordinary_ids), setting.vocabulary.size)


class UniformProposer(Proposer):
    """Looks the token up in the list of ordinary ids (V',)."""

    ordinary_ids: torch.Tensor
    log_probabilities: torch.Tensor

    def __init__(self, ordinary_ids: torch.Tensor, vocab_size: int) -> None:
        super().__init__()
        log_probabilities = torch.full((vocab_size,), -torch.inf)
        log_probabilities[ordinary_ids] = -math.log(len(ordinary_ids))
        self.register_buffer("ordinary_ids", ordinary_ids, persistent=False)
        self.register_buffer("log_probabilities", log_probabilities, persistent=False)

    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        uniforms = proposal.uniforms.double()
        if proposal.excludes_original:  # draw among the others: those from the original's place on move up by one
            places = (uniforms * (len(self.ordinary_ids) - 1)).long()
            original = torch.searchsorted(self.ordinary_ids, proposal.original_ids)
            places += places >= original.view(-1, *[1] * (places.dim() - 1))
        else:
            places = (uniforms * len(self.ordinary_ids)).long()
        shape = (len(proposal.positions), len(self.log_probabilities))
        return Proposed(self.ordinary_ids[places], None, self.log_probabilities.expand(shape))
