"""Any `transformers` encoder: built from a configuration, run on a batch."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from objectives.batch import View

from .unpadded import choose_attention, is_unpadded, run_unpadded


def build_network(config: PreTrainedConfig, attention: str) -> PreTrainedModel:
    """Make an untrained encoder, without the pooler that some have.

    Nothing would train it, and data-parallel training stops at it.
    """
    return drop_pooler(AutoModel.from_config(config, attn_implementation=choose_attention(config, attention)))


def drop_pooler(network: PreTrainedModel) -> PreTrainedModel:
    """Take the pooler off, where there is one."""
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # type: ignore[assignment]  # its class has no word for a part taken off
    return network


def encode(network: PreTrainedModel, view: View, added: Tensor | None = None) -> Tensor:
    """Return the last hidden states (B, L, D); `added` (B, L, E) is put on top of the word embeddings."""
    return cast(Tensor, run_network(network, view, added).last_hidden_state)


def run_network(
    network: PreTrainedModel,
    view: View,
    added: Tensor | None = None,
    every_layer: bool = False,
    every_attention: bool = False,
) -> BaseModelOutput:
    """Return what the network gives for a view; with `every_layer` also `hidden_states`, the embeddings first.

    With `every_attention` also `attentions`, of each layer (B, heads, L, L), where its implementation is eager.
    """
    inputs: dict[str, Any] = {}
    if added is None:
        inputs["input_ids"] = view.input_ids
    else:
        inputs["inputs_embeds"] = network.get_input_embeddings()(view.input_ids) + added
    if reads_segments(network):
        inputs["token_type_ids"] = view.token_type_ids
    if is_unpadded(network):
        mask = None if view.attention == "full" else attention_mask(network, view)
        return run_unpadded(network, inputs, view, mask, every_layer)
    inputs["attention_mask"] = attention_mask(network, view)
    if every_attention:
        inputs["output_attentions"] = True
    by_row: AbstractContextManager[object] = nullcontext()
    if view.attention != "full" and network.config.model_type == "deberta-v2":  # its embeddings are masked as well
        by_row = cast(nn.Module, network.embeddings).register_forward_pre_hook(
            lambda _, args, kwargs: (args, kwargs | {"mask": view.attention_mask}), with_kwargs=True
        )
    with by_row:
        return network(**inputs, output_hidden_states=every_layer)


def read_layers(network: PreTrainedModel, view: View) -> tuple[Tensor, ...]:
    """Return all layers' states (B, L, D), the embeddings first."""
    return cast(tuple[Tensor, ...], run_network(network, view, every_layer=True).hidden_states)


def attention_mask(network: PreTrainedModel, view: View) -> Tensor:
    """Return which tokens each token sees, in the form that the network takes.

    (B, L) where it is the whole row; else, for a row read in one direction, a mask for every pair of places: what is
    added to the attention's logits (B, 1, L, L), or for DeBERTa 0 and 1 (B, L, L).
    """
    if view.attention == "full":
        return view.attention_mask
    length = view.input_ids.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool, device=view.input_ids.device)
    seen = seen.tril() if view.attention == "causal" else seen.triu()
    pairs = seen & view.attention_mask[:, None, :].bool()  # (B, L, L)
    pairs = pairs | torch.eye(length, dtype=torch.bool, device=pairs.device)  # padding sees itself, or there is a nan
    if network.config.model_type == "deberta-v2":
        return pairs.long()
    dtype = word_table(network).dtype
    return torch.zeros(pairs.shape, dtype=dtype, device=pairs.device).masked_fill(~pairs, torch.finfo(dtype).min)[
        :, None
    ]


def reads_segments(network: PreTrainedModel) -> bool:
    """Say whether the encoder tells a second text from the first by an embedding.

    Others have only the separator between them.
    """
    accepts = "token_type_ids" in inspect.signature(network.forward).parameters
    return accepts and getattr(network.config, "type_vocab_size", 0) > 1


def word_table(network: PreTrainedModel) -> Tensor:
    """Return the word table (V, E) that the encoder reads by, whatever it is made of."""
    return cast(Tensor, network.get_input_embeddings().weight)


def table_width(config: PreTrainedConfig) -> int:
    """Return the width E of the word table (V, E): ELECTRA's may differ from the hidden width."""
    return getattr(config, "embedding_size", None) or config.hidden_size
