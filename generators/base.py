"""What a generator is: options, and a module that proposes tokens."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from corpora import Vocabulary
from corpora.tables import Tables
from objectives.batch import Batch, DeviceProposal, DeviceTarget, Filling, Loss


class Proposed(NamedTuple):
    """What a generator proposes for N positions, without gradient, and its own loss if it learns."""

    token_ids: Tensor  # (N,) or (N, K) int64, as many as there are uniform numbers
    loss: Loss | None
    log_probabilities: Tensor | None = None  # (N, V) float32, which may be a view of one row
    carrier: Tensor | None = None  # (N, V) zeros whose gradient is that of the drawn token's one-hot vector


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

    def observe(self, filling: Filling, target: DeviceTarget, predictions: Tensor) -> None:
        """See, while training, what the objective's head made of the proposals."""

    def begin_step(self) -> None:
        """Forget what was gathered for the end of a step that was not taken."""

    def finish_step(self, progress: float, add_up: Callable[[Tensor], Tensor]) -> None:
        """Do what is due after an optimizer step; `add_up` sums a tensor over all processes."""


@dataclass(frozen=True, kw_only=True)
class GeneratorSetting:
    """What a generator may be built from."""

    config: PreTrainedConfig  # the encoder's
    word_embeddings: nn.Embedding  # the encoder's, (V, E)
    vocabulary: Vocabulary
    tables: Tables  # what can be counted over the training text
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

    @property
    def rate_factor(self) -> float:
        """What its learning rate is, against the encoder's."""
        return 1.0

    @property
    def apart(self) -> bool:
        """Whether its gradient is clipped by itself, as if it had an optimizer of its own."""
        return False

    @abstractmethod
    def build(self, setting: GeneratorSetting) -> Proposer:
        """Make the module that proposes."""


def draw_tokens(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Draw from each row of float32 weights (N, V) by the inverse of its cumulative sum at uniforms (N,) or (N, K).

    A token of weight 0 is never drawn. Several draws of a row are independent.
    """
    cumulative = weights.cumsum(-1)
    thresholds = (uniforms if uniforms.dim() == 2 else uniforms[:, None]) * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, thresholds, right=True)
    return drawn.clamp_(max=weights.shape[-1] - 1).view_as(uniforms)


def draw_allowed(weights: Tensor, proposal: DeviceProposal) -> Tensor:
    """Draw from weights (N, V) as a proposal wants it: never the original where that is excluded."""
    if proposal.excludes_original:
        weights = weights.scatter(1, proposal.original_ids[:, None], 0.0)
    return draw_tokens(weights, proposal.uniforms)
