"""Checkpoints: folders of safetensors and JSON that are whole or absent, and never a pickle."""

import errno
import fcntl
import json
import os
import re
import shutil
import socket
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from corpora.errors import CheckpointError, UserError

from .folders import (
    MANIFEST,
    discard_folder,
    is_valid,
    make_folder,
    name_before_replacement,
    open_regular,
    publish_folder,
    storage_errors,
    sync_folder,
    verify_folder,
)

STATE = "state.json"
STATE_FORMAT = 1
LOCK = ".lock"

_STEP = re.compile(r"step-(?P<step>[0-9]{8,18})")
_GROUP = re.compile(r"[a-z][a-z0-9_]{0,49}")
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
_held_locks: set[int] = set()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint in memory; tensors are on the CPU, and tensors that were one when saved are one again."""

    step: int
    path: Path
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save_checkpoint(
    root: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    keep: int = 2,
) -> Path:
    """Write `root/step-00000042/` whole or not at all, then remove what is older than the newest `keep` valid ones.

    `tensors` maps a group ("model", "optimizer") to its named tensors, one safetensors file a group; `state` is what
    JSON gives back equal: string keys, lists, finite numbers. Raises UserError for `keep` below 2, StorageError where
    the disk refuses.
    """
    if keep < 2:
        raise UserError(f"keep is {keep}; at least 2 checkpoints are kept, so that one bad file doesn't end a run")
    if step < 0:
        raise ValueError(f"step is {step}, but steps count from 0")
    root = Path(root)
    ties = {group: _find_ties(named) for group, named in tensors.items()}
    record = _encode_record({"format": STATE_FORMAT, "step": step, "ties": ties, "state": dict(state)})
    for group in tensors:
        if not _GROUP.fullmatch(group):
            raise ValueError(f"{group!r} cannot be the name of a group of tensors")

    def write(folder: Path) -> None:
        for group, named in tensors.items():
            kept = {name: tensor for name, tensor in named.items() if name not in ties[group]}
            safetensors.torch.save_file(_lay_out(kept), folder / f"{group}.safetensors")
        (folder / STATE).write_bytes(record)

    final = root / f"step-{step:08d}"
    if os.path.lexists(final) and stat.S_ISDIR(os.lstat(final).st_mode) and not is_valid(final):
        discard_folder(final)  # damaged, so nothing that could be resumed is lost
    publish_folder(final, write)
    _retire(root, step, keep)
    return final


def load_newest(root: Path) -> Checkpoint | None:
    """Load the newest checkpoint of `root` that verifies; None where there has never been one.

    Each newer one that doesn't verify is named on stderr. Raises CheckpointError when there are checkpoints and none
    verifies: a run never starts again from nothing by itself.
    """
    root = Path(root)
    failures = []
    for step, folder in _list_steps(root):
        try:
            checkpoint = _load(folder, step)
        except CheckpointError as error:
            failures.append(str(error))
            continue
        for failure in failures:
            print(f"warning: {failure}; falling back to {checkpoint.path.name}", file=sys.stderr)
        return checkpoint
    failures += [f"{root / name}: is not a checkpoint's name" for name in _list(root) if _is_misnamed(name)]
    if failures:
        advice = "restore one of them from a copy, or move them all away to start from nothing"
        raise CheckpointError(f"no checkpoint in {root} can be used: {'; '.join(failures)}; {advice}")
    return None


def sweep(root: Path) -> None:
    """Remove what interrupted writers left in `root`; call it while no other process writes there (see `lock_run`).

    A writer that died between taking the old folder away and putting the new one in its place gets the old one back.
    """
    root = Path(root)
    if not root.is_dir():
        return
    with storage_errors(root):
        for name in sorted(os.listdir(root)):
            litter = root / name
            if not name.startswith((".tmp-", ".del-")) or not stat.S_ISDIR(os.lstat(litter).st_mode):
                continue
            replaced = name_before_replacement(litter)
            if replaced is None or os.path.lexists(root / replaced) or not is_valid(litter):
                shutil.rmtree(litter)
            else:
                os.rename(litter, root / replaced)
                sync_folder(root)


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Keep `folder` for this process; UserError names the process that has it. The system unlocks for killed ones."""
    folder = Path(folder)
    with storage_errors(folder):
        make_folder(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(folder / LOCK, flags, 0o666)
    _held_locks.add(descriptor)
    try:
        with storage_errors(folder):
            _lock(descriptor, folder)
        yield
    finally:
        # The file stays: to remove it would let a third process lock a new one while a second waits on the old.
        if descriptor in _held_locks:  # not so in a forked child
            _held_locks.remove(descriptor)
            os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 1000, 0).decode("utf-8", "replace").split()
        by = f"process {owner[0]} on host {owner[1]}" if len(owner) == 2 else "another process"
        raise UserError(f"{folder} is in use by {by}; wait for it or stop it, or choose another folder") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        print(f"warning: {folder} is on a file system without locks; let no other run write there", file=sys.stderr)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)


def _release_in_child() -> None:
    # A lock lives as long as any descriptor of it: a worker that outlives a killed run would keep the folder locked.
    while _held_locks:
        os.close(_held_locks.pop())


os.register_at_fork(after_in_child=_release_in_child)


