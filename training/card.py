"""The model card: what was trained on what, what it learned beside chance, and how to load it."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .chance import LEVELS, add_base_rates, chance_of
from .curves import draw_curves
from .export import EXPORT_RECORD, publish_files
from .redact import redact_command, redact_settings, shorten_absolute_paths, shorten_path

CARD, PICTURE = "README.md", "curves.png"

_FIGURES = {
    "hidden_loss": "loss at hidden tokens (nats)",
    "hidden_accuracy": "accuracy at hidden tokens",
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "f1": "F1 at probability .5",
}
_OF_THE_MACHINE = ("out", "cache", "resume")


def write_card(folder: Path, record: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> None:
    """Write README.md and curves.png into the run's folder.

    `record` is what run.json holds and `metrics` the rows of metrics.jsonl; what either lacks is left out. Of paths the
    card has the last name only, of passwords nothing. What was exported is read from the folder's export.json.
    """
    path = folder / EXPORT_RECORD
    exported = json.loads(path.read_text(encoding="utf-8"))["folders"] if path.is_file() else {}
    name = folder.resolve().name
    held_out = [row for row in metrics if row.get("split") == "held_out"]
    chance = add_base_rates(record.get("chance", {}), held_out)

    def write(place: Path) -> None:
        drawn = draw_curves(place / PICTURE, metrics, chance, _describe(record))
        parts = [
            _front_matter(record, exported),
            f"# {name}\n\n{_summarise(record, name)}",
            _tell_training(record),
            _tell_results(held_out, chance, drawn),
            _tell_labels(exported),
            _tell_loading(name, exported),
            _tell_repeating(record),
            _tell_limits(record, exported, held_out),
        ]
        card = "\n\n".join(part for part in parts if part) + "\n"
        (place / CARD).write_text(shorten_absolute_paths(card), encoding="utf-8")

    publish_files(folder, write, last=CARD)


def _describe(record: Mapping[str, Any]) -> str:
    config = record.get("config", {})
    return f"{shorten_path(str(config.get('encoder', 'encoder')))}, {_name_objectives(config)}"


def _name_objectives(config: Mapping[str, Any]) -> str:
    objective = config.get("objective", "?")
    return "+".join(objective) if isinstance(objective, Mapping) else _one_line(objective)


def _list_objectives(config: Mapping[str, Any]) -> list[str]:
    return [part.partition(":")[0].strip() for part in _name_objectives(config).split("+")]


def _front_matter(record: Mapping[str, Any], exported: Mapping[str, Any]) -> str:
    config = record.get("config", {})
    encoder = shorten_path(str(config.get("encoder", "")))
    tags = ["pretext", "self-supervised", "pretraining", *_list_objectives(config), encoder]
    head = {
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
        "tags": [tag for tag in tags if tag not in ("", "?")],
    }
    if config.get("language"):
        head = {"language": config["language"], **head}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _summarise(record: Mapping[str, Any], name: str) -> str:
    config = record.get("config", {})
    encoder, objective = shorten_path(str(config.get("encoder", "?"))), _name_objectives(config)
    return (
        f"A text encoder (`{encoder}`) pretrained with `{objective}`. The encoder lies in this folder and loads with "
        "`AutoModel`; the heads that trained it, and the generator if it had one, lie in folders beside it. It gives "
        "hidden states, for probing or fine-tuning."
    )


def _tell_training(record: Mapping[str, Any]) -> str:
    config, corpus = record.get("config", {}), record.get("corpus", {})
    parameters = record.get("parameters", {})
    sizes = [f"{_count(corpus[unit])} {unit}" for unit in ("documents", "sentences", "tokens") if unit in corpus]
    if "passages" in corpus:
        skipped = corpus.get("passages_skipped")
        rest = f" ({_count(skipped)} more can't carry it)" if skipped else ""
        sizes.append(f"{_count(corpus['passages'])} passages{rest}")
    versions = record.get("versions", {})
    machine = [record.get("hardware"), record.get("device")]
    if record.get("processes", 1) > 1:
        machine.append(f"{record['processes']} processes")
    has_generator = any(name.endswith("_generator") for name in record.get("chance", {}))
    rows = {
        "Objective": "<br>".join(_describe_objectives(record)),
        "Generator": _one_line(config.get("generator")) if has_generator else None,
        "Encoder": shorten_path(str(config["encoder"])) if "encoder" in config else None,
        "Parameters": ", ".join(f"{part} {_count(number)}" for part, number in parameters.items() if number),
        "Corpus": ", ".join(filter(None, [shorten_path(str(config.get("corpus", ""))), *sizes])),
        "Corpus fingerprint": f"`{corpus['fingerprint']}`" if "fingerprint" in corpus else None,
        "Unigram entropy": f"{corpus['unigram_entropy']:.3f} nats" if "unigram_entropy" in corpus else None,
        "Rows": f"up to {config['max_length']} tokens" if "max_length" in config else None,
        "Steps": _count(record["steps_done"]) if "steps_done" in record else None,
        "Batch": f"{_count(config['batch_size'])} examples" if "batch_size" in config else None,
        "Tokens seen": _count(record["tokens_seen"]) if "tokens_seen" in record else None,
        "Peak learning rate": _one_line(record.get("peak_learning_rate", config.get("learning_rate"))),
        "Seed": _one_line(config.get("seed")),
        "Time": _format_time(record["seconds"]) if "seconds" in record else None,
        "Hardware": ", ".join(_one_line(part) for part in machine if part),
        "Precision": {"no": "float32"}.get(record.get("precision", ""), _one_line(record.get("precision"))),
        "Versions": ", ".join(f"{package} {number}" for package, number in versions.items()),
    }
    lines = [f"| {key} | {value} |" for key, value in rows.items() if value]
    return "\n".join(["## What was trained", "", "| | |", "|---|---|", *lines])


def _describe_objectives(record: Mapping[str, Any]) -> list[str]:
    described = record.get("objectives", {})
    if described:
        return [f"`{name}`: `{_one_line(options)}`" for name, options in described.items()]
    return [f"`{_one_line(_name_objectives(record.get('config', {})))}`"]


def _tell_results(held_out: Sequence[Mapping[str, Any]], chance: Mapping[str, Any], drawn: bool) -> str:
    lines = ["## What it learned", ""]
    if held_out:
        last = held_out[-1]
        lines += [
            f"On the held-out documents, after {_count(last.get('step', 0))} steps, beside what a predictor reaches "
            "that does not look at the text:",
            "",
            "| | Figure | Held out | Chance |",
            "|---|---|---|---|",
        ]
        losses = last.get("losses", {})
        for name, loss in losses.items():
            lines += _tabulate(name, loss, last.get("metrics", {}).get(name, {}), chance.get(name, {}))
        used = dict.fromkeys(level for name in losses for level in chance.get(name, {}))
        explained = [f"{level} = {LEVELS[level]}" for level in used if level in LEVELS]
        lines += ["", f"Chance: {'; '.join(explained)}."] if explained else []
    else:
        lines.append("Nothing was held out, so that nothing is known of text that it has not seen.")
    if drawn:
        lines += ["", f"![Losses over the tokens seen, training and held out, with chance as dashed lines]({PICTURE})"]
    return "\n".join(lines)


def _tabulate(name: str, loss: float, figures: Mapping[str, float], levels: Mapping[str, float]) -> Iterator[str]:
    beside = ", ".join(f"{level} {value:.3f}" for level, value in levels.items())
    yield f"| `{name}` | loss (nats) | {_figure(loss)} | {beside or '–'} |"
    hidden_is_all = _figure(figures.get("hidden_loss")) == _figure(loss)
    for key, label in _FIGURES.items():
        if key in figures and not (hidden_is_all and key.startswith("hidden_")):
            level = beside if key == "hidden_loss" else chance_of(key, figures)
            yield f"| `{name}` | {label} | {_figure(figures[key])} | {level or '–'} |"


def _tell_labels(exported: Mapping[str, Any]) -> str:
    lines = []
    for path, entry in exported.items():
        for target, labels in entry.get("labels", {}).items():
            meaning = ", ".join(f"{number} = `{label}`" for number, label in enumerate(labels))
            what = meaning or "the id of a token"
            lines.append(f"- `{path}` answers `{target}`: {what}")
    return "\n".join(["## What the labels mean", "", *lines]) if lines else ""


def _tell_loading(name: str, exported: Mapping[str, Any]) -> str:
    lines = ["## How to load it", "", f"Beside the folder `{name}`, or with its full path in the place of that name."]
    for path, entry in (exported or {".": {"load_with": "AutoModel"}}).items():
        place = name if path == "." else f"{name}/{path}"
        what = "The encoder" if path == "." else f"`{path}`"
        kind = f", a `{entry['class']}`" if entry.get("class") else ", which `transformers` has no class for"
        lines += ["", f"{what}{kind if exported else ''}:", "", "```python", *_snippet(place, entry), "```"]
    return "\n".join(lines)


def _snippet(place: str, entry: Mapping[str, Any]) -> list[str]:
    loader = entry.get("load_with")
    if loader is None:
        return [
            "from safetensors.torch import load_file",
            f'tensors = load_file("{place}/head.safetensors")  # head.json says what they are',
        ]
    if loader in ("AutoModelForMaskedLM", "AutoModelForTokenClassification"):
        task = "fill-mask" if loader == "AutoModelForMaskedLM" else "token-classification"
        text = '"Water is " + pipe.tokenizer.mask_token + "."' if task == "fill-mask" else '"Water is dry."'
        options = "" if task == "fill-mask" else ", ignore_labels=[]"
        return [
            "from transformers import pipeline",
            f'pipe = pipeline("{task}", "{place}"{options})',
            f"pipe({text})",
        ]
    text = '"A first text.", "A second one."' if entry.get("num_segments", 1) > 1 else '"A text. And more of it."'
    labels: list[str] = next(iter(entry.get("labels", {}).values()), [])
    outcome = {
        "AutoModel": "last_hidden_state",
        "AutoModelForPreTraining": f"logits.sigmoid()  # of {labels[-1] if labels else 'yes'}, for each token",
    }.get(loader, f"logits.softmax(-1)  # of {', '.join(labels)}")
    return [
        f"from transformers import {loader}, AutoTokenizer",
        f'folder = "{place}"',
        f"model, tokenizer = {loader}.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)",
        f'model(**tokenizer({text}, return_tensors="pt")).{outcome}',
    ]


def _tell_repeating(record: Mapping[str, Any]) -> str:
    lines = ["## How to repeat it"]
    if "command" in record:
        lines += ["", "```", redact_command(str(record["command"])), "```"]
    config = {key: value for key, value in record.get("config", {}).items() if key not in _OF_THE_MACHINE}
    if config:
        settings = yaml.safe_dump(redact_settings(config), sort_keys=False, allow_unicode=True).rstrip()
        lines += ["", "<details><summary>All settings</summary>", "", "```yaml", settings, "```", "", "</details>"]
    return "\n".join(lines) if len(lines) > 1 else ""


def _tell_limits(record: Mapping[str, Any], exported: Mapping[str, Any], held_out: Sequence[Mapping[str, Any]]) -> str:
    config, lines = record.get("config", {}), []
    here = exported.get(".", {})
    if here.get("pooler_from"):
        lines.append(
            f"`pooler_output` is the hidden layer of the `{here['pooler_from']}` head; no other use trained it."
        )
    elif here.get("untrained"):
        lines.append("The pooler is untrained, random numbers: use `last_hidden_state`, never `pooler_output`.")
    for path, entry in exported.items():
        if path != "." and entry.get("class") is None:
            lines.append(f"`{path}` holds the head's tensors alone: `transformers` has no such head for this encoder.")
    lines.append(
        f"One run, of one seed ({config.get('seed', '?')}): how much another would differ is not known from it."
    )
    if held_out:
        apart = config.get("held_out")
        source = f"are {shorten_path(str(apart))}" if apart else "come from the same corpus"
        lines.append(f"The held-out documents {source}; other text may be harder.")
    if "max_length" in config:
        lines.append(f"It has read no more than {config['max_length']} tokens at a time.")
    lines.append("What stands in the corpus, its errors and prejudices included, is what it learned from.")
    return "\n".join(["## Limits", "", *[f"- {line}" for line in lines]])


def _one_line(value: object) -> str:
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")


def _count(number: float) -> str:
    return f"{number:,}"


def _figure(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) and math.isfinite(value) else "–"


def _format_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
