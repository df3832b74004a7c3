"""Heads that say which token belongs where: copied, corrected, or pointed at."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig

from .batch import DeviceTarget, Encoded, Loss
from .heads import HEAD_STD, Head, MaskedLMHead
from .metrics import count_logits, summarise_detection


class CopyHead(Head):
    """Names the original of every token: a copy of what stands there with probability d, else by the language model.

    p(x) = d 1[x is what stands there] + (1 - d) softmax(logits)(x). As one loss over all tokens (ELECTRA's all-tokens
    MLM); or, `corrective`, as two (COCO-LM): whether to copy, over all tokens, and the name of the original, over the
    selected ones, where the gradient does not reach d.
    """

    def __init__(self, config: PreTrainedConfig, table_width: int, mask_id: int, *, corrective: bool) -> None:
        super().__init__()
        self.corrective = corrective
        self.naming = MaskedLMHead(config, table_width, mask_id)
        self.copying = nn.Linear(config.hidden_size, 1)
        nn.init.normal_(self.copying.weight, std=HEAD_STD)
        nn.init.zeros_(self.copying.bias)

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss | dict[str, Loss]:
        asked = targets["original_ids"]
        names, right = self._name(encoded, asked)
        if not self.corrective:
            return Loss(names.sum(), len(names), {"correct": right.double().sum()})
        copied = targets["is_original"]
        logits = self._copy(encoded, copied.positions)
        total = F.binary_cross_entropy_with_logits(logits, copied.values.float(), reduction="sum")
        statistics = {} if self.training else {"logits": count_logits(logits.detach(), copied.values)}
        return {
            "corrective_lm": Loss(names.sum(), len(names), {"correct": right.double().sum()}),
            "corrective_lm_copy": Loss(total, len(copied.values), statistics),
        }

    def _copy(self, encoded: Encoded, positions: Tensor) -> Tensor:  # (N,) logits of d
        return self.copying(encoded.at(positions)).squeeze(-1).float()

    def _name(self, encoded: Encoded, asked: DeviceTarget) -> tuple[Tensor, Tensor]:
        """Return -ln p of each original (N,), and whether it is the likeliest token (N,)."""
        copy = self._copy(encoded, asked.positions)
        if self.corrective:
            copy = copy.detach()
        shown = encoded.input_ids.flatten()[asked.positions]
        logits = self.naming.logits(encoded.at(asked.positions), encoded.word_table).float()  # (N, V)
        named = logits.log_softmax(-1)
        of_original = named.gather(1, asked.values[:, None]).squeeze(1) + F.logsigmoid(-copy)
        same = shown == asked.values
        mixed = torch.where(same, torch.logaddexp(of_original, F.logsigmoid(copy)), of_original)
        with torch.no_grad():
            best = named + F.logsigmoid(-copy)[:, None]
            at_shown = best.gather(1, shown[:, None])
            best = best.scatter(1, shown[:, None], torch.logaddexp(at_shown, F.logsigmoid(copy)[:, None]))
            right = best.argmax(-1) == asked.values
        return -mixed, right

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        if "logits" in statistics:
            return summarise_detection(statistics["logits"])
        return {"accuracy": float(statistics["correct"]) / max(count, 1)}


class PointerHead(Head):
    """Points from each target to the token of its row that belongs there, by likeness of two projections."""

    def __init__(self, config: PreTrainedConfig, target: str, pointer: str) -> None:
        super().__init__()
        self.target, self.pointer = target, pointer
        width = config.hidden_size
        self.asking, self.offering = nn.Linear(width, width), nn.Linear(width, width)
        for layer in (self.asking, self.offering):
            nn.init.normal_(layer.weight, std=HEAD_STD)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.offering.weight, std=config.initializer_range)

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        target = targets[self.target]
        length, width = encoded.hidden.shape[1:]
        rows, answers = target.positions // length, target.pointers[self.pointer] % length
        asked, offered = self.asking(encoded.at(target.positions)), self.offering(encoded.hidden)  # (N, D), (B, L, D)
        logits = torch.einsum("nd,nld->nl", asked, offered[rows]).float() / width**0.5
        candidates = torch.zeros_like(encoded.input_ids, dtype=torch.bool)
        candidates.view(-1)[target.positions] = True  # the answer is one of the places that are asked
        logits = logits.masked_fill(~candidates[rows], -torch.inf)
        correct = (logits.detach().argmax(-1) == answers).double().sum()
        return Loss(F.cross_entropy(logits, answers, reduction="sum"), len(answers), {"correct": correct})

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return {"accuracy": float(statistics["correct"]) / max(count, 1)}
