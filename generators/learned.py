"""What generators that learn share: a smaller encoder, its word table, and how tokens are drawn from its logits."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from corpora.errors import UserError
from objectives.batch import Batch, DeviceProposal, Encoded
from objectives.heads import MaskedLMHead

from .base import Generator, GeneratorSetting, Proposed, Proposer, draw_allowed
from .network import table_width, word_table

_SIZES = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers", "initializer_range")
SHARING = ("none", "hard", "gdes")


@dataclass(frozen=True, kw_only=True)
class LearnedGenerator(Generator):
    """A smaller encoder of the same architecture, which learns beside it by maximum likelihood."""

    width_rate: float = 0.25  # of the encoder's; Clark et al. find 1/4 to 1/2 best
    depth_rate: float = 1.0
    sharing: str = "hard"
    weight: float = 1.0  # of the generator's own loss

    def __post_init__(self) -> None:
        if self.sharing not in SHARING:
            raise ValueError(f"sharing is '{self.sharing}'; it must be one of {', '.join(SHARING)}")
        if not (0 < self.width_rate <= 1 and 0 < self.depth_rate <= 1):
            raise ValueError("width_rate and depth_rate must lie in (0, 1]")

    @property
    def loss_weight(self) -> float:
        return self.weight

    @property
    def table_sharing(self) -> str:
        return self.sharing

    def shrink(self, setting: GeneratorSetting) -> tuple[PreTrainedConfig, nn.Embedding | None]:
        """Return the smaller encoder's configuration, and the word table that it shares, if any."""
        shared = None if self.sharing == "none" else setting.word_embeddings
        return shrink_config(setting.config, self.width_rate, self.depth_rate), shared


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


class ClozeProposer(Proposer):
    """Names what is asked for by its `logits`, learns to, and draws from what it believes.

    Its drawing has no gradient.
    """

    special_ids: Tensor
    head: MaskedLMHead

    def __init__(self, temperature: float, setting: GeneratorSetting) -> None:
        super().__init__()
        self.temperature = temperature
        self.register_buffer("special_ids", torch.tensor(setting.vocabulary.special_ids), persistent=False)

    @abstractmethod
    def logits(self, batch: Batch, positions: Tensor) -> Tensor:
        """Return float32 logits (N, V) of the tokens at flat `positions` (N,) of the main view."""

    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        logits = self.logits(batch, proposal.positions)
        token_ids, log_probabilities = draw_from_logits(logits, proposal, self.special_ids, self.temperature)
        encoded = Encoded(logits, batch.input_ids, logits)  # for the ids alone
        taught = proposal.taught
        loss = self.head.score(encoded, proposal.positions[taught], proposal.original_ids[taught], logits[taught])
        return Proposed(token_ids, loss, log_probabilities)

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return self.head.summarise(statistics, count)
