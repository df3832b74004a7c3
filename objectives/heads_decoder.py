"""Light decoders: what must be said from one vector of a text, the encoder must have put into it."""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig

from .batch import DeviceTarget, Encoded, Loss, View
from .heads import HEAD_STD, Head


class Decoded(NamedTuple):
    """What a decoder layer works on: what is asked, what may be looked at, and what may not be seen (True)."""

    queries: Tensor  # (B, L, D)
    keys: Tensor  # (B, M, D)
    unseen: Tensor  # (B, L, M) bool


class DecoderLayer(nn.Module):
    """Attention from queries to keys, then two dense layers, each behind a norm and beside a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, decoded: Decoded) -> Tensor:
        keys = self.norms[1](decoded.keys)
        unseen = decoded.unseen.repeat_interleave(self.heads, dim=0)  # (B x heads, L, M)
        attended, _ = self.attention(self.norms[0](decoded.queries), keys, keys, attn_mask=unseen, need_weights=False)
        hidden = decoded.queries + attended
        return hidden + self.narrow(F.gelu(self.widen(self.norms[2](hidden))))


class DecoderHead(Head):
    """Names tokens of a text of the objective's own, from the [CLS] of the text that the encoder read.

    The word table is the encoder's, read from and answered by; positions are sines (Vaswani et al., 2017, section 3.5).
    """

    def __init__(self, config: PreTrainedConfig, table_width: int, target: str) -> None:
        super().__init__()
        self.target = target
        width = config.hidden_size
        self.layer = DecoderLayer(width, config.num_attention_heads)
        self.widen = nn.Linear(table_width, width) if table_width != width else nn.Identity()
        last = nn.Linear(width, table_width)
        nn.init.normal_(last.weight, std=HEAD_STD)
        self.answer = nn.Sequential(nn.LayerNorm(width), last)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def read(self, encoded: Encoded, text: View) -> Decoded:
        """Return what the layer is given."""
        raise NotImplementedError

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        target = targets[self.target]
        hidden = self.layer(self.read(encoded, encoded.texts[target.view]))
        asked = hidden.flatten(0, 1).index_select(0, target.positions)
        logits = F.linear(self.answer(asked), encoded.word_table, self.bias).float()
        correct = (logits.detach().argmax(-1) == target.values).double().sum()
        return Loss(F.cross_entropy(logits, target.values, reduction="sum"), len(target.values), {"correct": correct})

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return {"accuracy": float(statistics["correct"]) / max(count, 1)}

    def embed(self, encoded: Encoded, text: View) -> Tensor:  # (B, L, D)
        return self.widen(F.embedding(text.input_ids, encoded.word_table)) + self.places(text, encoded)

    def places(self, text: View, encoded: Encoded) -> Tensor:  # (L, D)
        return sines(text.input_ids.shape[1], encoded.hidden.shape[-1]).to(encoded.hidden)


class TeacherForcedHead(DecoderHead):
    """Each token is named from those before it and the sentence vector, which is put in front of them all."""

    def read(self, encoded: Encoded, text: View) -> Decoded:
        tokens = self.embed(encoded, text)
        length = tokens.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        unseen = F.pad(later, (1, 0)).expand(len(tokens), -1, -1)  # the vector, first, is seen by all
        return Decoded(tokens, torch.cat([encoded.firsts[:, None], tokens], 1), unseen)


class EnhancedHead(DecoderHead):
    """Each token is named from its place and the sentence vector, looking at a random half of the others."""

    def read(self, encoded: Encoded, text: View) -> Decoded:
        firsts = encoded.firsts[:, None]
        queries = firsts + self.places(text, encoded)
        keys = torch.cat([firsts, self.embed(encoded, text)[:, 1:]], 1)  # [CLS] is the vector
        length = queries.shape[1]
        unseen = self.hidden_pairs(encoded, text) | (text.attention_mask[:, None, :] == 0)
        unseen = unseen | torch.eye(length, dtype=torch.bool, device=unseen.device)  # never itself
        unseen[:, :, 0] = False  # always the vector; that of [CLS] itself is not asked
        return Decoded(queries, keys, unseen)

    def hidden_pairs(self, encoded: Encoded, text: View) -> Tensor:
        """Return which token (B, L, L) is hidden from which: decided by ids that the objective drew for each token."""
        marks = encoded.texts["marks"].input_ids  # (B, L) random words
        mixed = marks[:, :, None] * 0x9E3779B1 + marks[:, None, :] * 0x85EBCA77
        mixed = (mixed ^ (mixed >> 15)) * 0x2C1B3C6D & 0xFFFFFFFF
        mixed = (mixed ^ (mixed >> 12)) * 0x297A2D39 & 0xFFFFFFFF
        return (mixed ^ (mixed >> 15)) & 1 == 1


def sines(length: int, width: int) -> Tensor:
    """Return a vector for each place (length, width): sines and cosines of wavelengths from 2 pi to 20,000 pi."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]
