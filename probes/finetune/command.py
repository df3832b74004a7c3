"""`python -m probes finetune FOLDER`: train a stock head on an encoder, and say how it went beside what needs none."""

import argparse
import difflib
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import torch

from corpora.errors import UserError

from . import report, sequence_task, token_task
from .data import SequenceData, TokenData, choose_share, read_sequences, read_tokens
from .loading import (
    Loaded,
    check_vocabulary,
    has_names,
    labels_of,
    load_config,
    load_tokenizer,
    max_positions,
    put_head_on,
    reads_segments,
)
from .recipe import CHOICES, FIELDS, Recipe, convert, read_recipe
from .train import Evaluation, Row, Task, evaluate, train

_DESCRIPTION = """\
Fine-tune an encoder through the class that `transformers` has for it, and print
the table that everyone knows: losses, epoch, step, and the task's figure.

examples:
  python -m probes finetune runs/rtd --train train.conllu --dev dev.conllu
  python -m probes finetune runs/rtd --train ner.conll.gz --dev val.conll.gz \\
      --recipe recipes/token_tiny.yaml --out tuned/ner
  python -m probes finetune bert-base-uncased --task sequence \\
      --train nyu-mll/glue:cola --dev nyu-mll/glue:cola:validation --metric mcc
  python -m probes finetune --recipe recipes/panx_it_xlmr.yaml
  python -m probes finetune tuned/ner --dev test.conll --epochs 0  only score it
  python -m probes finetune runs/rtd ... --untrained               the control

data of --task token (a label for each word):
  CoNLL-U (--column upos, xpos, ...), PAN-X (number, word, tag), any file of
  a word and its tag a line (the last column, or --column N), JSON lines with
  lists `tokens` and `ner_tags`, or a dataset: NAME, or NAME:CONFIG:SPLIT
data of --task sequence (a label for each text, or pair of texts):
  TSV or CSV with a header line, JSON lines, or a dataset
Each plain, gzip or zstd.
"""
_EPILOG = """\
Labels stand on the first piece of a word. Entities (B-PER, I-PER, O) are scored
as whole spans by seqeval, other tags by accuracy over words. Sentences longer
than a row are cut between words, and no word is lost; longer texts lose their
ends, and how many is said. A recipe is a YAML file of these settings, one
NAME: VALUE a line; options on the command line win.
Exit status: 0, 2 for what can't be used, 3 for a loss that is no number, 4 for
a disk that can't be written.
"""
_GROUPS = {
    "encoder": "What is trained on what",
    "epochs": "How",
    "subsample_rate": "The rest",
}
_AUTO_CLASSES = {"token": "AutoModelForTokenClassification", "sequence": "AutoModelForSequenceClassification"}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the examples, and fits 80 columns wherever it is read."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=80)


