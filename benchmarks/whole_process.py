"""A whole run as a user starts it, from raw text to a saved encoder, against a script with the Trainer.

    python -m benchmarks.whole_process --corpus wiki.txt.gz [--steps 200] [--json whole_process.json]

Two commands in turn, each a process of its own with nothing prepared: imports, tokenising, training, saving. The
tokenizer is given to both. Ours measures the held-out loss, writes checkpoints and a model card besides.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from corpora import CorpusSettings, TextSource, prepare_corpus

from .children import ROOT, Finished, run_child
from .interleaved import Row, Series
from .runs import STOCK_DROPOUT, STOCK_MASKING
from .table import Table, make_parser, run_benchmark
from .tokenise import empty, take_documents


def measure(options: argparse.Namespace) -> Table:
    """Measure `steps` steps of a small encoder."""
    source = TextSource(location=options.corpus)
    cache = Path(options.cache) if options.cache else None
    tokenizer = prepare_corpus(CorpusSettings(source=source, vocab_size=options.vocab_size), cache).tokenizer_folder
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text.txt"
        text.write_text("\n\n".join(take_documents(source, options.characters)) + "\n")
        shared = {"encoder": options.encoder, "max_length": options.max_length, "batch_size": options.rows}
        shared |= {"max_steps": options.steps, "corpus": text, "tokenizer": tokenizer, "dropout": STOCK_DROPOUT}

        def ours() -> Finished:
            more = {"objective": STOCK_MASKING, "micro_batch_size": options.rows, "mixed_precision": "no"}
            more |= {"threads": options.threads, "out": folder / "ours", "cache": empty(folder / "cache")}
            empty(folder / "ours")
            return run_child([str(ROOT / "pretrain.py"), *spell(shared | more)], options.threads)

        def theirs() -> Finished:
            more = {"out": empty(folder / "theirs"), "threads": options.threads}
            return run_child(["-m", "benchmarks.trainer_process", *spell(shared | more)], options.threads)

        turns = [(theirs(), ours()) for _ in range(options.warm_up + options.pairs)][options.warm_up :]
    sides = [
        Series(name=name, values=tuple(each.wall for each in side), cpu=tuple(each.cpu for each in side))
        for name, side in zip(("script with the Trainer", "pretrain.py"), zip(*turns, strict=True), strict=True)
    ]
    what = f"whole process, {options.encoder}, {options.steps} steps of {options.rows} x {options.max_length}"
    row = Row(
        what=what, theirs=sides[0], ours=sides[1], tokens=float(options.steps * options.rows * options.max_length)
    )
    return Table(title="a whole run against a script with transformers.Trainer", rows=[row])


def spell(settings: dict[str, object]) -> list[str]:
    """Return settings as words of a command line."""
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    numbers = {"steps": 200, "rows": 32, "max_length": 128, "vocab_size": 8192, "characters": 2_000_000, "warm_up": 0}
    parser = make_parser("whole_process", __doc__ or "", **numbers)
    parser.add_argument("--encoder", default="bert-tiny")
    return run_benchmark(measure, parser, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
