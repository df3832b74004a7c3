"""Probes made from raw text, in any language, without annotation."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from corpora import TextSource
from corpora.build import choose_held_out
from corpora.errors import CorpusError, UserError
from corpora.sources import read_documents as read_texts

from .probe import Probe
from .raw_edits import build_bigram_shift, build_long_swap, build_replacement_sentence, build_replacement_token
from .raw_order import build_same_paragraph, build_sentence_ordering, build_sentence_position
from .raw_pool import Document, Pool, build_pool, count_words
from .raw_readout import build_masked_readout
from .raw_words import build_casing, build_frequency_bin, build_sentence_length, build_word_content

__all__ = ["RAW_PROBES", "Document", "build_raw_suite", "count_words", "held_out_documents", "read_documents"]

RAW_PROBES: dict[str, Callable[[Pool, int], Probe]] = {
    "sentence_length": build_sentence_length,
    "word_content": build_word_content,
    "bigram_shift": build_bigram_shift,
    "long_swap": build_long_swap,
    "replacement_sentence": build_replacement_sentence,
    "replacement_token": build_replacement_token,
    "sentence_ordering": build_sentence_ordering,
    "sentence_position": build_sentence_position,
    "same_paragraph": build_same_paragraph,
    "casing": build_casing,
    "frequency_bin": build_frequency_bin,
    "masked_readout": build_masked_readout,
}


def build_raw_suite(
    documents: Iterable[Document],
    *,
    seed: int = 0,
    size: int = 4000,
    names: Sequence[str] | None = None,
    language: str = "en",
    counts: Mapping[str, int] | None = None,
) -> list[Probe]:
    """Build probes of at most `size` items each (60 % training, 15 % development, 25 % test), split by document.

    `names` chooses from RAW_PROBES; a probe that is asked for by name and can't be built raises its UserError, else it
    is left out with a line on standard error. `language` is that of the sentence rules ("any": by stops alone).
    `counts` are the frequencies of lower-case words, by default those of the documents; see `count_words`. Raises
    UserError where no probe can be built.
    """
    for name in names or ():
        if name not in RAW_PROBES:
            raise UserError(f"probe {name!r} is unknown; known: {', '.join(RAW_PROBES)}")
    pool = build_pool(documents, seed=seed, language=language, counts=counts)
    probes = []
    for name in names or RAW_PROBES:
        try:
            probes.append(RAW_PROBES[name](pool, size))
        except UserError as error:
            if names:
                raise
            print(f"left out: {error}", file=sys.stderr)
    if not probes:
        raise UserError("the text is too small for any probe; give more text")
    return probes


def read_documents(source: str | TextSource, max_characters: int | None = None) -> list[Document]:
    """Read documents as lists of paragraphs, one a line; stop after the document that fills `max_characters`.

    Raises CorpusError where there is no text.
    """
    source = TextSource(location=source) if isinstance(source, str) else source
    documents = []
    room = max_characters
    for text in read_texts(source):
        documents.append(text.split("\n"))
        if room is not None:
            room -= len(text)
            if room <= 0:
                break
    return documents


def held_out_documents(run_folder: str | Path) -> list[Document]:
    """Return the documents that a pretraining run kept out of its training.

    Those are the text that it was given to evaluate on, without what stands in its corpus too, or a share of the
    corpus, chosen by hash exactly as it did. Reads what the run's run.json names, the corpus twice. Raises UserError
    where that can't be read, holds out nothing, or isn't the text that was trained on.
    """
    settings, recorded = read_record(Path(run_folder))
    return read_held_out(settings, recorded, f"the run in {run_folder}")


def read_held_out(settings: Mapping[str, Any], recorded: int, whose: str) -> list[Document]:
    """Return the documents that a run with these settings keeps out of its training; its corpus has `recorded` ones.

    Raises UserError as `held_out_documents` does, which names `whose` run it is.
    """
    source = TextSource(
        location=settings["corpus"],
        documents=settings["documents"],
        text_column=settings["text_column"],
        errors=settings["errors"],
    )
    apart = list(read_full(replace(source, location=settings["held_out"]))) if settings.get("held_out") else []
    hashes = np.array([hash_document(text) for text in read_full(source)], dtype=np.uint64)
    if len(hashes) + len(apart) < recorded:
        raise CorpusError(
            f"{settings['corpus']} has {len(hashes):,} documents, where {whose} read {recorded:,}; "
            "name the text that it was trained on"
        )
    if apart:
        known = set(hashes.tolist())
        return [text.split("\n") for text in apart if hash_document(text) not in known]
    held_out = choose_held_out(hashes, settings["held_out_rate"])
    if not held_out.any():
        raise UserError(
            f"{whose} held out nothing (held_out_rate {settings['held_out_rate']}, {len(hashes):,} "
            "documents); give other text to probe with"
        )
    return [text.split("\n") for text, chosen in zip(read_full(source), held_out, strict=True) if chosen]


def read_full(source: TextSource) -> Iterator[str]:
    return (text for text in read_texts(source) if text and not text.isspace())


def hash_document(text: str) -> int:
    """Return the 64 bits of a document's text by which a store decides whether it is held out."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little")


def read_record(run_folder: Path) -> tuple[dict, int]:
    """Return the settings in run.json, and how many documents the run's corpus had."""
    path = run_folder / "run.json"
    try:
        record = json.loads(path.read_text("utf-8"))
        settings = record["config"]
        missing = {"corpus", "documents", "text_column", "errors", "held_out_rate"} - settings.keys()
        documents = int(record["corpus"]["documents"])
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name the folder of a pretraining run") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no record of a pretraining run; name the folder of one") from error
    if missing:
        raise UserError(f"{path} does not say {', '.join(sorted(missing))}; it is the record of another version")
    return settings, documents
