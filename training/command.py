"""The command line of the main job: each setting is an option, and everything that is wrong is told at once."""

import ast
import dataclasses
import difflib
import inspect
import json
import os
import textwrap
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from corpora.console import Help
from corpora.errors import UserError

from .config import CHOICES, GROUPS, HARMLESS, Config
from .epilog import write_epilog
from .recipes import expand_recipe
from .yaml_settings import read_yaml, write_yaml

_HINTS: dict[str, Any] = typing.get_type_hints(Config)
_TUPLES = [name for name, hint in _HINTS.items() if typing.get_origin(hint) is tuple]
_OPTIONS = [*_HINTS, "config", "print_config", "help"]
_DESCRIPTION = """\
Pretrain an encoder on raw text.

examples:
  python pretrain.py --max_minutes 2
  python pretrain.py --objective rtd --corpus wiki.txt.gz --out runs/rtd
  python pretrain.py --objective mlm+nsp --corpus articles/ --encoder bert-mini
  python pretrain.py --objective "rtd:mask_rate=0.25+nsp:weight=0.5"
  python pretrain.py --recipe bert --corpus wiki.txt.gz
  python pretrain.py --config run.yaml --max_steps 2000
  python pretrain.py --resume runs/rtd
  torchrun --nproc_per_node 2 pretrain.py --corpus wiki.txt.gz
"""


class CommandError(UserError):
    """Everything that is wrong with a command line, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))


def parse(argv: Sequence[str]) -> Config:
    """Return the configuration that a command line asks for.

    The files given with --config are read first, in their order, then the other options, wherever they stand.
    CommandError tells everything that is wrong; SystemExit(0) follows --help and --print_config.
    """
    parser = build_parser()
    if "--help" in argv or "-h" in argv:
        parser.print_help()
        raise SystemExit(0)
    options, problems = _split(argv)
    given: dict[str, Any] = {}
    for _, path in (option for option in options if option[0] == "config"):
        try:
            settings = read_yaml(path)
        except UserError as error:
            problems.append(str(error))
            continue
        given |= _read_settings(parser, settings, path, problems)
    for name, text in options:
        if name in _HINTS:
            given |= _read_option(parser, name, text, problems)

    if given.get("resume") is None:
        config = Config(**_expand(given, problems))
    else:
        config = _resume(parser, given, problems)
    problems += config.problems()
    if problems:
        raise CommandError(problems)
    if any(name == "print_config" for name, _ in options):
        print(write_yaml(config.as_dict()), end="")
        raise SystemExit(0)
    return config


def make_config(settings: Mapping[str, Any], where: str) -> tuple[Config, list[str]]:
    """Return the configuration that settings from a file ask for, and all that is wrong with it, one line each."""
    problems: list[str] = []
    config = Config(**_expand(_read_settings(build_parser(), settings, where, problems), problems))
    return config, problems + config.problems()


def _expand(given: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    try:
        return expand_recipe(given)
    except UserError as error:
        problems.append(str(error))
        return given


def build_parser() -> ArgumentParser:
    """Return a parser with an option for each field of `Config`, in groups."""
    parser = ArgumentParser(
        prog="pretrain.py",
        usage="python pretrain.py [--config FILE] [--OPTION VALUE ...]",
        description=_DESCRIPTION,
        epilog=write_epilog(),
        formatter_class=Help,
        exit_on_error=False,
        add_help=False,
    )
    meanings = read_meanings()
    group: Any = parser  # or a group of it, which jsonargparse types otherwise
    for field in dataclasses.fields(Config):
        if field.name in GROUPS:
            group = parser.add_argument_group(GROUPS[field.name])
        group.add_argument(
            f"--{field.name}",
            type=_HINTS[field.name] | str if field.name in _TUPLES else _HINTS[field.name],
            default=field.default,
            help=_explain(meanings[field.name], field.default),
            metavar="|".join(CHOICES.get(field.name, ())) or _describe(field.name, _METAVARS),
        )
    group.add_argument("--config", metavar="FILE", help="YAML file with settings; options on the command line win.")
    group.add_argument("--print_config", action="store_true", help="Print all settings as YAML for --config, and stop.")
    group.add_argument("--help", "-h", action="help", help="Print this text, and stop.")
    return parser


def _explain(meaning: str, default: object) -> str:
    if default in (None, "", ()):
        return meaning
    shown = str(default).lower() if isinstance(default, bool) else f"{default}"
    return f"{meaning} Default: {shown}."


def read_meanings() -> dict[str, str]:
    """Return what stands below each field of `Config` in its source."""
    (config,) = ast.parse(textwrap.dedent(inspect.getsource(Config))).body
    assert isinstance(config, ast.ClassDef)
    meanings = {}
    for field, text in zip(config.body, config.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                meanings[name] = " ".join(meaning.split())
    return meanings


def _split(argv: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Cut a command line into (option, value), and say which words are of no use."""
    pieces: list[tuple[str, list[str]]] = []
    problems = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            pieces.append((name, [value] if equals else []))
        elif pieces:
            pieces[-1][1].append(word)
        else:
            problems.append(f"'{word}' belongs to no option; every setting is written --NAME VALUE")
    options = []
    for name, values in pieces:
        if name not in _OPTIONS:
            problems.append(f"--{name} is unknown{_suggest(name, '--')}")
        elif name == "print_config" or (_HINTS.get(name) is bool and not values):
            options.append((name, "true"))
        elif name in _TUPLES and values:
            options.append((name, ",".join(values)))
        elif len(values) == 1:
            options.append((name, values[0]))
        elif not values:
            problems.append(f"--{name} needs a value: {_describe(name, _KINDS)}")
        else:
            problems.append(
                f"--{name} takes one value, found {' '.join(values)} (a glob, or a text with spaces, needs quotes)"
            )
    return options, problems


