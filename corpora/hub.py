"""Text from a dataset that the `datasets` library loads by name."""

import functools
import importlib
import logging
import re
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import CorpusError

NAME = re.compile(r"(?P<name>[\w-][\w.-]*(?:/[\w.-]+)?)(?P<rest>(?::[^:]*){0,2})")
FILE_SUFFIXES = (".txt", ".text", ".md", ".json", ".jsonl", ".ndjson", ".parquet", ".gz", ".zst", ".zstd")


def may_be_dataset(location: str) -> bool:
    """Whether a location can name a dataset: "name", "name:config", "name:config:split", or a folder with a config."""
    folder = location.split(":")[0]
    if ":" in location and Path(folder).expanduser().is_dir():
        return True
    return NAME.fullmatch(location) is not None and not folder.lower().endswith(FILE_SUFFIXES)


@functools.lru_cache(maxsize=4)
def load(location: str) -> Any:
    """The `datasets.Dataset` of a location, its "train" split unless it names another; CorpusError says why not."""
    import datasets  # here, since it takes seconds to import

    name, config, split = (*location.split(":"), "", "")[:3]
    if Path(name).expanduser().is_dir():
        name = str(Path(name).expanduser())
    try:
        with quiet_hub():
            return datasets.load_dataset(name, config or None, split=split or "train")
    except Exception as error:  # whatever a builder, a download or a parser raises: its first line is the reason
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CorpusError(f"`datasets` cannot load {location!r} ({reason})") from error


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Without a network: what is in the cache or an immediate answer, instead of half a minute of retries."""
    datasets_config: Any = importlib.import_module("datasets.config")
    hub_constants: Any = importlib.import_module("huggingface_hub.constants")
    before = datasets_config.HF_HUB_OFFLINE, hub_constants.HF_HUB_OFFLINE
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "datasets")]
    levels = [logger.level for logger in loggers]
    if not is_reachable(hub_constants.ENDPOINT):
        datasets_config.HF_HUB_OFFLINE = hub_constants.HF_HUB_OFFLINE = True
        for logger in loggers:
            logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        datasets_config.HF_HUB_OFFLINE, hub_constants.HF_HUB_OFFLINE = before
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def is_reachable(endpoint: str) -> bool:
    """Whether the host's name resolves; behind a proxy nobody here can tell, so yes."""
    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(endpoint).hostname, 443)
    except OSError:
        return False
    return True


def read_column(location: str, column: str) -> Iterator[str]:
    """The texts of a dataset's column, in order; CorpusError where there is no such column or a value is no string."""
    dataset = load(location)
    check_column(dataset.column_names, column, location)
    row = 0
    for batch in dataset.select_columns([column]).iter(batch_size=256):
        for value in batch[column]:
            row += 1
            if not isinstance(value, str):
                raise CorpusError(f"{location}, row {row}: column {column!r} holds {type(value).__name__}, not text")
            yield value


def fingerprint(location: str) -> str:
    """The dataset's own fingerprint, which covers its files and their versions."""
    return str(load(location)._fingerprint)


def check_column(columns: list[str], column: str, where: Path | str) -> None:
    if column not in columns:
        known = ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
        raise CorpusError(f"{where} has no column {column!r}; set text_column to one of: {known}")
