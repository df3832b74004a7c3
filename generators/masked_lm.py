"""A small masked language model, trained beside the encoder."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from corpora.errors import UserError
from objectives.batch import Batch, DeviceProposal, Encoded
from objectives.heads import MaskedLMHead

from .base import Generator, GeneratorSetting, Proposed, Proposer, draw_allowed
from .network import build_network, encode, table_width, word_table

_SIZES = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers", "initializer_range")
SHARING = ("none", "hard", "gdes")


@dataclass(frozen=True, kw_only=True)
class MaskedLM(Generator):
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

    width_rate: float = 0.25  # of the encoder's; Clark et al. find 1/4 to 1/2 best
    depth_rate: float = 1.0
    temperature: float = 1.0
    sharing: str = "hard"
    towers: str = "one"
    decoupled: bool = False  # its gradient is clipped apart from the encoder's
    learning_rate_factor: float = 1.0  # of its learning rate, against the encoder's
    weight: float = 1.0  # of the generator's own loss

    def __post_init__(self) -> None:
        if self.sharing not in SHARING:
            raise ValueError(f"sharing is '{self.sharing}'; it must be one of {', '.join(SHARING)}")
        if not (0 < self.width_rate <= 1 and 0 < self.depth_rate <= 1 and self.temperature > 0):
            raise ValueError("width_rate and depth_rate must lie in (0, 1], and temperature above 0")
        if self.towers not in ("one", "two"):
            raise ValueError(f"towers is '{self.towers}'; it must be one or two")
        if self.decoupled and self.sharing == "hard":
            raise ValueError("decoupled needs tables that can be optimised apart; give sharing=gdes or sharing=none")
        if self.learning_rate_factor <= 0:
            raise ValueError(f"learning_rate_factor is {self.learning_rate_factor}; it must be above 0")

    @property
    def loss_weight(self) -> float:
        return self.weight

    @property
    def table_sharing(self) -> str:
        return self.sharing

    @property
    def rate_factor(self) -> float:
        return self.learning_rate_factor

    @property
    def apart(self) -> bool:
        return self.decoupled

    def build(self, setting: GeneratorSetting) -> Proposer:
        from .two_tower import TwoTowerProposer  # which is made of what is here

        config = shrink_config(setting.config, self.width_rate, self.depth_rate)
        shared = None if self.sharing == "none" else setting.word_embeddings
        proposer = MaskedLMProposer if self.towers == "one" else TwoTowerProposer
        return proposer(config, shared, self.temperature, setting)


def shrink_config(config: PreTrainedConfig, width_rate: float, depth_rate: float) -> PreTrainedConfig:
    """Return the configuration of a smaller encoder.

    It has fewer heads of about the same width, the initialisation adapted to the width.
    """
    missing = [name for name in _SIZES if not hasattr(config, name)]
    if missing:
        raise UserError(
            f"no smaller {config.model_type} can be derived for the generator masked_lm: its configuration has no "
            f"{', '.join(missing)}; give --generator uniform or unigram, or another encoder"
        )
    heads = max(1, round(config.num_attention_heads * width_rate))
    width = max(8, round(config.hidden_size * width_rate / heads / 8) * 8) * heads
    changes = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": max(8, round(config.intermediate_size * width / config.hidden_size)),
        "num_hidden_layers": max(1, round(config.num_hidden_layers * depth_rate)),
        "initializer_range": config.initializer_range * math.sqrt(config.hidden_size / width),
    }
    settings = config.to_dict() | changes
    if settings.get("layer_types"):
        settings["layer_types"] = settings["layer_types"][: changes["num_hidden_layers"]]
    return type(config).from_dict(settings)


class ProjectedEmbedding(nn.Module):
    """A word table (V, E) shared with another network, seen through a projection (E, W).

    The effective table is their product.
    """

    def __init__(self, shared: nn.Embedding, width: int, initializer_range: float) -> None:
        super().__init__()
        self.shared = shared
        self.projection = nn.Parameter(torch.empty(shared.embedding_dim, width).normal_(std=initializer_range))

    def forward(self, token_ids: Tensor) -> Tensor:
        return self.shared(token_ids) @ self.projection

    @property
    def weight(self) -> Tensor:  # (V, W)
        return self.shared.weight @ self.projection


def give_table(network: PreTrainedModel, shared: nn.Embedding | None) -> None:
    """Let a fresh network read by the encoder's word table, or start its own so that logits vary by about 1."""
    config = network.config
    width = table_width(config)
    if shared is None:  # also where the table is wider than the network
        std = config.initializer_range * math.sqrt(config.hidden_size / width)
        nn.init.normal_(word_table(network), std=std)
    elif shared.embedding_dim == width:
        network.set_input_embeddings(shared)
    else:
        network.set_input_embeddings(ProjectedEmbedding(shared, width, config.initializer_range))


def draw_from_logits(
    logits: Tensor, proposal: DeviceProposal, special_ids: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return tokens drawn from the softmax of logits (N, V), and its logarithm (N, V); no gradient, no special id."""
    with torch.no_grad():
        beliefs = logits.detach() / temperature
        beliefs[:, special_ids] = -torch.inf
        log_probabilities = beliefs.log_softmax(-1)
        return draw_allowed(log_probabilities.exp(), proposal), log_probabilities


class MaskedLMProposer(Proposer):
    """Encodes the hidden batch, learns to name what is hidden, and draws from what it believes.

    Its drawing has no gradient.
    """

    def __init__(
        self, config: PreTrainedConfig, shared: nn.Embedding | None, temperature: float, setting: GeneratorSetting
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.network = build_network(config, setting.attention)
        give_table(self.network, shared)
        self.head = MaskedLMHead(config, table_width(config), setting.vocabulary.mask_id)
        self.register_buffer("special_ids", torch.tensor(setting.vocabulary.special_ids), persistent=False)

    special_ids: Tensor

    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        table = word_table(self.network)  # (V, E)
        encoded = Encoded(encode(self.network, batch.main), batch.input_ids, table)
        logits = self.head.logits(encoded.at(proposal.positions), table).float()  # (N, V)
        token_ids, log_probabilities = draw_from_logits(logits, proposal, self.special_ids, self.temperature)
        loss = self.head.score(encoded, proposal.positions, proposal.original_ids, logits)
        return Proposed(token_ids, loss, log_probabilities)

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return self.head.summarise(statistics, count)
