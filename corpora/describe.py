"""The report on a prepared corpus: what a person wants to know before training on it."""

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .store import Corpus

WIDTH = 80
_QUANTILES = {"min": 0.0, "1 %": 0.01, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "99 %": 0.99, "max": 1.0}
_BIN_STARTS = (1, 5, 10, 15, 20, 30, 40, 60, 80, 128)  # the last is open; 128 tokens are what fits a usual row
_FAMILIES = {  # name -> (sentences that it needs, for instance)
    "tokens": (1, "mlm, rtd"),
    "pairs": (2, "nsp"),
    "order": (3, "sentence_shuffle"),
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """The figures of a corpus, held-out documents included where not said otherwise; rates are fractions."""

    location: str
    folder: str
    fingerprint: str
    documents: int
    held_out_documents: int
    held_out_sentences: int
    held_out_sentences_dropped: int  # since they also occur in a training document
    empty_documents: int
    paragraphs: int
    sentences: int
    words: int  # between white space, as the text was read
    tokens: int
    vocabulary_size: int
    tokens_per_word: float
    unknown_rate: float  # of tokens
    duplicate_documents: int  # copies beyond the first
    duplicate_document_rate: float
    duplicate_sentences: int
    duplicate_sentence_rate: float
    unigram_entropy: float  # nats, over the training documents
    tokens_per_sentence: dict[str, int]  # quantiles
    sentences_per_document: dict[str, int]  # quantiles
    sentence_lengths: dict[str, int]  # histogram: range of tokens -> sentences
    usable_documents: dict[str, int]  # family of objectives -> documents with enough sentences
    samples: tuple[str, ...]  # sentences, decoded from what is stored
    sample_pieces: str  # the first of them, as tokens
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def describe_corpus(corpus: Corpus, num_samples: int = 3) -> Description:
    """Count what is in a corpus."""
    counts, settings = corpus.metadata["counts"], corpus.metadata["settings"]
    lengths = np.diff(corpus.sentence_offsets)
    sizes = np.diff(corpus.document_offsets)
    all_documents = corpus.num_documents + counts["documents_dropped"]
    all_sentences = corpus.num_sentences + counts["held_out_sentences_dropped"]
    figures: dict[str, Any] = {
        "documents": corpus.num_documents,
        "held_out_documents": int(corpus.is_held_out.sum()),
        "held_out_sentences": int(sizes[corpus.is_held_out].sum()),
        "paragraphs": int(corpus.paragraph_starts.sum()),
        "sentences": corpus.num_sentences,
        "tokens": corpus.num_tokens,
        "vocabulary_size": corpus.vocabulary.size,
        "tokens_per_word": corpus.num_tokens / max(counts["words"], 1),
        "unknown_rate": counts["unknown_tokens"] / corpus.num_tokens,
        "duplicate_document_rate": counts["duplicate_documents"] / all_documents,
        "duplicate_sentence_rate": counts["duplicate_sentences"] / all_sentences,
        "unigram_entropy": corpus.unigram_entropy,
        "tokens_per_sentence": _find_quantiles(lengths),
        "sentences_per_document": _find_quantiles(sizes),
        "sentence_lengths": _count_lengths(lengths),
        "usable_documents": {name: int((sizes >= least).sum()) for name, (least, _) in _FAMILIES.items()},
    }
    same = ("held_out_sentences_dropped", "empty_documents", "words", "duplicate_documents", "duplicate_sentences")
    figures |= {name: counts[name] for name in same}
    samples, pieces = _take_samples(corpus, num_samples)
    return Description(
        location=settings["source"]["location"],
        folder=str(corpus.folder),
        fingerprint=corpus.fingerprint,
        samples=samples,
        sample_pieces=pieces,
        warnings=tuple(_find_warnings(figures, settings)),
        **figures,
    )


def _find_quantiles(values: np.ndarray) -> dict[str, int]:
    found = np.quantile(values, list(_QUANTILES.values()), method="inverted_cdf")
    return dict(zip(_QUANTILES, found.astype(int).tolist(), strict=True))


def _count_lengths(lengths: np.ndarray) -> dict[str, int]:
    edges = np.array([*_BIN_STARTS, np.iinfo(np.int64).max])
    found, _ = np.histogram(lengths, edges)
    names = [f"{begin}-{end - 1}" for begin, end in zip(_BIN_STARTS, _BIN_STARTS[1:], strict=False)]
    return dict(zip([*names, f"{_BIN_STARTS[-1]}+"], found.tolist(), strict=True))


def _take_samples(corpus: Corpus, num_samples: int) -> tuple[tuple[str, ...], str]:
    """Decode sentences from evenly over the corpus; show the first one's tokens too."""
    num_samples = min(num_samples, corpus.num_sentences)
    if num_samples <= 0:
        return (), ""
    tokenizer = corpus.load_tokenizer()
    sentences = (2 * np.arange(num_samples) + 1) * corpus.num_sentences // (2 * num_samples)
    ids = [corpus.token_ids[corpus.sentence_offsets[at] : corpus.sentence_offsets[at + 1]].tolist() for at in sentences]
    texts = tuple(" ".join(str(tokenizer.decode(each[:200])).split()) for each in ids)
    return texts, " ".join(tokenizer.convert_ids_to_tokens(ids[0][:200]))


def _find_warnings(figures: dict[str, Any], settings: dict[str, Any]) -> Iterator[str]:
    if figures["unknown_rate"] >= 0.05:
        remedy = (
            f"{settings['tokenizer']} was made for other text; leave out --tokenizer to train one on yours"
            if settings["tokenizer"]
            else "try --tokenizer_kind bpe, which has a token for every byte, or a larger --vocab_size"
        )
        yield f"{_percent(figures['unknown_rate'])} of the tokens are unknown: {remedy}"
    if figures["sentences_per_document"]["median"] == 1:
        remedy = {
            "line": "if neighbouring lines belong together, try --documents blank_line or --documents file",
            "blank_line": "if the blocks of a file belong together, try --documents file",
        }.get(settings["source"]["documents"], "give longer documents, or train on token objectives alone")
        yield f"most documents have a single sentence, of no use to objectives on pairs or order: {remedy}"
    for what, singular in (("documents", "document"), ("sentences", "sentence")):
        rate = figures[f"duplicate_{singular}_rate"]
        if rate >= 0.1:
            yield (
                f"{_percent(rate)} of the {what} are copies of earlier ones, learnt over and over: "
                "remove copies, headers and boilerplate from the text"
            )
    if not figures["held_out_documents"] and settings["held_out_rate"] > 0 and not settings["held_out"]:
        yield (
            "nothing is held out, so nothing can be measured on unseen text: give two documents or more that differ, "
            "or cut the text into smaller ones (--documents blank_line or line)"
        )


def format_description(found: Description) -> str:
    """Lay the figures out for a terminal of 80 columns."""
    blocks = [
        textwrap.shorten(found.location, WIDTH, placeholder="..."),
        _format_counts(found),
        _format_quantiles(found),
        _format_histogram(found.sentence_lengths),
        _format_families(found),
    ]
    if found.samples:
        blocks.append(_format_samples(found))
    blocks += [_wrap(f"warning: {warning}", "", "  ", None) for warning in found.warnings]
    return "\n\n".join(blocks) + f"\n\nprepared in {found.folder}\n"


def _format_counts(found: Description) -> str:
    held_out = f"{found.held_out_documents:,} held out, with {found.held_out_sentences:,} sentences"
    dropped = (
        f"left out of these, as training has them too: {found.held_out_sentences_dropped:,}"
        if found.held_out_sentences_dropped
        else ""
    )
    rows = [
        ("documents", f"{found.documents:,}", held_out),
        *([("", "", dropped)] if dropped else []),
        *([("empty documents", f"{found.empty_documents:,}", "skipped")] if found.empty_documents else []),
        ("paragraphs", f"{found.paragraphs:,}", ""),
        ("sentences", f"{found.sentences:,}", ""),
        ("words", f"{found.words:,}", f"{found.tokens_per_word:.2f} tokens each"),
        ("tokens", f"{found.tokens:,}", f"from a vocabulary of {found.vocabulary_size:,}"),
        ("unknown tokens", _percent(found.unknown_rate), ""),
        ("copied documents", f"{found.duplicate_documents:,}", _percent(found.duplicate_document_rate)),
        ("copied sentences", f"{found.duplicate_sentences:,}", _percent(found.duplicate_sentence_rate)),
        ("unigram entropy", f"{found.unigram_entropy:.2f} nats", "the loss of guessing by frequency alone"),
    ]
    return "\n".join(f"  {name:<17}{value:>15}   {note}".rstrip() for name, value, note in rows)


def _format_quantiles(found: Description) -> str:
    names = "".join(f"{name:>8}" for name in _QUANTILES)
    rows = {"tokens a sentence": found.tokens_per_sentence, "sentences a document": found.sentences_per_document}
    lines = [f"  {'':<21}{names}"]
    lines += [f"  {name:<21}" + "".join(f"{value:>8,}" for value in row.values()) for name, row in rows.items()]
    return "\n".join(lines)


def _format_histogram(sentence_lengths: dict[str, int]) -> str:
    total, highest = sum(sentence_lengths.values()), max(sentence_lengths.values())
    lines = ["  tokens    sentences"]
    for name, count in sentence_lengths.items():
        bar = "#" * -(-count * 40 // highest)
        lines.append(f"  {name:<7}{count:>12,}{_percent(count / total):>9}  {bar}".rstrip())
    return "\n".join(lines)


def _format_families(found: Description) -> str:
    lines = ["  documents that are long enough for objectives on"]
    for name, (least, examples) in _FAMILIES.items():
        usable = found.usable_documents[name]
        needs = "1 sentence" if least == 1 else f"{least} sentences"
        share = _percent(usable / found.documents)
        lines.append(f"  {name:<7}{usable:>12,}{share:>9}  {needs} or more: {examples}")
    return "\n".join(lines)


def _format_samples(found: Description) -> str:
    lines = ["  samples, as a model reads them, and the first one's tokens"]
    for number, text in enumerate(found.samples, start=1):
        lines.append(_wrap(text, f"  {number}  ", "     "))
        if number == 1:
            lines.append(_wrap(found.sample_pieces, "     = ", "       "))
    return "\n".join(lines)


def _wrap(text: str, first: str, later: str, max_lines: int | None = 3) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=later, max_lines=max_lines, placeholder=" ..."
    )


def _percent(rate: float) -> str:
    """Two digits that count, and never 0 or 100 where it isn't so."""
    if rate in (0, 1):
        return f"{rate:.0%}".replace("%", " %")
    if rate < 0.0001:
        return "< 0.01 %"
    digits = 2 if rate < 0.01 else 1
    return f"{min(100 * rate, 99.9):.{digits}f} %"
