"""Plug-ins from text: `rtd:mask_rate=0.25,weight=10+nsp`, or the same as a mapping from YAML."""

import dataclasses
import difflib
import importlib
import inspect
import math
import os
import sys
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from corpora.errors import UserError

Plugin = TypeVar("Plugin")


def suggest(word: str, known: list[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known word, or a full stop.

    The nearest: with the same letters, then one that starts so, then the likest.
    """
    near = [each for each in known if sorted(each) == sorted(word)]
    near += [each for each in known if len(word) > 2 and each.startswith(word)]
    near += difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else "."


def parse_spec(spec: str | Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return {name: {option: value}} of a specification, values still as they were written."""
    if isinstance(spec, Mapping):
        return {str(name): _parse_options(str(name), options) for name, options in spec.items()}
    parsed: dict[str, dict[str, Any]] = {}
    for part in spec.split("+"):
        name, _, options = (piece.strip() for piece in part.partition(":"))
        if name in parsed:
            raise UserError(f"'{name}' stands twice in '{spec}'; each can be composed once.")
        parsed[name] = _parse_options(name, options)
    return parsed


def _parse_options(name: str, options: Any) -> dict[str, Any]:
    """Return {option: value} of a mapping, of `mask_rate=0.25,weight=10`, or of nothing."""
    if options is None or isinstance(options, Mapping):
        return {str(option): value for option, value in (options or {}).items()}
    if not isinstance(options, str):
        raise UserError(f"'{options}' can't be the options of '{name}'; write {name}:OPTION=VALUE")
    parsed: dict[str, Any] = {}
    for option in filter(None, (each.strip() for each in options.split(","))):
        key, equals, value = (piece.strip() for piece in option.partition("="))
        if not equals:
            raise UserError(f"option '{option}' of '{name}' has no value; write {name}:{option}=VALUE")
        if key in parsed:
            raise UserError(f"option '{key}' of '{name}' stands twice in '{options}'")
        parsed[key] = value
    return parsed


def find_problems(kind: str, spec: str | Mapping[str, Any], table: Mapping[str, type], base: type) -> list[str]:
    """Return all that is wrong with a specification, one line each; a plug-in of one's own must extend `base`."""
    try:
        parsed = parse_spec(spec)
    except UserError as error:
        return [str(error)]
    found = []
    for name, options in parsed.items():
        try:
            plugin: type = find_class(kind, name, table)
        except UserError as error:
            found.append(str(error))
            continue
        if not issubclass(plugin, base):
            found.append(f"{kind} '{name}' is no {base.__name__}; it must extend {base.__module__}.{base.__name__}")
            continue
        found += _make(f"{kind} '{name}'", plugin, options)[1]
    return found


def build_plugin(kind: str, name: str, options: Mapping[str, Any], table: Mapping[str, type[Plugin]]) -> Plugin:
    """Make the plug-in `name` (of the table, or a dotted path) with `options` converted to the types of its fields.

    UserError where the name or an option is not known, or a value can't be used.
    """
    made, problems = _make(f"{kind} '{name}'", find_class(kind, name, table), options)
    if made is None:
        raise UserError(problems[0])
    return made


def find_class(kind: str, name: str, table: Mapping[str, type[Plugin]]) -> type[Plugin]:
    """Return the class of a name of the table, or of a dotted path; UserError where there is none."""
    if name in table:
        return table[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        raise UserError(f"{kind} '{name}' is unknown{suggest(name, list(table))} Known: {', '.join(table)}")
    if not {"", os.getcwd()} & set(sys.path):  # a script elsewhere was started; what is here comes last
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{kind} '{name}' can't be imported: {error}") from error
    if not isinstance(found, type) or not dataclasses.is_dataclass(found) or inspect.isabstract(found):
        raise UserError(f"{kind} '{name}' is not a dataclass that can be made; see the {kind}s here for what one is")
    return typing.cast(type[Plugin], found)


def _make(what: str, plugin: type[Plugin], options: Mapping[str, Any]) -> tuple[Plugin | None, list[str]]:
    """Return the plug-in, or None and what is wrong with its options."""
    known = [field.name for field in dataclasses.fields(plugin)]  # type: ignore[arg-type]  # a plug-in is a dataclass
    hints = typing.get_type_hints(plugin)
    values, problems = {}, []
    for option, value in options.items():
        if option not in known:
            problems.append(f"{what} has no option '{option}'{suggest(option, known)} It has: {', '.join(known)}")
            continue
        try:
            values[option] = _convert(f"{what}: {option}", value, hints[option])
        except UserError as error:
            problems.append(str(error))
            continue
        if option.endswith("_rate") and values[option] is not None and not 0 <= values[option] <= 1:
            problems.append(f"{what}: {option} is {value}; a rate is a fraction from 0 to 1")
    if problems:
        return None, problems
    try:
        return plugin(**values), []
    except ValueError as error:
        return None, [f"{what}: {error}"]


def _convert(what: str, value: Any, hint: Any) -> Any:
    """Turn a written value into the type of its field: float, int, bool, str, or one of those or None."""
    choices = typing.get_args(hint) or (hint,)
    if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
        if type(None) in choices:
            return None
        if value is None or str not in choices:  # a text may be "none"
            raise UserError(f"{what} can't be empty")
    wanted = next(choice for choice in choices if choice is not type(None))
    if wanted is bool:
        words = {"true": True, "false": False}
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise UserError(f"{what} is '{value}'; it must be true or false")
    if wanted is str:
        return str(value)
    try:
        converted = wanted(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{what} is '{value}'; it must be a {_WORDS.get(wanted, wanted.__name__)}") from None
    if isinstance(value, bool):  # to Python a number
        raise UserError(f"{what} is '{value}'; it must be a {_WORDS.get(wanted, wanted.__name__)}")
    if wanted is int and isinstance(value, float) and value != converted:
        raise UserError(f"{what} is {value}; it must be a whole number")
    if wanted is float and not math.isfinite(converted):
        raise UserError(f"{what} is {value}; it must be finite")
    return converted


_WORDS = {int: "whole number", float: "number"}
