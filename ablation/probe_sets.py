"""The items of a study's probes, made once and kept in its folder: every encoder is asked the same."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from corpora.errors import CheckpointError, UserError
from probes.build import Built, build_published, build_raw, build_treebank, choose_names
from probes.probe import Probe
from probes.progress import Progress
from probes.raw_text import Document, read_documents, read_held_out
from training.config import Config
from training.folders import publish_folder, verify_folder

from .questions import Probing

MOST_CHARACTERS = 20_000_000  # of a text: more makes no better probes of a few thousand items
_RECORD, _ARRAYS = "probes.json", "arrays.npz"
_ARRAY_FIELDS = ("places", "labels", "split", "groups", "control_labels")


def build_sets(probing: Probing, config: Config, documents: int, progress: Progress) -> Built:
    """Build the probes that a study asks for, of the text that runs with this configuration hold out.

    `documents`: how many the prepared corpus has. UserError where none can be built, or one that is asked for by name.
    """
    built = Built()
    if probing.suite == "none":
        return built
    raw, trees = choose_names(",".join(probing.only) or None, probing.suite)
    if raw:
        text, source = find_text(probing, config, documents)
        built.add(build_raw(raw, text, source, size=probing.size, language=probing.language, progress=progress))
    if trees:
        built.add(build_treebank(trees, probing.treebank, progress=progress))
    if probing.published:
        built.add(build_published(probing.published, size=probing.size, progress=progress))
    missing = [reason for name, reason in zip(built.skipped, built.reasons, strict=True) if name in probing.only]
    if missing or not built.probes:
        raise UserError("\n".join(missing) or "no probe could be made: " + "; ".join(built.reasons))
    return built


def find_text(probing: Probing, config: Config, documents: int) -> tuple[list[Document], str]:
    """Return the documents that probes are made of, and where they are from."""
    if probing.corpus is not None:
        return read_documents(probing.corpus, MOST_CHARACTERS), Path(probing.corpus).name
    found = read_held_out(config.as_dict(), documents, "this study")
    return found, f"{len(found):,} documents that every run holds out"


def save_sets(folder: Path, built: Built) -> None:
    """Write probes into a folder that appears whole or not at all. StorageError."""
    arrays: dict[str, np.ndarray] = {}
    records = []
    for number, probe in enumerate(built.probes):
        plain = {
            each.name: getattr(probe, each.name)
            for each in dataclasses.fields(Probe)
            if each.name not in (*_ARRAY_FIELDS, "subsets")
        }
        records.append(plain | {"subsets": list(probe.subsets)})
        for name in _ARRAY_FIELDS:
            if getattr(probe, name) is not None:
                arrays[f"{number}.{name}"] = getattr(probe, name)
        for name, members in probe.subsets.items():
            arrays[f"{number}.subset.{name}"] = members
    record = {"probes": records, "sources": built.sources, "skipped": built.skipped}

    def write(place: Path) -> None:
        (place / _RECORD).write_text(json.dumps(record, ensure_ascii=False, default=float) + "\n", encoding="utf-8")
        with (place / _ARRAYS).open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes the names for flags

    publish_folder(folder, write)


def load_sets(folder: Path) -> Built:
    """Read what `save_sets` wrote. CheckpointError for a folder that was changed since."""
    verify_folder(folder)
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
            probes = [_read_probe(number, plain, arrays) for number, plain in enumerate(record["probes"])]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder} can't be read as probes: {error}; remove it, and they are made again"
        ) from error
    return Built(probes=probes, sources=record["sources"], skipped=record["skipped"])


def _read_probe(number: int, plain: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Probe:
    found = {name: arrays[f"{number}.{name}"] for name in _ARRAY_FIELDS if f"{number}.{name}" in arrays}
    subsets = {name: arrays[f"{number}.subset.{name}"] for name in plain["subsets"]}
    tuples = {"texts": tuple(plain["texts"]), "label_names": tuple(plain["label_names"]), "subsets": subsets}
    return Probe(**plain | found | tuples)
