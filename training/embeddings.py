"""How the encoder's word table hangs together with its generator's."""

import numpy as np
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


def start_from_cooccurrences(table: nn.Embedding, vectors: np.ndarray, counts: np.ndarray) -> None:
    """Put co-occurrence vectors (V, E) into a fresh word table, about as long as the random ones that stand there.

    Their mean, weighted by the tokens' counts (V,), is taken off first: it is in all of them, and tells none apart.
    Tokens that were never seen, and the special ones, keep their random vectors.
    """
    seen = np.flatnonzero(np.linalg.norm(vectors, axis=1) > 0)
    centred = vectors[seen] - np.average(vectors[seen], axis=0, weights=counts[seen])
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    with torch.no_grad():
        length = table.weight.norm(dim=1).mean()
        table.weight[torch.from_numpy(seen)] = torch.from_numpy(centred).to(table.weight) * length
