"""Tiny `transformers` folders with random weights, and the words that their tokenizer knows."""

import functools
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertModel,
    ElectraConfig,
    ElectraModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from corpora.tokenizer import train_tokenizer

PLACES = ["Oslo", "Rome", "Lima", "Bern", "Kyoto", "Turin"]
PEOPLE = ["Anders", "Maria", "Chen", "Amina", "Luca", "Edda"]
OTHERS = ["lives", "in", "saw", "and", "the", "left", "river", "walked", "to", "with", "unlikely", "."]
_SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_KINDS = {
    "bert": (BertConfig, BertModel),
    "roberta": (RobertaConfig, RobertaModel),
    "electra": (ElectraConfig, ElectraModel),
    "modernbert": (ModernBertConfig, ModernBertModel),
}


@functools.cache
def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer that cuts some of the words above into pieces."""
    texts = [" ".join([*PLACES, *PEOPLE, *OTHERS])] * 3 + [" ".join(OTHERS)] * 20
    return train_tokenizer(iter(texts), vocab_size=120)


def make_config(kind: str, positions: int = 32, **settings: object):
    """Return the configuration of a two-layer encoder without dropout that reads rows of `positions` tokens."""
    tokenizer = make_tokenizer()
    config, _ = _KINDS[kind]
    more: dict[str, object] = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    more["max_position_embeddings"] = positions + (1 + more["pad_token_id"] if kind == "roberta" else 0)
    if kind == "modernbert":
        more |= {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
        more |= {"layer_types": ["full_attention"] * 2}
    else:
        more |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        more |= {"type_vocab_size": 1 if kind == "roberta" else 2}
    if kind == "electra":
        more["embedding_size"] = 8
    return config(**(_SHAPE | more | {"initializer_range": 0.25} | settings))


def save_model(folder: Path, model: PreTrainedModel) -> str:
    """Write a model with the tokenizer."""
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def save_encoder(folder: Path, kind: str = "bert", **settings: object) -> str:
    """Write a bare encoder with weights from seed 0."""
    torch.manual_seed(0)
    return save_model(folder, _KINDS[kind][1](make_config(kind, **settings)))
