"""One fine-tuning run: a stock head on an encoder, trained, scored beside what needs no encoder, and saved."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from corpora.errors import UserError

from . import report
from .loading import Loaded, check_loaded, find_max_length, load_tokenizer, put_head_on, reads_segments
from .parts import AUTO_CLASSES, Prepared, choose_names, prepare_part, read_parts, score_baseline
from .recipe import Recipe
from .train import Evaluation, evaluate, train

DEFAULT_MAX_LENGTH = 512  # tokens of a row, where an encoder could read more


def finetune(recipe: Recipe, command: str = "") -> dict[str, Any]:
    """Train, print the table as it grows, save the folder, and return what results.json holds.

    Raises UserError for data, labels or a folder that can't be used, TrainingError, StorageError.
    """
    started = time.monotonic()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    if recipe.out:
        report.check_out(recipe.out)
    tokenizer = load_tokenizer(recipe.encoder)
    read = read_parts(recipe)
    names, keep = choose_names(recipe, read)
    loaded = _load_model(recipe, names, keep)
    model = loaded.model
    check_loaded(model, tokenizer, recipe.encoder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)  # type: ignore[arg-type]  # transformers wraps `to` in a decorator that mypy can't read
    max_length = _choose_max_length(recipe, model, tokenizer)
    segments = reads_segments(model)
    parts = {
        name: prepare_part(part, names, recipe.metric, tokenizer, max_length, segments=segments)
        for name, part in read.items()
    }
    results: dict[str, Any] = {
        "format": 1,
        "recipe": asdict(recipe),
        "class": type(model).__name__,
        "labels": list(names),
        "metric": parts["dev"].task.metric,
        "max_length": max_length,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "head": "the folder's" if keep else "new",
        "new": list(loaded.new),
        "missing": list(loaded.missing),
        "data": {name: part.counts for name, part in parts.items()},
        "baseline": score_baseline(read, parts["dev"].task, names),
        **report.describe_machine(device),
    }
    print(report.describe_start(results))
    results |= _learn(model, parts, recipe, tokenizer.pad_token_id)
    results["seconds"] = time.monotonic() - started
    print(report.describe_end(results))
    if recipe.out:
        report.publish(recipe.out, model, tokenizer, results, command)
        print(f"saved in {recipe.out}: model, {report.CARD}, {report.RESULTS}")
    return results


def _load_model(recipe: Recipe, names: Sequence[str], keep: bool) -> Loaded:
    settings: dict[str, Any] = {}
    if not keep:
        shown = names or ["value"]
        settings["id2label"] = dict(enumerate(shown))
        settings["label2id"] = {name: number for number, name in enumerate(shown)}
        if recipe.task == "sequence":
            settings["problem_type"] = "single_label_classification" if names else "regression"
    auto_class = AUTO_CLASSES[recipe.task]
    return put_head_on(recipe.encoder, auto_class, settings, seed=recipe.seed, untrained=recipe.untrained, keep=keep)


def _choose_max_length(recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    longest = find_max_length(model.config, tokenizer)
    if recipe.max_length and longest and recipe.max_length > longest:
        raise UserError(f"--max_length {recipe.max_length} is longer than the {longest} positions of {recipe.encoder}")
    return recipe.max_length or min(longest or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)


def _learn(model: PreTrainedModel, parts: Mapping[str, Prepared], recipe: Recipe, pad_id: int) -> dict[str, Any]:
    """Train, or only score where there are no epochs, and print the table; return its lines and the figures on test."""
    dev = parts["dev"]
    print(report.format_heading(dev.task.metric))

    def tell(evaluation: Evaluation) -> None:
        print(report.format_line(evaluation, dev.task.metric), flush=True)

    if recipe.epochs:
        lines = train(model, dev.task, parts["train"].rows, dev.rows, recipe, pad_id=pad_id, tell=tell)
    else:
        loss, figures = evaluate(model, dev.task, dev.rows, recipe.batch_size, pad_id)
        lines = [Evaluation(step=0, epoch=0.0, training_loss=None, loss=loss, figures=figures, seconds=0.0)]
        tell(lines[0])
    learned: dict[str, Any] = {"evaluations": [line.as_dict() for line in lines]}
    if "test" in parts:
        loss, figures = evaluate(model, parts["test"].task, parts["test"].rows, recipe.batch_size, pad_id)
        learned["test"] = {"loss": loss, "figures": figures}
    return learned
