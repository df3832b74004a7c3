"""Encoding a spooled text: its sentences, their tokens and word starts, by one process or by several."""

import hashlib
import json
import os
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import CorpusError
from .processors import count_own_processors
from .sentences import Segmenter, read_segmenter
from .tokenizer import SentenceEncoder

SENTENCE = np.dtype([("hash", "<u8"), ("length", "<i8"), ("document", "<i8"), ("paragraph", "<i8")])
SPOOL = "text"  # the file of documents, each after its length in bytes
OUTPUTS = ("sentences", "tokens", "starts")  # files, parallel: records, ids, booleans

_BATCH_SENTENCES, _BATCH_CHARACTERS = (
    8192,
    4_000_000,
)  # encoded at once; the second bounds memory where sentences never end
_WORTH_A_PROCESS = 8_000_000  # bytes, some seconds of work
_MOST_PROCESSES = 16  # unless more are asked for
_TOLD = 1 << 20  # bytes between two lines of a child
_HEAD = 8  # bytes of a document's length
_JOB = "job.json"
_PLACE = Path(__file__).resolve().parent
_CHILD = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "  # the parent ends it
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from corpora.encode import be_child; be_child()"
)
# Of the code that this process runs; what lies on the disk when a child starts may be another.
_CODE = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_PLACE.glob("*.py")))).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Part:
    """Whole documents of the spool, end to end."""

    offset: int  # in the spool's bytes
    size: int  # bytes, those of the lengths included
    document: int  # the first one's number


