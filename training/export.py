"""A run folder that `transformers` loads: the encoder in it, each head and generator in a folder of its own beside it.

runs/x/config.json, model.safetensors, tokenizer files    the encoder: AutoModel, AutoTokenizer
runs/x/heads/<objective>/     encoder and head as the class of `transformers` that both are, where there is one;
                              head.json and head.safetensors, our head alone, in any case
runs/x/generator/             a learned generator, as a masked language model
runs/x/snapshots/<step>/      the encoder as it was after that step, where it was asked for
runs/x/export.json            what lies where, how to load it, and what in it is untrained
"""

import copy
import dataclasses
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from corpora import Vocabulary
from corpora.console import quiet_loading
from corpora.positions import max_positions
from generators.masked_lm import MaskedLMProposer
from generators.network import encode, reads_segments
from objectives.base import Objective
from objectives.batch import View
from objectives.heads import DetectionHead, MaskedLMHead, SequenceHead

from .folders import make_folder, publish_folder, storage_errors, sync_folder
from .model import PretrainingModel
from .stock import POOLED, StockHead, find_stock_head, make_stock_config, rename_head

EXPORT_RECORD = "export.json"
TOLERANCE = 1e-5  # between our outputs and those of what was written and read again, both computed in float64
_SAMPLE = ("A first text, which isn't long, with a {mask} in it.", "And a second one.")


@dataclass(frozen=True, kw_only=True)
class _Network:
    """An encoder as it is exported, and what it says of the probe, by which the exported one is judged."""

    config: PreTrainedConfig
    tensors: dict[str, Tensor]  # float32
    tokenizer: PreTrainedTokenizerBase
    probe: dict[str, Tensor]  # keyword arguments
    hidden: Tensor  # (B, L, D) float64
    word_table: Tensor  # (V, E) float64


def export_run(
    folder: Path,
    model: PretrainingModel,
    tokenizer: PreTrainedTokenizerBase,
    objectives: Sequence[Objective],
    *,
    vocabulary: Vocabulary,
) -> None:
    """Write everything that the run learned into its folder, as the module's docstring shows.

    Each folder and file appears by rename, the encoder's config.json last. What is written is loaded again, as a user
    would, before it gets its name: RuntimeError, a bug, where a tensor is missing or unexpected or the outputs differ
    from the model's. StorageError where the disk refuses.
    """
    with quiet_loading():
        encoder = _read_network(model.encoder, tokenizer, vocabulary)
        contents: dict[str, Any] = {}
        for objective in objectives:
            path = f"heads/{objective.name}"
            contents[path] = _export_head(folder / path, encoder, model.heads[objective.name], objective)
        learned = {name: made for name, made in model.generators.items() if isinstance(made, MaskedLMProposer)}
        for name, proposer in learned.items():
            path = "generator" if len(learned) == 1 else f"generator-{name}"
            contents[path] = _export_generator(folder / path, proposer, tokenizer, vocabulary) | {"generator_of": name}

        def write(place: Path) -> None:
            _write_encoder(place, encoder, model, objectives, contents)

        publish_files(folder, write, last="config.json")


def export_encoder(
    folder: Path,
    model: PretrainingModel,
    tokenizer: PreTrainedTokenizerBase,
    objectives: Sequence[Objective],
    *,
    vocabulary: Vocabulary,
) -> None:
    """Write the bare encoder alone, as `export_run` would, as a folder that appears whole or not at all."""
    with quiet_loading():
        encoder = _read_network(model.encoder, tokenizer, vocabulary)
        publish_folder(folder, lambda place: _write_encoder(place, encoder, model, objectives, {}))


