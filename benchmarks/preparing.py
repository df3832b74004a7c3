"""Preparing a text by one, two and four processes, and ten times the text by as many.

    python -m benchmarks.preparing --corpus wiki.txt.gz [--characters 8000000] [--json preparing.json]

The tokenizer is given. What is stored is compared outside the clock: it is the same, byte for byte.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from corpora import Corpus, CorpusSettings, TextSource, prepare_corpus
from corpora.errors import UserError

from .interleaved import Row, take_turns
from .table import Table, make_parser, run_benchmark
from .tokenise import empty, take_documents

_TENFOLD = 10
_PROCESSES = (2, 4)


def measure(options: argparse.Namespace) -> Table:
    """Measure both sizes."""
    source = TextSource(location=options.corpus)
    cache = Path(options.cache) if options.cache else None
    tokenizer = prepare_corpus(CorpusSettings(source=source, vocab_size=options.vocab_size), cache).tokenizer_folder
    documents = take_documents(source, options.characters)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for times in (1, _TENFOLD):
            copies = (f"Copy {number}. {text}" for number in range(times) for text in documents)
            text = folder / f"{times}.txt"
            text.write_text("\n\n".join(copies) + "\n")
            settings = CorpusSettings(source=TextSource(location=str(text)), tokenizer=str(tokenizer))
            rows += compare_processes(settings, folder, options)
    return Table(title="preparing a text by several processes", rows=rows)


def compare_processes(settings: CorpusSettings, folder: Path, options: argparse.Namespace) -> list[Row]:
    """Return the rows of one text: several processes against one. Raises UserError where they store something else."""
    stored: dict[int, Corpus] = {}

    def prepare(processes: int) -> None:
        cache = empty(folder / f"cache-{processes}")
        stored[processes] = prepare_corpus(settings, cache, progress=False, processes=processes)

    contestants = {
        f"{number} process{'es' * (number > 1)}": lambda number=number: prepare(number) for number in (1, *_PROCESSES)
    }
    turns = take_turns(contestants, pairs=options.pairs, warm_up=options.warm_up)
    one, *several = (replace(each, cpu=()) for each in turns)  # it would leave out what the processes need
    found = {number: corpus.fingerprint for number, corpus in stored.items()}
    if len(set(found.values())) > 1:
        raise UserError(f"the stores of {settings.source.location} differ: {found}")
    corpus = stored[1]
    what = f"preparing {corpus.metadata['counts']['characters'] / 1e6:.1f} M characters"
    return [Row(what=what, theirs=one, ours=each, tokens=float(corpus.num_tokens)) for each in several]


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    numbers = {"characters": 8_000_000, "vocab_size": 8192, "pairs": 3, "warm_up": 0}
    return run_benchmark(measure, make_parser("preparing", __doc__ or "", **numbers), argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
