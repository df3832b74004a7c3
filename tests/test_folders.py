"""Published folders are whole or absent, and nothing but what was published verifies."""

import errno
import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpora.errors import CheckpointError, StorageError, UserError
from training.folders import MANIFEST, discard_folder, make_folder, publish_folder, storage_errors, verify_folder

CONTENT = {
    "config.json": b'{"a": 1}',
    "weights.bin": bytes(range(256)),
    "heads/nsp/weights.bin": b"nsp",
    "empty.txt": b"",
}


def write_content(folder: Path) -> None:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    publish_folder(tmp_path / "export", write_content)
    return tmp_path / "export"


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "export"
    publish_folder(folder, write_content)
    return folder


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_a_published_folder_verifies_and_holds_what_was_written(published: Path) -> None:
    verify_folder(published)
    found = read_all(published)
    manifest = json.loads(found.pop(MANIFEST))
    assert found == CONTENT
    assert {file["name"]: file["size"] for file in manifest["files"]} == {k: len(v) for k, v in CONTENT.items()}
    assert [path.name for path in published.parent.iterdir()] == ["export"]


def test_publishing_again_replaces_the_whole_folder(published: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "new.txt").write_text("new")

    publish_folder(published, write)
    verify_folder(published)
    assert set(read_all(published)) == {"new.txt", MANIFEST}
    assert [path.name for path in published.parent.iterdir()] == ["export"]


def test_missing_parents_are_made_and_an_empty_folder_is_taken(tmp_path: Path) -> None:
    final = tmp_path / "a" / "b" / "export"
    publish_folder(final, write_content)
    verify_folder(final)
    (tmp_path / "empty").mkdir()
    publish_folder(tmp_path / "empty", write_content)
    verify_folder(tmp_path / "empty")


