"""The trained heads of a folder: which there are, what each can judge, and loading one whole or not at all.

`find_heads(location)` reads configurations alone; `load_head(site)` loads one. A location is a run's folder, any folder
of `transformers`, or a name on its Hub.

B rows, L positions, V vocabulary, C classes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.activations import ACT2FN

from corpora.console import quiet_loading
from corpora.errors import UserError
from corpora.positions import max_positions

from .encoder import load_encoder, load_tokenizer
from .soundness import check_tokenizer, check_weights

HeadKind = Literal["masked_lm", "detection", "energy", "token_label", "sequence"]

# What class 0 of a token head is called where it means that nothing was done to the token.
ORIGINAL_LABELS = ("original", "no_gap", "kept", "unchanged")
# What a class of a sequence head is called where it means that the text is as it was written.
INTACT_LABELS = ("in_order", "original", "acceptable", "intact")

_OWN_KINDS: dict[str, HeadKind] = {  # heads of a run for which `transformers` has no class, or has it not everywhere
    "DetectionHead": "detection",
    "TokenClassHead": "detection",
    "EnergyHead": "energy",
}
_AUTO_CLASSES = {  # ending of the class's name -> how it is loaded
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
}


@dataclass(frozen=True, kw_only=True)
class HeadSite:
    """Where a head lies and what it says: nothing is loaded yet."""

    location: str  # as it was asked for
    name: str  # the objective, "generator", or the kind of a folder that is one model with its head
    place: str  # the folder or Hub name with its weights
    kind: HeadKind
    class_name: str
    load_with: str  # a class of `transformers`; "" for a head of a run for which it has none
    labels: tuple[str, ...] = ()  # (C,)


@dataclass(frozen=True, kw_only=True)
class Heads:
    """What a location has: heads that can score a text, and why the others can't."""

    found: tuple[HeadSite, ...]
    skipped: dict[str, str]  # name -> reason


