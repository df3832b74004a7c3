"""The store: a corpus as token ids and offsets, prepared once, memory-mapped ever after."""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np
import tokenizers
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from .errors import CorpusError, StorageError, UserError
from .sentences import Segmenter, build_segmenter
from .sources import TextSource, fingerprint_source, read_documents
from .tokenizer import SentenceEncoder, Vocabulary, load_tokenizer, train_tokenizer

FORMAT = 1
METADATA = "metadata.json"
TOKENIZER_SAMPLE_BYTES = 100_000_000
CHECKED_BYTES = 1 << 26  # larger files are known by their size alone: to sum them would cost seconds at every start

_DTYPES = {  # one file each; token_ids has "<u2" where the vocabulary allows it
    "token_ids": "<u4",
    "word_start_bits": "|u1",
    "sentence_offsets": "<i8",
    "document_offsets": "<i8",
    "paragraph_starts": "|b1",
    "is_held_out": "|b1",
    "unigram_counts": "<i8",
}
_SENTENCE = np.dtype([("hash", "<u8"), ("length", "<i8"), ("document", "<i8"), ("paragraph", "<i8")])
_BATCH_SENTENCES, _BATCH_CHARACTERS = (
    8192,
    4_000_000,
)  # encoded at once; the second bounds memory where sentences never end
_NOT_IN_THE_KEY = {
    "__init__.py",
    "__main__.py",
    "describe.py",
    "errors.py",
    "passages.py",
}  # they change no stored byte
# Read once, when it's loaded: what stands on the disk later isn't what this process runs.
_CODE = [
    path.read_text("utf-8") for path in sorted(Path(__file__).parent.glob("*.py")) if path.name not in _NOT_IN_THE_KEY
]
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # how tokenizers reports what the system said


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """Everything that the content of a store depends on, besides the text itself."""

    source: TextSource = field(default_factory=TextSource)
    tokenizer: str | None = None  # folder or name; None: train one on this text
    tokenizer_kind: str = "wordpiece"
    vocab_size: int = 8192
    lowercase: bool = False
    segmenter: str = "rules"
    language: str = "en"
    held_out_rate: float = 0.02  # of the documents


class Corpus:
    """A prepared corpus, read-only and memory-mapped: D documents of S sentences of T tokens, over a vocabulary of V.

    No sentence is on both sides: a held-out document lacks those that also occur in a training document, so two of its
    sentences may not be neighbours in the text. Raises CorpusError where the folder isn't a whole store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()
        self.metadata = _verify(self.folder)
        self.fingerprint: str = self.metadata["fingerprint"]  # of the content: equal for equal bytes, wherever they lie
        self.vocabulary = Vocabulary.from_dict(self.metadata["vocabulary"])
        self.token_ids = self._map("token_ids")  # (T,) uint16 or uint32: no special tokens
        self.word_start_bits = self._map("word_start_bits")  # (ceil(T / 8),) uint8, lowest bit first
        self.sentence_offsets = self._map("sentence_offsets")  # (S + 1,) int64, in tokens; no sentence is empty
        self.document_offsets = self._map("document_offsets")  # (D + 1,) int64, in sentences; no document is empty
        self.paragraph_starts = self._map("paragraph_starts")  # (S,) bool: the sentence opens a paragraph
        self.is_held_out = self._map("is_held_out")  # (D,) bool
        self.unigram_counts = self._map("unigram_counts")  # (V,) int64, over the documents that aren't held out
        self.num_tokens = len(self.token_ids)
        self.num_sentences = len(self.sentence_offsets) - 1
        self.num_documents = len(self.is_held_out)

    def _map(self, name: str) -> np.ndarray:
        # A plain view: np.memmap's own class costs microseconds at every slice.
        return np.asarray(np.memmap(self.folder / f"{name}.bin", self.metadata["dtypes"][name], mode="r"))

    def __reduce__(self) -> tuple[Any, ...]:
        return Corpus, (self.folder,)  # a worker process maps the files anew instead of receiving their content

    @property
    def unigram_entropy(self) -> float:
        """What a model that knows only how frequent tokens are loses per token, in nats."""
        counts = self.unigram_counts[self.unigram_counts > 0]
        rates = counts / counts.sum()
        return float(-(rates * np.log(rates)).sum())

    @property
    def tokenizer_folder(self) -> Path:
        return self.folder / "tokenizer"

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(str(self.tokenizer_folder))

    def gather_word_starts(self, positions: np.ndarray) -> np.ndarray:
        """Return, for tokens at `positions` (any shape, int64), whether each starts a word (same shape, bool)."""
        return (self.word_start_bits[positions >> 3] >> (positions & 7).astype(np.uint8) & 1).astype(bool)


def open_corpus(folder: Path) -> Corpus:
    """Open what `prepare_corpus` has written. Raises CorpusError where the folder isn't a whole store."""
    return Corpus(folder)


