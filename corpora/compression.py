"""Files as blocks of bytes, decompressed where their first bytes say so; a short read is always an error."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from .errors import CorpusError

BLOCK_BYTES = 1 << 20
MAX_EXPANSION = 200  # bytes out for each byte in; text stays below 20, and only a bomb or one repeated line comes near
EXPANSION_GRACE = 64 << 20

SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
REFUSED_MAGIC = {"xz": b"\xfd7zXZ\0", "bzip2": b"BZh91AY&SY", "zip": b"PK\x03\x04", "7z": b"7z\xbc\xaf\x27\x1c"}


def read_blocks(path: Path) -> Iterator[bytes]:
    """The content of a file, at most BLOCK_BYTES at a time.

    Raises CorpusError naming the file where it cannot be opened, or where its compressed content is cut short, damaged,
    or followed by anything else. A cut exactly between two frames leaves a whole file, and cannot be seen.
    """
    try:
        file = open(path, "rb")
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        head = file.read(16)
        file.seek(0)
        compression = find_compression(head, path)
        if compression:
            yield from decompress(file, compression, path)
            return
        while block := read_or_explain(file, path):
            yield block


def read_or_explain(file: pa.NativeFile, path: Path) -> bytes:
    try:
        return file.read(BLOCK_BYTES)
    except OSError as error:
        if "truncated" in str(error).lower():
            raise CorpusError(f"{path} is truncated: its compressed data end early; fetch or write it again") from error
        raise CorpusError(f"{path} is damaged, or holds something after its compressed data ({error})") from error


def find_compression(head: bytes, path: Path) -> str | None:
    """ "gzip", "zstd" or None by the first bytes; the name only counts for what is too short to have any."""
    for name, magic in REFUSED_MAGIC.items():
        if head.startswith(magic):
            raise CorpusError(f"{path} is compressed with {name}, which is not read; use gzip, zstd or plain text")
    for name, magic in MAGIC.items():
        if head.startswith(magic):
            return name
    if len(head) >= 4 and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18":
        return "zstd"  # a skippable frame, as pzstd writes first
    expected = SUFFIXES.get(path.suffix.lower())
    if expected and MAGIC[expected].startswith(head):
        raise CorpusError(f"{path} is truncated: {len(head)} bytes are no {expected} file; fetch or write it again")
    return None


def decompress(file: pa.NativeFile, compression: str, path: Path) -> Iterator[bytes]:
    # pyarrow notices an unfinished frame; `datasets`, fsspec and python-zstandard return what there is, silently
    allowed = EXPANSION_GRACE + MAX_EXPANSION * os.fstat(file.fileno()).st_size
    produced = 0
    with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression) as stream:
        while block := read_or_explain(stream, path):
            produced += len(block)
            if produced > allowed:
                what = f"grows more than {MAX_EXPANSION} times"
                raise CorpusError(f"{path} {what}; if that is meant, decompress it beforehand")
            yield block
