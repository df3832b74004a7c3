"""What the device sees: padded rows, and targets as indices into them."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


class DeviceTarget(NamedTuple):
    """N questions: at which token of the batch, counted through its rows (row x L + place), and the answer."""

    positions: Tensor  # (N,) int64
    values: Tensor  # (N,) int64


class DeviceProposal(NamedTuple):
    """N hidden tokens to propose replacements for, with one uniform number for each to draw by."""

    positions: Tensor  # (N,) int64, row x L + place
    original_ids: Tensor  # (N,) int64
    uniforms: Tensor  # (N,) float32


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch on the device. `targets` is by objective, then by the target's name."""

    input_ids: Tensor  # (B, L) int64
    attention_mask: Tensor  # (B, L) int64, 0 at padding
    token_type_ids: Tensor  # (B, L) int64
    targets: dict[str, dict[str, DeviceTarget]]
    proposals: dict[str, DeviceProposal]

    def with_ids(self, positions: Tensor, token_ids: Tensor) -> "Batch":
        """Return the batch with other ids at flat `positions` (N,)."""
        return replace(
            self, input_ids=self.input_ids.flatten().scatter(0, positions, token_ids).view_as(self.input_ids)
        )

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return Batch(
            input_ids=move(self.input_ids),
            attention_mask=move(self.attention_mask),
            token_type_ids=move(self.token_type_ids),
            targets={
                name: {key: DeviceTarget(*map(move, target)) for key, target in targets.items()}
                for name, targets in self.targets.items()
            },
            proposals={name: DeviceProposal(*map(move, proposal)) for name, proposal in self.proposals.items()},
        )


class Encoded(NamedTuple):
    """What a head may look at: the encoder's last layer, and the word table that a head may be tied to."""

    hidden: Tensor  # (B, L, D)
    input_ids: Tensor  # (B, L) as the encoder saw them
    word_table: Tensor  # (V, E)

    def at(self, positions: Tensor) -> Tensor:  # (N, D)
        """Return the hidden states at flat `positions` (N,)."""
        return self.hidden.flatten(0, 1).index_select(0, positions)


@dataclass(frozen=True)
class Loss:
    """A sum and the number of targets in it, never a mean.

    The loop divides by the count over all micro-batches and devices.
    """

    total: Tensor  # ()
    count: int
    statistics: dict[str, Tensor]  # sums that add up over batches and devices
