"""What stands beneath the options of `pretrain.py --help`: every name that can be asked for."""

import ast
import textwrap
from collections.abc import Sequence
from pathlib import Path

from .recipes import RECIPES

_EPILOG = """\
objectives, composed with a plus (mlm+nsp), options after a colon (mlm:weight=2)
{objectives}
generators, of the objectives that need one
{generators}
recipes, for --recipe; what each sets
{recipes}
`python -m objectives` says in a line what each objective is, `python -m
objectives rtd` what options it or a generator has, and `python -m objectives
show rtd --corpus FILE` what it makes of a text.

A YAML file for --config holds the same names:
  objective: {{rtd: {{mask_rate: 0.25}}, nsp: {{weight: 0.5}}}}
  max_steps: 2000
"""


def write_epilog() -> str:
    """Return what stands beneath the options: the names of all that can be asked for."""
    root = Path(__file__).parent.parent
    families = read_table(root / "objectives/table.py", "FAMILIES")
    objectives = [_fold(family, members) for family, members in families.items() if members]
    generators = _fold("", list(read_table(root / "generators/__init__.py", "GENERATORS")))
    recipes = [
        _fold(name, [f"{key}={value}" for key, value in recipe.settings.items()]) for name, recipe in RECIPES.items()
    ]
    return _EPILOG.format(objectives="".join(objectives), generators=generators, recipes="".join(recipes))


def read_table(path: Path, name: str) -> dict[str, list[str]]:
    """Return the keys of a table of plug-ins, with the keys below each, from its source: importing it takes seconds."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name and isinstance(node.value, ast.Dict):
            return {key: _keys(value) for key, value in zip(_keys(node.value), node.value.values, strict=True)}
    raise LookupError(f"{path} has no table {name}")


def _keys(node: ast.expr) -> list[str]:
    keys = node.keys if isinstance(node, ast.Dict) else []
    return [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def _fold(title: str, words: Sequence[str]) -> str:
    """Return a paragraph of 80 columns: words with commas between them, beneath or beside a title."""
    text = ", ".join(words)
    if not title:
        return textwrap.fill(text, 80, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False) + "\n"
    first = f"  {title:<12} "
    if len(title) > 12:
        return f"  {title}\n" + textwrap.fill(text, 80, initial_indent=" " * 6, subsequent_indent=" " * 6) + "\n"
    return textwrap.fill(text, 80, initial_indent=first, subsequent_indent=" " * 15, break_long_words=False) + "\n"
