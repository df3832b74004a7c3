"""The store: a corpus as token ids and offsets, prepared once, memory-mapped ever after."""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers

from .build import DTYPES, build_store
from .errors import CorpusError, StorageError, UserError
from .sources import TextSource, fingerprint_source
from .tokenizer import Vocabulary, load_tokenizer

if TYPE_CHECKING:  # transformers' tokenizers import torch, which takes seconds: only where one is made
    from transformers import PreTrainedTokenizerBase

FORMAT = 1
METADATA = "metadata.json"
CHECKED_BYTES = 1 << 26  # larger files are known by their size alone: to sum them would cost seconds at every start

_NOT_IN_THE_KEY = {
    "__init__.py",
    "__main__.py",
    "console.py",
    "describe.py",
    "errors.py",
    "passages.py",
    "positions.py",
    "tables.py",
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
    held_out: TextSource | None = None  # text to evaluate on, in the place of a share of the documents


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

    def load_tokenizer(self) -> "PreTrainedTokenizerBase":
        return load_tokenizer(str(self.tokenizer_folder))

    def gather_word_starts(self, positions: np.ndarray) -> np.ndarray:
        """Return, for tokens at `positions` (any shape, int64), whether each starts a word (same shape, bool)."""
        return (self.word_start_bits[positions >> 3] >> (positions & 7).astype(np.uint8) & 1).astype(bool)


def open_corpus(folder: Path) -> Corpus:
    """Open what `prepare_corpus` has written. Raises CorpusError where the folder isn't a whole store."""
    return Corpus(folder)


def prepare_corpus(
    settings: CorpusSettings, cache: Path | None = None, progress: bool = True, processes: int | None = None
) -> Corpus:
    """Open the store of this text, tokenizer and settings in the folder `cache`, building it first where there is none.

    `processes` of them encode, where None is one for every 8 MB of text, up to the processors and to 16; it changes no
    byte. Processes that start together build it once. One that is killed leaves nothing that is taken for a store.
    Raises UserError on settings or text (CorpusError) that can't be used, StorageError on a folder that can't be
    written.
    """
    if not 0 <= settings.held_out_rate < 1:
        raise UserError(f"held_out_rate is {settings.held_out_rate}; it must be at least 0 and less than 1")
    cache = (cache or _default_cache()).expanduser().absolute()
    tokenizer = load_tokenizer(settings.tokenizer) if settings.tokenizer else None
    key = _make_key(settings, tokenizer)
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
                _publish(settings, tokenizer, key, final, progress, processes)
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


def _make_key(settings: CorpusSettings, tokenizer: "PreTrainedTokenizerBase | None") -> str:
    """Return what the store is looked up by: it changes with the text, the tokenizer, any setting, or our own code."""
    facts = asdict(settings) | {"source": _describe_source(settings.source)}
    if settings.held_out is not None:
        facts |= {"held_out": _describe_source(settings.held_out), "held_out_rate": None}
    if tokenizer is not None:
        loaded = [tokenizer.backend_tokenizer.to_str(), Vocabulary.of(tokenizer).as_dict()]
        facts |= {"tokenizer": loaded, "tokenizer_kind": None, "vocab_size": None, "lowercase": None}
    if settings.segmenter != "rules":
        facts["language"] = None
    return _sum_json([FORMAT, tokenizers.__version__, _CODE, facts])


def _describe_source(source: TextSource) -> dict[str, Any]:
    """Return what of a source decides on the content: its settings and its text, wherever that lies."""
    return asdict(source) | {"text": fingerprint_source(source), "location": None}


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
    settings: CorpusSettings,
    tokenizer: "PreTrainedTokenizerBase | None",
    key: str,
    final: Path,
    progress: bool,
    processes: int | None,
) -> None:
    temporary = final.parent / f".tmp-{final.name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir()
        metadata = build_store(settings, tokenizer, temporary, progress, processes) | {
            "key": key,
            "settings": asdict(settings),
        }
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
    content = [files[name] for name in (*(f"{name}.bin" for name in DTYPES), "tokenizer/tokenizer.json")]
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
