"""Building a store: text is read, spooled, split into sentences, encoded, and its held-out side cleaned."""

import hashlib
import shutil
import struct
import sys
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

from .encode import SENTENCE, SPOOL, encode_spool, read_spool
from .errors import CorpusError
from .sentences import build_segmenter
from .sources import TextSource, read_documents
from .tokenizer import Vocabulary, train_tokenizer

if TYPE_CHECKING:  # transformers' tokenizers import torch, which takes seconds: only where one is made
    from transformers import PreTrainedTokenizerBase

TOKENIZER_SAMPLE_BYTES = 100_000_000

DTYPES = {  # one file each; token_ids has "<u2" where the vocabulary allows it
    "token_ids": "<u4",
    "word_start_bits": "|u1",
    "sentence_offsets": "<i8",
    "document_offsets": "<i8",
    "paragraph_starts": "|b1",
    "is_held_out": "|b1",
    "unigram_counts": "<i8",
}


class BuildSettings(Protocol):
    """What building asks of the settings: `CorpusSettings` lies above, in store.py, and has it all."""

    @property
    def source(self) -> TextSource: ...
    @property
    def tokenizer_kind(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def lowercase(self) -> bool: ...
    @property
    def segmenter(self) -> str: ...
    @property
    def language(self) -> str: ...
    @property
    def held_out_rate(self) -> float: ...
    @property
    def held_out(self) -> TextSource | None: ...


def build_store(
    settings: BuildSettings,
    tokenizer: "PreTrainedTokenizerBase | None",
    folder: Path,
    progress: bool,
    processes: int | None = None,
) -> dict[str, Any]:
    """Write the arrays and the tokenizer of a store into `folder`, and return what its metadata say of them.

    Trains a tokenizer where none is given. How many `processes` encode changes no byte. Raises CorpusError where the
    text cannot be read or has no words.
    """
    work = folder / "work"
    work.mkdir()
    sample = _Sample(0 if tokenizer else TOKENIZER_SAMPLE_BYTES)
    digests, lengths, counts = _spool(read_documents(settings.source), work, sample, progress)
    num_read = len(digests)
    if settings.held_out:
        apart, longer, more = _spool(read_documents(settings.held_out), work, _Sample(0), progress)
        digests, lengths = np.concatenate([digests, apart]), np.concatenate([lengths, longer])
        counts = {name: counts[name] + more[name] for name in counts}
    if not num_read:
        empty = f"{counts['empty_documents']:,} empty documents" if counts["empty_documents"] else "no document"
        raise CorpusError(f"{settings.source.location}: nothing to train on, found {empty}")
    held_out = (
        np.arange(len(digests)) >= num_read
        if settings.held_out
        else choose_held_out(digests[:, 0], settings.held_out_rate)
    )
    if tokenizer is None:
        if progress and counts["bytes"] > 10_000_000:
            print(f"training a {settings.tokenizer_kind} tokenizer of {settings.vocab_size:,} tokens", file=sys.stderr)
        chosen = sample.take(~held_out)
        tokenizer = train_tokenizer(chosen, settings.tokenizer_kind, settings.vocab_size, settings.lowercase)
    del sample
    tokenizer.save_pretrained(folder / "tokenizer")
    vocabulary = Vocabulary.of(tokenizer)
    dtypes = DTYPES | {"token_ids": "<u2" if vocabulary.size <= 1 << 16 else "<u4"}

    segmenter = build_segmenter(settings.segmenter, settings.language, lambda: read_spool(work))
    with tqdm(total=counts["bytes"], desc="encoding", **_progress_style(progress)) as bar:
        form = tokenizer.backend_tokenizer.to_str()
        sizes, more = encode_spool(work, lengths, segmenter, form, dtypes["token_ids"], processes, bar.update)
    (work / SPOOL).unlink()
    counts |= more | {"duplicate_documents": len(digests) - len(np.unique(digests[:, 0]))}
    if not sizes:
        raise CorpusError(
            f"{settings.source.location}: nothing to train on, found {len(digests):,} documents without words"
        )
    counts |= _assemble(work, folder, sizes, held_out, vocabulary, dtypes["token_ids"])
    if settings.held_out and not counts["held_out_sentences"]:
        raise CorpusError(
            f"{settings.held_out.location}: nothing is left to evaluate on, since all of it stands in the training text"
        )
    shutil.rmtree(work)
    return {"dtypes": dtypes, "vocabulary": vocabulary.as_dict(), "counts": counts}


class _Sample:
    """Keeps texts of at most `limit` bytes together, spread evenly over all that it is shown: the lowest hashes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._below = 1 << 64
        self._kept: list[tuple[int, int, int, str]] = []  # hash, number of the document, bytes, text
        self._size = 0

    def add(self, text_hash: int, number: int, text: str, size: int) -> None:
        if not self._limit or text_hash >= self._below:
            return
        self._kept.append((text_hash, number, size, text))
        self._size += size
        while self._size > self._limit and len(self._kept) > 1:
            self._below = sorted(kept[0] for kept in self._kept)[-(len(self._kept) // 4 + 1)]
            self._kept = [kept for kept in self._kept if kept[0] < self._below] or self._kept[:1]
            self._size = sum(kept[2] for kept in self._kept)

    def take(self, chosen: np.ndarray) -> Iterator[str]:
        """Yield the texts of those documents that are `chosen` (bool, by number), in the order of the corpus."""
        kept = [text for _, number, _, text in self._kept if chosen[number]]
        for text in kept or [text for *_, text in self._kept]:  # nothing chosen is left only beside a text of 100 MB
            yield text[: self._limit]


def _spool(
    documents: Iterator[str], work: Path, sample: _Sample, progress: bool
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Append the documents to a file, as some sources are slow to read twice.

    Returns their hashes, uint64 (D, 2), their bytes, int64 (D,), and counts.
    """
    digests, lengths = bytearray(), array("q")
    counts = {"bytes": 0, "characters": 0, "empty_documents": 0}
    with open(work / SPOOL, "ab") as spool, tqdm(desc="reading", **_progress_style(progress)) as bar:
        for text in documents:
            if not text or text.isspace():
                counts["empty_documents"] += 1
                continue
            content = text.encode("utf-8", "replace")  # half a surrogate pair, from JSON, is no character
            digest = hashlib.blake2b(content, digest_size=16).digest()
            sample.add(int.from_bytes(digest[8:], "little"), len(digests) // 16, text, len(content))
            digests += digest
            lengths.append(len(content))
            spool.write(struct.pack("<q", len(content)))
            spool.write(content)
            counts["bytes"] += len(content)
            counts["characters"] += len(text)
            bar.update(len(content))
    return np.frombuffer(bytes(digests), "<u8").reshape(-1, 2), np.frombuffer(lengths, np.int64), counts


def _progress_style(progress: bool) -> dict[str, Any]:
    interval = 0.2 if sys.stderr.isatty() else 30  # a log file needs few lines
    return {
        "disable": not progress,
        "unit": "B",
        "unit_scale": True,
        "delay": 2,
        "mininterval": interval,
        "leave": False,
    }


def choose_held_out(hashes: np.ndarray, rate: float) -> np.ndarray:
    """Return which documents are held out, bool (D,): by their text alone, so that equal documents fall on one side.

    Where there are two different ones or more, each side has one at least.
    """
    distinct = np.unique(hashes)
    if rate == 0 or len(distinct) < 2:
        return np.zeros(len(hashes), bool)
    limit = min(max(int(rate * 2.0**64), int(distinct[0]) + 1), int(distinct[-1]))
    return hashes < np.uint64(limit)


def _assemble(
    work: Path, folder: Path, sizes: list[int], held_out: np.ndarray, vocabulary: Vocabulary, dtype: str
) -> dict[str, int]:
    """Write the arrays of the store from the encoded sentences, without the held-out ones that training sees too."""
    records = np.memmap(work / "sentences", SENTENCE, mode="r")
    in_both = _find_shared(records, sizes, held_out)
    sentences_of = np.zeros(len(held_out), np.int64)
    frequencies = np.zeros((2, vocabulary.size), np.int64)  # in training, held out
    offset, dropped = 0, 0
    with ExitStack() as stack:
        tokens, starts = (stack.enter_context(open(work / name, "rb")) for name in ("tokens", "starts"))
        names = ("token_ids", "word_start_bits", "sentence_offsets", "paragraph_starts")
        out = {name: stack.enter_context(open(folder / f"{name}.bin", "wb")) for name in names}
        bits = _BitWriter(out["word_start_bits"])
        out["sentence_offsets"].write(np.zeros(1, "<i8").tobytes())
        for begin, size in zip(np.cumsum(sizes) - sizes, sizes, strict=True):
            batch = np.array(records[begin : begin + size])
            keep = ~(held_out[batch["document"]] & np.isin(batch["hash"], in_both))
            num_tokens = int(batch["length"].sum())
            keep_tokens = np.repeat(keep, batch["length"])
            ids = np.frombuffer(tokens.read(num_tokens * np.dtype(dtype).itemsize), dtype)[keep_tokens]
            bits.write(np.frombuffer(starts.read(num_tokens), np.bool_)[keep_tokens])
            dropped += size - int(keep.sum())
            batch = batch[keep]
            is_held = np.repeat(held_out[batch["document"]], batch["length"])
            for side, chosen in enumerate((~is_held, is_held)):
                frequencies[side] += np.bincount(ids[chosen], minlength=vocabulary.size)
            documents, num_sentences = np.unique(batch["document"], return_counts=True)
            sentences_of[documents] += num_sentences
            is_start = np.diff(batch["paragraph"], prepend=-1) != 0  # a batch holds whole paragraphs
            out["token_ids"].write(ids.tobytes())
            out["sentence_offsets"].write((offset + np.cumsum(batch["length"])).astype("<i8").tobytes())
            out["paragraph_starts"].write(is_start.tobytes())
            offset += len(ids)
        bits.finish()
    has_sentences = sentences_of > 0
    document_offsets = np.concatenate([[0], np.cumsum(sentences_of[has_sentences])])
    # Not `tofile`: it forgets why a write failed.
    (folder / "document_offsets.bin").write_bytes(document_offsets.astype("<i8").tobytes())
    (folder / "is_held_out.bin").write_bytes(held_out[has_sentences].tobytes())
    (folder / "unigram_counts.bin").write_bytes(frequencies[0].astype("<i8").tobytes())
    unknown = 0 if vocabulary.unk_id is None else int(frequencies[:, vocabulary.unk_id].sum())
    return {
        "duplicate_sentences": len(records) - len(np.unique(records["hash"])),
        "held_out_sentences_dropped": dropped,
        "held_out_sentences": int(sentences_of[held_out].sum()),
        "documents_dropped": int((~has_sentences).sum()),
        "unknown_tokens": unknown,
    }


def _find_shared(records: np.ndarray, sizes: list[int], held_out: np.ndarray) -> np.ndarray:
    """Return the hashes of the held-out sentences that occur in a training document too."""
    batches = [records[begin : begin + size] for begin, size in zip(np.cumsum(sizes) - sizes, sizes, strict=True)]
    candidates = np.unique(np.concatenate([batch["hash"][held_out[batch["document"]]] for batch in batches]))
    shared = np.zeros(len(candidates), bool)
    for batch in batches:
        shared |= np.isin(candidates, batch["hash"][~held_out[batch["document"]]])
    return candidates[shared]


class _BitWriter:
    """Writes booleans to a file as bits, the lowest first, across calls whose lengths are no multiples of eight."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._rest = np.zeros(0, bool)

    def write(self, values: np.ndarray) -> None:
        values = np.concatenate([self._rest, values])
        whole = len(values) // 8 * 8
        self._file.write(np.packbits(values[:whole], bitorder="little").tobytes())
        self._rest = values[whole:]

    def finish(self) -> None:
        self._file.write(np.packbits(self._rest, bitorder="little").tobytes())
