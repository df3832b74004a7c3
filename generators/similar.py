"""Tokens that stand where the original stands."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from objectives.batch import Batch, DeviceProposal

from .base import Generator, GeneratorSetting, Proposed, Proposer, draw_tokens


@dataclass(frozen=True, kw_only=True)
class Similar(Generator):
    """Draw from the nearest distributional neighbours of the original, without a look at its context.

    Neighbours are by the cosine of vectors from co-occurrences (Levy et al., 2015, https://aclanthology.org/Q15-1016),
    in place of the lists of synonyms of MacBERT (Cui et al., 2020, https://arxiv.org/abs/2004.13922). It never draws
    the original.
    """

    name: ClassVar[str] = "similar"

    num_neighbours: int = 10  # how many of the nearest tokens by co-occurrence are drawn from
    temperature: float | None = None  # of a softmax over the cosines; None: all neighbours alike

    def __post_init__(self) -> None:
        if self.num_neighbours < 1:
            raise ValueError(f"num_neighbours is {self.num_neighbours}; it must be at least 1")
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0")

    def build(self, setting: GeneratorSetting) -> Proposer:
        neighbours = np.array(setting.tables.neighbours(self.num_neighbours))
        vectors = setting.tables.embeddings(64)
        cosines = torch.from_numpy(np.einsum("vkd,vd->vk", vectors[neighbours], vectors))
        logits = torch.zeros_like(cosines) if self.temperature is None else cosines / self.temperature
        return SimilarProposer(torch.from_numpy(neighbours), logits.log_softmax(-1).float())


class SimilarProposer(Proposer):
    """Looks the neighbours (V, k) of the original up, and their log-probabilities (V, k)."""

    neighbours: Tensor
    log_rates: Tensor

    def __init__(self, neighbours: Tensor, log_rates: Tensor) -> None:
        super().__init__()
        self.register_buffer("neighbours", neighbours, persistent=False)
        self.register_buffer("log_rates", log_rates, persistent=False)

    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        candidates, log_rates = self.neighbours[proposal.original_ids], self.log_rates[proposal.original_ids]  # (N, k)
        places = draw_tokens(log_rates.exp(), proposal.uniforms)
        drawn = candidates.gather(1, places.view(len(candidates), -1)).view_as(places)
        log_probabilities = log_rates.new_full((len(candidates), len(self.neighbours)), -torch.inf)
        return Proposed(drawn, None, log_probabilities.scatter(1, candidates, log_rates))
