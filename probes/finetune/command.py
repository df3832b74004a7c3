"""`python -m probes finetune FOLDER`: its options, made from the settings of a recipe."""

import shlex
from collections.abc import Sequence
from typing import Any

from corpora.console import Parser
from corpora.errors import UserError

from .recipe import CHOICES, FIELDS, Recipe, convert, read_recipe

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


def build_parser() -> Parser:
    """Return a parser with an option for each setting of `Recipe`."""
    parser = Parser(
        prog="python -m probes finetune",
        usage="python -m probes finetune FOLDER --train FILE --dev FILE [--OPTION ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
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
    options = build_parser().read(argv)
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


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status. Raises UserError."""
    recipe = parse(argv)
    from .report import shorten_command  # these import torch, for which mistakes need not wait
    from .run import finetune

    finetune(recipe, shorten_command(["python", "-m", "probes", "finetune", *argv], shlex.quote))
    return 0
