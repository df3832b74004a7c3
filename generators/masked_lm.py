"""A small masked language model, trained beside the encoder."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from transformers import PreTrainedConfig

from objectives.batch import Batch, Encoded
from objectives.heads import MaskedLMHead

from .base import GeneratorSetting, Proposer
from .learned import ClozeProposer, LearnedGenerator, give_table
from .network import build_network, encode, table_width, word_table
from .two_tower import TwoTowerProposer


@dataclass(frozen=True, kw_only=True)
class MaskedLM(LearnedGenerator):
    """A masked LM of the encoder's own architecture, smaller, that learns jointly by maximum likelihood.

    The method is that of Clark et al., 2020, section 2, https://arxiv.org/abs/2003.10555.

    `sharing` of the word table with the encoder: "none"; "hard", one table for both (ELECTRA); "gdes", the encoder adds
    a table of its own to the generator's, which gets no gradient from it (He et al., 2023, section 3.2,
    https://arxiv.org/abs/2111.09543). Where the widths differ and the architecture has no projection of embeddings, the
    shared table is projected by a matrix of the generator's.

    `towers=two`: two networks, left to right and right to left, that never see the token they name (Clark et al.,
    2020b, https://arxiv.org/abs/2012.08561). `decoupled`: as if generator and encoder had an optimizer each, as in
    DeBERTaV3's code; there the generator takes its step before the encoder reads the table that they share, here both
    take it at once.
    """

    name: ClassVar[str] = "masked_lm"

    temperature: float = 1.0
    towers: str = "one"
    decoupled: bool = False  # its gradient is clipped apart from the encoder's
    learning_rate_factor: float = 1.0  # of its learning rate, against the encoder's

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0")
        if self.towers not in ("one", "two"):
            raise ValueError(f"towers is '{self.towers}'; it must be one or two")
        if self.decoupled and self.sharing == "hard":
            raise ValueError("decoupled needs tables that can be optimised apart; give sharing=gdes or sharing=none")
        if self.learning_rate_factor <= 0:
            raise ValueError(f"learning_rate_factor is {self.learning_rate_factor}; it must be above 0")

    @property
    def rate_factor(self) -> float:
        return self.learning_rate_factor

    @property
    def apart(self) -> bool:
        return self.decoupled

    def build(self, setting: GeneratorSetting) -> Proposer:
        proposer = MaskedLMProposer if self.towers == "one" else TwoTowerProposer
        return proposer(*self.shrink(setting), self.temperature, setting)


class MaskedLMProposer(ClozeProposer):
    """Encodes the hidden batch, and names what is hidden in it."""

    def __init__(
        self, config: PreTrainedConfig, shared: nn.Embedding | None, temperature: float, setting: GeneratorSetting
    ) -> None:
        super().__init__(temperature, setting)
        self.network = build_network(config, setting.attention)
        give_table(self.network, shared)
        self.head = MaskedLMHead(config, table_width(config), setting.vocabulary.mask_id)

    def logits(self, batch: Batch, positions: Tensor) -> Tensor:
        table = word_table(self.network)  # (V, E)
        encoded = Encoded(encode(self.network, batch.main), batch.input_ids, table)
        return self.head.logits(encoded.at(positions), table).float()
