"""Train, dev and test of a run: read, given the labels that they share, and made rows of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from corpora.errors import UserError

from . import sequence_task, token_task
from .data import SequenceData, TokenData, choose_share, read_sequences, read_tokens
from .loading import has_names, labels_of, load_config
from .recipe import Recipe
from .train import Row, Task

AUTO_CLASSES = {"token": "AutoModelForTokenClassification", "sequence": "AutoModelForSequenceClassification"}
PARTS = ("train", "dev", "test")


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is read of train, dev or test."""

    data: TokenData | SequenceData
    available: int  # how many examples there were before the share was taken


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A part as the model gets it, with what is asked of it."""

    rows: tuple[Row, ...]
    task: Task
    counts: dict[str, Any]  # examples, words, ... for the record


def read_parts(recipe: Recipe) -> dict[str, Part]:
    """Read what the recipe names, train only where it is trained on; UserError where nothing is left of a file."""
    parts = {}
    for name in PARTS:
        location = getattr(recipe, name)
        if not location or (name == "train" and not recipe.epochs):
            continue
        if recipe.task == "token":
            read: Any = read_tokens(location, column=recipe.column, words_column=recipe.words_column)
        else:
            columns = {"text": recipe.text_column, "second": recipe.second_column, "label": recipe.column}
            read = read_sequences(location, **columns)
        chosen = choose_share(len(read), recipe.subsample_rate, recipe.subsample_seed)
        if not len(chosen):
            raise UserError(f"--subsample_rate {recipe.subsample_rate} leaves nothing of the {len(read)} in {location}")
        parts[name] = Part(data=read.select(chosen), available=len(read))
    return parts


def choose_names(recipe: Recipe, parts: Mapping[str, Part]) -> tuple[tuple[str, ...], bool]:
    """Return the labels in the order of their ids, and whether the folder's own head is kept.

    There are no labels where numbers are predicted. UserError where a head is to be kept, or only scored, that isn't
    there or doesn't know the labels.
    """
    read: list[Any] = [part.data for part in parts.values()]
    given = tuple(name.strip() for name in recipe.labels.split(",") if name.strip())
    config = load_config(recipe.encoder)
    suffix = AUTO_CLASSES[recipe.task].removeprefix("AutoModel")
    has_head = any(name.endswith(suffix) for name in config.architectures or ()) and not recipe.untrained
    own = labels_of(config)
    if recipe.head == "keep" or (not recipe.epochs and has_head):
        if not has_head or (given and given != own):
            raise UserError(f"--head keep: {recipe.encoder} has no {suffix.removeprefix('For')} head of these labels")
        if len(own) == 1:
            return (), True
        check: Any = token_task.check_tags if recipe.task == "token" else sequence_task.check_labels
        check(read, own)
        return own, True
    may_keep = has_head and has_names(config) and recipe.head != "new" and (not given or given == own)
    if may_keep and {label for data in read for label in _labels_of(data)} <= set(own):
        return own, True
    if not recipe.epochs:
        raise UserError(
            f"--epochs 0 scores a head that was trained, and {recipe.encoder} has none for --task {recipe.task}"
        )
    if recipe.task == "token":
        return token_task.find_names(read, given), False
    return sequence_task.find_names(read, given, recipe.metric), False


def _labels_of(data: TokenData | SequenceData) -> set[str]:
    if isinstance(data, TokenData):
        return {tag for tags in data.tags for tag in tags}
    return set(data.labels)


def prepare_part(
    part: Part,
    names: Sequence[str],
    metric: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    segments: bool,
) -> Prepared:
    """Return rows of at most `max_length` tokens and the task; `segments`: the model reads token types.

    UserError where `metric` is none of these labels'.
    """
    counts: dict[str, Any] = {"examples": len(part.data)}
    if isinstance(part.data, TokenData):
        tokens = token_task.encode_tokens(part.data, names, tokenizer, max_length, segments=segments)
        counts |= {"words": sum(map(len, part.data.words)), "cut": tokens.cut, "silent_words": tokens.silent}
        rows, task = tokens.rows, token_task.TokenTask(part.data, names, metric)
        return Prepared(rows=rows, task=task, counts=counts | {"available": part.available})
    texts = sequence_task.encode_sequences(part.data, names, tokenizer, max_length, segments=segments)
    counts |= {"pairs": bool(part.data.second), "truncated": texts.truncated, "available": part.available}
    chosen = metric if metric != "auto" else "accuracy" if names else "spearman"
    return Prepared(rows=texts.rows, task=sequence_task.SequenceTask(names, chosen), counts=counts)


def score_baseline(parts: Mapping[str, Part], task: Task, names: Sequence[str]) -> dict[str, Any]:
    """Return what a guess that needs no encoder scores on dev; without train, the guess is made from dev itself."""
    dev: Any = parts["dev"].data
    source: Any = parts["train"].data if "train" in parts else dev
    if isinstance(task, token_task.TokenTask):
        guessed = token_task.guess_by_word(source, dev)
        figures = token_task.score_tags(dev.tags, guessed, task.metric, task.is_entities)
        return {"what": "each word's commonest label in training", "figures": figures}
    return sequence_task.score_baseline(source, dev, names, task.metric)