def _suggest(name: str, dashes: str = "") -> str:
    near = difflib.get_close_matches(name.replace("-", "_").lower(), _OPTIONS, n=1, cutoff=0.6)
    return f"; did you mean {dashes}{near[0]}?" if near else "; --help shows every option"


def _read_option(parser: ArgumentParser, name: str, text: str, problems: list[str]) -> dict[str, Any]:
    """Return {name: value} of an option, or nothing where its value is of no use."""
    if _HINTS[name] == str | dict[str, Any] and not text.lstrip().startswith("{"):
        return {name: text}  # as YAML, `rtd: mask_rate=0.25` would be a mapping
    try:
        value = parser.parse_args([f"--{name}={text}"], defaults=False)[name]
        return {name: _finish(name, value)}
    except (ArgumentError, ValueError):
        problems.append(f"--{name} is '{text}'; it must be {_describe(name, _KINDS, text)}")
        return {}


def _read_settings(
    parser: ArgumentParser, settings: Mapping[str, Any], where: str, problems: list[str]
) -> dict[str, Any]:
    """Return those settings of a file that are of use, each parsed alone so that all mistakes are found."""
    read = {}
    for name, value in settings.items():
        if name not in _HINTS:
            problems.append(f"{where}: {name} is unknown{_suggest(str(name))}")
            continue
        try:
            parsed = _finish(name, parser.parse_object({name: value}, defaults=False)[name])
            is_missing = value is None and type(None) not in typing.get_args(_HINTS[name])
        except (ArgumentError, ValueError):
            is_missing = True
        if is_missing:
            shown = "empty" if value is None else f"'{value}'"
            problems.append(f"{where}: {name} is {shown}; it must be {_describe(name, _KINDS, value)}")
        else:
            read[name] = parsed
    return read


def _finish(name: str, value: Any) -> Any:
    """Turn a list, or a text with commas, into a tuple, where that is what is wanted; ValueError where it can't be."""
    if name not in _TUPLES or value is None:
        return value
    kind = typing.get_args(_HINTS[name])[0]
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(kind(part) for part in (str(each).strip() for each in parts) if part)


def _describe(name: str, words: Mapping[Any, str], value: object = None) -> str:
    """Say what kind of value a setting takes, and how the one that was given would be written where that is plain."""
    hint = _HINTS.get(name, str)
    kind = next(words[each] for each in (hint, *typing.get_args(hint)) if each in words)
    if int not in (hint, *typing.get_args(hint)):
        return kind
    try:
        number = float(str(value))
    except ValueError:
        return kind
    return f"{kind}: {number:.0f}" if number.is_integer() else kind


def _resume(parser: ArgumentParser, given: dict[str, Any], problems: list[str]) -> Config:
    """Return the configuration of the run to go on with, changed only where that changes nothing of what it learns."""
    folder = given["resume"]
    try:
        settings = _load_record(folder)
    except UserError as error:
        raise CommandError([*problems, str(error)]) from error
    recorded = _read_settings(parser, settings, f"{folder}/run.json", problems)
    recorded |= {"resume": folder, "out": folder}  # wherever it has been moved to
    old, new = Config(**recorded), Config(**{**recorded, **given})
    for name in given:
        if name not in HARMLESS and not _is_same(name, old, new):
            before, after = getattr(old, name), getattr(new, name)
            problems.append(
                f"--resume {folder} can't change {name}: {before} -> {after}; a new --out starts another run"
            )
    return dataclasses.replace(new, out=folder)


def _load_record(folder: str) -> dict[str, Any]:
    """Return the settings that a run has noted."""
    path = Path(folder) / "run.json"
    if not Path(folder).is_dir():
        raise UserError(f"--resume {folder}: there is no such folder")
    if not os.path.isfile(path):
        raise UserError(f"--resume {folder}: it has no run.json, so there is no run to go on with")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise UserError(f"{path} has no settings under 'config', so it is no run's")
    return record["config"]


def _is_same(name: str, old: Config, new: Config) -> bool:
    """Say whether a setting means the same in both, however it is written."""
    if getattr(old, name) == getattr(new, name):
        return True
    try:
        if name == "objective":
            return old.build_objectives() == new.build_objectives()
        if name == "mix":
            return old.build_arms() == new.build_arms()
        if name == "generator":
            return old.build_generator() == new.build_generator()
    except UserError:  # told as a problem of its own
        return True
    return name == "out" and Path(old.out).resolve() == Path(new.out).resolve()


_METAVARS = {
    str | dict[str, Any]: "SPEC",
    str | dict[str, Any] | None: "SPEC",
    int: "INT",
    float: "NUMBER",
    bool: "true|false",
    tuple[str, ...]: "NAME,NAME",
    tuple[int, ...]: "INT,INT",
    str: "TEXT",
}
_KINDS = {
    str | dict[str, Any] | None: "arms such as 15*mlm; 1*nsp, or a mapping",
    str | dict[str, Any]: "names and options such as rtd:mask_rate=0.25+nsp, or a mapping",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple[str, ...]: "a name or several, with commas between them",
    tuple[int, ...]: "a whole number or several, with commas between them",
    str: "a text; in YAML, put it in quotes",
}
