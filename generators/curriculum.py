"""A masked language model whose replacements become harder in the course of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from objectives.batch import Batch, DeviceProposal

from .base import GeneratorSetting, Proposed, Proposer, draw_allowed
from .learned import LearnedGenerator
from .masked_lm import MaskedLMProposer
from .uniform import Uniform
from .unigram import Unigram


@dataclass(frozen=True, kw_only=True)
class Curriculum(LearnedGenerator):
    """Draw as masked_lm does, from a smoother distribution at first (Dong et al., 2024, https://arxiv.org/abs/2310.07347).

    Two ways: a temperature that falls from `start_temperature` to 1, and a share of `easier` draws (uniform or unigram)
    that falls from `easier_rate` to 0. Both fall linearly, over the first `until_rate` of the run. Fast-ELECTRA's
    generator has learned before; this one learns beside the encoder.
    """

    name: ClassVar[str] = "curriculum"

    start_temperature: float = 2.0
    easier_rate: float = 0.0
    easier: str = "unigram"
    until_rate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.easier not in ("uniform", "unigram"):
            raise ValueError(f"easier is '{self.easier}'; it must be uniform or unigram")
        if self.start_temperature <= 0:
            raise ValueError(f"start_temperature is {self.start_temperature}; it must be above 0")

    def build(self, setting: GeneratorSetting) -> Proposer:
        learned = MaskedLMProposer(*self.shrink(setting), temperature=1.0, setting=setting)
        easier = (Uniform() if self.easier == "uniform" else Unigram()).build(setting)
        return CurriculumProposer(learned, easier, self)


class CurriculumProposer(Proposer):
    """Mixes what the two propose by how far the run is, which is kept with the weights."""

    progress: Tensor

    def __init__(self, learned: MaskedLMProposer, easier: Proposer, options: Curriculum) -> None:
        super().__init__()
        self.learned = learned
        self.easier = easier
        self.options = options
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    @property
    def ease(self) -> float:
        """What is left of the ease of the start: from 1 down to 0."""
        until = self.options.until_rate
        return max(0.0, 1 - float(self.progress) / until) if until else 0.0

    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        self.learned.temperature = 1 + (self.options.start_temperature - 1) * self.ease
        proposed = self.learned(batch, proposal)
        share = self.options.easier_rate * self.ease
        if share == 0:
            return proposed
        easier = self.easier(batch, proposal)
        weights = (1 - share) * proposed.log_probabilities.exp() + share * easier.log_probabilities.exp()
        return Proposed(draw_allowed(weights, proposal), proposed.loss, weights.log())

    def finish_step(self, progress: float, add_up: Callable[[Tensor], Tensor]) -> None:
        self.progress.fill_(progress)

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return self.learned.summarise(statistics, count)
