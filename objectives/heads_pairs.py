"""The head that sees two texts side by side, where `SequenceHead` sees [CLS]."""

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from .batch import DeviceTarget, Encoded, Loss
from .heads import HEAD_STD, Head, Transform, score_classes, sequence_style
from .metrics import summarise_classes

POOLINGS = ("cls", "segments")


class SegmentPairHead(Head):
    """Names how two texts are related from the mean vectors of both, u and v: of (u, v, |u - v|, u * v).

    So natural language inference is asked of encoders that read each sentence alone (Conneau et al., 2017, section 3.1,
    https://arxiv.org/abs/1705.02364). Here the encoder reads both at once, and is spared to bring all that it knows of
    them to [CLS]. A mean is over the tokens of a segment, its [CLS] and [SEP] among them.
    """

    def __init__(self, config: PreTrainedConfig, target: str, num_classes: int) -> None:
        super().__init__()
        self.target = target
        width = config.hidden_size
        self.transform = Transform(sequence_style(config), 4 * width, width, config.initializer_range)
        self.classifier = nn.Linear(width, num_classes)
        nn.init.normal_(self.classifier.weight, std=HEAD_STD)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        positions, values = targets[self.target].positions, targets[self.target].values
        compared = compare_segments(encoded)[positions // encoded.hidden.shape[1]]
        return score_classes(self.classifier(self.transform(compared)).float(), values)

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return summarise_classes(statistics["confusion"])


def compare_segments(encoded: Encoded) -> Tensor:
    """Return (u, v, |u - v|, u * v) (B, 4 D) of the mean vectors of each row's two segments, in float32.

    What two texts share is most of both means: in bfloat16 little would be left of their difference.
    """
    assert encoded.token_type_ids is not None  # generators alone are asked without
    mask = torch.ones_like(encoded.input_ids) if encoded.attention_mask is None else encoded.attention_mask
    second = encoded.token_type_ids * mask  # (B, L)
    members = torch.stack([mask - second, second], 1).float()  # (B, 2, L)
    with torch.autocast(encoded.hidden.device.type, enabled=False):
        means = members @ encoded.hidden.float() / members.sum(-1, keepdim=True).clamp(min=1)  # (B, 2, D)
    u, v = means.unbind(1)
    return torch.cat([u, v, (u - v).abs(), u * v], -1)


def check_pooling(pooling: str) -> None:
    """Raise a ValueError for a pooling that there is not."""
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is '{pooling}'; it must be {' or '.join(POOLINGS)}")
