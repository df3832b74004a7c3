"""Any ordinary token, each as often as the other."""

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
        return UniformProposer(torch.from_numpy(setting.vocabulary.ordinary_ids))


class UniformProposer(Proposer):
    """Looks the token up in the list of ordinary ids (V',)."""

    ordinary_ids: torch.Tensor

    def __init__(self, ordinary_ids: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("ordinary_ids", ordinary_ids, persistent=False)

    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        places = (proposal.uniforms.double() * len(self.ordinary_ids)).long()
        return Proposed(self.ordinary_ids[places], None)
