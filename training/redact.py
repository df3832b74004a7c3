"""What a published text may say of a machine: the last name of a path, and no passwords."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SECRETS = frozenset({"token", "key", "apikey", "secret", "password", "passwd", "credential", "credentials"})
_TEXT_SUFFIXES = (".txt", ".gz", ".zst", ".json", ".jsonl", ".parquet", ".yaml", ".yml", ".csv", ".bz2", ".py")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(:[\w.-]+)?")
_HUB_TOKEN = re.compile(r"\bhf_\w{8,}")
_ABSOLUTE_PATH = re.compile(r"(?<![\w/.<*])~?/(?:[^\s/'\"`|,;]+/)*([^\s/'\"`|,;]+)/?")


def redact_settings(value: Any) -> Any:
    """Return settings, nested as they may be, with every string as `shorten_path` gives it and no secret."""
    if isinstance(value, Mapping):
        return {str(key): "***" if _is_secret(str(key)) else redact_settings(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [redact_settings(each) for each in value]
    return shorten_path(value) if isinstance(value, str) else value


def redact_command(command: str) -> str:
    """Return a command line with the last name of each path, and *** for the value of an option that names a secret."""
    try:
        words = shlex.split(command)
    except ValueError:  # an unpaired quotation mark
        words = command.split()
    redacted = []
    is_secret = False  # what comes next
    for word in words:
        name, equals, value = word.partition("=")
        if is_secret and not word.startswith("--"):
            redacted.append("***")
        elif equals:
            redacted.append(f"{name}=" + ("***" if _is_secret(name) else shlex.quote(shorten_path(value))))
        else:
            redacted.append(shlex.quote(shorten_path(word)))
        is_secret = word.startswith("-") and not equals and _is_secret(word)
    return " ".join(redacted)


def shorten_path(value: str) -> str:
    """Return the last name of a path; names on the hub, and what is no path, as they are."""
    value = re.sub(r"^file://", "", _HUB_TOKEN.sub("***", value))
    if "://" in value:
        return re.sub(r"://[^/@\s]*@", "://", value)
    is_hub_name = bool(_HUB_NAME.fullmatch(value)) and not value.endswith(_TEXT_SUFFIXES)
    if "/" not in value or (is_hub_name and not Path(value).exists()):
        return value
    return Path(value).name


def shorten_absolute_paths(text: str) -> str:
    """Return a text with the last name of each absolute path in it; addresses of the web stay."""
    return _ABSOLUTE_PATH.sub(r"\1", _HUB_TOKEN.sub("***", text))


def _is_secret(name: str) -> bool:
    return bool(_SECRETS & set(re.split(r"[\W_]+", name.lower())))
