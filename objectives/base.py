"""What an objective is: up to three answers, none of which knows a model or a loop."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from transformers import PreTrainedConfig

from corpora import Vocabulary
from corpora.passages import Passages
from corpora.tables import Tables

from .batch import MAIN, Batch, DeviceTarget, Filling
from .draws import Draws
from .heads import Head
from .sequences import Arrangement, Context, Proposal, Selection, Sequences, Target, TextView, in_order


@dataclass(frozen=True, kw_only=True)
class Term:
    """One loss of an objective: its weight, and the targets whose number it is divided by."""

    weight: float
    targets: tuple[str, ...]


Chance = Mapping[str, float] | Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """Changed sequences, what is asked about them, and where a generator is to fill in."""

    sequences: Sequences
    targets: dict[str, Target] = field(default_factory=dict)
    proposal: Proposal | None = None
    views: dict[str, TextView] = field(default_factory=dict)  # the objective's own texts
    source: np.ndarray | None = None  # where the length has changed: which token before each is (T',), -1: none


@dataclass(frozen=True, kw_only=True)
class TextStatistics:
    """What chance knows of a corpus: the number of ordinary tokens, and the entropy of their frequencies in nats."""

    num_ordinary: int
    unigram_entropy: float
    tables: Tables | None = None  # everything else that can be counted
    rows: int = 0  # of a micro-batch
    lengths: np.ndarray | None = None  # (P,) of the training passages, with [CLS] and [SEP]


@dataclass(frozen=True, kw_only=True)
class HeadSetting:
    """What a head may be built from."""

    config: PreTrainedConfig  # the encoder's
    table_width: int  # E of the word table (V, E)
    vocabulary: Vocabulary
    tables: Tables | None = None
    rows: int = 0  # of a micro-batch


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A self-supervised task. Its fields are the paper's options with the paper's defaults; it holds no tensors.

    `arrange` decides which text an example shows and in which order, `corrupt` which tokens change, `build_head` what
    must undo it. Targets that `arrange` names are asked at [CLS], or at the first token of each piece.
    """

    name: ClassVar[str]
    uses_generator: ClassVar[bool] = False
    generator: ClassVar[str | None] = None  # the one that it is defined by ("cluster"); None: the run's
    num_segments: ClassVar[int] = 1
    labels: ClassVar[dict[str, tuple[str, ...]]]  # target -> what its values 0, 1, ... mean; empty: they are token ids
    reads: ClassVar[tuple[str, ...]] = (MAIN,)  # the views that the encoder reads for the head, the first first
    compares_rows: ClassVar[bool] = False  # its loss sets the examples of a micro-batch against each other

    weight: float = 1.0

    @property
    def unit(self) -> str:
        """What a passage may not go beyond: "document", or "paragraph"."""
        return "document"

    @property
    def terms(self) -> dict[str, Term]:
        """The losses that the head returns: by default one, of the objective's name and weight, over all targets."""
        return {self.name: Term(weight=self.weight, targets=tuple(self.labels))}

    @property
    def needs(self) -> str | None:
        """What a passage must be for `can_carry`, in words; None where any will do."""
        return None

    def can_carry(self, passages: Passages) -> np.ndarray:
        """Say for each passage whether an example can be made from it (P,)."""
        return np.ones(len(passages), dtype=bool)

    def reserve(self, max_tokens: int) -> int:
        """Return how many of the `max_tokens` of an example's text to leave free, for what is inserted later."""
        return 0

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        """Choose and order the text of each example."""
        return Arrangement(pieces=in_order(selection))

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        """Change free tokens, and say what is asked."""
        return Corruption(sequences=sequences)

    def judge(self, targets: dict[str, DeviceTarget], batch: Batch, filling: Filling | None) -> dict[str, DeviceTarget]:
        """Complete the targets once generators have filled in the main view of `batch`; the numbers stay the same."""
        return targets

    @abstractmethod
    def build_head(self, setting: HeadSetting) -> Head:
        """Return the module that answers the targets."""

    @abstractmethod
    def chance(self, statistics: TextStatistics) -> Chance:
        """Return the losses in nats of predictors that do not look at the text, by name.

        The first is that of an untrained head. With several terms: these by term.
        """

    @classmethod
    def arranges(cls) -> bool:
        """Say whether this objective decides on the order of the text: at most one of a composition may."""
        return cls.arrange is not Objective.arrange


def levels_of(objective: Objective, statistics: TextStatistics) -> dict[str, dict[str, float]]:
    """Return the losses of chance by term, also where an objective has just one."""
    chance = objective.chance(statistics)
    by_term = {name: dict(levels) for name, levels in chance.items() if isinstance(levels, Mapping)}
    single = {name: level for name, level in chance.items() if not isinstance(level, Mapping)}
    return by_term or {objective.name: single}
