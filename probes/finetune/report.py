"""What a fine-tuning run leaves behind: the table, and a folder with model, card, curve and figures."""

import json
import os
import platform
import re
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from corpora.console import quiet_loading
from corpora.errors import StorageError, UserError

from .train import Evaluation

RESULTS, CARD, CURVE = "results.json", "README.md", "learning_curve.png"
HEADINGS = {
    "entity_f1": "Entity F1",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "f1": "F1",
    "mcc": "MCC",
    "spearman": "Spearman",
    "pearson": "Pearson",
}
EXPLAINED = {
    "entity_f1": "F1 of whole entities, boundaries and type both right, over all types (seqeval, default mode)",
    "accuracy": "the share that is right",
    "macro_f1": "the mean over the labels that occur of each one's F1",
    "f1": "F1 of class 1 where there are two classes, otherwise the mean over the classes",
    "mcc": "Matthews' correlation",
    "spearman": "the correlation of ranks",
    "pearson": "the correlation of values",
}
_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "seqeval", "scikit-learn")
_COLUMNS = ("Training Loss", "Epoch", "Step", "Validation Loss")


def format_heading(metric: str) -> str:
    """Return the first line of the table, 66 columns wide."""
    return "  ".join(f"{name:>15}" if name != "Epoch" and name != "Step" else f"{name:>6}" for name in _names(metric))


def format_line(evaluation: Evaluation, metric: str) -> str:
    """Return a line of the table."""
    cells = _cells(evaluation, metric)
    return "  ".join(f"{cell:>6}" if number in (1, 2) else f"{cell:>15}" for number, cell in enumerate(cells))


def _names(metric: str) -> list[str]:
    return [*_COLUMNS, HEADINGS[metric]]


def _cells(evaluation: Evaluation, metric: str) -> list[str]:
    training = "-" if evaluation.training_loss is None else f"{evaluation.training_loss:.4f}"
    figure = f"{evaluation.figures[metric]:.4f}"
    return [training, f"{evaluation.epoch:.2f}", f"{evaluation.step}", f"{evaluation.loss:.4f}", figure]


def describe_start(results: Mapping[str, Any]) -> str:
    """Return what stands above the table: what is trained, on what, with which labels, and what the figure is."""
    recipe = results["recipe"]
    lines = [
        f"{shorten(recipe['encoder'])}{', untrained' if recipe['untrained'] else ''}: {results['class']}, "
        f"{results['parameters']:,} parameters, head: {results['head']}"
    ]
    if results["missing"]:
        lines.append(f"not in the folder, and so untrained: {', '.join(results['missing'][:4])}")
    for part, counts in results["data"].items():
        unit = f"sentences, {counts['words']:,} words" if "words" in counts else "texts"
        share = f" of {counts['available']:,}" if counts["available"] != counts["examples"] else ""
        lines.append(f"{part}: {counts['examples']:,}{share} {unit}")
        longer = f"are longer than {results['max_length']} tokens"
        if counts.get("cut"):
            lines.append(f"  {counts['cut']:,} {longer}: cut between words, none lost")
        if counts.get("silent_words"):
            lines.append(f"  {counts['silent_words']:,} words give no token: not trained on, and scored as wrong or O")
        if counts.get("truncated"):
            lines.append(f"  {counts['truncated']:,} {longer}: they lose their ends")
    labels = [f"{number} {label}" for number, label in enumerate(results["labels"])]
    shown = [*labels[:12], *(["..."] if len(labels) > 12 else [])]
    lines.append(f"labels: {', '.join(shown) or 'numbers'}")
    lines += [f"{HEADINGS[results['metric']]}: {EXPLAINED[results['metric']]}", ""]
    return "\n".join(lines)


def describe_end(results: Mapping[str, Any]) -> str:
    """Return what stands beneath the table: what needs no encoder, the figure on test, a published one, the time."""
    metric, baseline = results["metric"], results["baseline"]
    lines = ["", f"without an encoder ({baseline['what']}): {baseline['figures'][metric]:.4f}"]
    if "test" in results:
        lines.append(f"test, at the end: {results['test']['figures'][metric]:.4f}")
    if results["recipe"]["reference"]:
        lines.append(f"reference: {results['recipe']['reference']}")
    lines.append(f"{results['seconds']:.0f} s on {results['device']}")
    return "\n".join(lines)


