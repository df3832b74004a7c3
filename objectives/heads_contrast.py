"""Heads that set the examples of a micro-batch against each other."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig

from .batch import DeviceTarget, Encoded, Loss
from .gather import gather_rows
from .heads import HEAD_STD, Head


class ContrastHead(Head):
    """For each example, finds its partner among those of the micro-batch, by the likeness of two [CLS] vectors.

    Cosine over a temperature, cross-entropy over all partners, those of other processes too (van den Oord et al., 2018,
    https://arxiv.org/abs/1807.03748). `symmetric`: both sides look for their partner, and the loss is the mean. A dense
    layer and tanh stand before it, as in SimCSE. The layer starts as a bias and hardly anything else, so that all texts
    look alike and the first loss is that of chance.
    """

    def __init__(self, config: PreTrainedConfig, target: str, temperature: float, *, symmetric: bool = False) -> None:
        super().__init__()
        self.target = target
        self.temperature = temperature
        self.symmetric = symmetric
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        nn.init.normal_(self.dense.weight, std=HEAD_STD)
        nn.init.normal_(self.dense.bias)

    def transform(self, hidden: Tensor) -> Tensor:  # (B, D)
        return self.dense(hidden).tanh()

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        (other,) = encoded.others.values()
        ours = F.normalize(self.transform(encoded.firsts).float(), dim=-1)
        theirs = F.normalize(self.transform(other.firsts).float(), dim=-1)
        total, correct = self._find(ours, theirs)
        if self.symmetric:
            backwards, _ = self._find(theirs, ours)
            total = (total + backwards) / 2
        return Loss(total, len(ours), {"correct": correct})

    def _find(self, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        candidates, first = gather_rows(theirs, self.training)
        likeness = ours @ candidates.T / self.temperature  # (B, world x B)
        partners = torch.arange(len(ours), device=ours.device) + first
        correct = (likeness.detach().argmax(-1) == partners).double().sum()
        return F.cross_entropy(likeness, partners, reduction="sum"), correct

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return {"accuracy": float(statistics["correct"]) / max(count, 1)}
