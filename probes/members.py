"""Which encoders a run probes, what they are called, and which of them are seeds of one thing."""

import difflib
import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Member:
    """An encoder to probe: where it is, what it is called, and what it is a seed of."""

    location: str
    name: str
    group: str
    objective: str | None = None
    seed: int | None = None


def list_members(folders: Sequence[str], groups: Sequence[str], group_by: str | None) -> list[Member]:
    """Return the encoders in the order given, with names that differ.

    Raises UserError for a group that is empty, and for folders that are absent or hold no encoder, all of them at once.
    """
    places: dict[str, str | None] = {folder.rstrip("/") or folder: None for folder in folders}
    for group in groups:
        name, equals, pattern = group.partition("=")
        if not (name and equals and pattern):
            raise UserError(f"--group is '{group}'; write NAME=GLOB, as in --group rtd='runs/rtd-*'")
        found = sorted(glob.glob(pattern)) or sorted(folder for folder in places if folder == pattern)
        if not found:
            raise UserError(f"--group {name}: nothing is at '{pattern}'")
        for place in found:
            if places.get(place) not in (None, name):
                raise UserError(f"'{place}' is in the groups '{places[place]}' and '{name}'; one is possible")
            places[place] = name
    wrong = [reason for reason in map(_find_fault, places) if reason]
    if wrong:
        raise UserError("\n".join(wrong))
    members = []
    for (place, group_name), name in zip(places.items(), _name_apart(list(places)), strict=True):
        run = read_run(place)
        objective = run.get("config", {}).get("objective")
        objective = "+".join(objective) if isinstance(objective, dict) else objective
        by = objective if group_by == "objective" else None
        members.append(
            Member(
                location=place,
                name=name,
                group=group_name or by or name,
                objective=objective,
                seed=run.get("config", {}).get("seed"),
            )
        )
    return members


def read_run(folder: str) -> dict[str, Any]:
    """Return what the folder's run.json holds; nothing where it has none. Raises UserError for one that is broken."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    return record if isinstance(record, dict) else {}


def _find_fault(place: str) -> str | None:
    """Return why a folder can't be probed, as far as its files tell; a name that may be one on the hub passes."""
    path = Path(place).expanduser()
    if path.is_dir():
        if (path / "config.json").is_file():
            return None
        if (path / "run.json").is_file():
            return f"the run in {place} has no encoder yet; finish it: python pretrain.py --resume {place}"
        return f"{place} has no config.json; give the folder of an encoder, as `save_pretrained` writes it"
    if path.is_file():
        return f"{place} is a file; give the folder of an encoder"
    is_local = place.startswith(("/", ".", "~")) or place.count("/") > 1 or ("/" in place and path.parent.is_dir())
    if not is_local:
        return None
    siblings = [entry.name for entry in path.parent.iterdir() if entry.is_dir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f"there is no folder {place}" + (f"; did you mean {path.parent / near[0]}?" if near else "")


def _name_apart(places: Sequence[str]) -> list[str]:
    """Return the shortest endings of paths that differ from one another; names on the hub stay as they are."""
    parts = [place.split("/") if Path(place).exists() else [place] for place in places]
    names = []
    for own in parts:
        length = 1
        while length < len(own) and sum(other[-length:] == own[-length:] for other in parts) > 1:
            length += 1
        names.append("/".join(own[-length:]))
    return names
