"""Bytes to clean lines of bounded length, and the warnings that gather on the way."""

import codecs
import functools
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .compression import read_blocks
from .errors import CorpusError

MAX_LINE_CHARACTERS = 1_000_000
MAX_DOCUMENT_CHARACTERS = 10_000_000
MAX_RECORD_CHARACTERS = 64_000_000  # a line of JSON cannot be cut before it is parsed

CONTROLS = bytes(code for code in [*range(32), 127] if code not in b"\t\n")
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
SPACE_CONTROL = re.compile("[\x0b\x0c]|\r(?!\n)")
BYTE_ORDER_MARKS = {"UTF-32": (b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "UTF-16": (b"\xff\xfe", b"\xfe\xff")}

WARNINGS = {
    "control": "removed {count:,} control characters",
    "replaced": "replaced {count:,} stretches of bytes that are not UTF-8 by U+FFFD",
    "long_line": f"cut a line of more than {MAX_LINE_CHARACTERS:,} characters {{count:,}} times",
    "long_document": f"cut a document of more than {MAX_DOCUMENT_CHARACTERS:,} characters {{count:,}} times",
    "empty_file": "{count:,} files hold no text",
    "empty_record": "{count:,} records hold no text",
}


@functools.lru_cache(maxsize=4096)
def warn_once(message: str) -> None:
    """One short line on standard error; a corpus is read several times, and says it once."""
    print(f"warning: {message}", file=sys.stderr)


@dataclass(kw_only=True)
class Notes:
    """What was repaired while reading: for each kind of repair how often, and the first file."""

    counts: dict[str, int] = field(default_factory=dict)
    first_files: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, where: Path | str, count: int = 1) -> None:
        if count:
            self.counts[kind] = self.counts.get(kind, 0) + count
            self.first_files.setdefault(kind, str(where))

    def report(self) -> None:
        for kind, count in self.counts.items():
            warn_once(f"{WARNINGS[kind].format(count=count)} (first in {self.first_files[kind]})")


def clean_text(text: str, where: Path | str, notes: Notes) -> str:
    """CRLF becomes LF, a lone CR, VT or FF a space; U+FEFF goes, as do other C0 controls and DEL, which are counted."""
    text, count = CONTROL.subn("", SPACE_CONTROL.sub(" ", text).replace("\r\n", "\n").replace("\ufeff", ""))
    notes.add("control", where, count)
    return text


def read_lines(path: Path, errors: str, notes: Notes) -> Iterator[str]:
    """The lines of a file without their ends; one of more than MAX_LINE_CHARACTERS comes in pieces."""
    held: list[str] = []
    num_held = 0
    for text in decode_blocks(path, errors, notes):
        first, *others = text.split("\n")
        held.append(first)
        num_held += len(first)
        if others:
            yield from cut_line("".join(held), path, notes)
            for line in others[:-1]:
                yield from cut_line(line, path, notes)
            held, num_held = [others[-1]], len(others[-1])
        elif num_held > MAX_LINE_CHARACTERS:
            *pieces, rest = cut_line("".join(held), path, notes)
            yield from pieces
            held, num_held = [rest], len(rest)
    yield from cut_line("".join(held), path, notes)


def read_records(path: Path, errors: str, notes: Notes) -> Iterator[str]:
    """The lines of a file, whole; raises CorpusError for one of more than MAX_RECORD_CHARACTERS."""
    held: list[str] = []
    num_held = num_lines = 0
    for text in decode_blocks(path, errors, notes):
        first, *others = text.split("\n")
        held.append(first)
        num_held += len(first)
        if num_held > MAX_RECORD_CHARACTERS:
            where = f"{path}, line {num_lines + 1}"
            raise CorpusError(f"{where}: longer than {MAX_RECORD_CHARACTERS:,} characters; one object a line is wanted")
        if others:
            yield "".join(held)
            yield from others[:-1]
            num_lines += len(others)
            held, num_held = [others[-1]], len(others[-1])
    yield "".join(held)


def cut_line(line: str, where: Path | str, notes: Notes) -> Iterator[str]:
    """A line in pieces of at most MAX_LINE_CHARACTERS, cut at a space where the second half of a piece has one."""
    start = 0
    while len(line) - start > MAX_LINE_CHARACTERS:
        end = start + MAX_LINE_CHARACTERS
        space = line.rfind(" ", start + MAX_LINE_CHARACTERS // 2, end)
        notes.add("long_line", where)
        yield line[start : space if space > 0 else end]
        start = space + 1 if space > 0 else end
    yield line[start:] if start else line


def join_lines(lines: Iterable[str], where: Path | str, notes: Notes, at_blank_lines: bool) -> Iterator[str]:
    """Documents out of lines, which end at a blank one or only with the last; blank lines are no part of them.

    One of more than MAX_DOCUMENT_CHARACTERS is cut between two lines, so that memory stays bounded whatever comes.
    """
    held: list[str] = []
    num_held = 0
    for line in lines:
        if line and not line.isspace():
            if num_held + len(line) > MAX_DOCUMENT_CHARACTERS and held:
                notes.add("long_document", where)
                yield "\n".join(held)
                held, num_held = [], 0
            held.append(line)
            num_held += len(line) + 1
        elif held and at_blank_lines:
            yield "\n".join(held)
            held, num_held = [], 0
    if held:
        yield "\n".join(held)


def decode_blocks(path: Path, errors: str, notes: Notes) -> Iterator[str]:
    """The text of a file in blocks, cleaned; raises CorpusError with line and byte offset for what is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    num_bytes = num_lines = 0
    carry = ""  # a CR at a block's end, whose LF may follow
    for block in read_blocks(path):
        if not num_bytes:
            refuse_other_encodings(block[:4096], path)
        undecoded = len(decoder.getstate()[0])
        text = decode(decoder, block, False, (path, num_bytes - undecoded, num_lines))
        num_bytes += len(block)
        num_lines += block.count(b"\n")
        if errors == "replace":
            notes.add("replaced", path, max(0, text.count("\ufffd") - block.count("\ufffd".encode())))
        if carry or "\ufeff" in text or len(block.translate(None, CONTROLS)) != len(block):
            text = carry + text
            carry = "\r" if text.endswith("\r") else ""
            text = clean_text(text.removesuffix("\r"), path, notes)
        yield text
    undecoded = len(decoder.getstate()[0])
    text = decode(decoder, b"", True, (path, num_bytes - undecoded, num_lines))
    notes.add("replaced", path, len(text))
    yield text


def decode(decoder: codecs.IncrementalDecoder, block: bytes, final: bool, position: tuple[Path, int, int]) -> str:
    try:
        return decoder.decode(block, final)
    except UnicodeDecodeError as error:
        path, num_bytes, num_lines = position
        line = num_lines + error.object[: error.start].count(b"\n") + 1
        where = f"{path}, line {line}, byte {num_bytes + error.start}"
        what = f"0x{error.object[error.start]:02x} is not UTF-8 ({error.reason})"
        raise CorpusError(f"{where}: {what}; convert the file, or go on with --errors replace") from error


def refuse_other_encodings(head: bytes, path: Path) -> None:
    for name, marks in BYTE_ORDER_MARKS.items():
        if head.startswith(marks):
            raise CorpusError(f"{path} is {name}; convert it first: iconv -f {name} -t UTF-8")
    if len(head) >= 64 and head.count(0) > 0.3 * len(head):
        zeros = f"{head.count(0)} of its first {len(head)} bytes are zero"
        raise CorpusError(f"{path} is no text: {zeros} (a binary file, or UTF-16 without its mark)")
