"""What a generator is: options, and a module that proposes tokens."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from corpora import Vocabulary
from objectives.batch import Batch, DeviceProposal, Loss


class Proposed(NamedTuple):
    """Token ids (N,) for the asked positions, without gradient, and the generator's own loss if it learns."""

    token_ids: Tensor
    loss: Loss | None


class Proposer(nn.Module, ABC):
    """A generator at work.

    Its only chance is the proposal's uniform numbers, so that a proposal does not depend on the batch it is made in.
    """

    @abstractmethod
    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        """Propose a token for each asked position."""

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        """Turn the summed statistics of its own loss into held-out figures."""
        return {}


@dataclass(frozen=True, kw_only=True)
class GeneratorSetting:
    """What a generator may be built from."""

    config: PreTrainedConfig  # the encoder's
    word_embeddings: nn.Embedding  # the encoder's, (V, E)
    vocabulary: Vocabulary
    unigram_counts: np.ndarray  # (V,) int64, of the training text
    attention: str


@dataclass(frozen=True, kw_only=True)
class Generator(ABC):
    """The options of a way to fill in hidden tokens; it proposes, the objective labels."""

    name: ClassVar[str]

    @property
    def loss_weight(self) -> float | None:
        """The weight of its own loss, or None where it does not learn."""
        return None

    @property
    def table_sharing(self) -> str:
        """How its word table hangs together with the encoder's: none, hard or gdes."""
        return "none"

    @abstractmethod
    def build(self, setting: GeneratorSetting) -> Proposer:
        """Make the module that proposes."""


def draw_tokens(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Draw from each row of float32 weights (N, V) by the inverse of its cumulative sum at uniforms (N,).

    A token of weight 0 is never drawn.
    """
    cumulative = weights.cumsum(-1)
    thresholds = uniforms[:, None] * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, thresholds, right=True).squeeze(-1)
    return drawn.clamp_(max=weights.shape[-1] - 1)
