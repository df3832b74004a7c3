"""What an objective is: up to three answers, none of which knows a model or a loop."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor
from transformers import PreTrainedConfig

from corpora import Vocabulary
from corpora.passages import Passages

from .batch import DeviceTarget
from .draws import Draws
from .heads import Head
from .sequences import Arrangement, Proposal, Selection, Sequences, Target, in_order


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """Changed sequences, what is asked about them, and where a generator is to fill in."""

    sequences: Sequences
    targets: dict[str, Target]
    proposal: Proposal | None = None


@dataclass(frozen=True, kw_only=True)
class TextStatistics:
    """What chance knows of a corpus: the number of ordinary tokens, and the entropy of their frequencies in nats."""

    num_ordinary: int
    unigram_entropy: float


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A self-supervised task. Its fields are the paper's options with the paper's defaults; it holds no tensors.

    `arrange` decides which text an example shows and in which order, `corrupt` which tokens change, `build_head` what
    must undo it. Targets that `arrange` names are asked at [CLS].
    """

    name: ClassVar[str]
    uses_generator: ClassVar[bool] = False
    num_segments: ClassVar[int] = 1
    labels: ClassVar[dict[str, tuple[str, ...]]]  # target -> what its values 0, 1, ... mean; empty: they are token ids

    weight: float = 1.0

    @property
    def needs(self) -> str | None:
        """What a passage must be for `can_carry`, in words; None where any will do."""
        return None

    def can_carry(self, passages: Passages) -> np.ndarray:
        """Say for each passage whether an example can be made from it (P,)."""
        return np.ones(len(passages), dtype=bool)

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        """Choose and order the text of each example."""
        return Arrangement(pieces=in_order(selection), targets={})

    def corrupt(self, sequences: Sequences, draws: Draws, vocabulary: Vocabulary) -> Corruption:
        """Change free tokens, and say what is asked."""
        return Corruption(sequences=sequences, targets={})

    def judge(self, targets: dict[str, DeviceTarget], input_ids: Tensor) -> dict[str, DeviceTarget]:
        """Complete the targets once a generator has filled in (B, L) `input_ids`."""
        return targets

    @abstractmethod
    def build_head(self, config: PreTrainedConfig, table_width: int, vocabulary: Vocabulary) -> Head:
        """Return the module that answers the targets.

        It is for an encoder of this configuration and a word table (V, table_width).
        """

    @abstractmethod
    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        """Return the losses in nats of predictors that do not look at the text, by name.

        The first is that of an untrained head.
        """

    @classmethod
    def arranges(cls) -> bool:
        """Say whether this objective decides on the order of the text: at most one of a composition may."""
        return cls.arrange is not Objective.arrange
