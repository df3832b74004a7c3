"""Heads that answer with what a slow copy of the encoder makes of the whole text."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from .batch import DeviceTarget, Encoded, Loss, View
from .heads import HEAD_STD, Head, ReadLayers


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """How a teacher is read and how it follows."""

    num_layers: int  # the last ones are averaged
    first_decay: float  # of the average that it is, at the start of the run
    last_decay: float  # and at its end
    beta: float  # where the smooth L1 loss turns from square to linear


class LatentHead(Head):
    """Predicts, where tokens are hidden, the mean of a teacher's last layers there; the teacher follows the encoder."""

    def __init__(self, config: PreTrainedConfig, target: str, settings: TeacherSettings) -> None:
        super().__init__()
        self.target = target
        self.settings = settings
        width = config.hidden_size
        last = nn.Linear(2 * width, width)
        nn.init.normal_(last.weight, std=HEAD_STD)
        nn.init.zeros_(last.bias)
        self.answer = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), last)

    def attach(self, encoder: PreTrainedModel, read: ReadLayers) -> None:
        self.teacher = copy.deepcopy(encoder).requires_grad_(False).eval()
        self.read = read

    def train(self, mode: bool = True) -> "LatentHead":
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        positions, text = targets[self.target].positions, encoded.texts["text"]
        rows = positions // encoded.hidden.shape[1]
        wanted = self.teach(text)[rows, targets[self.target].extras["place"]]
        given = self.answer(encoded.at(positions)).float()
        losses = F.smooth_l1_loss(given, wanted, beta=self.settings.beta, reduction="none").mean(-1)  # (N,)
        variance = wanted.var(0, correction=0).mean() * len(wanted) if len(wanted) else losses.sum()
        return Loss(losses.sum(), len(positions), {"variance": variance.double()})

    @torch.no_grad()
    def teach(self, text: View) -> Tensor:
        """Return the targets (B, L, D): each layer normed without weights, the last ones averaged, normed again."""
        layers = self.read(self.teacher, text)
        width = layers[-1].shape[-1:]
        normed = [F.layer_norm(layer.float(), width) for layer in layers[1:][-self.settings.num_layers :]]
        return F.layer_norm(torch.stack(normed).mean(0), width)

    @torch.no_grad()
    def finish_step(self, encoder: PreTrainedModel, progress: float, add_up: Callable[[Tensor], Tensor]) -> None:
        decay = self.settings.first_decay + progress * (self.settings.last_decay - self.settings.first_decay)
        for followed, following in zip(encoder.parameters(), self.teacher.parameters(), strict=True):
            following.lerp_(followed.detach(), 1 - decay)

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        """Return how much the targets differ from each other, per number: near 0, the teacher has collapsed."""
        return {"target_variance": float(statistics["variance"]) / max(count, 1)}
