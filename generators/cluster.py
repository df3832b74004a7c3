"""Tokens from the clusters in which a substitute is hard to tell."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from objectives.batch import Batch, DeviceProposal, DeviceTarget, Filling

from .base import Generator, GeneratorSetting, Proposed, Proposer, draw_allowed


@dataclass(frozen=True, kw_only=True)
class Cluster(Generator):
    """Draw a cluster by how often its tokens were mistaken for the original's, then any token of it.

    The method is that of Di Liello et al., 2022, https://arxiv.org/abs/2210.13536. Clusters are k-means
    over co-occurrence vectors of the training text.
    """

    name: ClassVar[str] = "cluster"

    num_clusters: int = 100
    sharpness: float = 2.0  # beta of the softmax over a row of counts, scaled to [0, 1]

    def __post_init__(self) -> None:
        if self.num_clusters < 2 or self.sharpness < 0:
            raise ValueError("num_clusters must be 2 or more, and sharpness 0 or more")

    def build(self, setting: GeneratorSetting) -> Proposer:
        return ClusterProposer(torch.from_numpy(np.array(setting.tables.clusters(self.num_clusters))), self.sharpness)


class ClusterProposer(Proposer):
    """Counts for each pair of clusters (K, K), from 1 on: +1 when its substitute was mistaken, -1 when it was told.

    An original that is in no cluster, such as [UNK], takes the mean over all rows.
    """

    clusters: Tensor
    counts: Tensor
    log_shares: Tensor

    def __init__(self, clusters: Tensor, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness
        number = int(clusters.max()) + 1
        sizes = torch.bincount(clusters[clusters >= 0], minlength=number)
        log_shares = torch.where(clusters >= 0, -sizes[clusters].double().log(), -torch.inf).float()
        self.register_buffer("clusters", clusters, persistent=False)
        self.register_buffer("log_shares", log_shares, persistent=False)  # (V,) of a token in its cluster
        self.register_buffer("counts", torch.ones(number, number, dtype=torch.float64))
        self.pending = torch.zeros_like(self.counts)  # no buffer: data-parallel training would overwrite it

    def log_rates(self) -> Tensor:
        """Return ln of how likely each cluster is for an original of each, and of none, the last (K + 1, K)."""
        low, high = self.counts.amin(1, keepdim=True), self.counts.amax(1, keepdim=True)
        scaled = (self.counts - low) / (high - low).clamp(min=1)  # counts are whole: equal ones give zeros
        rates = (self.sharpness * scaled).softmax(1)
        return torch.cat([rates, rates.mean(0, keepdim=True)]).log().float()

    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        rates = self.log_rates()[self.clusters[proposal.original_ids]]  # (N, K); cluster -1 is the last row
        log_probabilities = rates[:, self.clusters] + self.log_shares
        return Proposed(draw_allowed(log_probabilities.exp(), proposal), None, log_probabilities)

    def observe(self, filling: Filling, target: DeviceTarget, predictions: Tensor) -> None:
        """Gather what the detector said of the substitutes; pairs that occur several times count several times.

        An original that was drawn again is no substitute, and counts for nothing.
        """
        asked = target.positions  # ascending, and those of the proposal among them
        places = torch.searchsorted(asked, filling.proposal.positions).clamp(max=len(asked) - 1)
        drawn = filling.token_ids if filling.token_ids.dim() == 1 else filling.token_ids[:, 0]
        original = filling.proposal.original_ids
        rows, columns = self.clusters[original], self.clusters[drawn]
        seen = (asked[places] == filling.proposal.positions) & (rows >= 0) & (drawn != original)
        change = torch.where(predictions[places] == 1, -1.0, 1.0).double() * seen
        pairs = rows.clamp(min=0) * len(self.counts) + columns
        self.pending.view(-1).index_add_(0, pairs, change)

    def begin_step(self) -> None:
        self.pending = torch.zeros_like(self.counts)

    def finish_step(self, progress: float, add_up: Callable[[Tensor], Tensor]) -> None:
        self.counts += add_up(self.pending)
        self.begin_step()
