"""A head that names hidden tokens from what stands beside their span."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig

from .batch import DeviceTarget, Encoded, Loss
from .heads import Head, Transform, TransformStyle

OFFSET_WIDTH = 200  # of the embedding of an offset, in the authors' code (SpanBERT, pair_bert.py)


class BoundaryHead(Head):
    """Two layers over (left neighbour, right neighbour, offset), tied to the word table with a bias of its own.

    It never sees the hidden state of the token itself (Joshi et al., 2020, section 3.2).
    """

    def __init__(self, config: PreTrainedConfig, table_width: int, num_offsets: int) -> None:
        super().__init__()
        width, std = config.hidden_size, config.initializer_range
        style = TransformStyle(activation="gelu", norm=True)
        self.offsets = nn.Embedding(num_offsets, OFFSET_WIDTH)
        nn.init.normal_(self.offsets.weight, std=std)
        self.first = Transform(style, 2 * width + OFFSET_WIDTH, width, std)
        self.second = Transform(style, width, table_width, std)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def logits(self, left: Tensor, right: Tensor, offsets: Tensor, word_table: Tensor) -> Tensor:
        """Return (N, V) from hidden states (N, D) of the neighbours and the offsets (N,)."""
        joined = torch.cat([left, right, self.offsets(offsets).to(left.dtype)], dim=-1)
        return F.linear(self.second(self.first(joined)), word_table, self.bias)

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        target = targets["original_ids"]
        left, right = encoded.at(target.pointers["left"]), encoded.at(target.pointers["right"])
        logits = self.logits(left, right, target.extras["offset"], encoded.word_table).float()
        correct = (logits.detach().argmax(-1) == target.values).double().sum()
        return Loss(F.cross_entropy(logits, target.values, reduction="sum"), len(target.values), {"correct": correct})

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return {"accuracy": float(statistics["correct"]) / max(count, 1)}
