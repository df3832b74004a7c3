"""Masked language models of several depths, mixed so that the replacements are hard to tell."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from corpora.errors import UserError
from objectives.batch import Batch, DeviceProposal, Encoded, Loss
from objectives.heads import MaskedLMHead

from .base import GeneratorSetting, Proposed, Proposer
from .learned import LearnedGenerator, draw_from_logits, give_table
from .network import build_network, run_network, table_width, word_table


@dataclass(frozen=True, kw_only=True)
class Mixture(LearnedGenerator):
    """Draw from a mixture of masked LMs that read one network at several depths (Meng et al., 2022, https://arxiv.org/abs/2204.03243).

    AMOS. Each learns by maximum likelihood; how they are mixed at a token is learned against the encoder, whose
    gradient is turned round and goes nowhere else. The network is narrower here than the authors' (width_rate=1,
    depth_rate=.67, taps after 4, 6 and 8 layers), its depths have one head, and its loss is the mean over them.
    """

    name: ClassVar[str] = "mixture"

    num_taps: int = 3  # depths, from half of the layers to all
    relaxation: float = 0.3  # temperature of the Gumbel softmax that stands in for the drawing in the gradient

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relaxation <= 0:
            raise ValueError(f"relaxation is {self.relaxation}; it must be above 0")
        if self.num_taps < 2:
            raise ValueError(f"num_taps is {self.num_taps}; a mixture has 2 or more")

    def build(self, setting: GeneratorSetting) -> Proposer:
        config, shared = self.shrink(setting)
        layers = config.num_hidden_layers
        depths = np.unique(np.linspace(layers / 2, layers, self.num_taps).round().astype(int)).tolist()
        if len(depths) < self.num_taps:
            raise UserError(
                f"generator 'mixture': a network of {layers} layers can't be read at {self.num_taps} depths from half "
                "of it on; give a smaller num_taps, a larger depth_rate or a deeper --encoder"
            )
        return MixtureProposer(config, shared, depths, self.relaxation, setting)


class MixtureProposer(Proposer):
    """Reads the network after each of `depths` layers; `gate` (D -> 1) says how much each counts at a token."""

    special_ids: Tensor

    def __init__(
        self,
        config: PreTrainedConfig,
        shared: nn.Embedding | None,
        depths: list[int],
        relaxation: float,
        setting: GeneratorSetting,
    ) -> None:
        super().__init__()
        self.depths = depths
        self.relaxation = relaxation
        self.network = build_network(config, setting.attention)
        give_table(self.network, shared)
        self.head = MaskedLMHead(config, table_width(config), setting.vocabulary.mask_id)
        self.gate = nn.Linear(config.hidden_size, 1, bias=False)
        nn.init.normal_(self.gate.weight, std=0.02)
        self.register_buffer("special_ids", torch.tensor(setting.vocabulary.special_ids), persistent=False)

    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        table = word_table(self.network)
        output = run_network(self.network, batch.main, every_layer=True)
        assert output.hidden_states is not None and output.last_hidden_state is not None
        states = [*(output.hidden_states[depth] for depth in self.depths[:-1]), output.last_hidden_state]
        taps = [Encoded(state, batch.input_ids, table) for state in states]
        hidden = torch.stack([tap.at(proposal.positions) for tap in taps])  # (taps, N, D)
        logits = [self.head.logits(each, table).float() for each in hidden]  # of (N, V)
        shares = self.gate(hidden.detach()).float().softmax(0)  # (taps, N, 1)
        mixed = (shares * torch.stack(logits).detach()).sum(0)  # (N, V); its gradient reaches the gate alone
        token_ids, log_probabilities = draw_from_logits(mixed, proposal, self.special_ids, temperature=1.0)
        taught = proposal.taught
        positions, originals = proposal.positions[taught], proposal.original_ids[taught]
        losses = [self.head.score(taps[0], positions, originals, each[taught]) for each in logits]
        carrier = self._carry(mixed, proposal, token_ids) if torch.is_grad_enabled() else None
        return Proposed(token_ids, average(losses), log_probabilities, carrier)

    def _carry(self, mixed: Tensor, proposal: DeviceProposal, token_ids: Tensor) -> Tensor:
        """Return zeros (N, V) with the gradient of the relaxed drawing from logits (N, V), turned round."""
        beliefs = mixed.index_fill(1, self.special_ids, -torch.inf)
        if proposal.excludes_original:
            beliefs = beliefs.scatter(1, proposal.original_ids[:, None], -torch.inf)
        drawn, uniforms = token_ids, proposal.uniforms
        if drawn.dim() == 2:
            drawn, uniforms = drawn[:, 0], uniforms[:, 0]
        noise = noise_behind(beliefs.detach().log_softmax(-1), drawn, uniforms)
        soft = ((beliefs + noise) / self.relaxation).softmax(-1)
        return soft.detach() - soft

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return self.head.summarise(statistics, count)


def average(losses: list[Loss]) -> Loss:
    """Return the mean of losses over the same targets."""
    statistics = {
        name: torch.stack([each.statistics[name] for each in losses]).mean(0) for name in losses[0].statistics
    }
    return Loss(torch.stack([each.total for each in losses]).mean(), losses[0].count, statistics)


def noise_behind(log_probabilities: Tensor, drawn: Tensor, uniforms: Tensor) -> Tensor:
    """Return Gumbel noise (N, V) under which `drawn` (N,) has the largest of log_probabilities (N, V) plus noise.

    Drawn from the largest on down (Maddison et al., 2014, https://arxiv.org/abs/1411.0030), so that token
    and noise together are as if the noise had come first; all of it follows from the token's uniform number (N,).
    """
    exponentials = -spread(uniforms, log_probabilities.shape[1]).log()  # (N, V)
    largest = exponentials.gather(1, drawn[:, None])  # exp(-Gumbel) of the largest, whose location is 0
    others = exponentials * torch.exp(-log_probabilities)
    heights = -torch.log(largest + others.scatter(1, drawn[:, None], 0.0))
    return torch.where(torch.isfinite(log_probabilities), heights - log_probabilities, 0.0)


def spread(uniforms: Tensor, count: int) -> Tensor:
    """Hash each number (N,), a multiple of 2**-24, into `count` others within (0, 1): float32 (N, count).

    The finaliser is C. Wellons' lowbias32, https://nullprogram.com/blog/2018/07/31.
    """
    keep = 0xFFFFFFFF
    seeds = (uniforms.double() * 2**24).long() * 0x9E3779B1 & keep
    words = (seeds[:, None] ^ (torch.arange(count, device=uniforms.device) * 0x85EBCA6B & keep)) & keep
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        words = ((words ^ (words >> shift)) * factor) & keep
    words = words ^ (words >> 16)
    return ((words >> 9).float() + 0.5) * 2.0**-23