def prepare_corpus(settings: CorpusSettings, cache: Path | None = None, progress: bool = True) -> Corpus:
    """Open the store of this text, tokenizer and settings in the folder `cache`, building it first where there is none.

    Processes that start together build it once. One that is killed leaves nothing that is taken for a store. Raises
    UserError on settings or text (CorpusError) that can't be used, StorageError on a folder that can't be written.
    """
    if not 0 <= settings.held_out_rate < 1:
        raise UserError(f"held_out_rate is {settings.held_out_rate}; it must be at least 0 and less than 1")
    cache = (cache or _default_cache()).expanduser().absolute()
    tokenizer = load_tokenizer(settings.tokenizer) if settings.tokenizer else None
    source_fingerprint = fingerprint_source(settings.source)
    key = _make_key(settings, source_fingerprint, tokenizer)
    final = cache / key[:16]
    corpus = _open_matching(final, key)
    if corpus is not None:
        return corpus
    with _storage_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache, final.name, wait=True):
            corpus = _open_matching(final, key, warn=True)  # another process may have built it while we waited
            if corpus is None:
                _sweep(cache, final.name)
                _publish(settings, tokenizer, key, final, progress)
                corpus = Corpus(final)
    return corpus


def _default_cache() -> Path:
    chosen = os.environ.get("PRETEXT_CACHE")
    if chosen:
        return Path(chosen)
    if not os.environ.get("HOME"):
        raise StorageError(
            "no folder for prepared corpora: HOME and PRETEXT_CACHE are not set; give one with `--cache DIR`"
        )
    return Path(os.environ["HOME"], ".cache", "pretext")


