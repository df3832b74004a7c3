"""Heads that others trained, opened for a look: which there are, what their classes mean, what in them is untrained.

find_folders(folder) -> folders with heads
find_foreign(folder) -> heads of a run that no class of `transformers` is
find_kind(folder) -> one of KINDS
open_head(folder, kind) -> Head
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from corpora.errors import UserError

from .finetune.loading import check_loaded, has_names, labels_of, load_config, load_head, load_tokenizer

KINDS = {
    "token": "AutoModelForTokenClassification",
    "sequence": "AutoModelForSequenceClassification",
    "masked_lm": "AutoModelForMaskedLM",
    "detection": "AutoModelForPreTraining",
    "next_sentence": "AutoModelForNextSentencePrediction",
}
_SUFFIXES = {
    "ForTokenClassification": "token",
    "ForSequenceClassification": "sequence",
    "ForMaskedLM": "masked_lm",
    "ForNextSentencePrediction": "next_sentence",
    "ForPreTraining": "masked_lm",  # BERT's has both; ELECTRA's is a detector, see `find_kind`
}
_FIXED_NAMES = {"detection": ("original", "replaced"), "next_sentence": ("follows", "random")}


@dataclass(frozen=True, kw_only=True)
class Head:
    """A model, its tokenizer, and what must be said of it first."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kind: str
    names: tuple[str, ...]
    asks_all: bool  # continuations and special tokens too, as detectors do
    title: str
    warnings: tuple[str, ...]


def find_folders(folder: str) -> list[str]:
    """Return the folders with heads: this one, or for a run, whose own folder is the bare encoder, those under heads/.

    UserError where there is only an encoder.
    """
    config = load_config(folder)
    if any(name.endswith(tuple(_SUFFIXES)) for name in config.architectures or ()):
        return [folder]
    found = sorted(str(path.parent) for path in Path(folder).expanduser().glob("heads/*/config.json"))
    if not found and (foreign := find_foreign(folder)):
        raise UserError(f"{folder}: `transformers` has no class with a head like {', '.join(foreign)}; none was asked")
    if not found:
        raise UserError(
            f"{folder} is a bare encoder ({', '.join(config.architectures or ('?',))}): it has no head to ask; "
            "fine-tune one with `python -m probes finetune`, or force a kind with --head"
        )
    return found


def find_foreign(folder: str) -> list[str]:
    """Return the names of a run's heads that were saved without a class of `transformers`, and can't be asked here."""
    heads = sorted(Path(folder).expanduser().glob("heads/*/head.json"))
    return [path.parent.name for path in heads if not (path.parent / "config.json").exists()]


def find_kind(folder: str) -> str:
    """Return which of KINDS the folder's class is; UserError for another."""
    config = load_config(folder)
    name = (config.architectures or ("",))[0]
    if name == "ElectraForPreTraining":
        return "detection"
    kind = next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)
    if kind is None:
        raise UserError(f"{folder} is a {name or 'model of no known class'}; choose --head {', '.join(KINDS)}")
    return kind


def open_head(folder: str, kind: str = "") -> Head:
    """Load a head and say first what is amiss: tensors that are missing, classes without names."""
    kind = kind or find_kind(folder)
    tokenizer = load_tokenizer(folder)
    model, missing = load_head(folder, KINDS[kind])
    check_loaded(model, tokenizer, folder)
    warnings = []
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        warnings.append(
            f"NOT TRAINED: {len(missing)} tensors are not in {folder} ({shown}). They stand at random values, "
            "and so does every figure below."
        )
    names = labels_of(model.config)
    if kind in _FIXED_NAMES and not (has_names(model.config) and len(names) == 2):
        names = _FIXED_NAMES[kind]
    is_regression = kind == "sequence" and len(names) == 1
    if kind in ("token", "sequence") and not is_regression and not has_names(model.config):
        warnings.append(
            f"The classes have no names (LABEL_0 to LABEL_{len(names) - 1}): the folder does not say what 0 means. To "
            "check, give a text whose labels you know with --labels: the loss is small where they are right, "
            f"{math.log(len(names)):.2f} (ln {len(names)}) where nothing is known, and larger where they are swapped."
        )
    return Head(
        model=model,
        tokenizer=tokenizer,
        kind=kind,
        names=names if kind != "masked_lm" else (),
        asks_all=kind == "detection" or _is_detector(folder),
        title=f"{Path(folder).name}: {type(model).__name__}",
        warnings=tuple(warnings),
    )


def _is_detector(folder: str) -> bool:
    """Say whether the folder is a detection head of a pretraining run, which was asked at every token."""
    path = Path(folder).expanduser() / "head.json"
    if not path.is_file():
        return False
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and str(record.get("head_class", "")).endswith(".DetectionHead")
