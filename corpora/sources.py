"""Where text comes from: files, folders, globs, datasets and the built-in prose, read as documents of clean lines."""

import difflib
import glob
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from . import builtin, hub
from .compression import SUFFIXES, find_compression, read_blocks
from .errors import CorpusError, StorageError
from .lines import Notes, clean_text, cut_line, join_lines, read_lines, read_records

READER_VERSION = 1  # raise it when the same bytes would be read as another text
CHOICES = {"documents": ("blank_line", "file", "line"), "errors": ("strict", "replace")}
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
SURROGATE = re.compile("[\ud800-\udfff]")
PARQUET_MAGIC, ENCRYPTED_MAGIC = b"PAR1", b"PARE"


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """What to read, and how to take it apart."""

    location: str = "builtin"  # or a file, a folder, a glob, or a dataset: "name", "name:config", "name:config:split"
    documents: str = "blank_line"  # where plain text is cut: "blank_line", "file" or "line"
    text_column: str = "text"  # the key or column that holds a document, in JSON lines, Parquet and `datasets`
    errors: str = "strict"  # "strict" or "replace": what to do with bytes that are not UTF-8

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise CorpusError(f"{name} {value!r} is unknown; known: {', '.join(choices)}")


def list_files(source: TextSource) -> list[Path]:
    """The files of a source, sorted by name; CorpusError where there is none. Hidden files and folders are left out."""
    path = Path(source.location).expanduser()
    if path.is_dir():
        files = walk_folder(path)
    elif path.exists():
        files = [path]
    else:
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)] if glob.has_magic(str(path)) else []
        files = [file for match in matches for file in (walk_folder(match) if match.is_dir() else [match])]
        if not files:
            raise CorpusError(explain_missing(source.location))
    if not files:
        raise CorpusError(f"the folder {path} holds no files")
    for file in files:
        if not file.is_file():
            raise CorpusError(f"{file} is no regular file (a broken link, a pipe, a device); name other files")
    return sorted(set(files), key=lambda file: file.as_posix())


def walk_folder(folder: Path) -> list[Path]:
    """All files below a folder, in no particular order; links to folders are followed, once each."""
    files: list[Path] = []
    visited: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:  # os.walk would leave the folder out without a word
        raise CorpusError(f"{error.filename} cannot be read: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return files


def explain_missing(location: str, also_tried: str = "") -> str:
    path = Path(location).expanduser()
    siblings = sorted(os.listdir(path.parent)) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f"; did you mean {str(path.parent / near[0])!r}?" if near else ""
    what = "no file matches the glob" if glob.has_magic(location) else "there is no file or folder"
    return f"{what} {location!r}{also_tried}{hint}"


def is_dataset(source: TextSource) -> bool:
    path = Path(source.location).expanduser()
    return not path.exists() and not glob.has_magic(source.location) and hub.may_be_dataset(source.location)


def read_documents(source: TextSource) -> Iterator[str]:
    """The documents of a source in a fixed order; lines in one are separated by "\\n", and none is blank.

    Memory does not grow with the corpus: lines and documents beyond a million and ten million characters are cut. What
    had to be repaired is said on standard error at the end. Raises CorpusError where text cannot be read or is missing.
    """
    if source.location == "builtin":
        yield from builtin.read_builtin_prose()
        return
    notes = Notes()
    found = False
    for where, documents in open_parts(source, notes):
        found_here = False
        for document in documents:
            found = found_here = True
            yield document
        if not found_here:
            notes.add("empty_file", where)
    notes.report()
    if not found:
        raise CorpusError(f"there is no text in {source.location!r}: everything in it is empty or blank")


def open_parts(source: TextSource, notes: Notes) -> Iterator[tuple[Path | str, Iterator[str]]]:
    """Each file of a source, or its dataset, with the documents in it."""
    if is_dataset(source):
        load_or_explain(source)
        yield source.location, tidy(hub.read_column(source.location, source.text_column), source.location, notes)
        return
    for path in list_files(source):
        yield path, read_file(path, source, notes)


def load_or_explain(source: TextSource) -> None:
    try:
        hub.load(source.location)
    except CorpusError as error:
        raise CorpusError(explain_missing(source.location, f", and {error}")) from error


def read_file(path: Path, source: TextSource, notes: Notes) -> Iterator[str]:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in SUFFIXES]
    suffix = suffixes[-1] if suffixes else ""
    magic = next(read_blocks(path), b"")[:4]
    if magic == PARQUET_MAGIC:
        return tidy(read_parquet(path, source.text_column), path, notes)
    if magic == ENCRYPTED_MAGIC:
        raise CorpusError(f"{path} is encrypted Parquet, which is not read")
    if suffix == ".parquet":
        raise CorpusError(f"{path} is no Parquet file: it does not begin with PAR1")
    if suffix in JSON_SUFFIXES:
        return tidy(read_json_lines(path, source, notes), path, notes)
    lines = read_lines(path, source.errors, notes)
    if source.documents == "line":
        return (line for line in lines if line and not line.isspace())
    return join_lines(lines, path, notes, source.documents == "blank_line")


