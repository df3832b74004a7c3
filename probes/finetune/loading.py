"""Models with a head, out of folders of `transformers` or off the hub, with all that was not in the folder named.

load_tokenizer(name) -> fast tokenizer
load_head(name, auto_class) -> (model, names of tensors that the folder lacks)
put_head_on(name, auto_class, settings, seed, untrained) -> Loaded        encoder from the folder, head new
find_max_length(config, tokenizer) -> int | None
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from corpora import hub
from corpora.console import quiet_loading
from corpora.errors import UserError
from corpora.positions import max_positions

from ..soundness import check_tokenizer, check_weights

_NO_LIMIT = 100_000  # a tokenizer that knows no limit says 1e30


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model to train, and what in it no training has seen."""

    model: PreTrainedModel
    new: tuple[str, ...]  # tensors of the head
    missing: tuple[str, ...]  # tensors of the encoder that the folder lacks, a pooler as a rule


def check_folder(name: str) -> None:
    """Raise UserError where a folder has no configuration, or no weights that can be read without running code."""
    folder = Path(name).expanduser()
    if not folder.exists():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise UserError(f"there is no folder {name!r}; give a `transformers` folder, or a name on the hub")
        return
    if not os.path.isfile(folder / "config.json"):
        raise UserError(f"{name} has no config.json; a folder saved by `save_pretrained`, or a finished run, has one")
    files = os.listdir(folder)
    if not any(file.endswith((".safetensors", ".safetensors.index.json")) for file in files):
        pickled = [file for file in files if file.endswith((".bin", ".pt", ".ckpt", ".h5"))]
        what = f"only {pickled[0]}, which can run code when it is read;" if pickled else "no weights;"
        raise UserError(f"{name} has {what} a file model.safetensors is wanted (`save_pretrained` writes it)")


def load_config(name: str) -> PreTrainedConfig:
    """Return the configuration; UserError in one line where there is none."""
    check_folder(name)
    with _loading(name):
        return AutoConfig.from_pretrained(_expand(name), trust_remote_code=False)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return a fast tokenizer that can pad; UserError where it isn't one."""
    check_folder(name)
    with _loading(name):
        tokenizer = AutoTokenizer.from_pretrained(_expand(name), trust_remote_code=False)
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer of {name} is not a fast one (it has no tokenizer.json), and only those tell which pieces "
            "belong to which word; convert it with `AutoTokenizer.from_pretrained(..., use_fast=True)`"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(f"the tokenizer of {name} has no padding token; set `tokenizer.pad_token` and save it again")
    return tokenizer


def load_head(name: str, auto_class: str) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Return a model as its folder has it, and the names of the tensors that it lacks, which are random, of seed 0."""
    check_folder(name)
    with _loading(name), torch.random.fork_rng():
        torch.manual_seed(0)
        model, report = getattr(transformers, auto_class).from_pretrained(
            _expand(name), output_loading_info=True, use_safetensors=True, dtype="float32", trust_remote_code=False
        )
    return model.eval(), tuple(sorted(report["missing_keys"]))


def put_head_on(
    name: str, auto_class: str, settings: dict[str, Any], *, seed: int, untrained: bool = False, keep: bool = False
) -> Loaded:
    """Return the encoder of a folder under a head of `auto_class`.

    Whatever head the folder has, everything outside of the encoder starts anew from `seed`, so that encoders from
    different folders begin alike; `keep` takes the folder's head instead. `untrained` leaves the encoder at chance
    too: the control. Raises UserError where the folder holds no such encoder.
    """
    config = load_config(name)
    for key, value in settings.items():
        setattr(config, key, value)
    loader = getattr(transformers, auto_class)
    with torch.random.fork_rng(), _loading(name):
        torch.manual_seed(seed)
        model = loader.from_config(config, dtype=torch.float32)
    head = {key for key, _ in model.named_parameters() if not key.startswith(model.base_model_prefix + ".")}
    if untrained:
        return Loaded(model=model, new=tuple(sorted(head)), missing=())
    with _loading(name):
        found, report = loader.from_pretrained(
            _expand(name),
            config=config,
            output_loading_info=True,
            use_safetensors=True,
            ignore_mismatched_sizes=not keep,
            dtype="float32",
            trust_remote_code=False,
        )
    body = [key for key in report["missing_keys"] if key not in head]
    own = [key for key, _ in found.base_model.named_parameters()]
    if len(body) * 2 > len(own) or (keep and head & set(report["missing_keys"])):
        part = "encoder" if len(body) * 2 > len(own) else "head"
        raise UserError(
            f"{name} lacks the weights of its {part} as a {type(found).__name__}: "
            f"{len(report['missing_keys'])} tensors, {sorted(report['missing_keys'])[0]} first"
        )
    if keep:
        return Loaded(model=found, new=(), missing=tuple(sorted(body)))
    state = found.base_model.state_dict()
    for key in body:  # as the seed has it
        state.pop(key.removeprefix(model.base_model_prefix + "."), None)
    model.base_model.load_state_dict(state, strict=False)
    return Loaded(model=model, new=tuple(sorted(head)), missing=tuple(sorted(body)))


def check_loaded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise UserError where weights are no numbers, or the tokenizer is another's than the model's."""
    table: Any = model.get_input_embeddings()
    check_tokenizer(name, tokenizer, table.weight.shape[0])
    check_weights(name, model)


def find_max_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the most tokens in a row that both can read, or None."""
    positions = max_positions(config)
    limits = [limit for limit in (positions, tokenizer.model_max_length) if limit and 0 < limit < _NO_LIMIT]
    return min(limits, default=None)


def reads_segments(model: PreTrainedModel) -> bool:
    """Say whether the model tells a first text from a second by token types."""
    return getattr(model.config, "type_vocab_size", 0) > 1


def labels_of(config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the names of the classes 0, 1, ..."""
    names: Any = config.id2label or {}
    return tuple(names[number] for number in sorted(names))


def has_names(config: PreTrainedConfig) -> bool:
    """Say whether the labels have names of their own, not LABEL_0, LABEL_1, ..."""
    return any(label != f"LABEL_{number}" for number, label in enumerate(labels_of(config)))


def _expand(name: str) -> str:
    folder = Path(name).expanduser()
    return str(folder) if folder.exists() else name


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Say in one line why something could not be loaded, and keep the library's reports off the terminal."""
    try:
        with nullcontext() if Path(_expand(name)).is_dir() else hub.quiet_hub(), quiet_loading():
            yield
    except UserError:
        raise
    except Exception as error:  # `transformers`, `safetensors` and `tokenizers` raise a dozen kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{name} can't be loaded: {reason}") from error
