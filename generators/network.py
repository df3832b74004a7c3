"""Any `transformers` encoder: built from a configuration, run on a batch."""

import inspect
from typing import cast

from torch import Tensor
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from objectives.batch import Batch


def build_network(config: PreTrainedConfig, attention: str) -> PreTrainedModel:
    """Make an untrained encoder, without the pooler that some have.

    Nothing would train it, and data-parallel training stops at it.
    """
    return drop_pooler(AutoModel.from_config(config, attn_implementation=attention))


def drop_pooler(network: PreTrainedModel) -> PreTrainedModel:
    """Take the pooler off, where there is one."""
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # type: ignore[assignment]  # its class has no word for a part taken off
    return network


def encode(network: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the last hidden states (B, L, D)."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if reads_segments(network):
        inputs["token_type_ids"] = batch.token_type_ids
    return network(**inputs).last_hidden_state


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
