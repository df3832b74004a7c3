"""Tokens as often as they follow the one before."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from objectives.batch import Batch, DeviceProposal

from .base import Generator, GeneratorSetting, Proposed, Proposer, draw_tokens


@dataclass(frozen=True, kw_only=True)
class NGram(Generator):
    """Draw what the training text has after the token before: replacements that fit on their left, for no training.

    It stands between `unigram` and `masked_lm` of Clark et al., 2020, section 3.3, https://arxiv.org/abs/2003.10555, as
    the bigram model of Jelinek and Mercer, 1980: counts within sentences, mixed with the unigram. After a special
    token, one that is hidden itself, or one that nothing follows in the training text, it is the unigram alone.
    """

    name: ClassVar[str] = "ngram"

    unigram_rate: float = 0.1  # the unigram's share of the mixture

    def build(self, setting: GeneratorSetting) -> Proposer:
        unigram = setting.tables.unigram_counts.astype(np.float64)
        unigram[list(setting.vocabulary.special_ids)] = 0
        counts = setting.tables.next_counts()
        totals = np.asarray(counts.sum(1)).ravel()
        rates = counts.data / np.repeat(totals, np.diff(counts.indptr))
        arrays = (counts.indptr, counts.indices, rates, unigram / unigram.sum())
        return NGramProposer([torch.from_numpy(np.array(array)) for array in arrays], self.unigram_rate)


class NGramProposer(Proposer):
    """Holds the rates of followers as sparse rows: offsets (V + 1,), followers and rates (entries,), unigram (V,)."""

    offsets: Tensor
    followers: Tensor
    rates: Tensor
    unigram: Tensor

    def __init__(self, arrays: list[Tensor], unigram_rate: float) -> None:
        super().__init__()
        self.unigram_rate = unigram_rate
        offsets, followers, rates, unigram = arrays
        self.register_buffer("offsets", offsets.long(), persistent=False)
        self.register_buffer("followers", followers.long(), persistent=False)
        self.register_buffer("rates", rates.double(), persistent=False)
        self.register_buffer("unigram", unigram.double(), persistent=False)

    def probabilities(self, before: Tensor) -> Tensor:
        """Return P(token | token before) for tokens (N,): (N, V) float64."""
        starts, counts = self.offsets[before], self.offsets[before + 1] - self.offsets[before]
        rows = torch.repeat_interleave(torch.arange(len(before), device=before.device), counts)
        entries = torch.arange(len(rows), device=before.device) + (starts - (counts.cumsum(0) - counts))[rows]
        following = self.unigram.new_zeros(len(before), len(self.unigram))
        following[rows, self.followers[entries]] = self.rates[entries]
        mixed = (1 - self.unigram_rate) * following + self.unigram_rate * self.unigram
        return torch.where(counts[:, None] > 0, mixed, self.unigram)

    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        before = batch.input_ids.flatten()[proposal.positions - 1]  # of the same row: position 0 is [CLS]
        probabilities = self.probabilities(before)
        weights = probabilities
        if proposal.excludes_original:
            weights = weights.scatter(1, proposal.original_ids[:, None], 0.0)
            others = self.unigram.expand_as(weights).scatter(1, proposal.original_ids[:, None], 0.0)
            weights = torch.where(weights.sum(-1, keepdim=True) > 0, weights, others)
        return Proposed(draw_tokens(weights, proposal.uniforms), None, probabilities.log().float())