def _find_ties(named: Mapping[str, Tensor]) -> dict[str, str]:
    """Map each name whose tensor is the very same memory as an earlier one's to that earlier name."""
    first: dict[tuple[Any, ...], str] = {}
    ties = {}
    for name, tensor in named.items():
        if name == "__metadata__":
            raise ValueError("a tensor cannot be named '__metadata__': safetensors keeps that name for itself")
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and first.setdefault(key, name) != name:
            ties[name] = first[key]
    return ties


def _lay_out(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring tensors to the CPU, dense, none overlapping another: safetensors takes no others."""
    laid_out = {}
    for name, tensor in named.items():
        dense = tensor.detach().to("cpu").contiguous()
        is_part = dense.untyped_storage().nbytes() != dense.numel() * dense.element_size()
        laid_out[name] = dense.clone() if is_part else dense
    uses = Counter(tensor.untyped_storage().data_ptr() for tensor in laid_out.values())
    return {name: t.clone() if uses[t.untyped_storage().data_ptr()] > 1 else t for name, t in laid_out.items()}


def _encode_record(record: dict[str, Any]) -> bytes:
    encoded = json.dumps(record, indent=1, allow_nan=False)
    if json.loads(encoded) != record:
        raise ValueError("the state would not come back equal from JSON: use string keys and lists, not tuples")
    return encoded.encode("ascii")


def _retire(root: Path, step: int, keep: int) -> None:
    """Discard what is older than the newest `keep` valid checkpoints up to `step`, which was just written."""
    older = [folder for found, folder in _list_steps(root) if found < step and name_before_replacement(folder) is None]
    kept = 1
    while older and kept + len(older) > keep:  # with nothing to remove, nothing needs to be verified
        folder = older.pop(0)
        if kept < keep:
            kept += is_valid(folder)
        elif stat.S_ISDIR(os.lstat(folder).st_mode):
            discard_folder(folder)


def _list(root: Path) -> list[str]:
    try:
        return sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{root}: cannot be listed: {error.strerror}") from error


def _list_steps(root: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of every checkpoint, newest first, whether it verifies or not.

    Where a checkpoint was to be replaced by another of the same step and the process died between the two renames, the
    old one stands under a `.del-*` name until `sweep` gives it back; it counts.
    """
    names = _list(root)
    steps = {}
    for name in names:
        original = name_before_replacement(root / name) or name
        step = _step_of(original)
        if step is not None and (name == original or original not in names):
            steps[step] = root / name
    return sorted(steps.items(), reverse=True)


def _step_of(name: str) -> int | None:
    match = _STEP.fullmatch(name)
    step = int(match["step"]) if match else -1
    return step if name == f"step-{step:08d}" else None  # one spelling per step


def _is_misnamed(name: str) -> bool:
    return name.startswith("step-") and _step_of(name) is None


def _load(folder: Path, step: int) -> Checkpoint:
    verify_folder(folder)
    record = _read_record(folder)
    if record["step"] != step:
        raise CheckpointError(f"{folder}: was saved at step {record['step']!r}; it was renamed")
    expected = {MANIFEST, STATE, *(f"{group}.safetensors" for group in record["ties"])}
    if expected != set(_list(folder)):
        strays = sorted(expected ^ set(_list(folder)))
        raise CheckpointError(f"{folder}: {strays[0]!r} is missing or does not belong in a checkpoint")
    tensors = {}
    for group, ties in record["ties"].items():
        tensors[group] = _read_tensors(folder, f"{group}.safetensors")
        for alias, name in ties.items():
            if name not in tensors[group] or alias in tensors[group]:
                raise CheckpointError(
                    f"{folder}: {STATE} ties {alias!r} to {name!r}, which do not fit {group}.safetensors"
                )
        tensors[group].update({alias: tensors[group][name] for alias, name in ties.items()})
    return Checkpoint(step=step, path=folder, tensors=tensors, state=record["state"])


def _read_bytes(folder: Path, name: str) -> bytes:
    try:
        with os.fdopen(open_regular(folder / name), "rb") as file:
            return file.read()
    except OSError as error:
        raise CheckpointError(f"{folder}: {name!r} cannot be read: {error.strerror}") from error


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads(_read_bytes(folder, STATE))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder}: {STATE} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{folder}: {STATE} is not a JSON object")
    if record.get("format") != STATE_FORMAT:
        found = record.get("format")
        raise CheckpointError(f"{folder}: {STATE} has format {found!r}, but this version reads format {STATE_FORMAT}")
    ties, state = record.get("ties"), record.get("state")
    if not _are_ties(ties) or not isinstance(state, dict) or type(record.get("step")) is not int:
        raise CheckpointError(f"{folder}: {STATE} lacks 'step', 'ties' or 'state', or has them in another shape")
    return record


def _are_ties(ties: Any) -> bool:
    if not isinstance(ties, dict) or not all(
        _GROUP.fullmatch(group) and isinstance(ties[group], dict) for group in ties
    ):
        return False
    return all(isinstance(name, str) for pairs in ties.values() for name in pairs.values())


def _read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    content = _read_bytes(folder, name)  # not mapped: a mapped file that changes later would change the tensors
    try:
        return safetensors.torch.load(content)
    # Its sum is right, so someone wrote it like this: every way in which safetensors and torch say no.
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, AssertionError) as error:
        raise CheckpointError(f"{folder}: {name!r} is not a safetensors file: {error}") from error