def publish_files(folder: Path, write: Callable[[Path], None], last: str = "") -> None:
    """Let `write` fill an empty folder, then move its files into `folder`, each whole and durable, `last` at the end.

    What interrupts it before all are written leaves `folder` as it was.
    """
    with storage_errors(folder):
        make_folder(folder)
        temporary = folder / f".tmp-{os.getpid()}-{secrets.token_hex(8)}"  # a name that `sweep` knows as litter
        os.mkdir(temporary)
        try:
            write(temporary)
            names = sorted(os.listdir(temporary), key=lambda name: (name == last, name))
            mode = stat.S_IMODE(os.stat(temporary).st_mode) & 0o666  # what the umask leaves; safetensors gives 0600
            for name in names:
                os.chmod(temporary / name, mode)
                with open(temporary / name, "rb") as file:
                    os.fsync(file.fileno())
            for name in names:
                os.replace(temporary / name, folder / name)
            sync_folder(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _read_network(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> _Network:
    config = copy.deepcopy(network.config)
    config.dtype = torch.float32
    probe = _make_probe(vocabulary, max_positions(config))
    # In float64 rounding is out of the comparison: what still differs is a wrong tensor or setting.
    replica = copy.deepcopy(network).cpu().double().eval()
    replica.set_attn_implementation("eager")
    with torch.no_grad():
        hidden, word_table = encode(replica, probe), replica.get_input_embeddings().weight
    inputs = {"input_ids": probe.input_ids, "attention_mask": probe.attention_mask}
    if reads_segments(network):
        inputs["token_type_ids"] = probe.token_type_ids
    return _Network(
        config=config,
        tensors=_plain_tensors(network),
        tokenizer=_fit_tokenizer(tokenizer, network),
        probe=inputs,
        hidden=hidden,
        word_table=word_table,
    )


def _make_probe(vocabulary: Vocabulary, max_length: int | None) -> View:
    """Return two rows of random text, two segments each, one of them padded."""
    length = min(16, max_length or 16)
    ids = np.random.default_rng(0).choice(vocabulary.ordinary_ids, (2, length))
    ids[:, 0], ids[:, length // 2], ids[:, length // 4] = vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id
    ids[1, -length // 4 :] = vocabulary.pad_id
    mask = np.ones_like(ids)
    mask[1, -length // 4 :] = 0
    segments = np.zeros_like(ids)
    segments[:, length // 2 + 1 :] = 1
    rows = (torch.from_numpy(array) for array in (ids, mask, segments * mask))
    input_ids, attention_mask, token_type_ids = rows
    return View(input_ids, attention_mask, token_type_ids)


def _plain_tensors(network: PreTrainedModel) -> dict[str, Tensor]:
    """Return the tensors in float32, the word table as the one table that it amounts to, whatever it is shared with."""
    embedding = network.get_input_embeddings()
    place = next(name for name, module in network.named_modules() if module is embedding)
    tensors = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(place + ".")}
    tensors[f"{place}.weight"] = embedding.weight
    return _to_float32(tensors)


def _to_float32(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}


def _fit_tokenizer(tokenizer: PreTrainedTokenizerBase, network: PreTrainedModel) -> PreTrainedTokenizerBase:
    """Return a copy that gives what this encoder reads: token types where it has them, no more than its positions."""
    fitted = copy.deepcopy(tokenizer)
    fitted.backend_tokenizer.no_truncation()
    fitted.backend_tokenizer.no_padding()
    names = [name for name in fitted.model_input_names if name != "token_type_ids"]
    fitted.model_input_names = [*names[:1], "token_type_ids", *names[1:]] if reads_segments(network) else names
    limit = max_positions(network.config)
    if limit is not None:
        fitted.model_max_length = min(fitted.model_max_length, limit)
    return fitted


def _export_head(folder: Path, encoder: _Network, head: nn.Module, objective: Objective) -> dict[str, Any]:
    """Publish a head, with the encoder where both are a class of `transformers`; return what the record says of it."""
    stock = find_stock_head(head, encoder.config)
    record: dict[str, Any] = {
        "objective": objective.name,
        "objective_class": _name_class(objective),
        "options": dataclasses.asdict(objective),
        "head_class": _name_class(head),
        "class": stock.class_name if stock else None,
        "load_with": stock.auto_class if stock else None,
        "labels": {target: list(labels) for target, labels in objective.labels.items()},
        "num_segments": objective.num_segments,
        "untrained": [],
    }

    def write(place: Path) -> None:
        save_file(_to_float32(head.state_dict()), place / "head.safetensors", metadata={"format": "pt"})
        _write_json(place / "head.json", record)
        if stock is not None:
            labels = objective.labels[head.target] if isinstance(head, DetectionHead | SequenceHead) else ()
            _write_with_head(place, encoder, head, stock, labels)

    publish_folder(folder, write)
    return record


def _export_generator(
    folder: Path, proposer: MaskedLMProposer, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Publish a learned generator as a masked language model, with a word table of its own."""
    network = _read_network(proposer.network, tokenizer, vocabulary)
    stock = find_stock_head(proposer.head, network.config)

    def write(place: Path) -> None:
        if stock is not None:
            _write_with_head(place, network, proposer.head, stock, ())
        else:
            _write_model(place, network.config, network.tensors, network.tokenizer)
            save_file(_to_float32(proposer.head.state_dict()), place / "head.safetensors", metadata={"format": "pt"})

    publish_folder(folder, write)
    name, loader = (stock.class_name, stock.auto_class) if stock else (type(proposer.network).__name__, "AutoModel")
    return {"class": name, "load_with": loader, "head_class": _name_class(proposer.head), "untrained": []}


def _write_encoder(
    place: Path, encoder: _Network, model: PretrainingModel, objectives: Sequence[Objective], contents: dict[str, Any]
) -> None:
    """Write the bare encoder, and a pooler where its class will ask for one."""
    config = copy.deepcopy(encoder.config)
    config.architectures = [type(model.encoder).__name__]
    heads = {o.name: model.heads[o.name] for o in objectives}
    sequence = {name: head for name, head in heads.items() if isinstance(head, SequenceHead)}
    pooled_by = next(iter(sequence), None) if config.model_type in POOLED else None
    tensors = dict(encoder.tensors)
    if pooled_by is not None:
        dense = _to_float32(sequence[pooled_by].transform.dense.state_dict())
        tensors |= {f"pooler.dense.{name}": tensor for name, tensor in dense.items()}
    untrained = _fill_up(config, tensors)
    _write_model(place, config, tensors, encoder.tokenizer)
    loaded = _load(place, "AutoModel", encoder.tokenizer)
    _compare(place, encoder.hidden, lambda: loaded(**encoder.probe).last_hidden_state)
    here = {
        "class": config.architectures[0],
        "load_with": "AutoModel",
        "pooler_from": pooled_by,
        "untrained": sorted(untrained),
    }
    _write_json(place / EXPORT_RECORD, {"format": 1, "folders": {".": here, **contents}})


def _fill_up(config: PreTrainedConfig, tensors: dict[str, Tensor]) -> list[str]:
    """Add what AutoModel will look for and nothing has trained, a pooler; return its names."""
    with torch.device("meta"):
        expected = AutoModel.from_config(config).state_dict()
    added = [name for name in expected if name not in tensors]
    chance = torch.Generator().manual_seed(0)
    for name in added:
        shape = expected[name].shape
        started = torch.randn(shape, generator=chance) * config.initializer_range
        tensors[name] = started if len(shape) > 1 else torch.zeros(shape)
    return added


def _write_with_head(
    place: Path, network: _Network, head: nn.Module, stock: StockHead, labels: tuple[str, ...]
) -> None:
    """Write encoder and head as `stock`, load them again, and compare the logits."""
    tensors = {stock.prefix + name: tensor for name, tensor in network.tensors.items()}
    tensors |= rename_head(stock, _to_float32(head.state_dict()))
    _write_model(place, make_stock_config(stock, network.config, labels), tensors, network.tokenizer)
    loaded = _load(place, stock.auto_class, network.tokenizer)
    _compare(place, _own_logits(head, network, stock.two_logits), lambda: loaded(**network.probe).logits)


def _own_logits(head: nn.Module, network: _Network, two_logits: bool) -> Tensor:
    """Return our head's logits of the probe, float64, in the shape in which the stock class gives them."""
    replica = copy.deepcopy(head).to("cpu", torch.float64).eval()
    with torch.no_grad():
        if isinstance(replica, MaskedLMHead):
            return replica.logits(network.hidden, network.word_table)  # (B, L, V)
        if isinstance(replica, SequenceHead):
            return replica.classifier(replica.transform(network.hidden[:, 0]))  # (B, C)
        assert isinstance(replica, DetectionHead)
        logits = replica.classifier(replica.transform(network.hidden))  # (B, L, 1)
        return torch.cat([torch.zeros_like(logits), logits], -1) if two_logits else logits.squeeze(-1)


def _write_model(
    place: Path, config: PreTrainedConfig, tensors: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase
) -> None:
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(place)
    tokenizer.save_pretrained(place)


def _load(place: Path, auto_class: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Load what was written as a user would; RuntimeError where a key is missing or unexpected, or an id differs."""
    loader = getattr(transformers, auto_class)
    loaded, report = loader.from_pretrained(
        place, output_loading_info=True, attn_implementation="eager", local_files_only=True
    )
    remarks = {kind: sorted(map(str, found)) for kind, found in report.items() if found}
    if remarks:
        raise RuntimeError(f"export of {type(loaded).__name__}: loading it again reports {remarks}")
    again = AutoTokenizer.from_pretrained(place, local_files_only=True)
    texts = [text.format(mask=tokenizer.mask_token) for text in _SAMPLE]
    if dict(again(*texts)) != dict(tokenizer(*texts)):
        raise RuntimeError(f"export of {type(loaded).__name__}: the tokenizer gives other ids when it is loaded again")
    return loaded.to(torch.float64).eval()


def _compare(place: Path, ours: Tensor, compute: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        theirs = compute()
    if ours.shape != theirs.shape:
        raise RuntimeError(f"export to {place}: the outputs have shape {tuple(theirs.shape)}, ours {tuple(ours.shape)}")
    difference = float((ours - theirs).abs().max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"export to {place}: the outputs differ from the model's by {difference:.2g}")


def _name_class(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