def check_out(out: str) -> None:
    """Raise UserError where something stands at `out` already."""
    path = Path(out)
    if os.path.lexists(path) and not (path.is_dir() and not os.listdir(path)):
        raise UserError(f"--out {out} is there already; choose another name, or remove it")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return device, threads and versions, for the record."""
    versions = {name: metadata.version(name) for name in _PACKAGES}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **versions},
    }


def publish(
    out: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, results: Mapping[str, Any], command: str
) -> None:
    """Write model, tokenizer, card, curve and results.json; the folder appears whole, by rename.

    Raises StorageError where the disk refuses, UserError where something came to stand at `out`.
    """
    check_out(out)
    final = Path(out)
    temporary = final.parent / f".tmp-{os.getpid()}-{final.name}"
    try:
        temporary.mkdir(parents=True)
        with quiet_loading():
            model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / RESULTS).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        has_curve = draw_curve(temporary / CURVE, results)
        (temporary / CARD).write_text(write_card(final.name, results, command, has_curve), encoding="utf-8")
        mode = stat.S_IMODE(os.stat(temporary).st_mode) & 0o666  # what the umask leaves; safetensors gives 0600
        for file in temporary.iterdir():
            os.chmod(file, mode)
        if final.is_dir():
            final.rmdir()
        os.rename(temporary, final)
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def draw_curve(path: Path, results: Mapping[str, Any]) -> bool:
    """Write a PNG of both losses and of the figure over the steps; False, and no file, where nothing was trained."""
    lines = results["evaluations"]
    if not lines or results["recipe"]["epochs"] == 0:
        return False
    metric = results["metric"]
    figure = Figure(figsize=(9.6, 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display, and leaves pyplot's state alone
    losses, scores = figure.subplots(1, 2)
    steps = [line["step"] for line in lines]
    losses.plot(steps, [line["training_loss"] for line in lines], "o-", color="#9ecae1", label="training", markersize=4)
    losses.plot(steps, [line["loss"] for line in lines], "s-", color="#08519c", label="dev", markersize=4)
    losses.set_ylabel("mean loss")
    losses.set_ylim(bottom=0)
    scores.plot(steps, [line["figures"][metric] for line in lines], "s-", color="#08519c", label="dev", markersize=4)
    floor = results["baseline"]["figures"][metric]
    scores.axhline(floor, color="#666666", linestyle="--", linewidth=1, label="without an encoder")
    scores.set_ylabel(HEADINGS[metric])
    for panel in (losses, scores):
        panel.set_xlabel("step")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=9)
    figure.savefig(path, format="png")
    return True


def write_card(name: str, results: Mapping[str, Any], command: str, has_curve: bool) -> str:
    """Return the model card: the table, the labels, how to load it, how to repeat it, and what it is not."""
    recipe = results["recipe"]
    is_token = recipe["task"] == "token"
    task = "token-classification" if is_token else "text-classification"
    head = {"library_name": "transformers", "pipeline_tag": task, "tags": ["pretext", "fine-tuned", task]}
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {name}\n\nA `{results['class']}`: {_summarise(results)}",
        _tell_results(results, has_curve),
        _tell_labels(results),
        _tell_loading(name, results, task),
        f"## How to repeat it\n\n```\n{command}\n```\n\n<details><summary>All settings</summary>\n\n```yaml\n"
        f"{yaml.safe_dump(_shorten(recipe), sort_keys=False, allow_unicode=True)}```\n\n</details>",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(results)),
    ]
    return "\n\n".join(parts) + "\n"


def _summarise(results: Mapping[str, Any]) -> str:
    recipe, train = results["recipe"], results["data"].get("train")
    encoder = "an untrained encoder" if recipe["untrained"] else f"the encoder `{shorten(recipe['encoder'])}`"
    unit = "sentences" if recipe["task"] == "token" else "texts"
    learned = f", fine-tuned on {train['examples']:,} {unit} of `{shorten(recipe['train'])}`" if train else ""
    return f"{encoder}{learned}, seed {recipe['seed']}, {results['seconds'] / 60:.1f} minutes on {results['device']}."


def _tell_results(results: Mapping[str, Any], has_curve: bool) -> str:
    metric, recipe = results["metric"], results["recipe"]
    lines = ["## Results", "", f"On `{shorten(recipe['dev'])}`. {HEADINGS[metric]}: {EXPLAINED[metric]}.", ""]
    lines += ["| " + " | ".join(_names(metric)) + " |", "|" + "---:|" * 5]
    for each in results["evaluations"]:
        lines.append("| " + " | ".join(_cells(Evaluation(**each), metric)) + " |")
    baseline = results["baseline"]
    lines += ["", f"Without an encoder ({baseline['what']}): {baseline['figures'][metric]:.4f}."]
    if results.get("test"):
        lines.append(f"On `{shorten(recipe['test'])}`, at the end: {results['test']['figures'][metric]:.4f}.")
    if recipe["reference"]:
        lines.append(f"Reference: {recipe['reference']}")
    if has_curve:
        lines += ["", f"![Losses and {HEADINGS[metric]} over the steps]({CURVE})"]
    return "\n".join(lines)


def _tell_labels(results: Mapping[str, Any]) -> str:
    if not results["labels"]:
        return "## What it predicts\n\nA number."
    shown = "\n".join(f"- {number} = `{label}`" for number, label in enumerate(results["labels"]))
    return f"## What the labels mean\n\n{shown}"


def _tell_loading(name: str, results: Mapping[str, Any], task: str) -> str:
    lines = ["## How to load it", "", "```python", "from transformers import pipeline"]
    options = ', aggregation_strategy="first"' if results["metric"] == "entity_f1" else ""
    lines += [f'pipe = pipeline("{task}", "{name}"{options})', 'pipe("A text.")', "```"]
    return "\n".join(lines)


def _limits(results: Mapping[str, Any]) -> list[str]:
    limits = [
        "One run of one seed: how far another would come out is not known from it.",
        "The model is that of the last step, not the best on dev.",
    ]
    if results["recipe"]["task"] == "token":
        limits.append(
            "Only the first piece of a word was trained to carry a label; those of other pieces mean nothing."
        )
    return limits


def shorten(location: str) -> str:
    """Return the last name of a path; names of the hub as they are."""
    is_path = location.startswith((".", "/", "~")) or location.count("/") > 1 or Path(location).exists()
    return Path(location).name or location if is_path else location


def _shorten(recipe: Mapping[str, Any]) -> dict[str, Any]:
    places = ("encoder", "train", "dev", "test", "out")
    return {name: shorten(value) if name in places and value else value for name, value in recipe.items()}


def shorten_command(words: Sequence[str], quote: Callable[[str], str]) -> str:
    """Return a command line with the last name of each path in it."""
    return " ".join(quote(re.sub(r"^(--\w+=)?(.*)$", lambda m: (m[1] or "") + shorten(m[2]), word)) for word in words)
