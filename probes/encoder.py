"""Any `transformers` encoder, frozen: loaded, checked, and read with one forward pass for all of its layers.

load_encoder(name_or_folder, *, device=None) -> FrozenEncoder
random_twin(encoder, seed) -> FrozenEncoder        the same configuration, untrained
FrozenEncoder: name, network, tokenizer, device, max_length, weights_hash, tokenizer_hash, num_layers, hidden_size,
    read(input_ids, attention_mask) -> num_layers tensors (B, L, D), the embeddings' output first
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from corpora.console import quiet_loading
from corpora.errors import UserError
from corpora.positions import max_positions

from .soundness import check_tokenizer

MAX_LENGTH = 512  # where an encoder's positions are not limited, or are more than a text of a probe needs


@dataclass(frozen=True, kw_only=True)
class FrozenEncoder:
    """An encoder in evaluation mode with its own tokenizer; nothing here trains it.

    Layer 0 is the embeddings' output, and the last one what the model calls its last hidden state: after the final norm
    where the architecture has one (ModernBERT), while the layers before it are as they leave their block.
    """

    name: str
    network: PreTrainedModel
    tokenizer: Any  # a fast tokenizer
    device: torch.device
    max_length: int  # tokens of a row, [CLS] and [SEP] among them
    weights_hash: str
    tokenizer_hash: str

    @property
    def num_layers(self) -> int:
        """How many layers `read` returns: those of the network and the embeddings."""
        return int(self.network.config.num_hidden_layers) + 1

    @property
    def hidden_size(self) -> int:
        return int(self.network.config.hidden_size)

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Return the hidden states (B, L, D) of all layers, the embeddings' first. UserError where one isn't finite."""
        with torch.inference_mode():
            states = self.network(
                input_ids=input_ids.to(self.device),
                attention_mask=attention_mask.to(self.device),
                output_hidden_states=True,
            ).hidden_states
        if len(states) != self.num_layers:
            raise UserError(f"encoder '{self.name}' returns {len(states)} layers where {self.num_layers} are expected")
        for number, state in enumerate(states):
            if not torch.isfinite(state[attention_mask.to(self.device).bool()]).all():
                raise UserError(
                    f"encoder '{self.name}': layer {number} returns NaN or infinity; its weights are broken"
                )
        return states


def load_encoder(name_or_folder: str | Path, *, device: str | torch.device | None = None) -> FrozenEncoder:
    """Load the bare encoder of a folder or of a name on the hub, in float32 and evaluation mode.

    Heads that lie in the same weights are left out. UserError where the folder has no weights, lacks some of the
    encoder's, or has no fast tokenizer, one that doesn't begin a text with its own [CLS], or one with more tokens than
    the encoder has rows for.
    """
    name = str(name_or_folder)
    if _looks_like_path(name) and not Path(name).is_dir():
        raise UserError(f"there is no folder '{name}'; give a `transformers` folder, or a name on the hub")
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise UserError(f"folder '{name}' has no config.json; give a `transformers` folder, such as a finished run's")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with quiet_loading():
        network = _load_network(name, place)
        tokenizer = load_tokenizer(name)
    _check_tokenizer(name, tokenizer, network.config)
    return FrozenEncoder(
        name=name,
        network=_freeze(network, place),
        tokenizer=tokenizer,
        device=place,
        max_length=min(max_positions(network.config) or MAX_LENGTH, MAX_LENGTH),
        weights_hash=_hash_weights(network),
        tokenizer_hash=_hash_tokenizer(tokenizer),
    )


def random_twin(encoder: FrozenEncoder, seed: int) -> FrozenEncoder:
    """Return the same architecture and tokenizer with weights as `transformers` initialises them, from `seed` alone.

    What a probe finds in it comes from the architecture and the tokenizer, not from pretraining.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoModel.from_config(encoder.network.config, attn_implementation=_attention(encoder.device))
    return replace(
        encoder,
        name=f"{encoder.name} (random, seed {seed})",
        network=_freeze(network, encoder.device),
        weights_hash=_hash_weights(network),
    )


def _load_network(name: str, device: torch.device) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if config.is_encoder_decoder:
            raise UserError(f"'{name}' is a {config.model_type} model with a decoder; give an encoder of BERT's kind")
        network, report = AutoModel.from_pretrained(
            name,
            config=config,
            attn_implementation=_attention(device),
            dtype="float32",
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:  # the last: weights of another shape
        raise UserError(f"encoder '{name}' can't be loaded: {_first_line(error)}") from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise UserError(
            f"encoder '{name}' lacks {len(missing)} of its tensors, {missing[0]} first; they would be untrained: "
            "give the folder of a whole encoder, not of a head alone"
        )
    return network


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of a folder or of a name on the hub; UserError in one line where there is none."""
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the tokenizer of '{name}' can't be loaded: {_first_line(error)}") from error


def _check_tokenizer(name: str, tokenizer: Any, config: PreTrainedConfig) -> None:
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of '{name}' is not a fast one; only those know the characters of a token")
    check_tokenizer(name, tokenizer, config.vocab_size)


def _freeze(network: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    network.requires_grad_(False).eval()
    return network.to(device)  # type: ignore[arg-type]  # its wrapper hides the method's own type


def _attention(device: torch.device) -> str:
    return "eager" if device.type == "cpu" else "sdpa"


def _hash_weights(network: PreTrainedModel) -> str:
    """Return the SHA-256 of all tensors by name; a pooler, which no probe reads, is left out."""
    digest = hashlib.sha256(network.config.model_type.encode())
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith("pooler."):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.contiguous().cpu().numpy().data)
    return digest.hexdigest()


def _hash_tokenizer(tokenizer: Any) -> str:
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or ("/" in name and Path(name).parent.is_dir())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