def test_a_writer_that_fails_leaves_what_was_there(published: Path) -> None:
    before = read_all(published)

    def fail(folder: Path) -> None:
        write_content(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_folder(published, fail)
    assert read_all(published) == before
    assert [path.name for path in published.parent.iterdir()] == ["export"]


@pytest.mark.parametrize("content", [{}, {".hidden": b""}, {"a b": b""}, {MANIFEST: b"{}"}, {"é": b""}, {"a\n": b""}])
def test_names_that_a_manifest_cannot_hold_are_not_published(tmp_path: Path, content: dict[str, bytes]) -> None:
    def write(folder: Path) -> None:
        for name, value in content.items():
            (folder / name).write_bytes(value)

    with pytest.raises(ValueError):
        publish_folder(tmp_path / "export", write)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_inside_is_not_published(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        write_content(folder)
        (folder / "heads" / "mlm").mkdir()

    with pytest.raises(ValueError, match="empty folder"):
        publish_folder(tmp_path / "export", write)


def make_strange_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("ten years of work")


def make_folder_with_stray(path: Path) -> None:
    publish_folder(path, write_content)
    (path / "thesis.txt").write_text("ten years of work")


def make_link(path: Path) -> None:
    publish_folder(path.with_name("target"), write_content)
    path.symlink_to(path.with_name("target"))


def make_file(path: Path) -> None:
    path.write_text("ten years of work")


@pytest.mark.parametrize("make", [make_strange_folder, make_folder_with_stray, make_link, make_file])
def test_what_was_not_published_is_never_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "export")
    before = read_all(tmp_path)
    with pytest.raises(UserError, match="in the way"):
        publish_folder(tmp_path / "export", write_content)
    assert read_all(tmp_path) == before


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    def write(folder: Path) -> None:
        write_content(folder)
        os.chmod(folder / "weights.bin", 0o600)
        os.chmod(folder / "config.json", 0o777)

    before = os.umask(umask)
    try:
        publish_folder(tmp_path / "runs" / "export", write)
    finally:
        os.umask(before)
    for path in (tmp_path / "runs").rglob("*"):
        assert path.stat().st_mode & 0o7777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_everything_is_durable_before_the_name_and_the_name_before_the_deletion(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    paths: dict[int, str] = {}
    real_open, real_fsync, real_rename, real_unlink = os.open, os.fsync, os.rename, os.unlink

    def spy_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        descriptor = real_open(path, flags, *args, **kwargs)
        paths[descriptor] = str(path)
        if flags & os.O_CREAT:
            events.append(("create", str(path)))
        return descriptor

    def spy_fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        events.append(("fsync", paths[descriptor]))

    def spy_rename(source: Any, target: Any) -> None:
        real_rename(source, target)
        events.append(("rename", str(target)))

    def spy_unlink(path: Any, **kwargs: Any) -> None:
        real_unlink(path, **kwargs)
        events.append(("unlink", str(path)))

    for name, spy in (("open", spy_open), ("fsync", spy_fsync), ("rename", spy_rename), ("unlink", spy_unlink)):
        monkeypatch.setattr(os, name, spy)
    publish_folder(published, write_content)
    monkeypatch.undo()

    temporary = next(path for what, path in events if what == "create").removesuffix("/" + MANIFEST)
    manifest = events.index(("create", f"{temporary}/{MANIFEST}"))
    for name in CONTENT:
        assert events.index(("fsync", f"{temporary}/{name}")) < manifest
    sealed = events.index(("fsync", f"{temporary}/{MANIFEST}"))
    named = events.index(("rename", str(published)))
    for folder in ("", "/heads", "/heads/nsp"):
        assert sealed < events.index(("fsync", temporary + folder)) < named
    # What was there goes aside only now, and is deleted only once the new name is durable.
    aside = next(index for index, (what, path) in enumerate(events) if what == "rename" and "/.del-" in path)
    durable = events.index(("fsync", str(published.parent)), named)
    first_deletion = next(index for index, (what, _) in enumerate(events) if what == "unlink")
    assert sealed < aside < named < durable < first_deletion


def test_truncations_are_detected(shared_folder: Path) -> None:
    for name, content in read_all(shared_folder).items():
        for size in {*range(0, len(content), 7), *range(max(0, len(content) - 5), len(content))}:
            with (
                changed(shared_folder / name, content[:size]),
                pytest.raises(CheckpointError, match="MANIFEST|" + name),
            ):
                verify_folder(shared_folder)
    verify_folder(shared_folder)


@pytest.mark.slow
def test_flipped_bits_are_detected(shared_folder: Path) -> None:
    draws = random.Random(0)
    places = [(name, bit) for name, content in read_all(shared_folder).items() for bit in range(8 * len(content))]
    for name, bit in draws.sample(places, 400):
        flipped = bytearray((shared_folder / name).read_bytes())
        flipped[bit // 8] ^= 1 << bit % 8
        with changed(shared_folder / name, bytes(flipped)), pytest.raises(CheckpointError):
            verify_folder(shared_folder)
    verify_folder(shared_folder)


def test_an_appended_byte_is_detected_in_every_file(shared_folder: Path) -> None:
    for name, content in read_all(shared_folder).items():
        for more in (b"\0", b"\n", b" "):
            with changed(shared_folder / name, content + more), pytest.raises(CheckpointError):
                verify_folder(shared_folder)


@pytest.mark.parametrize("name", [*CONTENT, MANIFEST])
def test_a_missing_file_is_named(published: Path, name: str) -> None:
    (published / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        verify_folder(published)


@pytest.mark.parametrize("name", ["extra.bin", ".hidden", "heads/extra", "heads/nsp/\x1b[31mred", "Config.json"])
def test_an_extra_file_is_named_and_printable(published: Path, name: str) -> None:
    (published / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="not in its manifest") as caught:
        verify_folder(published)
    assert str(caught.value).isprintable() and repr(name) in str(caught.value)


def test_an_extra_folder_is_refused(published: Path) -> None:
    (published / "more").mkdir()
    with pytest.raises(CheckpointError, match="'more' is not in its manifest"):
        verify_folder(published)


@pytest.mark.parametrize("name", ["weights.bin", MANIFEST, "heads/nsp/weights.bin", "new"])
@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "socket", "folder"])
def test_only_regular_files_are_accepted_and_none_is_waited_for(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "e"
    publish_folder(folder, write_content)
    path = folder / name
    if path.exists():
        path.rename(tmp_path / "moved")  # the same content, even the same inode
    if kind == "link":
        path.symlink_to(tmp_path / "moved" if (tmp_path / "moved").exists() else folder / "config.json")
    elif kind == "dangling":
        path.symlink_to("/nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))  # an absolute path may be too long for a socket
    else:
        path.mkdir()
    with pytest.raises(CheckpointError, match="regular|not in its manifest|missing|cannot be read"):
        verify_folder(folder)


def test_a_linked_folder_is_not_followed(published: Path) -> None:
    link = published.with_name("link")
    link.symlink_to(published)
    with pytest.raises(CheckpointError, match="links are not followed"):
        verify_folder(link)
    (published / "heads").rename(published.with_name("heads"))
    (published / "heads").symlink_to(published.with_name("heads"))
    with pytest.raises(CheckpointError, match="'heads' is not a regular file"):
        verify_folder(published)


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("file", "nowhere", "file/inside"):
        with pytest.raises(CheckpointError, match=name):
            verify_folder(tmp_path / name)


def test_a_manifest_of_a_newer_version_says_so(published: Path) -> None:
    (published / MANIFEST).write_text('{"format": 2, "whatever": []}')
    with pytest.raises(CheckpointError, match="newer version"):
        verify_folder(published)


def test_a_manifest_of_nothing_is_refused_however_well_it_is_spelled(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"format": 1, "files": []}, indent=1) + "\n")
    with pytest.raises(CheckpointError, match=MANIFEST):
        verify_folder(tmp_path)


HOSTILE = [
    *(b"", b"{}", b"null", b"[]", b"1e999", b'"', b"\xff\xfe", b"1" * 5000, b" " * 2_000_000),
    *(b"[" * 100_000, b'{"a":' * 100_000),
    *(b'{"format": 1, "files": []}', b'{"format": true, "files": []}', b'{"format": 1, "files": {}}'),
    *(b'{"format": 1, "files": [null]}', b'{"format": NaN, "files": [{}]}', b'{"format": 1e999}'),
    *(b'{"format": -1, "files": []}', b'{"format": "1", "files": []}'),
]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_manifest_is_refused(shared_folder: Path, content: bytes) -> None:
    with changed(shared_folder / MANIFEST, content), pytest.raises(CheckpointError, match=MANIFEST):
        verify_folder(shared_folder)


NAMES = [
    "../x",
    "/etc/passwd",
    "a/../config.json",
    "./config.json",
    "heads//nsp",
    "",
    ".",
    "..",
    "config.json/",
    "a" * 300,
    "a/" * 2000,
]


@pytest.mark.parametrize("name", [*NAMES, "config.json\n", "config.json\0", "\ud800", "CONFIG.json", MANIFEST])
def test_a_manifest_cannot_name_a_file_elsewhere(shared_folder: Path, name: str) -> None:
    manifest = json.loads((shared_folder / MANIFEST).read_bytes())
    for index in range(len(CONTENT)):
        files = [dict(file) for file in manifest["files"]]
        files[index]["name"] = name
        for listed in (files, manifest["files"] + [files[index]]):
            content = json.dumps({"format": 1, "files": sorted(listed, key=lambda file: file["name"])}, indent=1) + "\n"
            with changed(shared_folder / MANIFEST, content.encode()), pytest.raises(CheckpointError):
                verify_folder(shared_folder)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner), max_leaves=8
)