def encode_spool(
    work: Path,
    lengths: np.ndarray,
    segmenter: Segmenter,
    tokenizer: str,
    dtype: str,
    processes: int | None,
    tell: Callable[[int], Any],
) -> tuple[list[int], dict[str, int]]:
    """Write every sentence's record, tokens and word starts to `OUTPUTS`; return the sizes of the batches, and counts.

    `lengths` are the bytes of the documents; `tell` learns of bytes as they are done. The files are the same whatever
    the number of `processes`; None takes one for every 8 MB, up to the processors at hand and to 16.
    """
    processors = count_own_processors()
    worth = min(processors, _MOST_PROCESSES, int(lengths.sum()) // _WORTH_A_PROCESS)
    parts = cut_parts(lengths, processes or max(1, worth))
    if len(parts) == 1:
        return _encode_part(work, parts[0], segmenter, tokenizer, dtype, OUTPUTS, tell)
    job = {"segmenter": segmenter.as_dict(), "tokenizer": tokenizer, "dtype": dtype, "parts": [*map(asdict, parts)]}
    (work / _JOB).write_text(json.dumps(job))
    found = [found for _, found in sorted(_run_children(work, len(parts), processors, tell).items())]
    for name in OUTPUTS:
        with open(work / name, "wb") as whole:
            for index in range(len(parts)):
                piece = work / f"{name}-{index}"
                with open(piece, "rb") as file:
                    shutil.copyfileobj(file, whole, 1 << 20)
                piece.unlink()
    counts = {name: sum(counts[name] for _, counts in found) for name in found[0][1]}
    return [size for sizes, _ in found for size in sizes], counts


def cut_parts(lengths: np.ndarray, number: int) -> tuple[Part, ...]:
    """Cut a spool of documents of these bytes into at most `number` parts of about equal size, none empty."""
    number = min(number, len(lengths))
    starts = np.concatenate([[0], np.cumsum(lengths + _HEAD)])
    wanted = [int(starts[-1]) * index // number for index in range(1, number)]
    after = np.searchsorted(starts, wanted)
    nearest = np.where(starts[after] - wanted < wanted - starts[after - 1], after, after - 1) if wanted else after
    firsts = np.unique([0, *nearest[nearest < len(lengths)]]).astype(int)
    offsets = starts[[*firsts, len(lengths)]].tolist()
    return tuple(
        Part(offset=offset, size=after - offset, document=int(first))
        for first, offset, after in zip(firsts, offsets[:-1], offsets[1:], strict=True)
    )


def read_spool(work: Path, part: Part | None = None, tell: Callable[[int], Any] | None = None) -> Iterator[str]:
    """Yield the documents of a spool, or of a part of it; `tell` learns of the bytes of each one that is done."""
    with open(work / SPOOL, "rb") as spool:
        spool.seek(part.offset if part else 0)
        while (part is None or spool.tell() < part.offset + part.size) and (head := spool.read(_HEAD)):
            content = spool.read(struct.unpack("<q", head)[0])
            yield content.decode("utf-8")
            if tell:
                tell(len(content))


def be_child() -> None:
    """Encode one part as a process of its own; arguments: where modules lie, the code's sum, the folder, the number.

    It tells bytes that are done, a line for a megabyte or so, and at the end sizes and counts as JSON, or an error.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work, index = Path(sys.argv[3]), int(sys.argv[4])
    if sys.argv[2] != _CODE:
        print(json.dumps({"said": f"{_PLACE} was changed while the text was read; start again"}), flush=True)
        return
    outputs = tuple(f"{name}-{index}" for name in OUTPUTS)
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        done += size
        if done >= _TOLD:
            print(done, flush=True)
            done = 0

    try:
        job = json.loads((work / _JOB).read_text())
        part, segmenter = Part(**job["parts"][index]), read_segmenter(job["segmenter"])
        found: Any = _encode_part(work, part, segmenter, job["tokenizer"], job["dtype"], outputs, tell)
        print(done, flush=True)
    except OSError as error:
        found = {"errno": error.errno, "strerror": error.strerror, "filename": error.filename or str(work)}
    print(json.dumps(found), flush=True)


def _end_with_parent() -> None:
    """End this process when the other end of its standard input is closed, however the parent ends."""
    while os.read(0, 1):  # not through sys.stdin, whose lock the end of this process would wait for, and then abort
        pass
    os._exit(1)


def _run_children(
    work: Path, number: int, processors: int, tell: Callable[[int], Any]
) -> dict[int, tuple[list[int], dict[str, int]]]:
    """Have each part encoded by a process; return what each found, by the part's number.

    Plain subprocesses: a forked copy of a process with threads may hang, a spawned one runs the user's script again.
    """
    found: dict[int, Any] = {}
    rests = dict.fromkeys(range(number), b"")
    children = []
    with ExitStack() as stack:
        ready = stack.enter_context(selectors.DefaultSelector())
        modules = json.dumps([str(_PLACE.parent), *sys.path])
        threads = str(max(1, processors // number))
        for index in range(number):
            command = [sys.executable, "-P", "-c", _CHILD, modules, _CODE, str(work), str(index)]
            try:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=os.environ | {"RAYON_NUM_THREADS": threads},
                )
            except OSError as error:
                raise CorpusError(
                    f"process {index + 1} of {number} to encode the text can't be started ({error.strerror}): "
                    "python -m corpora TEXT --processes 1 prepares it for any run"
                ) from error
            children.append(stack.enter_context(child))
            stack.callback(child.kill)
            assert child.stdout
            ready.register(child.stdout, selectors.EVENT_READ, index)
        while ready.get_map():
            for key, _ in ready.select():
                index, heard = key.data, os.read(key.fd, 1 << 16)
                *lines, rests[index] = (rests[index] + heard).split(b"\n")
                for said in map(json.loads, lines):
                    if isinstance(said, int):
                        tell(said)
                    else:
                        found[index] = said
                if not heard:
                    ready.unregister(key.fileobj)
                    if index not in found:
                        raise CorpusError(_explain_end(index, number, children[index].wait()))
                if isinstance(found.get(index), dict):
                    if "said" in found[index]:
                        raise CorpusError(found[index]["said"])
                    raise OSError(*(found[index][name] for name in ("errno", "strerror", "filename")))
    return found


def _explain_end(index: int, number: int, status: int) -> str:
    was = f"process {index + 1} of the {number} that encode the text"
    if status == -signal.SIGKILL:
        return (
            f"{was} was killed, as is done where memory is short; python -m corpora TEXT --processes 1 needs the "
            "least, and prepares it for any run"
        )
    return f"{was} ended with status {status}; what it said stands above"


def _encode_part(
    work: Path,
    part: Part,
    segmenter: Segmenter,
    tokenizer: str,
    dtype: str,
    names: Sequence[str],
    tell: Callable[[int], Any],
) -> tuple[list[int], dict[str, int]]:
    """Encode the documents of a part into files of these names."""
    encoder = SentenceEncoder(tokenizer)
    counts = {"words": 0, "unencodable_sentences": 0}
    sizes: list[int] = []
    paragraph = -1
    with ExitStack() as stack:
        outputs = [stack.enter_context(open(work / name, "wb")) for name in names]
        batch = _Batch()

        def write() -> None:
            sizes.append(batch.write(encoder, dtype, outputs))
            counts["unencodable_sentences"] += len(batch.sentences) - sizes[-1]

        for number, text in enumerate(read_spool(work, part, tell), part.document):
            for line in text.split("\n"):
                spans = segmenter.split(line)
                if not spans:
                    continue
                paragraph += 1
                counts["words"] += len(line.split())
                batch.add([line[start:end] for start, end in spans], number, paragraph, len(line))
                if batch.is_full():
                    write()
                    batch = _Batch()
        write()
    return [size for size in sizes if size], counts


class _Batch:
    """Sentences that are encoded together, and where they come from."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self._documents: list[int] = []
        self._paragraphs: list[int] = []
        self._characters = 0

    def add(self, sentences: list[str], document: int, paragraph: int, characters: int) -> None:
        self.sentences += sentences
        self._documents += repeat(document, len(sentences))
        self._paragraphs += repeat(paragraph, len(sentences))
        self._characters += characters

    def is_full(self) -> bool:
        return len(self.sentences) >= _BATCH_SENTENCES or self._characters >= _BATCH_CHARACTERS

    def write(self, encoder: SentenceEncoder, dtype: str, outputs: Sequence[IO[bytes]]) -> int:
        """Append to the files of records, tokens and starts; return how many sentences have a token."""
        ids, lengths, word_starts = encoder.encode(self.sentences)
        filled = lengths > 0
        records = np.empty(int(filled.sum()), SENTENCE)
        records["length"] = lengths[filled]
        records["document"] = np.array(self._documents, np.int64)[filled]
        records["paragraph"] = np.array(self._paragraphs, np.int64)[filled]
        records["hash"] = _hash_sentences(ids, lengths[filled])
        for output, content in zip(outputs, (records, ids.astype(dtype), word_starts), strict=True):
            output.write(content.tobytes())
        return len(records)


def _hash_sentences(ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return a hash of each sentence's tokens, uint64: the sum of SplitMix64's finaliser over (position, token)."""
    if not len(lengths):
        return np.zeros(0, np.uint64)
    begins = np.cumsum(lengths) - lengths
    positions = np.arange(len(ids)) - np.repeat(begins, lengths)
    words = (positions.astype(np.uint64) << np.uint64(32)) + ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.add.reduceat(words ^ (words >> np.uint64(31)), begins)
