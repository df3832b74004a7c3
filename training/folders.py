"""Folders that appear whole or not at all, and that are verified before they are read."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from corpora.errors import CheckpointError, StorageError, UserError

MANIFEST = "MANIFEST.json"
MANIFEST_FORMAT = 1
MAX_MANIFEST_BYTES = 1 << 20

# Names that every file system keeps as they are; no part is ".", ".." or hidden, and the depth is bounded.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,7}")
_REPLACED = re.compile(r"\.del-[0-9a-f]{16}-(?P<name>.+)", re.DOTALL)
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors and tokenizers report what the system said
_STORAGE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}
    | {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
    | {errno.ESTALE, errno.ENXIO, errno.ENODEV}
)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What the manifest says of one file."""

    name: str
    size: int
    sha256: str


def publish_folder(final: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, then name it `final`: readers see all of it or none of it, even after a power cut.

    What was at `final` is removed once the new folder is whole and durable, and only if it was published here. Raises
    StorageError when the disk refuses, UserError when something else stands at `final`; the temporary folder is then
    removed, and what was there before stays.
    """
    final = Path(final)
    with storage_errors(final):
        make_folder(final.parent)
        _check_replaceable(final)
        temporary = final.parent / f".tmp-{os.getpid()}-{secrets.token_hex(8)}"
        try:
            os.mkdir(temporary)
            # A new folder has 0o777 & ~umask; to ask for the umask itself is to change it under other threads.
            mode = stat.S_IMODE(os.stat(temporary).st_mode)
            write(temporary)
            _seal(temporary, mode)
            _put_in_place(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def verify_folder(folder: Path) -> None:
    """Raise CheckpointError unless `folder` holds exactly the files of its manifest, with their sizes and sums."""
    folder = Path(folder)
    try:
        _verify(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror} ({error.filename!r})") from error


def discard_folder(folder: Path) -> None:
    """Remove `folder` so that it's never seen half removed: rename it, make that durable, then delete."""
    with storage_errors(folder):
        doomed = folder.parent / f".del-{secrets.token_hex(8)}"
        os.rename(folder, doomed)
        sync_folder(folder.parent)
        shutil.rmtree(doomed)


def name_before_replacement(folder: Path) -> str | None:
    """Return the name that a `.del-*` folder had until its successor was about to take it; None for other folders."""
    match = _REPLACED.fullmatch(folder.name)
    return match["name"] if match else None


def is_valid(folder: Path) -> bool:
    """Say whether `verify_folder` accepts `folder`."""
    try:
        verify_folder(folder)
    except CheckpointError:
        return False
    return True


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the system says about a disk into a StorageError that names `path` and the bytes free there."""
    try:
        yield
    except Exception as error:
        number = _errno_of(error)
        if number not in _STORAGE_ERRNOS:
            raise
        message = (
            f"cannot write {path}: {os.strerror(number)} ({_describe_free(path)}); what was there before is intact"
        )
        raise StorageError(f"{message}; make room or permit writing there, then start again") from error


def make_folder(folder: Path) -> None:
    """Make `folder` and the parents that it lacks, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not folder.is_dir():  # otherwise another process was faster
            raise
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder, and say so this way
            raise
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> int:
    """Open a regular file for reading: neither a link is followed nor a FIFO waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointError(f"{path.parent}: {path.name!r} is not a regular file; remove it")
    return descriptor


def _check_replaceable(final: Path) -> None:
    """Refuse to put a folder in the place of anything that wasn't published here, since what it replaces is deleted."""
    if not os.path.lexists(final):
        return
    if not stat.S_ISDIR(os.lstat(final).st_mode):
        raise UserError(f"{final} is in the way: it is not a folder; move it or choose another name")
    if not os.listdir(final):
        return
    try:
        names = set(_read_manifest(final))
        strays = sorted(name for name, is_folder in _walk(final) if not is_folder and name not in names | {MANIFEST})
    except CheckpointError as error:
        raise UserError(
            f"{final} is in the way: it was not written here ({error}); move it or choose another name"
        ) from error
    if strays:
        raise UserError(f"{final} is in the way: it also holds {strays[0]!r}; move that or choose another name")


def _seal(folder: Path, mode: int) -> None:
    """Give every file its permissions, make it durable, and write the manifest last."""
    entries, folders, parents = {}, [folder], {""}
    for name, is_folder in _walk(folder):
        if name == MANIFEST or not _is_name(name):
            raise ValueError(f"{name!r} cannot be the name of a published file")
        if is_folder:
            os.chmod(folder / name, mode)
            folders.append(folder / name)
        else:
            entries[name] = _seal_file(folder, name, mode & 0o666)
            parents |= _parents(name)
    if len(parents) != len(folders) or not entries:
        raise ValueError(f"{folder} holds an empty folder, which a manifest cannot list")
    content = _spell_manifest(entries)
    if len(content) > MAX_MANIFEST_BYTES:
        raise ValueError(f"{len(entries)} files are too many for one manifest")
    _write_new_file(folder / MANIFEST, content, mode & 0o666)
    for each in reversed(folders):  # the deepest first
        sync_folder(each)


def _seal_file(folder: Path, name: str, mode: int) -> _Entry:
    path = folder / name
    os.chmod(path, mode)  # safetensors makes its files 0600, whatever the umask
    with os.fdopen(open_regular(path), "rb") as file:
        os.fsync(file.fileno())
        return _measure(file, name)


def _write_new_file(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(temporary: Path, final: Path) -> None:
    replaced = None
    if os.path.lexists(final):
        # Its name says what it was, so that `sweep` and `load_newest` find it should we die before the second rename.
        replaced = final.parent / f".del-{secrets.token_hex(8)}-{final.name}"
        os.rename(final, replaced)
    try:
        os.rename(temporary, final)
    except OSError:
        if replaced is not None:
            os.rename(replaced, final)
        raise
    sync_folder(final.parent)
    if replaced is not None:
        shutil.rmtree(replaced)


def _verify(folder: Path) -> None:
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise CheckpointError(f"{folder}: is not a folder (links are not followed)")
    entries = _read_manifest(folder)
    folders = {parent for name in entries for parent in _parents(name)}
    found = set()
    for name, is_folder in _walk(folder):  # stops at the first stranger, before it is opened or entered
        if name not in (folders if is_folder else entries.keys() | {MANIFEST}):
            raise CheckpointError(
                f"{folder}: {name!r} is not in its manifest; nothing may be added to a published folder"
            )
        found.add(name)
    for name, entry in entries.items():
        if name not in found:
            raise CheckpointError(f"{folder}: {name!r} is missing")
        with os.fdopen(open_regular(folder / name), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.size:
                raise CheckpointError(
                    f"{folder}: {name!r} has {size} bytes instead of {entry.size}; it was cut or changed"
                )
            if _measure(file, name) != entry:
                raise CheckpointError(f"{folder}: {name!r} differs from its SHA-256 sum; its content was changed")


def _measure(file: BinaryIO, name: str) -> _Entry:
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # the stub asks for more than is used
    return _Entry(name=name, size=file.tell(), sha256=sha256)


def _walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield (relative name, is a folder), parents first and sorted; raise on what is neither a file nor a folder."""
    with os.scandir(folder / prefix) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield name, True
            yield from _walk(folder, name + "/")
        elif entry.is_file(follow_symlinks=False):
            yield name, False
        else:
            raise CheckpointError(f"{folder}: {name!r} is not a regular file; remove it")


def _parents(name: str) -> set[str]:
    """Return every folder above the file `name`, and "" for the published folder itself."""
    parts = name.split("/")
    return {"/".join(parts[:depth]) for depth in range(len(parts))}


def _spell_manifest(entries: dict[str, _Entry]) -> bytes:
    files = [asdict(entries[name]) for name in sorted(entries)]
    return (json.dumps({"format": MANIFEST_FORMAT, "files": files}, indent=1) + "\n").encode("ascii")


def _read_manifest(folder: Path) -> dict[str, _Entry]:
    """Read the manifest; anything but the one spelling that `_spell_manifest` gives to what it says is refused."""
    if not os.path.lexists(folder / MANIFEST):
        raise CheckpointError(f"{folder}: has no {MANIFEST}, so it was never completed")
    with os.fdopen(open_regular(folder / MANIFEST), "rb") as file:
        content = file.read(MAX_MANIFEST_BYTES + 1)
    if len(content) > MAX_MANIFEST_BYTES:
        raise CheckpointError(f"{folder}: {MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder}: {MANIFEST} is not JSON: {error}") from error
    made_by = manifest.get("format") if isinstance(manifest, dict) else None
    if type(made_by) is int and made_by > MANIFEST_FORMAT:
        raise CheckpointError(
            f"{folder}: was written by a newer version (format {made_by}; this one reads {MANIFEST_FORMAT})"
        )
    entries = _read_entries(manifest)
    # Duplicate keys, odd numbers, another order or trailing bytes all end here: they'd have been spelled otherwise.
    if not entries or content != _spell_manifest(entries):
        raise CheckpointError(f"{folder}: {MANIFEST} is damaged: it does not read as it was written")
    return entries


def _read_entries(manifest: Any) -> dict[str, _Entry]:
    """Return the entries of a parsed manifest, none if any of it is not of the right shape."""
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, list):
        return {}
    entries = {}
    for file in files:
        if not isinstance(file, dict) or file.keys() != {"name", "size", "sha256"}:
            return {}
        name, size, sha256 = file["name"], file["size"], file["sha256"]
        if not _is_name(name) or type(size) is not int or not isinstance(sha256, str):
            return {}
        entries[name] = _Entry(name=name, size=size, sha256=sha256)
    return entries


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _errno_of(error: Exception) -> int:
    """Return the system's error number behind `error`, 0 if there is none."""
    if isinstance(error, OSError):
        return error.errno or 0
    match = _RUST_ERROR.search(str(error))
    return int(match[1]) if match else 0


def _describe_free(path: Path) -> str:
    absolute = path.absolute()
    existing = next(each for each in (absolute, *absolute.parents) if os.path.exists(each))
    try:
        free = shutil.disk_usage(existing).free
    except OSError:
        return "free space unknown"
    return f"{free:,} bytes free"
