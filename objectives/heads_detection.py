"""Heads of token detection that no class of `transformers` has, and what chance knows of their labels."""

from dataclasses import replace
from math import log

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig

from .batch import DeviceTarget, Encoded, Loss
from .heads import HEAD_STD, DetectionHead, Head, Transform, detection_style, lm_style
from .metrics import count_logits, summarise_classes, summarise_detection


def entropy_of(*rates: float) -> float:
    """Return the entropy in nats of a label with these rates, of which one more takes the rest."""
    every = [*rates, 1 - sum(rates)]
    return -sum(rate * log(rate) for rate in every if rate > 0)


class ContextDetectionHead(Head):
    """Says yes or no at each target from the sum of its state and that of [CLS], normalised, as in DeBERTaV3's code."""

    def __init__(self, config: PreTrainedConfig, target: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=lm_style(config).epsilon)
        self.detection = DetectionHead(config, target)

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        hidden = self.norm(encoded.hidden + encoded.firsts[:, None])
        return self.detection.forward(replace(encoded, hidden=hidden), targets)

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return self.detection.summarise(statistics, count)


class TokenClassHead(Head):
    """Names the class of the token at each target (softmax cross-entropy)."""

    def __init__(self, config: PreTrainedConfig, target: str, num_classes: int) -> None:
        super().__init__()
        self.target = target
        self.num_classes = num_classes
        width = config.hidden_size
        self.transform = Transform(detection_style(config), width, width, config.initializer_range)
        self.classifier = nn.Linear(width, num_classes)
        nn.init.normal_(self.classifier.weight, std=HEAD_STD)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        positions, values = targets[self.target].positions, targets[self.target].values
        logits = self.classifier(self.transform(encoded.at(positions))).float()  # (N, C)
        answers = logits.detach().argmax(-1)
        cells = torch.bincount(values * self.num_classes + answers, minlength=self.num_classes**2)
        confusion = cells.view(self.num_classes, -1).double()
        total = F.cross_entropy(logits, values, reduction="sum")
        return Loss(total, len(values), {"confusion": confusion}, predictions=answers)

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        """Return accuracy beside the majority's share, and the mean over classes of F1: most tokens are original."""
        confusion = statistics["confusion"]
        f1 = 2 * np.diag(confusion) / np.maximum(confusion.sum(0) + confusion.sum(1), 1)
        return summarise_classes(confusion) | {"macro_f1": float(f1.mean())}


class EnergyHead(Head):
    """Gives each token an energy, and tells noise from data by how it compares with the noise's own probability.

    The logit of noise is energy + ln q + ln(k / (n - k)), the last two as the target's `offset`.
    """

    def __init__(self, config: PreTrainedConfig, target: str) -> None:
        super().__init__()
        self.target = target
        self.energy = nn.Linear(config.hidden_size, 1)
        nn.init.normal_(self.energy.weight, std=HEAD_STD)
        nn.init.zeros_(self.energy.bias)

    def energies(self, hidden: Tensor) -> Tensor:  # (N, D) -> (N,)
        return self.energy(hidden).squeeze(-1).float()

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        target = targets[self.target]
        logits = self.energies(encoded.at(target.positions)) + target.extras["offset"]
        total = F.binary_cross_entropy_with_logits(logits, target.values.float(), reduction="sum")
        statistics = {} if self.training else {"logits": count_logits(logits.detach(), target.values)}
        return Loss(total, len(target.values), statistics, predictions=(logits.detach() > 0).long())

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return summarise_detection(statistics["logits"])


class MultiChoiceHead(Head):
    """Chooses one of the target's `candidates`, by their rows in the word table, or rejects them all: class 0.

    Candidates of id -1 are none. The products are divided by the root of their width, so that the first choices are
    even.
    """

    def __init__(self, config: PreTrainedConfig, table_width: int, target: str) -> None:
        super().__init__()
        self.target = target
        self.transform = Transform(lm_style(config), config.hidden_size, table_width, config.initializer_range)
        self.reject = nn.Linear(config.hidden_size, 1)
        nn.init.normal_(self.reject.weight, std=HEAD_STD)
        nn.init.zeros_(self.reject.bias)

    def logits(self, hidden: Tensor, word_table: Tensor, candidates: Tensor) -> Tensor:
        """Return the scores (N, 1 + K) of rejecting and of candidates (N, K) at hidden (N, D), with a table (V, E)."""
        query = self.transform(hidden) / word_table.shape[1] ** 0.5
        choices = torch.einsum("ne,nke->nk", query, F.embedding(candidates.clamp(min=0), word_table))
        choices = choices.float().masked_fill(candidates < 0, -torch.inf)
        return torch.cat([self.reject(hidden).float(), choices], dim=1)

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        target = targets[self.target]
        logits = self.logits(encoded.at(target.positions), encoded.word_table, target.extras["candidates"])
        total = F.cross_entropy(logits, target.values, reduction="sum")
        answers, rejects = logits.detach().argmax(-1), target.values == 0
        correct = answers == target.values
        sums = {"correct": correct, "rejects": rejects, "right_rejects": correct & rejects}
        return Loss(total, len(answers), {name: each.sum().double() for name, each in sums.items()}, answers)

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        """Return accuracy, how often to reject was right, and the accuracy where a candidate was."""
        correct, rejects, right_rejects = (float(statistics[n]) for n in ("correct", "rejects", "right_rejects"))
        return {
            "accuracy": correct / max(count, 1),
            "reject_rate": rejects / max(count, 1),
            "choice_accuracy": (correct - right_rejects) / max(count - rejects, 1),
        }
