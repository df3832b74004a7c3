"""Fetching and collating: batches as the loop takes them against a DataLoader with the stock collator.

    python -m benchmarks.collate --corpus wiki.txt.gz [--rows 128] [--max_length 128] [--json collate.json]

The DataLoader reads a `datasets` table of the same framed examples, as the Trainer does; ours reads the store, and
frames them itself. What a batch holds on either side: see `benchmarks.masking`.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import cycle

from torch.utils.data import DataLoader

from .interleaved import Row, take_turns
from .runs import make_run
from .stock import make_collator, make_dataset
from .table import Table, make_parser, run_benchmark

_LEAST_SECONDS = 0.05  # of a turn


def measure(options: argparse.Namespace) -> Table:
    """Measure with the table as lists, and as torch tensors."""
    run = make_run(options, encoder="bert-tiny", batch_size=options.rows, max_length=options.max_length)
    table = make_dataset(run.train, options.rows * options.batches)
    collator = make_collator(run)
    numbers = cycle(range(options.batches))
    tokens = sum(run.train[number].num_tokens for number in range(options.batches)) / options.batches
    rows = []
    for form, read in (("lists", table), ("set_format torch", table.with_format("torch"))):
        batches: Iterator[object] = cycle_loader(DataLoader(read, batch_size=options.rows, collate_fn=collator))  # type: ignore[arg-type]  # datasets' tables are no torch Dataset by name
        theirs, ours = take_turns(
            {f"DataLoader, {form}": lambda batches=batches: next(batches), "ours": lambda: run.train[next(numbers)]},  # type: ignore[misc]  # the loop's own
            pairs=options.pairs,
            warm_up=options.warm_up,
            least_seconds=_LEAST_SECONDS,
        )
        what = f"fetch and collate, {options.rows} x {options.max_length}"
        rows.append(Row(what=what, theirs=theirs, ours=ours, tokens=tokens))
    return Table(title="fetching and collating against DataLoader and the stock collator", rows=rows)


def cycle_loader(loader: "DataLoader[object]") -> Iterator[object]:
    """Yield batch after batch, epoch after epoch; `itertools.cycle` would keep them."""
    while True:
        yield from loader


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    parser = make_parser("collate", __doc__ or "", rows=128, max_length=128, batches=8)
    return run_benchmark(measure, parser, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
