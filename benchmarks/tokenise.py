"""Tokenising and storing a text: preparation here against `datasets.map` that tokenises and groups.

    python -m benchmarks.tokenise --corpus wiki.txt.gz [--characters 2000000] [--json tokenise.json]

Both start from the same documents and tokenizer and end with ids on the disk. Ours finds sentences and word starts,
too, and splits off held-out documents; the ids are compared document by document outside the clock.
"""

import argparse
import shutil
import sys
import tempfile
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from corpora import Corpus, CorpusSettings, TextSource, prepare_corpus
from corpora.sources import read_documents

from .interleaved import Row, take_turns
from .table import Table, make_parser, run_benchmark


def measure(options: argparse.Namespace) -> Table:
    """Measure with the tokenizer of the prepared corpus."""
    cache = Path(options.cache) if options.cache else None
    source = TextSource(location=options.corpus)
    prepared = prepare_corpus(CorpusSettings(source=source, vocab_size=options.vocab_size), cache)
    tokenizer, documents = prepared.load_tokenizer(), take_documents(source, options.characters)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text.txt"
        text.write_text("\n\n".join(documents) + "\n")
        settings = CorpusSettings(source=TextSource(location=str(text)), tokenizer=str(prepared.tokenizer_folder))
        stored: dict[str, Any] = {}

        def ours() -> None:
            stored["ours"] = prepare_corpus(settings, empty(folder / "cache"), progress=False, processes=1)

        def theirs() -> None:
            stored["theirs"] = map_and_group(documents, tokenizer, empty(folder / "tables"), options.max_length)

        datasets.disable_progress_bars()
        first, second = take_turns(
            {"datasets.map, tokenise and group": theirs, "ours": ours}, pairs=options.pairs, warm_up=options.warm_up
        )
        equal = count_equal(stored["ours"], tokenizer, documents)
        megabytes = sum(map(len, documents)) / 1e6
        row = Row(
            what=f"tokenise and store, {megabytes:.1f} M characters",
            theirs=first,
            ours=second,
            tokens=float(stored["ours"].num_tokens),
            notes={"documents with the tokenizer's own ids": f"{equal[0]:,} of {equal[1]:,}"},
        )
    return Table(title="preparing a text against datasets.map", rows=[row])


def take_documents(source: TextSource, characters: int) -> list[str]:
    """Return the first documents of a text, of `characters` together."""
    documents, size = [], 0
    for text in read_documents(source):
        documents.append(" ".join(text.split()))
        size += len(documents[-1])
        if size >= characters:
            break
    return documents


def empty(folder: Path) -> Path:
    """Return the folder, new: neither side may find what it has made before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def map_and_group(documents: list[str], tokenizer: Any, folder: Path, length: int) -> datasets.Dataset:
    """Tokenise and group as the stock masked LM script does, in batches of 1,000, into a file of the folder."""

    def tokenise(rows: dict[str, list[str]]) -> Any:
        return tokenizer(rows["text"], return_special_tokens_mask=True, add_special_tokens=True)

    def group(rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {name: list(chain.from_iterable(lists)) for name, lists in rows.items()}
        total = len(joined["input_ids"]) // length * length
        return {name: [ids[at : at + length] for at in range(0, total, length)] for name, ids in joined.items()}

    table = datasets.Dataset.from_dict({"text": documents})
    encoded = table.map(tokenise, batched=True, remove_columns=["text"], cache_file_name=str(folder / "encoded.arrow"))
    return encoded.map(group, batched=True, cache_file_name=str(folder / "grouped.arrow"))


def count_equal(corpus: Corpus, tokenizer: Any, documents: list[str]) -> tuple[int, int]:
    """Return how many documents are stored with the ids that the tokenizer gives them whole, of how many.

    Held-out documents that lost a sentence to the training side are left out of both.
    """
    ends = corpus.sentence_offsets[corpus.document_offsets]
    equal = 0
    lists = tokenizer([each for each in documents], add_special_tokens=False)["input_ids"]
    stored = [corpus.token_ids[begin:end] for begin, end in zip(ends, islice(ends, 1, None), strict=False)]
    if len(stored) != len(lists):
        return 0, len(lists)
    whole = [not held or len(ids) == len(own) for held, ids, own in zip(corpus.is_held_out, stored, lists, strict=True)]
    equal = sum(np.array_equal(ids, own) for ids, own, kept in zip(stored, lists, whole, strict=True) if kept)
    return equal, sum(whole)


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    numbers = {"characters": 2_000_000, "vocab_size": 8192, "max_length": 128}
    return run_benchmark(measure, make_parser("tokenise", __doc__ or "", **numbers), argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
