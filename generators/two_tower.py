"""A cloze model of two networks, one for each direction, that never see the token they name."""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from objectives.batch import Batch, Encoded
from objectives.heads import MaskedLMHead, Transform, lm_style

from .base import GeneratorSetting
from .learned import ClozeProposer, give_table
from .network import build_network, encode, table_width, word_table


class TwoTowerProposer(ClozeProposer):
    """Names each token from what a left-to-right network says before it and a right-to-left one behind it.

    See Clark et al., 2020b, https://arxiv.org/abs/2012.08561. So a token need not be hidden to
    be asked for. The towers have one word table.
    """

    def __init__(
        self, config: PreTrainedConfig, shared: nn.Embedding | None, temperature: float, setting: GeneratorSetting
    ) -> None:
        super().__init__(temperature, setting)
        self.rightward = build_network(config, setting.attention)
        self.leftward = build_network(config, setting.attention)
        give_table(self.rightward, shared)
        self.leftward.set_input_embeddings(cast(nn.Module, self.rightward.get_input_embeddings()))
        width = table_width(config)
        self.head = MaskedLMHead(config, width, setting.vocabulary.mask_id)
        self.head.transform = Transform(lm_style(config), 2 * config.hidden_size, width, config.initializer_range)

    def logits(self, batch: Batch, positions: Tensor) -> Tensor:
        """Return what stands at flat `positions` (N,), never first or last of their rows, as logits (N, V)."""
        table = word_table(self.rightward)
        before = Encoded(encode(self.rightward, replace(batch.main, attention="causal")), batch.input_ids, table)
        behind = Encoded(encode(self.leftward, replace(batch.main, attention="reverse")), batch.input_ids, table)
        hidden = torch.cat([before.at(positions - 1), behind.at(positions + 1)], dim=-1)  # (N, 2 D)
        return self.head.logits(hidden, table).float()