def tidy(texts: Iterator[str], where: Path | str, notes: Notes) -> Iterator[str]:
    """Records as documents: cleaned like plain text, without blank lines, and bounded."""
    for text in texts:
        lines = clean_text(text, where, notes).split("\n")
        documents = join_lines((piece for line in lines for piece in cut_line(line, where, notes)), where, notes, False)
        empty = True
        for document in documents:
            empty = False
            yield document
        notes.add("empty_record", where, int(empty))


def read_json_lines(path: Path, source: TextSource, notes: Notes) -> Iterator[str]:
    """The texts of a file of JSON objects, one a line; of a repeated key the last counts, as in Python."""
    for number, line in enumerate(read_records(path, source.errors, notes), start=1):
        if not line or line.isspace():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where}: broken JSON ({error}); one object a line is wanted") from error
        if not isinstance(record, dict):
            raise CorpusError(f"{where}: holds {type(record).__name__}, not an object; one object a line is wanted")
        hub.check_column(list(record), source.text_column, where)
        text = record[source.text_column]
        if not isinstance(text, str):
            raise CorpusError(f"{where}: {source.text_column!r} holds {type(text).__name__}, not text")
        if "\\u" in line and SURROGATE.search(text):
            if source.errors == "strict":
                what = f"{source.text_column!r} holds half of a surrogate pair, which is not UTF-8"
                raise CorpusError(f"{where}: {what}; mend it, or go on with --errors replace")
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        yield text


def read_parquet(path: Path, column: str) -> Iterator[str]:
    """The texts of a Parquet column, in order, a few rows at a time."""
    with open_plain(path) as file:
        try:
            table = pq.ParquetFile(file, page_checksum_verification=True, buffer_size=1 << 20, pre_buffer=False)
            schema = table.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise CorpusError(f"{path} is no whole Parquet file: {first_line(error)}") from error
        hub.check_column(schema.names, column, path)
        kind = schema.field(column).type
        value_kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if value_kind not in (pa.string(), pa.large_string(), pa.string_view()):
            raise CorpusError(f"{path}: column {column!r} holds {kind}, not text; columns: {', '.join(schema.names)}")
        row = 0
        batches = table.iter_batches(batch_size=256, columns=[column], use_threads=False)
        while True:
            try:
                batch = next(batches, None)
                values = batch.column(0).to_pylist() if batch is not None else None
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise CorpusError(f"{path} is damaged after row {row}: {first_line(error)}") from error
            if values is None:
                return
            for value in values:
                row += 1
                if value is None:
                    raise CorpusError(f"{path}, row {row}: column {column!r} holds null, not text")
                yield value


def open_plain(path: Path) -> IO[bytes]:
    """A file that can be read at any position: itself, or a temporary copy of what is compressed in it."""
    with open(path, "rb") as file:
        compression = find_compression(file.read(16), path)
    if compression is None:
        return open(path, "rb")
    copy = tempfile.TemporaryFile()
    try:
        for block in read_blocks(path):
            copy.write(block)
    except OSError as error:
        copy.close()
        raise StorageError(f"no room to decompress {path} into {tempfile.gettempdir()}: {error.strerror}") from error
    except CorpusError:
        copy.close()
        raise
    copy.seek(0)
    return copy


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def fingerprint_source(source: TextSource) -> str:
    """SHA-256 over the settings, and each file's bytes and name below the location; the location itself may move."""
    parts: list[object] = [READER_VERSION, source.documents, source.text_column, source.errors]
    if source.location == "builtin":
        parts += sorted(builtin.fingerprint_builtin().items())
    elif is_dataset(source):
        load_or_explain(source)
        parts += ["dataset", hub.fingerprint(source.location)]
    else:
        files = list_files(source)
        top = os.path.commonpath([file.parent for file in files])
        for path in files:
            parts.append((os.path.relpath(path, top), digest_file(path)))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def digest_file(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # either call: a disk may fail in the middle of a file
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
