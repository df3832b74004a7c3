"""Tokenizers: training one, loading one, what the rest must know of its vocabulary, and encoding sentences in bulk."""

import json
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from operator import ne
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from .errors import CorpusError, UserError

if TYPE_CHECKING:  # they import torch, which takes seconds: only in the functions that make a tokenizer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

KINDS = ("wordpiece", "bpe", "unigram")
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # at ids 0 to 4, whatever the kind

_ENCODING_BATCH = 8192  # texts at a time; what the backend holds for each is many times its size
_MOST_WORDS, _MOST_PIECES = 1_000_000, 8_000_000  # an encoder that remembers more starts afresh: about 200 MB
# These never look across a space.
_LOCAL_NORMALIZERS = {"BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"}
_SMALLEST_VOCABULARY = {"wordpiece": 64, "bpe": 256 + len(SPECIAL_TOKENS), "unigram": 64}


def train_tokenizer(
    texts: Iterator[str], kind: str = "wordpiece", vocab_size: int = 8192, lowercase: bool = False
) -> "PreTrainedTokenizerFast":
    """Train a tokenizer that frames as BERT does: [CLS] A [SEP] and [CLS] A [SEP] B [SEP].

    Lower case means without accents too for `wordpiece`, as in BERT (uncased). A piece never holds both letters and
    punctuation. The vocabulary comes out smaller than asked where the text has no more to give. All texts are held in
    memory. The same texts give the same tokenizer, but for `unigram`, whose library sums floats in no fixed order.
    """
    if kind not in KINDS:
        raise UserError(f"tokenizer kind {kind!r} is unknown; known: {', '.join(KINDS)}")
    if vocab_size < _SMALLEST_VOCABULARY[kind]:
        raise UserError(f"a {kind} vocabulary of {vocab_size} is too small: at least {_SMALLEST_VOCABULARY[kind]}")
    sample = [text for text in texts if text and not text.isspace()]
    if not sample:
        raise CorpusError("there is no text to train a tokenizer on")
    build = {"wordpiece": _train_wordpiece, "bpe": _train_bpe, "unigram": _train_unigram}[kind]
    backend = build(sample, vocab_size, lowercase)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, SPECIAL_TOKENS.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        # Left to itself a hand-built tokenizer gives no token types, and pairs lose their segments.
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _train_wordpiece(sample: list[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=lowercase, lowercase=lowercase
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Left alone, the trainer numbers the letters inside words as a randomly seeded hash table yields them, and breaks
    # ties between merges by these numbers: each training gives another vocabulary. So both alphabets go to it in order,
    # those inside words as if special. A sixteenth each: rare letters push out pieces (34 MB of Wikipedia are 2.6 %
    # more tokens with an eighth).
    alphabet = _find_alphabet(sample, backend, limit=max(vocab_size // 16, min(100, (vocab_size - 5) // 2)))
    inside = [letter for letter in alphabet if len(backend.pre_tokenizer.pre_tokenize_str(f"a{letter}a")) == 1]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[*SPECIAL_TOKENS, *(f"##{letter}" for letter in inside)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer)
    trained = Tokenizer(models.WordPiece(backend.get_vocab(with_added_tokens=True), unk_token="[UNK]"))
    trained.normalizer, trained.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    trained.decoder = decoders.WordPiece(cleanup=False)
    return trained


def _find_alphabet(sample: list[str], backend: Tokenizer, limit: int) -> list[str]:
    """Return the `limit` most frequent characters after normalisation, in the order of their code points."""
    raw, counter = np.zeros(sys.maxunicode + 1, dtype=np.int64), Counter[str]()
    for text in sample:  # five times as fast as a Counter of the text
        points, counts = np.unique(np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32), return_counts=True)
        raw[points] += counts
    for point in np.flatnonzero(raw).tolist():
        for letter in backend.normalizer.normalize_str(chr(point)):
            counter[letter] += int(raw[point])
    letters = [letter for letter in counter if not letter.isspace()]
    return sorted(sorted(letters, key=lambda letter: (-counter[letter], letter))[:limit])


def _train_bpe(sample: list[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer)
    return backend


def _train_unigram(sample: list[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    folding = [normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
    spacing = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    backend.normalizer = normalizers.Sequence([*folding, *spacing])
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, unk_token="[UNK]", special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    backend.train_from_iterator(sample, trainer)
    return backend


def load_tokenizer(name_or_folder: str) -> "PreTrainedTokenizerBase":
    """Load a fast tokenizer from a `transformers` folder or the hub; code that comes with one is never run.

    Raises UserError, in one line, where there is none, it is not fast, or it lacks special tokens that objectives need.
    """
    folder = Path(name_or_folder).expanduser()
    looks_like_a_path = name_or_folder.startswith((".", "/", "~")) or name_or_folder.count("/") > 1
    if not name_or_folder.strip() or (looks_like_a_path and not folder.exists()):
        raise UserError(f"tokenizer folder {name_or_folder!r} does not exist")
    if folder.is_file():
        raise UserError(f"tokenizer {name_or_folder!r} is a file; give the folder that it lies in")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder) if folder.exists() else name_or_folder, trust_remote_code=False
        )
    except Exception as error:  # the Rust backend raises bare Exceptions, transformers half a dozen kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"no tokenizer could be loaded from {name_or_folder!r} ({type(error).__name__}: {reason}); "
            "give a folder saved by `save_pretrained`, the name of one on the hub, or none, to train one on the corpus"
        ) from error
    if not tokenizer.is_fast:
        raise UserError(
            f"tokenizer {name_or_folder!r} is not a fast one (it has no tokenizer.json), which word starts need"
        )
    if set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):
        raise UserError(f"tokenizer {name_or_folder!r} has no vocabulary: its folder may lack tokenizer.json")
    _check_special_tokens(tokenizer, name_or_folder)
    return tokenizer


def _check_special_tokens(tokenizer: "PreTrainedTokenizerBase", name: str) -> tuple[int, int]:
    """Return the ids that frame a sequence. Raises UserError naming every special token that is missing."""
    cls_id, sep_id = _find_frame(tokenizer)
    found = {"pad": tokenizer.pad_token_id, "cls": cls_id, "sep": sep_id, "mask": tokenizer.mask_token_id}
    missing = [token for token, token_id in found.items() if token_id is None]
    if cls_id is None or sep_id is None or missing:
        additions = {f"{token}_token": f"[{token.upper()}]" for token in missing}
        raise UserError(
            f"tokenizer {name!r} lacks {', '.join(missing)}: add with `tokenizer.add_special_tokens({additions})` "
            "and `tokenizer.save_pretrained(FOLDER)`, or give no tokenizer, to train one on the corpus"
        )
    return cls_id, sep_id


def _find_frame(tokenizer: "PreTrainedTokenizerBase") -> tuple[int | None, int | None]:
    """Return the ids that open and close a sequence: cls and sep, or bos and eos where it frames with them."""
    framed = tokenizer("a")["input_ids"]
    cls_id, sep_id = tokenizer.cls_token_id, tokenizer.sep_token_id
    if cls_id is None and len(framed) > 1 and framed[0] == tokenizer.bos_token_id:
        cls_id = tokenizer.bos_token_id
    if sep_id is None and len(framed) > 1 and framed[-1] == tokenizer.eos_token_id:
        sep_id = tokenizer.eos_token_id
    return cls_id, sep_id


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What objectives must know of a tokenizer: its size, its special ids, and how it frames a pair."""

    size: int  # one more than the largest id, so ids index arrays of this length
    pad_id: int
    cls_id: int  # opens a sequence
    sep_id: int  # ends each segment
    mask_id: int
    unk_id: int | None
    special_ids: tuple[int, ...]  # never selected, never drawn
    num_separators: int  # sep ids between the segments of a pair: 1, or 2 for RoBERTa

    @cached_property
    def ordinary_ids(self) -> np.ndarray:
        """Every id that is not special, in order, int64."""
        return np.setdiff1d(np.arange(self.size, dtype=np.int64), np.asarray(self.special_ids, dtype=np.int64))

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> Self:
        """Read it off a fast tokenizer. Raises UserError where a special token is missing."""
        cls_id, sep_id = _check_special_tokens(tokenizer, tokenizer.name_or_path or "tokenizer")
        marked = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
        return cls(
            size=max(tokenizer.get_vocab().values()) + 1,
            pad_id=tokenizer.pad_token_id,
            cls_id=cls_id,
            sep_id=sep_id,
            mask_id=tokenizer.mask_token_id,
            unk_id=tokenizer.unk_token_id,
            special_ids=tuple(sorted(marked | set(tokenizer.all_special_ids))),
            num_separators=_count_separators(tokenizer, sep_id),
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"special_ids": list(self.special_ids)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        return cls(**(fields | {"special_ids": tuple(fields["special_ids"])}))


def _count_separators(tokenizer: "PreTrainedTokenizerBase", sep_id: int) -> int:
    """Count the separators between the halves of a pair; one, where the tokenizer has no form for pairs."""
    pair = tokenizer("a", "a")
    segments = pair.sequence_ids(0)
    first, second = segments.index(0), segments.index(1)
    return max(1, pair["input_ids"][first:second].count(sep_id))


class SentenceEncoder:
    """Encodes sentences in bulk and remembers words: about twice as fast as the tokenizer alone, with the same ids.

    Where the tokenizer is known to cut at every space, each distinct word is encoded once and sentences are put
    together from the pieces; with any other tokenizer, and where white space is unusual, a sentence goes through whole.

    A word is a pre-token of the tokenizer, and a sentence's first piece always starts one: letters or one punctuation
    mark for WordPiece and Unigram as `train_tokenizer` makes them, a run of either for byte-level BPE; for a loaded one
    whatever it cuts text into first ("(don't" may be one word, or four). No special tokens are added, and "[MASK]" in a
    text is text.
    """

    def __init__(self, form: str) -> None:
        """Take a fast tokenizer as JSON: `tokenizer.backend_tokenizer.to_str()`."""
        self._backend = _read_backend(form)
        self._later_prefix = _find_later_prefix(self._backend)
        self._forget()

    def _forget(self) -> None:
        self._texts: list[str] = []  # what each number stands for
        self._first = _Numbering(self._texts, "")  # a sentence's first word, or all of it
        self._later = self._first if not self._later_prefix else _Numbering(self._texts, self._later_prefix)
        self._pieces, self._starts, self._ends = array("i"), array("b"), array("q", [0])

    def encode(self, sentences: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ids end to end (int32), each sentence's length (int64; may be 0), and which pieces start a word."""
        if len(self._texts) > _MOST_WORDS or len(self._pieces) > _MOST_PIECES:
            self._forget()
        numbers, counts = array("q"), array("q")
        for sentence in sentences:
            before = len(numbers)
            # Printable: no white space but " ", and no control characters, which normalisers treat each in its own way.
            if self._later_prefix is not None and sentence.isprintable() and "  " not in sentence:
                first, *later = sentence.split(" ")
                numbers.append(self._first[first])
                numbers.extend(map(self._later.__getitem__, later))
            else:
                numbers.append(self._first[sentence])
            counts.append(len(numbers) - before)
        self._encode_new_words()
        return self._gather(np.frombuffer(numbers, np.int64), np.frombuffer(counts, np.int64))

    def _encode_new_words(self) -> None:
        for begin in range(len(self._ends) - 1, len(self._texts), _ENCODING_BATCH):
            # Not encode_batch_fast: it gives no word for any piece.
            for encoding in self._backend.encode_batch(
                self._texts[begin : begin + _ENCODING_BATCH], add_special_tokens=False
            ):
                words = encoding.word_ids
                self._pieces.extend(encoding.ids)
                self._starts.extend(map(ne, words, chain((None,), words)))
                self._ends.append(len(self._pieces))

    def _gather(self, numbers: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ends = np.frombuffer(self._ends, np.int64)
        begins = ends[numbers]
        lengths = ends[numbers + 1] - begins
        totals = np.concatenate([[0], np.cumsum(lengths)])
        where = np.repeat(begins - totals[:-1], lengths) + np.arange(totals[-1])
        sentence_lengths = np.diff(totals[np.concatenate([[0], np.cumsum(counts)])])
        ids = np.frombuffer(self._pieces, np.int32)[where]
        return ids, sentence_lengths, np.frombuffer(self._starts, np.bool_)[where]


class _Numbering(dict[str, int]):
    """Numbers words as they are met; a look-up that hits never leaves C."""

    def __init__(self, texts: list[str], prefix: str) -> None:
        super().__init__()
        self._texts = texts
        self._prefix = prefix

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self._texts)
        self._texts.append(self._prefix + word)
        return number


def _read_backend(form: str) -> Tokenizer:
    """Leave out truncation and padding, which a saved tokenizer may carry, and read "[SEP]" in a text as text."""
    backend = Tokenizer.from_str(form)
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def _find_later_prefix(backend: Tokenizer) -> str | None:
    """Return what to put before each word but the first; None where words cannot be encoded one by one."""
    form = json.loads(backend.to_str())
    normalizer = form["normalizer"] or {"type": "Sequence", "normalizers": []}
    steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    is_local = {step["type"] for step in steps} <= _LOCAL_NORMALIZERS
    is_certain = form["model"]["type"] in ("WordPiece", "BPE", "WordLevel") and not form["model"].get("dropout")
    if not (is_local and is_certain and all(token["special"] for token in form["added_tokens"])):
        return None
    pre_tokenizer = form["pre_tokenizer"] or {"type": None}
    if pre_tokenizer["type"] in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit"):
        return ""
    if pre_tokenizer["type"] == "ByteLevel" and pre_tokenizer.get("use_regex", True):
        return " "  # the space belongs to the word that follows it
    return None
