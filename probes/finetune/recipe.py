"""How a head is fine-tuned: every setting, the schedule, and the learning rate of each layer."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from corpora.errors import UserError

if TYPE_CHECKING:  # it imports torch, which takes seconds: --help must not wait for it
    from transformers import PreTrainedModel

CHOICES = {
    "task": ("token", "sequence"),
    "head": ("auto", "new", "keep"),
    "metric": ("auto", "entity_f1", "accuracy", "macro_f1", "f1", "mcc", "spearman", "pearson"),
}


_METRICS = (
    "the figure in the table: entity_f1, accuracy, macro_f1, f1, mcc, or spearman and pearson, which predict numbers "
    "(default: what the labels ask for)"
)


def _setting(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a fine-tuning run. The defaults are those that `transformers`' examples made usual."""

    encoder: str = _setting("", "a run, a `transformers` folder, or a name on the hub")
    task: str = _setting("token", "a label for each word, or one for the text")
    train: str = _setting("", "file, or dataset as NAME:CONFIG:SPLIT")
    dev: str = _setting("", "file or dataset that is scored while training")
    test: str = _setting("", "file or dataset that is scored once, at the end")
    out: str = _setting("", "folder for the model, its card and its figures (default: nothing is kept)")
    column: str = _setting("", "column of the labels: a name, or a number from 1")
    words_column: str = _setting("", "column of the words, in records")
    text_column: str = _setting("", "column of the text")
    second_column: str = _setting("", "column of the second text, for pairs")
    labels: str = _setting("", "all labels, with commas, in the order of their ids (default: those of train)")
    metric: str = _setting("auto", _METRICS)
    head: str = _setting("auto", "keep the folder's head where it knows the labels, or start a new one")
    untrained: bool = _setting(False, "leave the encoder untrained too: the control")
    epochs: int = _setting(3, "passes over train; 0 only evaluates")
    batch_size: int = _setting(32, "rows a step")
    micro_batch_size: int = _setting(0, "rows at a time, to save memory; the same gradient (default: the batch)")
    learning_rate: float = _setting(5e-5, "of the head, at its peak")
    warmup_rate: float = _setting(0.0, "share of the steps on the way up")
    layer_decay: float = _setting(1.0, "factor on the learning rate from each layer to the one below")
    electra_rates: bool = _setting(False, "layer decay and warm-up as in ELECTRA's code, which skips a layer")
    weight_decay: float = _setting(0.01, "of matrices; biases and norms have none")
    adam_beta1: float = _setting(0.9, "")
    adam_beta2: float = _setting(0.999, "")
    adam_epsilon: float = _setting(1e-8, "")
    max_grad_norm: float = _setting(1.0, "longer gradients are shortened to this; 0 leaves them")
    max_length: int = _setting(0, "tokens of a row (default: the encoder's positions, 512 at most)")
    by_length: bool = _setting(False, "batches of rows of like length: less padding, less chance in the order")
    subsample_rate: float = _setting(1.0, "share of train, dev and test that is used")
    subsample_seed: int = _setting(0, "of the shuffle that it is the start of")
    eval_every: int = _setting(0, "steps between evaluations, beside those at the end of each epoch")
    seed: int = _setting(42, "of the head's start, the order and dropout")
    threads: int = _setting(0, "of the processor (default: all)")
    reference: str = _setting("", "published figures, printed under the table")

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"--{name} is {value!r}; known: {', '.join(known)}")
        limits = {"epochs": 0, "batch_size": 1, "micro_batch_size": 0, "max_length": 0, "eval_every": 0, "threads": 0}
        for name, least in limits.items():
            if getattr(self, name) < least:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("warmup_rate", "subsample_rate", "layer_decay", "adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"--{name} is {getattr(self, name)}; it must lie between 0 and 1")
        for name in ("learning_rate", "weight_decay", "adam_epsilon", "max_grad_norm"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"--{name} is {getattr(self, name)}; it must be 0 or more")


FIELDS = {each.name: each for each in dataclasses.fields(Recipe)}


def convert(name: str, value: Any, where: str) -> Any:
    """Return `value`, from the command line or YAML, as the setting's type; UserError where it isn't one."""
    kind: Any = type(FIELDS[name].default)
    try:
        if value is None or (isinstance(value, bool) and kind is not bool):
            raise TypeError
        if isinstance(value, list) and kind is str:
            return ",".join(map(str, value))
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if kind is int and not float(value).is_integer():
            raise ValueError
        return int(float(value)) if kind is int else kind(value)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]
        raise UserError(f"{where}{name} is {value!r}; it must be {wanted}") from error


def read_recipe(path: str) -> dict[str, Any]:
    """Return the settings in a YAML file: NAME: VALUE a line. UserError names the file and, where it can, the line."""
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--recipe {path} is not UTF-8 at byte {error.start:,}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, Mapping):
        raise UserError(f"--recipe {path} holds no settings; write one NAME: VALUE a line")
    for name in settings:
        if name not in FIELDS:
            raise UserError(f"{path}: {name} is unknown; --help shows every setting")
    return {name: convert(name, value, f"{path}: ") for name, value in settings.items()}


def schedule_factor(step: int, num_steps: int, warmup_rate: float, *, electra_rates: bool = False) -> float:
    """Return the factor on the learning rate at `step`, from 0 to `num_steps` - 1: up linearly, then down to 0.

    ELECTRA's code (Clark et al., 2020, `model/optimization.py`, https://github.com/google-research/electra) multiplies
    the way up with the way down, which counts from step 0, so the peak stays below 1.
    """
    warmup = int(num_steps * warmup_rate)
    rising = step / warmup if step < warmup else 1.0
    if electra_rates:
        return rising * (1 - step / num_steps)
    return rising if step < warmup else (num_steps - step) / max(1, num_steps - warmup)


def layer_factors(model: "PreTrainedModel", decay: float, *, electra_rates: bool = False) -> dict[str, float]:
    """Return the factor on the learning rate of each parameter: 1 for the head, less from each layer to the next.

    With n layers, numbered from 0: layer i has decay^(n - i), the embeddings decay^(n + 1), as ELECTRA's paper
    describes (Clark et al., 2020, appendix A). Their code gives the head the depth n + 2 and the top layer n, so
    that every factor but the head's is smaller by `decay`: decay^(n + 1 - i) and decay^(n + 2), under `electra_rates`.
    Poolers count as the head; norms after the last layer as that layer.
    """
    prefix = model.base_model_prefix + "."
    names = [name for name, _ in model.named_parameters()]
    depths = {name: _find_layer(name.removeprefix(prefix)) for name in names if name.startswith(prefix)}
    layers = [depth for depth in depths.values() if depth is not None]
    if not layers:
        if decay == 1:
            return dict.fromkeys(names, 1.0)
        raise UserError(f"--layer_decay {decay}: {type(model).__name__} has no numbered layers to tell apart")
    count = max(layers) + 1
    skipped = 1 if electra_rates else 0
    factors = {}
    for name in names:
        depth = depths.get(name)
        rest = name.removeprefix(prefix)
        if not name.startswith(prefix) or "pooler" in rest:
            factors[name] = 1.0
        elif depth is not None:
            factors[name] = decay ** (count - depth + skipped)
        elif "final_norm" in rest:
            factors[name] = decay ** (1 + skipped)
        else:  # embeddings, their projection, tables of relative positions
            factors[name] = decay ** (count + 1 + skipped)
    return factors


def _find_layer(name: str) -> int | None:
    match = re.search(r"(?:^|\.)(?:layer|layers|h|block)\.(\d+)\.", name)
    return int(match[1]) if match else None
