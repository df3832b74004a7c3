"""Our side: runs in memory, set up as the alternative is."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from objectives.batch import Batch
from training.config import Config
from training.loop import batches_by_step, take_step
from training.setup import Run, build_run, make_accelerator

# As the stock collator selects: each token for itself. BERT's dropout, which `transformers` has by default.
STOCK_MASKING = "mlm:count=bernoulli"
STOCK_DROPOUT = 0.1


def make_run(options: argparse.Namespace, **changes: object) -> Run:
    """Return a run in memory on the corpus, the cache and the threads of a benchmark's options."""
    settings: dict[str, object] = {
        "objective": STOCK_MASKING,
        "corpus": options.corpus,
        "cache": options.cache,
        "out": "runs/benchmark",  # nothing is written there
        "encoder": "bert-small",
        "dropout": STOCK_DROPOUT,
        "mixed_precision": "no",
        "threads": options.threads,
        "held_out_rate": 0.02,
        "loops": options.loops,
    }
    settings |= changes
    settings.setdefault("micro_batch_size", settings.get("batch_size", 64))
    config = Config(**settings)  # type: ignore[arg-type]  # the settings of a benchmark, by name
    run = build_run(config, make_accelerator(config), Path(config.out))
    run.model.train()
    return run


class Stepper:
    """Takes the steps of a run one by one, each with the building of its batches."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._batches: Iterator[list[tuple[int, Batch]]] = batches_by_step(run, run.step, run.max_steps)

    def __call__(self) -> None:
        take_step(self.run, next(self._batches), 0)
