"""`python -m probes explain FOLDER "TEXT"`: what a trained head says of each token, or of the text."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpora.console import Parser
from corpora.errors import StorageError, UserError

from .explain_heads import KINDS, find_folders, find_foreign
from .explain_html import show, write_page
from .explain_tables import Explanation, explain_head

_DESCRIPTION = """\
Show what a trained head says of a text: the label of each token and how sure it
is, the label of the text, which tokens look replaced, or how well each token is
guessed when it is hidden. Of a run of pretrain.py, every head is asked.

examples:
  python -m probes explain tuned/ner "Anders lives in Oslo ."
  python -m probes explain tuned/ner "Anders lives in Oslo ." --labels "B-PER O O B-LOC O"
  python -m probes explain runs/rtd "The cat sat on the idea."
  python -m probes explain runs/mlm "The [MASK] sat on the mat." --top 5
  python -m probes explain runs/nsp "It rained." --second "We stayed in."
  python -m probes explain tuned/ner "Anders lives in Oslo." --html ner.html
"""
_EPILOG = """\
With --labels each asked token shows its own loss, and their mean is the loss
that the model itself computes. A head that lacks trained tensors is named as
such before anything else. Exit status: 0, 2 for what can't be used, 4 for a disk
that can't be written.
"""


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="python -m probes explain",
        usage='python -m probes explain FOLDER "TEXT" [--OPTION VALUE ...]',
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("folder", metavar="FOLDER", help="a run, a folder with a head, or a name on the hub")
    parser.add_argument("text", metavar="TEXT", help="what is asked about")
    parser.add_argument("--second", default="", metavar="TEXT", help="the other text of a pair")
    parser.add_argument(
        "--labels", default="", metavar="LABELS", help="right answers: one for each word between spaces"
    )
    kinds = "take the folder for this kind of head, whatever it says"
    parser.add_argument("--head", default="", choices=list(KINDS), metavar="KIND", help=f"{kinds}: {', '.join(KINDS)}")
    parser.add_argument("--top", type=int, default=3, metavar="INT", help="guesses at a hidden token (default: 3)")
    parser.add_argument("--html", default="", metavar="FILE", help="write a page, too")
    return parser


def render(explanation: Explanation, console: Console) -> None:
    """Print an explanation, warnings first; nothing in it depends on colour."""
    console.print(Text(show(explanation.title), style="bold"))
    for warning in explanation.warnings:
        console.print(Text(f"! {show(warning)}", style="yellow"))
    classes = explanation.classes
    listed = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    console.print(Text(f"classes: {show(listed)}"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(explanation.columns):
        is_number = column in ("Prob.", "Loss", "Value", "Class")
        table.add_column(
            Text(show(column)), justify="right" if is_number else "left", overflow="fold" if number == 0 else "ellipsis"
        )
    for line in explanation.lines:
        style = "dim" if line.strength is None else ""
        table.add_row(*(Text(show(cell), style=style) for cell in line.cells))
    console.print(table)
    for sentence in explanation.summary:
        console.print(Text(show(sentence)))
    console.print()


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status. Raises UserError."""
    options = build_parser().read(argv)
    if options.top < 1:
        raise UserError(f"--top is {options.top}; it must be at least 1")
    labels = [label for label in re.split(r"[\s,]+", options.labels) if label]
    folders = [options.folder] if options.head else find_folders(options.folder)
    console = Console(width=min(Console().width, 80), highlight=False)
    explanations = []
    skipped = []
    for folder in folders:
        try:
            explanation = explain_head(
                folder, options.text, second=options.second, labels=labels, kind=options.head, top=options.top
            )
        except UserError as error:
            if len(folders) == 1:
                raise
            skipped.append(f"{Path(folder).name} was not asked: {error}")
            continue
        explanations.append(explanation)
        render(explanation, console)
    for name in [] if options.head else find_foreign(options.folder):
        print(f"{name} was not asked: `transformers` has no class with such a head", file=sys.stderr)
    for line in skipped:
        print(f"error: {line}", file=sys.stderr)
    if options.html:
        _write(options.html, write_page(explanations, options.text, options.second))
        console.print(Text(f"page: {options.html}"))
    return 2 if skipped else 0


def _write(path: str, page: str) -> None:
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