@dataclass(frozen=True, kw_only=True)
class TrainedHead:
    """A loaded head on its encoder, in evaluation mode, float32, every weight of it out of the file."""

    site: HeadSite
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    max_length: int | None  # tokens in a row, special ones included; None where positions are not limited
    device: torch.device

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return what the head says of rows (B, L): (B, L) or (B, L, C) of tokens, (B, C) of texts."""
        with torch.no_grad():
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    def masked_logits(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor:
        """Return the logits of every token at one position of each row: (B, L), (B, L), (B,) -> (B, V).

        The vocabulary is projected on at these positions alone, where the class lets us: a third of the whole time.
        """
        rows = torch.arange(len(positions), device=positions.device)
        decoder = self.model.get_output_embeddings()  # type: ignore[operator]  # a masked LM of `transformers` has it
        handle = None
        if isinstance(decoder, nn.Module):
            handle = decoder.register_forward_pre_hook(lambda _module, args: (args[0][rows, positions][:, None],))
        try:
            logits = self.logits(input_ids, attention_mask)
        finally:
            if handle is not None:
                handle.remove()
        return logits[rows, positions] if logits.shape[1] == input_ids.shape[1] != 1 else logits[:, 0]


def find_heads(location: str) -> Heads:
    """Return the heads of a run, or of a folder or Hub name that is one model; UserError where there is no model."""
    folder = Path(location)
    record = folder / "export.json"
    if not record.is_file():
        return _find_single(location)
    found: list[HeadSite] = []
    skipped: dict[str, str] = {}
    for path, entry in _read_json(record)["folders"].items():
        if path == ".":
            continue
        name = entry.get("objective", path)
        site = _describe_exported(location, name, folder / path, entry)
        if isinstance(site, str):
            skipped[name] = site
        else:
            found.append(site)
    return Heads(found=tuple(found), skipped=skipped)


def load_head(site: HeadSite, *, device: str | None = None) -> TrainedHead:
    """Load encoder, head and tokenizer; UserError where a tensor of the head isn't in the file, or another's shape."""
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = _load_stock(site) if site.load_with else _load_own(site)
    with quiet_loading():
        tokenizer = load_tokenizer(site.place if site.load_with else site.location)
    config: Any = model.config
    check_tokenizer(site.place, tokenizer, config.vocab_size)
    check_weights(site.place, model)
    model.requires_grad_(False).eval().to(chosen)
    return TrainedHead(site=site, model=model, tokenizer=tokenizer, max_length=max_positions(config), device=chosen)


def _find_single(location: str) -> Heads:
    """Describe a folder or Hub name that is one model, by the class that its configuration names."""
    config = _read_config(location)
    class_name = next(iter(config.architectures or ()), "")
    site = _describe(location, "", location, class_name, config, tuple(_label_names(config)))
    if isinstance(site, str):
        return Heads(found=(), skipped={class_name or "head": site})
    return Heads(found=(site,), skipped={})


def _describe_exported(location: str, name: str, folder: Path, entry: dict[str, Any]) -> HeadSite | str:
    if entry.get("untrained"):
        return f"never trained: {', '.join(entry['untrained'][:3])}"
    labels = next((tuple(each) for each in entry.get("labels", {}).values() if each), ())
    if entry["class"] is not None:
        config = _read_config(str(folder))
        return _describe(location, name, str(folder), entry["class"], config, labels or tuple(_label_names(config)))
    own = entry["head_class"].rpartition(".")[2]
    kind = _OWN_KINDS.get(own)
    if kind == "energy" or (kind == "detection" and set(labels[:1]) <= set(ORIGINAL_LABELS)):
        return HeadSite(
            location=location,
            name=name,
            place=str(folder),
            kind=kind,
            class_name=own,
            load_with="",
            labels=labels,
        )
    return f"no rule scores a text by its {own} ({', '.join(labels[:4]) or 'no labels'})"


def _describe(
    location: str, name: str, place: str, class_name: str, config: PreTrainedConfig, labels: tuple[str, ...]
) -> HeadSite | str:
    """Return a site, or the reason why this class has no score for a text."""

    def site(kind: HeadKind, load_with: str, labels: tuple[str, ...] = ()) -> HeadSite:
        return HeadSite(
            location=location,
            name=name or kind,
            place=place,
            kind=kind,
            class_name=class_name,
            load_with=load_with,
            labels=labels,
        )

    shown = ", ".join(labels[:4])
    if class_name == "ElectraForPreTraining":
        if name and labels[:1] and labels[0] not in ORIGINAL_LABELS:
            return f"{class_name} tells {shown} apart: class 0 of a detector is called 'original'"
        return site("detection", "AutoModelForPreTraining", labels if name else ("original", "replaced"))
    if class_name.endswith("ForPreTraining"):  # BERT's and its kin hold a masked LM's head beside the other
        return site("masked_lm", "AutoModelForMaskedLM")
    if class_name.endswith("ForMaskedLM"):
        return site("masked_lm", "AutoModelForMaskedLM")
    load_with = next((auto for ending, auto in _AUTO_CLASSES.items() if class_name.endswith(ending)), None)
    if load_with == "AutoModelForTokenClassification":
        if labels and labels[0] in ORIGINAL_LABELS:
            return site("detection", load_with, labels)
        if sum(len(label) == 1 for label in labels) > max(1, len(labels) // 2):  # first characters
            return site("token_label", load_with, labels)
        return f"{class_name} tags tokens as {shown}: no score of a text (class 0 of a detector is called 'original')"
    if load_with == "AutoModelForSequenceClassification":
        if set(labels) & set(INTACT_LABELS):
            return site("sequence", load_with, labels)
        return f"{class_name} tells {shown} apart: none of them says that a text is as it was written"
    if class_name.endswith("ForNextSentencePrediction"):
        return f"{class_name} judges two segments, and a minimal pair has two single texts"
    return f"{class_name or 'the configuration'} is an encoder without a head"


def _read_config(location: str) -> PreTrainedConfig:
    folder = Path(location)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(f"{location} has no config.json: a run is exported when it ends, or give its folder of a head")
    try:
        return AutoConfig.from_pretrained(location)
    except (OSError, ValueError) as error:
        where = "is no folder here, and" if not folder.exists() else "can't be read:"
        raise UserError(f"{location} {where} transformers says: {str(error).splitlines()[0]}") from error


def _label_names(config: PreTrainedConfig) -> list[str]:
    return [str(label) for _, label in sorted((config.id2label or {}).items())]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from error


def _load_stock(site: HeadSite) -> nn.Module:
    loader = getattr(transformers, site.load_with)
    with quiet_loading():
        try:
            model, report = loader.from_pretrained(
                site.place, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise UserError(f"{site.place} can't be loaded: {str(error).splitlines()[0]}") from error
    unread = sorted(map(str, [*report["missing_keys"], *report.get("mismatched_keys", ())]))
    if unread:
        more = f" and {len(unread) - 2} more" if len(unread) > 2 else ""
        raise UserError(
            f"{site.place} holds no trained {type(model).__name__}: its weights lack {', '.join(unread[:2])}{more}, "
            "which would be random; give a folder whose head was trained"
        )
    return model


@dataclass(frozen=True)
class _Output:
    logits: Tensor


class _OwnHead(nn.Module):
    """A run's head beside its encoder: dense, activation, norm where there is one, classifier; or an energy alone.

    Gives logits (B, L) of the one class, or (B, L, C).
    """

    def __init__(self, encoder: nn.Module, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        config: Any = encoder.config
        self.config, self.encoder = config, encoder
        layers: list[nn.Module] = []
        if "transform.dense.weight" in tensors:
            layers.append(_linear(tensors, "transform.dense"))
            layers.append(ACT2FN[getattr(config, "classifier_activation", None) or config.hidden_act])
        if "transform.norm.weight" in tensors:
            weight, bias = tensors["transform.norm.weight"], tensors.get("transform.norm.bias")
            norm = nn.LayerNorm(len(weight), eps=config.norm_eps, bias=bias is not None)
            norm.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
            layers.append(norm)
        layers.append(_linear(tensors, "energy" if "energy.weight" in tensors else "classifier"))
        self.layers = nn.Sequential(*layers)

    def forward(self, **rows: Tensor) -> _Output:
        logits = self.layers(self.encoder(**rows).last_hidden_state)
        return _Output(logits.squeeze(-1) if logits.shape[-1] == 1 else logits)


def _linear(tensors: dict[str, Tensor], name: str) -> nn.Linear:
    weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return layer


def _load_own(site: HeadSite) -> nn.Module:
    """Put the head's tensors on the run's encoder; UserError where they are other ones than such a head has."""
    tensors = load_file(Path(site.place) / "head.safetensors")
    last = "energy" if site.kind == "energy" else "classifier"
    needed = {f"{last}.weight"} | ({"transform.dense.weight"} if last == "classifier" else set())
    known = {f"{layer}.{part}" for layer in ("transform.dense", "transform.norm", last) for part in ("weight", "bias")}
    if not needed <= set(tensors) <= known:
        raise UserError(
            f"{site.place} holds the tensors {', '.join(sorted(tensors))}; those of a {site.class_name} differ"
        )
    return _OwnHead(load_encoder(site.location, device="cpu").network, tensors)