def _make_key(settings: CorpusSettings, source_fingerprint: str, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Return what the store is looked up by: it changes with the text, the tokenizer, any setting, or our own code."""
    facts = asdict(settings) | {"source": {"text": source_fingerprint} | asdict(settings.source) | {"location": None}}
    if tokenizer is not None:
        loaded = [tokenizer.backend_tokenizer.to_str(), Vocabulary.of(tokenizer).as_dict()]
        facts |= {"tokenizer": loaded, "tokenizer_kind": None, "vocab_size": None, "lowercase": None}
    if settings.segmenter != "rules":
        facts["language"] = None
    return _sum_json([FORMAT, tokenizers.__version__, _CODE, facts])


def _sum_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _verify(folder: Path) -> dict[str, Any]:
    """Return the metadata of a whole store: each file of the right size, and of the right sum where that is cheap."""
    try:
        metadata = json.loads((folder / METADATA).read_bytes())
        if metadata["format"] != FORMAT or metadata["sum"] != _sum_json(metadata | {"sum": None}):
            raise CorpusError(f"{folder}: {METADATA} is damaged, or of another version")
        for name, expected in metadata["files"].items():
            path = folder / name
            size = path.stat().st_size
            if size != expected["bytes"]:
                raise CorpusError(f"{folder}: {name} has {size:,} bytes instead of {expected['bytes']:,}")
            if size <= CHECKED_BYTES and _sum_file(path) != expected["sha256"]:
                raise CorpusError(f"{folder}: {name} was changed after it was written")
    except OSError as error:
        raise CorpusError(f"{folder}: is not a prepared corpus ({error.strerror}: {error.filename})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise CorpusError(f"{folder}: {METADATA} is damaged") from error
    return metadata


def _sum_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_matching(folder: Path, key: str, warn: bool = False) -> Corpus | None:
    if not os.path.lexists(folder):
        return None
    try:
        corpus = Corpus(folder)
        if corpus.metadata["key"] != key:
            raise CorpusError(f"{folder}: was prepared from something else")
    except CorpusError as error:
        if warn:
            print(f"warning: {error}; preparing it again", file=sys.stderr)
        return None
    return corpus


@contextmanager
def _storage_errors(cache: Path) -> Iterator[None]:
    """Turn what the system says of the disk into one line; what it says of the text passes."""
    try:
        yield
    except Exception as error:
        match = _RUST_ERROR.search(str(error))
        number = error.errno if isinstance(error, OSError) else int(match[1]) if match else None
        where = getattr(error, "filename", None)
        if isinstance(error, UserError) or number is None or not (where is None or str(where).startswith(str(cache))):
            raise
        raise StorageError(
            f"cannot write prepared corpora in {cache}: {os.strerror(number)}; "
            "make room or permit writing there, or choose a folder with `--cache DIR`"
        ) from error


@contextmanager
def _locked(cache: Path, name: str, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of the store `name`, and say whether we do; the system lets go of it however the holder ends."""
    with open(cache / f".{name}.lock", "ab") as file:
        held = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = wait
            if wait:
                print("another process is preparing this corpus; waiting for it", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: both build, and the first to rename wins
            held = wait
        yield held


def _sweep(cache: Path, ours: str) -> None:
    """Remove what killed processes left behind. Needs the lock of `ours`."""
    for litter in cache.glob(".tmp-*"):
        owner = litter.name.split("-")[1]
        if owner == ours:
            shutil.rmtree(litter, ignore_errors=True)
        else:
            with _locked(cache, owner, wait=False) as held:
                if held:
                    shutil.rmtree(litter, ignore_errors=True)


def _publish(
    settings: CorpusSettings, tokenizer: PreTrainedTokenizerBase | None, key: str, final: Path, progress: bool
) -> None:
    temporary = final.parent / f".tmp-{final.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir()
        (temporary / "work").mkdir()
        metadata = _build(settings, tokenizer, temporary, progress) | {"key": key, "settings": asdict(settings)}
        shutil.rmtree(temporary / "work")
        _seal(temporary, metadata)
        if os.path.lexists(final):  # damaged; whoever has it mapped keeps the files that they have
            discarded = temporary.with_name(temporary.name + "-old")
            final.rename(discarded)
            shutil.rmtree(discarded) if discarded.is_dir() and not discarded.is_symlink() else discarded.unlink()
        temporary.rename(final)
        _sync(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _seal(folder: Path, metadata: dict[str, Any]) -> None:
    """Give every file its permissions and make it durable; the metadata, which know the others' sums, come last."""
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666  # a new folder's is 0o777 & ~umask
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": _sum_file(folder / name)} for name in names}
    content = [files[name] for name in (*(f"{name}.bin" for name in _DTYPES), "tokenizer/tokenizer.json")]
    metadata |= {
        "format": FORMAT,
        "files": files,
        "fingerprint": _sum_json([content, metadata["vocabulary"]]),
        "sum": None,
    }
    metadata["sum"] = _sum_json(metadata)
    (folder / METADATA).write_text(json.dumps(metadata, indent=1, sort_keys=True) + "\n")
    for name in (*names, METADATA):
        os.chmod(folder / name, mode)
        _sync(folder / name)
    _sync(folder / "tokenizer")
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _build(
    settings: CorpusSettings, tokenizer: PreTrainedTokenizerBase | None, folder: Path, progress: bool
) -> dict[str, Any]:
    """Write the arrays and the tokenizer of a store into `folder`, and return what its metadata say of them."""
    work = folder / "work"
    sample = _Sample(0 if tokenizer else TOKENIZER_SAMPLE_BYTES)
    digests, counts = _spool(read_documents(settings.source), work, sample, progress)
    if not len(digests):
        empty = f"{counts['empty_documents']:,} empty documents" if counts["empty_documents"] else "no document"
        raise CorpusError(f"{settings.source.location}: nothing to train on, found {empty}")
    held_out = _choose_held_out(digests[:, 0], settings.held_out_rate)
    if tokenizer is None:
        if progress and counts["bytes"] > 10_000_000:
            print(f"training a {settings.tokenizer_kind} tokenizer of {settings.vocab_size:,} tokens", file=sys.stderr)
        chosen = sample.take(~held_out)
        tokenizer = train_tokenizer(chosen, settings.tokenizer_kind, settings.vocab_size, settings.lowercase)
    del sample
    tokenizer.save_pretrained(folder / "tokenizer")
    vocabulary = Vocabulary.of(tokenizer)
    dtypes = _DTYPES | {"token_ids": "<u2" if vocabulary.size <= 1 << 16 else "<u4"}

    segmenter = build_segmenter(settings.segmenter, settings.language, lambda: _read_spool(work))
    with tqdm(total=counts["bytes"], desc="encoding", **_progress_style(progress)) as bar:
        texts = _read_spool(work, bar)
        sizes, more = _encode(texts, segmenter, SentenceEncoder(tokenizer), work, dtypes["token_ids"])
    (work / "text").unlink()
    counts |= more | {"duplicate_documents": len(digests) - len(np.unique(digests[:, 0]))}
    if not sizes:
        raise CorpusError(
            f"{settings.source.location}: nothing to train on, found {len(digests):,} documents without words"
        )
    counts |= _assemble(work, folder, sizes, held_out, vocabulary, dtypes["token_ids"])
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


def _spool(documents: Iterator[str], work: Path, sample: _Sample, progress: bool) -> tuple[np.ndarray, dict[str, int]]:
    """Copy the documents to a file, as some sources are slow to read twice; return their hashes (D, 2), and counts."""
    digests = bytearray()
    counts = {"bytes": 0, "characters": 0, "empty_documents": 0}
    with open(work / "text", "wb") as spool, tqdm(desc="reading", **_progress_style(progress)) as bar:
        for text in documents:
            if not text or text.isspace():
                counts["empty_documents"] += 1
                continue
            content = text.encode("utf-8", "replace")  # half a surrogate pair, from JSON, is no character
            digest = hashlib.blake2b(content, digest_size=16).digest()
            sample.add(int.from_bytes(digest[8:], "little"), len(digests) // 16, text, len(content))
            digests += digest
            spool.write(struct.pack("<q", len(content)))
            spool.write(content)
            counts["bytes"] += len(content)
            counts["characters"] += len(text)
            bar.update(len(content))
    return np.frombuffer(bytes(digests), "<u8").reshape(-1, 2), counts


def _read_spool(work: Path, bar: Any = None) -> Iterator[str]:
    with open(work / "text", "rb") as spool:
        while head := spool.read(8):
            content = spool.read(struct.unpack("<q", head)[0])
            yield content.decode("utf-8")
            if bar is not None:
                bar.update(len(content))


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


def _choose_held_out(hashes: np.ndarray, rate: float) -> np.ndarray:
    """Return which documents are held out, bool (D,): by their text alone, so that equal documents fall on one side.

    Where there are two different ones or more, each side has one at least.
    """
    distinct = np.unique(hashes)
    if rate == 0 or len(distinct) < 2:
        return np.zeros(len(hashes), bool)
    limit = min(max(int(rate * 2.0**64), int(distinct[0]) + 1), int(distinct[-1]))
    return hashes < np.uint64(limit)


def _encode(
    texts: Iterator[str], segmenter: Segmenter, encoder: SentenceEncoder, work: Path, dtype: str
) -> tuple[list[int], dict[str, int]]:
    """Write every sentence's tokens, word starts and record; return how many records each batch has, and counts."""
    counts = {"words": 0, "unencodable_sentences": 0}
    sizes: list[int] = []
    paragraph = -1
    with ExitStack() as stack:
        outputs = [stack.enter_context(open(work / name, "wb")) for name in ("sentences", "tokens", "starts")]
        batch = _Batch()
        for number, text in enumerate(texts):
            for line in text.split("\n"):
                spans = segmenter.split(line)
                if not spans:
                    continue
                paragraph += 1
                counts["words"] += len(line.split())
                batch.add([line[start:end] for start, end in spans], number, paragraph, len(line))
                if batch.is_full():
                    sizes.append(batch.write(encoder, dtype, outputs))
                    counts["unencodable_sentences"] += len(batch.sentences) - sizes[-1]
                    batch = _Batch()
        sizes.append(batch.write(encoder, dtype, outputs))
        counts["unencodable_sentences"] += len(batch.sentences) - sizes[-1]
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
        records = np.empty(int(filled.sum()), _SENTENCE)
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


def _assemble(
    work: Path, folder: Path, sizes: list[int], held_out: np.ndarray, vocabulary: Vocabulary, dtype: str
) -> dict[str, int]:
    """Write the arrays of the store from the encoded sentences, without the held-out ones that training sees too."""
    records = np.memmap(work / "sentences", _SENTENCE, mode="r")
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
