"""Peak memory: a training step against the Trainer's, and the preparation of ten times the text.

    python -m benchmarks.memory --corpus wiki.txt.gz [--vocab_sizes 8192 30000] [--json memory.json]

Each figure is the most that a process of its own has held, its libraries counted; ratios are ours to the other's, and
in the last rows those of ten times the text to the text, with the tokenizer given and with one trained.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from corpora import CorpusSettings, TextSource, prepare_corpus

from .children import peak_memory, run_child, tell
from .interleaved import Row, Series
from .runs import Stepper, make_run
from .stock import make_dataset, make_stock_model, make_trainer
from .table import Table, make_parser, run_benchmark
from .tokenise import empty, take_documents
from .whole_process import spell

_TENFOLD = 10


def measure(options: argparse.Namespace) -> Table:
    """Measure both kinds of rows."""
    return Table(
        title="peak resident memory",
        rows=[*(measure_steps(options, size) for size in options.vocab_sizes), *measure_preparation(options)],
        missing=["memory of a GPU: none is here"],
    )


def measure_steps(options: argparse.Namespace, vocab_size: int) -> Row:
    """Return the row of a few steps with a vocabulary of this size."""
    given = {name: value for name in ("corpus", "cache") if (value := getattr(options, name))}
    given |= {name: getattr(options, name) for name in ("rows", "max_length", "encoder", "threads", "steps")}
    given["vocab_size"] = vocab_size
    make_run(options, encoder="bert-tiny", vocab_size=vocab_size, batch_size=1)  # prepares the corpus: not counted
    sides = {}
    for side in ("trainer", "ours"):
        words = ["-m", "benchmarks.memory", "--child", side, *spell(given)]
        peaks = [json.loads(run_child(words, options.threads).said)["peak"] for _ in range(options.pairs)]
        sides[side] = Series(name="Trainer, sdpa" if side == "trainer" else side, values=tuple(map(float, peaks)))
    what = f"step, {options.encoder}, {options.rows} x {options.max_length}, {vocab_size:,} tokens"
    return Row(what=what, theirs=sides["trainer"], ours=sides["ours"], inverted=True, unit="MB")


def measure_preparation(options: argparse.Namespace) -> list[Row]:
    """Return the rows of preparing a text and ten times it."""
    source = TextSource(location=options.corpus)
    cache = Path(options.cache) if options.cache else None
    tokenizer = prepare_corpus(CorpusSettings(source=source), cache).tokenizer_folder
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = take_documents(source, options.characters)
        for times in (1, _TENFOLD):  # each copy with words of its own, so that none is a duplicate
            copies = (f"Copy {number}. {text}" for number in range(times) for text in documents)
            (folder / f"{times}.txt").write_text("\n\n".join(copies) + "\n")
        for what, given in (("tokenizer given", {"tokenizer": tokenizer}), ("tokenizer trained", {})):
            peaks = []
            for times in (1, _TENFOLD):
                more = {"corpus": folder / f"{times}.txt", "cache": empty(folder / "cache"), **given}
                words = ["-m", "benchmarks.memory", "--child", "preparation", *spell(more)]
                runs = [json.loads(run_child(words, options.threads).said)["peak"] for _ in range(options.pairs)]
                peaks.append(Series(name=f"{times} x the text", values=tuple(map(float, runs))))
            size = sum(map(len, documents)) / 1e6
            shown = f"preparing {size:.1f} M characters, {what}"
            rows.append(Row(what=shown, theirs=peaks[0], ours=peaks[1], inverted=True, unit="MB"))
    return rows


def be_child(options: argparse.Namespace) -> None:
    """Do in this process what is to be measured, and tell its peak."""
    if options.child == "preparation":
        source = TextSource(location=options.corpus)
        settings = CorpusSettings(source=source, tokenizer=options.tokenizer)
        prepare_corpus(settings, Path(options.cache), progress=False, processes=1)
        tell(peak=peak_memory())
        return
    size = {"encoder": options.encoder, "vocab_size": options.vocab_size, "max_length": options.max_length}
    run = make_run(options, **size, batch_size=options.rows, max_steps=options.steps)
    if options.child == "ours":
        step = Stepper(run)
        for _ in range(options.steps):
            step()
    else:
        dataset, model = make_dataset(run.train, options.rows * options.steps), make_stock_model(run, "sdpa")
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(run, model, dataset, steps=options.steps, folder=Path(folder))
            run.accelerator.free_memory()
            run.model = run.wrapped = run.optimizer = None  # type: ignore[assignment]  # only the Trainer's copy stays
            trainer.train()
    tell(peak=peak_memory())


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    numbers = {"pairs": 1, "rows": 16, "max_length": 128, "steps": 3, "characters": 2_000_000, "vocab_size": 8192}
    parser = make_parser("memory", __doc__ or "", **numbers)
    parser.add_argument("--encoder", default="bert-small")
    parser.add_argument("--vocab_sizes", type=int, nargs="*", default=[8192, 30_000])
    parser.add_argument("--tokenizer", default=None, help=argparse.SUPPRESS)
    return run_benchmark(measure, parser, argv, be_child)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