@st.composite
def mutated_manifests(draw: st.DrawFn, original: bytes) -> bytes:
    """Change the bytes, the values, the keys or the list of a true manifest, or make another of any shape."""
    kind = draw(st.sampled_from(["splice", "value", "drop", "repeat", "any", "extra", "spelling"]))
    manifest = json.loads(original)
    files = manifest["files"]
    index = draw(st.integers(0, len(files) - 1))
    if kind == "splice":
        start, length = draw(st.integers(0, len(original))), draw(st.integers(0, 20))
        return original[:start] + draw(st.binary(max_size=8)) + original[start + length :]
    if kind == "any":
        return json.dumps(draw(ANY_JSON)).encode()
    if kind == "spelling":
        indent, ascii_only = draw(st.sampled_from([None, 0, 2])), draw(st.booleans())
        return json.dumps(manifest, indent=indent, ensure_ascii=ascii_only, sort_keys=draw(st.booleans())).encode()
    if kind == "value":
        where = draw(st.sampled_from([manifest, files[index]]))
        where[draw(st.sampled_from(sorted(where)))] = draw(ANY_JSON)
    elif kind == "extra":
        draw(st.sampled_from([manifest, files[index]]))[draw(st.text(max_size=8))] = draw(ANY_JSON)
    elif kind == "drop":
        where = draw(st.sampled_from([manifest, files[index]]))
        del where[draw(st.sampled_from(sorted(where)))]
    else:
        files.insert(draw(st.integers(0, len(files))), files[index])
    return (json.dumps(manifest, indent=1) + "\n").encode()


