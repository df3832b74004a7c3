"""Rows without their padding: an encoder's dense layers see the tokens alone, its attention sees them as rows.

It is registered as an attention implementation of `transformers`, for architectures whose attention is computed by an
exchangeable function, and whose positions can be given. Each token sees what it would see in its padded row, and no
other row; results are those of the padded rows up to rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from objectives.batch import View

UNPADDED = "unpadded"
FIRST_POSITIONS: Mapping[str, str | None] = {  # architecture -> the id before its first position, where that is not 0
    "bert": None,
    "camembert": "pad_token_id",
    "electra": None,
    "modernbert": None,
    "roberta": "pad_token_id",
    "xlm-roberta": "pad_token_id",
}
SHORT = 512  # rows below it are faster on a CPU by plain products than by its fused kernel


@dataclass(frozen=True)
class Rows:
    """Where T tokens lie in B rows of L places, and what each sees."""

    shape: torch.Size  # (B, L)
    places: Tensor | None  # (T,) in the flattened rows; None: every place holds a token
    mask: Tensor | None  # added to attention's logits: (B, 1, L) for all tokens of a row alike, or (B, L, L)

    def scatter(self, tokens: Tensor) -> Tensor:
        """Lay out (..., T, D) as (..., B * L, D), with zeros where no token is."""
        if self.places is None:
            return tokens
        shape = (*tokens.shape[:-2], self.shape[0] * self.shape[1], tokens.shape[-1])
        return tokens.new_zeros(shape).index_copy(-2, self.places, tokens)

    def gather(self, laid_out: Tensor) -> Tensor:
        """Take the tokens (..., T, D) out of (..., B * L, D)."""
        return laid_out if self.places is None else laid_out.index_select(-2, self.places)

    def spread(self, tokens: Tensor) -> Tensor:
        """Lay out (1, T, D) as (B, L, D), with zeros where no token is."""
        return self.scatter(tokens[0]).view(*self.shape, -1)

    def collect(self, padded: Tensor) -> Tensor:
        """Take the tokens (1, T) or (1, T, D) out of (B, L) or (B, L, D)."""
        flat = padded.flatten(0, 1)
        return (flat if self.places is None else flat.index_select(0, self.places))[None]


def choose_attention(config: PreTrainedConfig, asked: str) -> str:
    """Return the implementation to use: what is asked for, or a padded one where the architecture can't be unpadded."""
    return asked if config.model_type in FIRST_POSITIONS else choose_padded(asked)


def choose_padded(asked: str) -> str:
    """Return the implementation for a network that is given padded rows."""
    if asked != UNPADDED:
        return asked
    return "sdpa" if torch.cuda.is_available() else "eager"


def is_unpadded(network: PreTrainedModel) -> bool:
    return network.config._attn_implementation == UNPADDED


def run_unpadded(
    network: PreTrainedModel, inputs: dict[str, Tensor], view: View, mask: Tensor | None, every_layer: bool
) -> BaseModelOutput:
    """Return what the network gives for a view, laid out as its padded rows (B, L, D), with zeros at the padding.

    `inputs` are by name, (B, L) or (B, L, E). `mask` (B, 1, L, L) is added to the logits; None: each token sees its
    whole row.
    """
    rows = find_rows(view, mask)
    before = FIRST_POSITIONS[network.config.model_type]
    first = 0 if before is None else getattr(network.config, before) + 1
    length = view.input_ids.shape[1]
    positions = torch.arange(first, first + length, device=view.input_ids.device).expand(view.input_ids.shape)
    given = {name: rows.collect(each) for name, each in (inputs | {"position_ids": positions}).items()}
    output = network(**given, rows=rows, output_hidden_states=every_layer)
    layers = output.hidden_states
    return BaseModelOutput(
        last_hidden_state=rows.spread(output.last_hidden_state),
        hidden_states=None if layers is None else tuple(rows.spread(layer) for layer in layers),
    )


def find_rows(view: View, mask: Tensor | None) -> Rows:
    """Return how the view's tokens lie in its rows; `mask` as in `run_unpadded`."""
    present = view.attention_mask.bool()
    if present.all():
        return Rows(present.shape, None, None if mask is None else mask[:, 0])
    if mask is None:
        mask = torch.zeros(present.shape, device=present.device)
        mask = mask.masked_fill(~present, torch.finfo(mask.dtype).min)[:, None, None]
    return Rows(present.shape, present.flatten().nonzero()[:, 0], mask[:, 0])


def attend(
    module: nn.Module,
    query: Tensor,  # (1, heads, T, D), like keys and values
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    rows: Rows,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return each token's mean of the values in its row, weighted by attention: (1, T, heads, D).

    `sliding_window`: a token sees those that are less than so many places away.
    """
    heads, width = query.shape[1], query.shape[3]
    num_rows, length = rows.shape
    spread = rows.scatter(torch.stack([query[0] * scaling, key[0], value[0]]))  # (3, heads, B * L, D)
    queries, keys, values = spread.view(3, heads * num_rows, length, width).unbind()
    mask, dropout = rows.mask, dropout if module.training else 0.0
    if sliding_window is not None and sliding_window < length:
        mask = _narrow(mask, sliding_window, rows.shape, queries.device)
    if length < SHORT and not query.is_cuda:
        seen = _attend_by_products(queries, keys, values, mask, heads, dropout)
    else:
        by_head = (heads, num_rows, length, width)
        seen = F.scaled_dot_product_attention(
            queries.view(by_head),
            keys.view(by_head),
            values.view(by_head),
            attn_mask=None if mask is None else mask.to(query.dtype),
            dropout_p=dropout,
            scale=1.0,
        )
    return rows.gather(seen.view(heads, num_rows * length, width)).transpose(0, 1)[None], None


def _attend_by_products(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, heads: int, dropout: float
) -> Tensor:
    """Return (heads * B, L, D) of queries, keys and values of that shape."""
    if mask is None:
        logits = torch.bmm(queries, keys.transpose(1, 2))
    else:
        logits = torch.baddbmm(mask.to(queries.dtype).repeat(heads, 1, 1), queries, keys.transpose(1, 2))
    weights = F.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)).to(queries.dtype)
    return torch.bmm(F.dropout(weights, dropout) if dropout else weights, values)


def _narrow(mask: Tensor | None, window: int, shape: torch.Size, device: torch.device) -> Tensor:
    """Return the mask (B, L, L) that also hides what is `window` places away or more."""
    places = torch.arange(shape[1], device=device)
    is_far = (places[:, None] - places).abs() >= window
    if mask is None:
        mask = torch.zeros(1, 1, 1, device=device)
    return mask.expand(shape[0], shape[1], shape[1]).masked_fill(is_far, torch.finfo(torch.float32).min)


AttentionInterface.register(UNPADDED, attend)
