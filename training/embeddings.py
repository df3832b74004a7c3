"""How the encoder's word table hangs together with its generator's."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DisentangledEmbedding(nn.Module):
    """The generator's word table (V, E), held fixed, plus a table of the encoder's own that starts at zero.

    See He et al., 2023, section 3.2, https://arxiv.org/abs/2111.09543. The encoder's gradient reaches the difference
    alone; the sum is what is exported.
    """

    def __init__(self, generator_table: nn.Embedding) -> None:
        super().__init__()
        self.generator_table = generator_table
        self.difference = nn.Parameter(torch.zeros_like(generator_table.weight))

    def forward(self, token_ids: Tensor) -> Tensor:
        return F.embedding(token_ids, self.generator_table.weight.detach()) + F.embedding(token_ids, self.difference)

    @property
    def weight(self) -> Tensor:  # (V, E)
        return self.generator_table.weight.detach() + self.difference