def check_mutants(folder: Path, num_examples: int) -> None:
    original = (folder / MANIFEST).read_bytes()

    @settings(
        max_examples=num_examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated_manifests(original))
    def check(mutant: bytes) -> None:
        if mutant == original:
            return
        with changed(folder / MANIFEST, mutant), pytest.raises(CheckpointError):
            verify_folder(folder)

    check()
    verify_folder(folder)


@pytest.mark.slow
def test_no_mutant_of_a_manifest_is_accepted(shared_folder: Path) -> None:
    check_mutants(shared_folder, 400)


@pytest.mark.slow
def test_none_of_thousands_of_mutants_of_a_manifest_is_accepted(shared_folder: Path) -> None:
    check_mutants(shared_folder, 2_500)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG])
@pytest.mark.parametrize("rust", [False, True])
def test_what_the_system_says_of_a_disk_becomes_a_storage_error(tmp_path: Path, number: int, rust: bool) -> None:
    error = RuntimeError(f"I/O error: no (os error {number})") if rust else OSError(number, os.strerror(number))
    with pytest.raises(StorageError, match="bytes free") as caught, storage_errors(tmp_path / "not" / "there"):
        raise error
    assert str(tmp_path / "not" / "there") in str(caught.value) and os.strerror(number) in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "gone"), ValueError("bug"), UserError("typo"), OSError()]
)
def test_other_errors_pass_unchanged(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, storage_errors(tmp_path):
        raise error
    assert caught.value is error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(StorageError, match="Permission denied"):
            publish_folder(tmp_path / "export", write_content)
    finally:
        tmp_path.chmod(0o755)


def test_a_file_in_place_of_a_parent_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    for final in (tmp_path / "runs" / "export", tmp_path / "runs" / "a" / "export"):
        with pytest.raises(StorageError, match="runs"):
            publish_folder(final, write_content)
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "runs")


def test_a_discarded_folder_is_gone_and_a_link_is_never_entered(published: Path) -> None:
    link = published.with_name("link")
    link.symlink_to(published)
    before = read_all(published)
    with pytest.raises(OSError, match="symbolic link"):
        discard_folder(link)
    assert read_all(published) == before
    discard_folder(published)
    assert not published.exists()


def test_nothing_in_a_folder_says_where_it_was(published: Path) -> None:
    moved = published.with_name("moved")
    published.rename(moved)
    verify_folder(moved)
    assert not any(str(published.parent).encode() in content for content in read_all(moved).values())
