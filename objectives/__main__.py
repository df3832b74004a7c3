"""`python -m objectives`: the catalogue; `python -m objectives rtd`: one of it; `show`: what it makes of a text.

    python -m objectives                               every objective, by family
    python -m objectives rtd masked_lm                 what an objective or a generator is, and its options
    python -m objectives show sop --corpus wiki.txt.gz   what the encoder sees and is asked, on real passages
    python -m objectives --markdown [README.md]        the same for a page, or put into one between its marks

A class of your own is named by its dotted path. Exit status: 0, or 2 for what is not known.
"""

import importlib
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpora.console import run_command
from corpora.errors import StorageError, UserError

from . import FAMILIES, OBJECTIVES, Objective
from .catalogue import (
    Entry,
    Option,
    describe_objective,
    find_paper,
    read_catalogue,
    read_options,
    split_docstring,
    write_markdown,
)
from .spec import find_class, suggest

WIDTH = 80
MARKS = ("<!-- objectives -->\n", "<!-- /objectives -->\n")


def print_catalogue(entries: Sequence[Entry], console: Console) -> None:
    """Print a line or two for each objective, family by family."""
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text("name"), no_wrap=True)
    table.add_column(Text("what is to be learned (target; head; paper)"), ratio=1)
    table.add_column(Text("cost"), justify="right", no_wrap=True)
    family = ""
    for entry in entries:
        if entry.family != family:
            family = entry.family
            table.add_row("", "", "")
            table.add_row("", Text(family, style="bold"), "")
        facts = f"\n({'; '.join(filter(None, [entry.asked, entry.head, entry.paper]))})"
        table.add_row(entry.name, Text.assemble(entry.summary, (facts, "dim")), f"{entry.cost:.2f}")
    console.print(table)
    console.print()
    print_paragraph(
        "cost: multiplications per token of the text, of mlm's, with the encoder tiny (docs/objectives.md). "
        "`python -m objectives NAME` lists the options of one, or of a generator; "
        "`python -m objectives show NAME --corpus FILE` shows it at work.",
        console,
    )


def print_entry(entry: Entry, console: Console) -> None:
    """Print all that is known of an objective."""
    title = f"{entry.name} ({entry.family})" if entry.family else entry.name
    console.print(Text(title, style="bold"))
    print_paragraph(f"{entry.summary}.", console)
    facts = {
        "paper": ", ".join(filter(None, [entry.paper, entry.url])),
        "asked": entry.asked,
        "head": entry.head,
        "needs": entry.needs,
        "generator": entry.generator,
        "cost": f"{entry.cost:.2f} of mlm's, per token",
    }
    for name, value in facts.items():
        if value:
            print_paragraph(value, console, label=f"{name:<11}")
    print_options(entry.options, f"--objective {entry.name}", console)
    print_details(entry.details, console)


def print_generator(name: str, generator: type, console: Console) -> None:
    """Print all that is known of a generator."""
    summary, details = split_docstring(generator)
    paper, url = find_paper(generator)
    console.print(Text(f"{name} (generator)", style="bold"))
    print_paragraph(f"{summary}.", console)
    if paper:
        print_paragraph(", ".join(filter(None, [paper, url])), console, label="paper      ")
    print_options(read_options(generator), f"--generator {name}", console)
    print_details(details, console)


def print_options(options: Sequence[Option], usage: str, console: Console) -> None:
    """Print fields with their defaults and meanings."""
    if not options:
        print_paragraph("none", console, label="options    ")
        return
    example = next((option for option in options if option.default), options[0])
    console.print(Text(f"\n  options, as in {usage}:{example.name}={example.default or '...'}"))
    width = max(len(option.name) + len(option.default) for option in options) + 3
    width = min(width, 36)
    for option in options:
        given = f"{option.name}={option.default}" if option.default else f"{option.name} ({option.type})"
        print_paragraph(option.meaning or "-", console, label=f"{given:<{width}}", indent=4)


def print_details(details: str, console: Console) -> None:
    """Print what else a docstring says, paragraph by paragraph."""
    for paragraph in filter(None, re.split(r"\n\s*\n", details)):
        console.print()
        print_paragraph(" ".join(paragraph.split()), console)
    console.print()


def print_paragraph(text: str, console: Console, label: str = "", indent: int = 2) -> None:
    """Print text beneath 80 columns, after a label where there is one."""
    first, rest = " " * indent + label, " " * (indent + len(label))
    if label and not label.endswith(" "):
        first += " "
    lines = textwrap.wrap(
        text,
        min(console.width, WIDTH) - 1,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def describe(name: str, generators: Mapping[str, type], console: Console) -> None:
    """Print what is known of a name: an objective, a generator, or a dotted path to either."""
    if name in generators:
        print_generator(name, generators[name], console)
        return
    if name not in OBJECTIVES and "." not in name:
        known = [*OBJECTIVES, *generators]
        raise UserError(f"there is no objective or generator '{name}'{suggest(name, known)} Known: {', '.join(known)}")
    plugin = find_class("objective", name, OBJECTIVES)
    if not issubclass(plugin, Objective):
        print_generator(name, plugin, console)
        return
    family = next((family for family, members in FAMILIES.items() if name in members), "")
    print_entry(describe_objective(name, plugin, family), console)


def put_between_marks(page: Path, table: str) -> None:
    """Put the table into a page, between two marks that stand there. UserError where they do not, or it can't be."""
    try:
        before, start, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
        _, end, after = rest.partition(MARKS[1])
        if not start or not end:
            raise UserError(f"{page} has no place for the table: the lines {MARKS[0].strip()} and {MARKS[1].strip()}")
        page.write_text(before + start + table + end + after, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{page} can't be changed: {error.strerror}") from error


def run(argv: Sequence[str]) -> int:
    """Do what a command line asks for, and return its exit status. Raises UserError."""
    argv = list(argv)
    if argv[:1] in (["--help"], ["-h"]):
        print((__doc__ or "").strip())
        return 0
    if argv[:1] == ["show"]:
        if len(argv) == 1 or any(word.startswith("-") for word in argv):
            return int(importlib.import_module("training.show").main(argv[1:]))  # a command stands above every floor
        argv = argv[1:]
    if argv[:1] == ["--markdown"] and len(argv) <= 2:
        table = write_markdown(read_catalogue(FAMILIES))
        if len(argv) == 1:
            print(table, end="")
        else:
            put_between_marks(Path(argv[1]), table)
        return 0
    for word in argv:
        if word.startswith("-"):
            raise UserError(f"option {word} is unknown; `python -m objectives --help` shows what there is")
    console = Console(width=min(Console().width, WIDTH), highlight=False)
    generators: Mapping[str, type] = importlib.import_module("generators").GENERATORS
    if not argv:
        print_catalogue(read_catalogue(FAMILIES), console)
    for name in argv:
        describe(name, generators, console)
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the command; what a user can mend is one line each, without a traceback."""
    return run_command(run, argv)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
