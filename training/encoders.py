"""Encoders by name: our presets, the stock architectures at the same sizes, or any `transformers` folder."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from corpora import Vocabulary
from corpora.errors import UserError
from corpora.positions import max_positions
from generators.network import build_network, drop_pooler
from generators.unpadded import choose_attention
from objectives.spec import suggest

SIZES = {  # layers, hidden width, heads
    "tiny": (4, 128, 2),
    "mini": (6, 256, 4),
    "small": (12, 256, 4),
    "base": (12, 768, 12),
}
FAMILIES = ("bert", "electra", "roberta", "modernbert", "deberta-v2")
INIT_RANGES = ("width", "stock")


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """Which encoder, for which vocabulary, for how long a row."""

    name: str
    vocabulary: Vocabulary
    max_length: int
    dropout: float
    init_range: str = "width"
    attention: str = "sdpa"


def known_encoders() -> list[str]:
    """Return the names that need no folder: tiny, mini, ..., bert-tiny, electra-tiny, ..."""
    return list(SIZES) + [f"{family}-{size}" for family in FAMILIES for size in SIZES]


def check_encoder(name: str) -> None:
    """Raise a UserError where `name` is neither a known encoder nor a folder with a configuration."""
    folder = Path(name)
    if name in known_encoders() or os.path.isfile(folder / "config.json"):
        return
    if folder.is_dir():
        raise UserError(f"encoder folder '{name}' has no config.json; a `transformers` folder has one")
    if name.startswith(("/", "./", "../", "~")) or name.count("/") > 1 or ("/" in name and folder.parent.is_dir()):
        raise UserError(
            f"there is no encoder folder '{name}'; give a `transformers` folder, or one of {', '.join(SIZES)}, "
            f"any of them after {', '.join(FAMILIES)} and a hyphen (bert-tiny)"
        )
    if "/" in name:
        return  # a name on the hub, which is looked up when it is loaded
    raise UserError(
        f"encoder '{name}' is unknown{suggest(name, known_encoders())} Known: {', '.join(SIZES)}, "
        f"any of them after {', '.join(FAMILIES)} and a hyphen (bert-tiny), a folder, or a name on the hub"
    )


def build_encoder(spec: EncoderSpec) -> PreTrainedModel:
    """Make an untrained encoder of a known name, or load an existing one to go on with.

    The pooler, where there is one, is left out. UserError where its architecture has no such attention.
    """
    check_encoder(spec.name)
    try:
        if spec.name not in known_encoders():
            return _load_encoder(spec)
        return build_network(make_config(spec), spec.attention)
    except ValueError as error:
        if "attn_implementation" not in str(error) and "scaled_dot_product" not in str(error):
            raise
        raise UserError(
            f"the encoder '{spec.name}' has no attention of the kind '{spec.attention}'; give --attention eager"
        ) from error


def make_config(spec: EncoderSpec) -> PreTrainedConfig:
    """Return the configuration of a known encoder.

    The presets `tiny`, `mini`, `small`, `base` are `ModernBertModel`s, pre-norm with rotary positions, attending to
    everything in every layer: at these sizes the learned absolute positions of BERT and ELECTRA leave the word
    frequencies only after many more tokens. `init_range` "width" starts the weights at 1 / sqrt(hidden width), "stock"
    at the .02 of BERT-base, with which a width of 128 learns nothing in minutes.
    """
    family, _, size = spec.name.rpartition("-")
    layers, width, heads = SIZES[size]
    settings: dict[str, Any] = {
        "vocab_size": spec.vocabulary.size,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": spec.max_length,
        "initializer_range": 1 / math.sqrt(width) if spec.init_range == "width" else 0.02,
        "pad_token_id": spec.vocabulary.pad_id,
    }
    if family in ("", "modernbert"):
        settings |= _modernbert_settings(spec, width, layers, stock=family == "modernbert")
    else:
        settings |= {"intermediate_size": 4 * width, "hidden_dropout_prob": spec.dropout}
        settings |= {"attention_probs_dropout_prob": spec.dropout}
    if family == "electra":
        settings["embedding_size"] = min(width, 128 if size in ("tiny", "mini", "small") else width)
    if family == "roberta":  # its positions start after the padding id
        settings |= {"max_position_embeddings": spec.max_length + spec.vocabulary.pad_id + 1, "type_vocab_size": 1}
        settings |= {"bos_token_id": spec.vocabulary.cls_id, "eos_token_id": spec.vocabulary.sep_id}
    if family == "deberta-v2":  # as in its releases
        settings |= {"relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm"}
        settings |= {"share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
        settings |= {"type_vocab_size": 0, "layer_norm_eps": 1e-7, "legacy": False}
    return CONFIG_MAPPING[family or "modernbert"](**settings)


def _modernbert_settings(spec: EncoderSpec, width: int, layers: int, *, stock: bool) -> dict[str, Any]:
    vocabulary = spec.vocabulary
    settings: dict[str, Any] = {
        "intermediate_size": width * 3 // 2 if stock else width * 2,
        "embedding_dropout": spec.dropout,
        "attention_dropout": spec.dropout,
        "mlp_dropout": spec.dropout,
        "cls_token_id": vocabulary.cls_id,
        "sep_token_id": vocabulary.sep_id,
        "bos_token_id": vocabulary.cls_id,
        "eos_token_id": vocabulary.sep_id,
    }
    if not stock:  # rotary wavelengths for short rows, and every layer sees the whole row
        settings["layer_types"] = ["full_attention"] * layers
        settings["rope_parameters"] = {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}}
    return settings


def _load_encoder(spec: EncoderSpec) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(spec.name, trust_remote_code=False)
        if config.is_encoder_decoder or type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
            raise UserError(
                f"'{spec.name}' is a {config.model_type} model, which is no text encoder; give one of BERT's kind"
            )
        network = AutoModel.from_pretrained(
            spec.name,
            config=config,
            attn_implementation=choose_attention(config, spec.attention),
            dtype="float32",
            trust_remote_code=False,
        )
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:  # the last: weights of another shape
        raise UserError(f"encoder '{spec.name}' can't be loaded: {str(error).strip().splitlines()[0]}") from error
    if config.vocab_size < spec.vocabulary.size:
        raise UserError(
            f"the tokenizer has {spec.vocabulary.size:,} tokens and the encoder '{spec.name}' rows for "
            f"{config.vocab_size:,}; give --tokenizer {spec.name}, or the tokenizer that it was trained with"
        )
    usable = max_positions(config)
    if usable is not None and spec.max_length > usable:
        raise UserError(
            f"--max_length {spec.max_length} is longer than the {usable} positions of the encoder '{spec.name}'; "
            f"give --max_length {usable} or less"
        )
    return drop_pooler(network)
