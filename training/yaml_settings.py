"""Settings as YAML, read as people mean it."""

import re
from pathlib import Path
from typing import Any

import yaml

from corpora.errors import UserError


def read_yaml(path: str) -> dict[str, Any]:
    """Return the settings in a file; UserError, with the line where there is one, if it holds something else."""
    try:
        loaded = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--config {path} is not UTF-8 at byte {error.start:,}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict | None):
        raise UserError(f"--config {path} holds no settings; write one NAME: VALUE a line")
    return loaded or {}


def write_yaml(settings: dict[str, Any]) -> str:
    """Return text that `read_yaml` reads back as equal settings."""
    return yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain words: `no` is a text (a precision, and a language), 1e-3 a number. No key stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' stands there again", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts a text in quotes where `_Loader`, or a reader of YAML 1.1, would see something else."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = None if text.isprintable() else '"'  # in the other styles a rare line break comes back as a space
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)

_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _firsts in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", "[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_firsts))