def build_parser() -> argparse.ArgumentParser:
    """Return a parser with an option for each setting of `Recipe`."""
    parser = _Parser(
        prog="python -m probes finetune",
        usage="python -m probes finetune FOLDER --train FILE --dev FILE [--OPTION ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help=FIELDS["encoder"].metadata["meaning"])
    group: Any = parser
    for name, field in FIELDS.items():
        if name in _GROUPS:
            group = parser.add_argument_group(_GROUPS[name])
        if name == "encoder":
            continue
        kind = type(field.default)
        default = "" if field.default in ("", 0, False, "auto") or kind is bool else f" (default: {field.default})"
        choices = CHOICES.get(name, ()) if name != "metric" else ("NAME",)
        metavar = "|".join(choices) or {bool: "true|false", int: "INT", float: "NUMBER"}.get(kind, "TEXT")
        options: dict[str, Any] = {"nargs": "?", "const": "true"} if kind is bool else {}
        meaning = (field.metadata["meaning"] + default).replace("%", "%%")
        group.add_argument(f"--{name}", metavar=metavar, help=meaning, **options)
    parser.add_argument("--recipe", metavar="FILE", action="append", default=[], help="YAML file with settings")
    return parser


def parse(argv: Sequence[str]) -> Recipe:
    """Return the settings that a command line asks for. Raises UserError on what can't be understood."""
    options, unknown = build_parser().parse_known_args(list(argv))
    for word in unknown:
        if not word.startswith("--"):
            raise UserError(f"{word!r} belongs to no option; one FOLDER is read, and every setting is --NAME VALUE")
        near = difflib.get_close_matches(word[2:].partition("=")[0].replace("-", "_"), FIELDS, n=1)
        hint = f"did you mean --{near[0]}?" if near else "--help shows every option"
        raise UserError(f"option {word} is unknown; {hint}")
    given: dict[str, Any] = {}
    for path in options.recipe:
        given |= read_recipe(path)
    for name in FIELDS:
        if getattr(options, name, None) is not None:
            given[name] = convert(name, getattr(options, name), "--")
    if options.folder:
        given["encoder"] = options.folder
    recipe = Recipe(**given)
    if not recipe.encoder:
        raise UserError("which encoder? give a run, a `transformers` folder, or a name on the hub")
    if not recipe.dev or (recipe.epochs and not recipe.train):
        raise UserError(f"--{'train' if recipe.dev else 'dev'} is missing: a file, or a dataset as NAME:CONFIG:SPLIT")
    return recipe


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What is read of train (None where only evaluated), dev and test, and how many there were before subsampling."""

    data: dict[str, Any]  # "train", "dev", "test" -> TokenData or SequenceData
    available: dict[str, int]


def finetune(recipe: Recipe, command: str = "") -> dict[str, Any]:
    """Train, print the table as it grows, save the folder, and return what results.json holds."""
    started = time.monotonic()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    if recipe.out:
        report.check_out(recipe.out)
    tokenizer = load_tokenizer(recipe.encoder)
    parts = _read_parts(recipe)
    names, keep = _choose_names(recipe, parts)
    loaded = _load_model(recipe, names, keep)
    model = loaded.model
    check_vocabulary(model, tokenizer, recipe.encoder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)  # type: ignore[arg-type]  # transformers wraps `to` in a decorator that mypy can't read
    longest = max_positions(model.config, tokenizer)
    if recipe.max_length and longest and recipe.max_length > longest:
        raise UserError(f"--max_length {recipe.max_length} is longer than the {longest} positions of {recipe.encoder}")
    max_length = recipe.max_length or min(longest or 512, 512)
    rows: dict[str, tuple[Row, ...]] = {}
    counts: dict[str, dict[str, Any]] = {}
    for part, data in parts.data.items():
        rows[part], counts[part] = _encode(data, names, tokenizer, max_length, reads_segments(model))
        counts[part]["available"] = parts.available[part]
    tasks = {part: _make_task(recipe, data, names) for part, data in parts.data.items()}
    metric = tasks["dev"].metric
    baseline = _score_baseline(parts, tasks["dev"], names)
    results: dict[str, Any] = {
        "format": 1,
        "recipe": asdict(recipe),
        "class": type(model).__name__,
        "labels": list(names),
        "metric": metric,
        "max_length": max_length,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "head": "the folder's" if keep else "new",
        "new": list(loaded.new),
        "missing": list(loaded.missing),
        "data": counts,
        "baseline": baseline,
        **report.describe_machine(device),
    }
    _print_start(recipe, results)
    pad_id = tokenizer.pad_token_id
    print(report.format_heading(metric))

    def tell(evaluation: Evaluation) -> None:
        print(report.format_line(evaluation, metric), flush=True)

    if recipe.epochs:
        lines = train(model, tasks["dev"], rows["train"], rows["dev"], recipe, pad_id=pad_id, tell=tell)
    else:
        loss, figures = evaluate(model, tasks["dev"], rows["dev"], recipe.batch_size, pad_id)
        lines = [Evaluation(step=0, epoch=0.0, training_loss=None, loss=loss, figures=figures, seconds=0.0)]
        tell(lines[0])
    results["evaluations"] = [line.as_dict() for line in lines]
    if "test" in rows:
        loss, figures = evaluate(model, tasks["test"], rows["test"], recipe.batch_size, pad_id)
        results["test"] = {"loss": loss, "figures": figures}
    results["seconds"] = time.monotonic() - started
    _print_end(recipe, results)
    if recipe.out:
        report.publish(recipe.out, model, tokenizer, results, command)
        print(f"saved in {recipe.out}: model, {report.CARD}, {report.RESULTS}")
    return results


def _read_parts(recipe: Recipe) -> _Parts:
    data: dict[str, Any] = {}
    available = {}
    for part in ("train", "dev", "test"):
        location = getattr(recipe, part)
        if not location or (part == "train" and not recipe.epochs):
            continue
        if recipe.task == "token":
            read: Any = read_tokens(location, column=recipe.column, words_column=recipe.words_column)
        else:
            columns = {"text": recipe.text_column, "second": recipe.second_column, "label": recipe.column}
            read = read_sequences(location, **columns)
        available[part] = len(read)
        chosen = choose_share(len(read), recipe.subsample_rate, recipe.subsample_seed)
        if not len(chosen):
            raise UserError(f"--subsample_rate {recipe.subsample_rate} leaves nothing of the {len(read)} in {location}")
        data[part] = read.select(chosen)
    return _Parts(data=data, available=available)


def _choose_names(recipe: Recipe, parts: _Parts) -> tuple[tuple[str, ...], bool]:
    """Return the labels in the order of their ids, and whether the folder's own head is kept."""
    read = list(parts.data.values())
    given = tuple(name.strip() for name in recipe.labels.split(",") if name.strip())
    config = load_config(recipe.encoder)
    suffix = _AUTO_CLASSES[recipe.task].removeprefix("AutoModel")
    has_head = any(name.endswith(suffix) for name in config.architectures or ()) and not recipe.untrained
    own = labels_of(config)
    met = {label for part in read for label in _labels_of(part)}
    may_keep = has_head and has_names(config) and recipe.head != "new" and (not given or given == own)
    if recipe.head == "keep" or (not recipe.epochs and has_head):
        if not has_head or (given and given != own):
            raise UserError(f"--head keep: {recipe.encoder} has no {suffix.removeprefix('For')} head of these labels")
        if len(own) == 1:
            return (), True
        check: Any = token_task.check_tags if recipe.task == "token" else sequence_task.check_labels
        check(read, own)
        return own, True
    if may_keep and met <= set(own):
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


def _load_model(recipe: Recipe, names: Sequence[str], keep: bool) -> Loaded:
    settings: dict[str, Any] = {}
    if not keep:
        shown = names or ["value"]
        settings["id2label"] = dict(enumerate(shown))
        settings["label2id"] = {name: number for number, name in enumerate(shown)}
        if recipe.task == "sequence":
            settings["problem_type"] = "single_label_classification" if names else "regression"
    auto_class = _AUTO_CLASSES[recipe.task]
    return put_head_on(recipe.encoder, auto_class, settings, seed=recipe.seed, untrained=recipe.untrained, keep=keep)


def _encode(
    data: TokenData | SequenceData, names: Sequence[str], tokenizer: Any, max_length: int, segments: bool
) -> tuple[tuple[Row, ...], dict[str, Any]]:
    if isinstance(data, TokenData):
        tokens = token_task.encode_tokens(data, names, tokenizer, max_length, segments=segments)
        words = sum(map(len, data.words))
        return tokens.rows, {"examples": len(data), "words": words, "cut": tokens.cut, "silent_words": tokens.silent}
    texts = sequence_task.encode_sequences(data, names, tokenizer, max_length, segments=segments)
    return texts.rows, {"examples": len(data), "pairs": bool(data.second), "truncated": texts.truncated}


def _make_task(recipe: Recipe, data: TokenData | SequenceData, names: Sequence[str]) -> Task:
    if isinstance(data, TokenData):
        return token_task.TokenTask(data, names, recipe.metric)
    metric = recipe.metric if recipe.metric != "auto" else "accuracy" if names else "spearman"
    return sequence_task.SequenceTask(names, metric)


def _score_baseline(parts: _Parts, task: Task, names: Sequence[str]) -> dict[str, Any]:
    """Return what a guess that needs no encoder scores on dev; without train, the guess is made from dev itself."""
    source, dev = parts.data.get("train", parts.data["dev"]), parts.data["dev"]
    if isinstance(task, token_task.TokenTask):
        guessed = token_task.guess_by_word(source, dev)
        figures = token_task.score_tags(dev.tags, guessed, task.metric, task.is_entities)
        return {"what": "each word's commonest label in training", "figures": figures}
    return sequence_task.score_baseline(source, dev, names, task.metric)


def _print_start(recipe: Recipe, results: dict[str, Any]) -> None:
    encoder = f"{report.shorten(recipe.encoder)}{', untrained' if recipe.untrained else ''}"
    print(f"{encoder}: {results['class']}, {results['parameters']:,} parameters, head: {results['head']}")
    if results["missing"]:
        print(f"not in the folder, and so untrained: {', '.join(results['missing'][:4])}")
    for part, counts in results["data"].items():
        unit = f"sentences, {counts['words']:,} words" if "words" in counts else "texts"
        share = f" of {counts['available']:,}" if counts["available"] != counts["examples"] else ""
        print(f"{part}: {counts['examples']:,}{share} {unit}")
        if counts.get("cut"):
            print(f"  {counts['cut']:,} are longer than {results['max_length']} tokens: cut between words, none lost")
        if counts.get("silent_words"):
            print(f"  {counts['silent_words']:,} words give no token: not trained on, and scored as wrong or O")
        if counts.get("truncated"):
            print(f"  {counts['truncated']:,} are longer than {results['max_length']} tokens: they lose their ends")
    labels = [f"{number} {label}" for number, label in enumerate(results["labels"])]
    print(f"labels: {', '.join(labels[:12])}{', ...' if len(labels) > 12 else ''}" if labels else "labels: numbers")
    print(f"{report.HEADINGS[results['metric']]}: {report.EXPLAINED[results['metric']]}")
    print()


def _print_end(recipe: Recipe, results: dict[str, Any]) -> None:
    metric = results["metric"]
    print()
    print(f"without an encoder ({results['baseline']['what']}): {results['baseline']['figures'][metric]:.4f}")
    if "test" in results:
        print(f"test, at the end: {results['test']['figures'][metric]:.4f}")
    if recipe.reference:
        print(f"reference: {recipe.reference}")
    print(f"{results['seconds']:.0f} s on {results['device']}")


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    try:
        command = report.shorten_command(["python", "-m", "probes", "finetune", *argv], shlex.quote)
        finetune(parse(argv), command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; nothing was saved", file=sys.stderr)
        return 130
    return 0
