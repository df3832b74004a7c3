"""What is asked of every model before a figure of it is believed: weights that are numbers, a tokenizer of its own."""

from typing import Any

import torch
from torch import nn

from corpora.errors import UserError


def check_weights(name: str, network: nn.Module) -> None:
    """Raise UserError for the first tensor that holds NaN or infinity."""
    for key, tensor in network.named_parameters():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"{name}: its tensor {key} holds NaN or infinity, so every figure would; give a folder whose training "
                "ended well"
            )


def check_tokenizer(name: str, tokenizer: Any, rows: int) -> None:
    """Raise UserError where a tokenizer has tokens that the model has no row for, or begins a text without its [CLS].

    `rows` of the table of words. What is asked of a whole text is asked at [CLS], which is never taken for granted.
    """
    vocabulary = tokenizer.get_vocab()
    if set(vocabulary.values()) <= set(tokenizer.all_special_ids):
        raise UserError(f"the tokenizer of '{name}' has no vocabulary: the folder may lack tokenizer.json")
    if len(tokenizer) > rows or max(vocabulary.values()) >= rows:
        raise UserError(
            f"the tokenizer of '{name}' has {len(tokenizer):,} tokens and the encoder rows for {rows:,}; "
            "give the folder with the tokenizer that the encoder was trained with"
        )
    first = tokenizer("A text.")["input_ids"][0]
    if tokenizer.cls_token_id is None or first != tokenizer.cls_token_id:
        raise UserError(
            f"the tokenizer of '{name}' begins a text with {tokenizer.convert_ids_to_tokens(first)!r} and not with its "
            f"cls token {tokenizer.cls_token!r}; give a tokenizer that adds its special tokens itself"
        )
