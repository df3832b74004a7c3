"""Whether as much is learned: the held-out loss here and after the Trainer, same start, same examples, same schedule.

    python -m benchmarks.learning --corpus wiki.txt.gz [--steps 300] [--seeds 3] [--json learning.json]

For each seed both begin with the same weights and read the same examples in the same order under the same optimizer and
schedule; each draws its masks and its dropout by itself, token by token at the same rates. The same held-out questions
are put to both. The seconds are those of training alone.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from training.evaluate import evaluate
from training.setup import Run

from .interleaved import Row, Series, Watch
from .runs import Stepper, make_run
from .stock import TRAINER_SETTINGS, copy_back, make_dataset, make_stock_model, make_trainer
from .table import Table, make_parser, run_benchmark


class TimeTraining(TrainerCallback):
    """Times a Trainer from the start of its training to the end."""

    def __init__(self) -> None:
        self.watch = Watch()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.watch.start()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.watch.stop()


def train_both(run: Run, attention: str, seed: int) -> tuple[float, float, Watch, Watch]:
    """Train ours, then the Trainer's copy; return both held-out losses (theirs first) and both watches."""
    copy = make_stock_model(run, attention)
    step, ours, timing = Stepper(run), Watch(), TimeTraining()
    ours.start()
    for _ in range(run.max_steps):
        step()
    ours.stop()
    our_loss = evaluate(run)["mlm"]["loss"]
    dataset = make_dataset(run.train, run.config.batch_size * run.max_steps)
    with tempfile.TemporaryDirectory() as folder:
        make_trainer(
            run, copy, dataset, steps=run.max_steps, folder=Path(folder), callbacks=[timing], seed=seed
        ).train()
    copy_back(run, copy)
    return evaluate(run)["mlm"]["loss"], our_loss, timing.watch, ours


def measure(options: argparse.Namespace) -> Table:
    """Train both for every seed."""
    losses, times = [], []
    size = {"encoder": options.encoder, "max_length": options.max_length, "batch_size": options.rows}
    size |= {"max_steps": options.steps, "vocab_size": options.vocab_size, "eval_examples": options.eval_examples}
    for seed in range(options.seeds):
        run = make_run(options, seed=seed, **size)
        *pair, theirs, ours = train_both(run, options.stock_attention, seed)
        losses.append(pair)
        times.append((theirs, ours))
        print(f"seed {seed}: Trainer {pair[0]:.4f}, ours {pair[1]:.4f}", file=sys.stderr)
    tokens = float(run.tokens)
    gaps = [ours / theirs - 1 for theirs, ours in losses]
    names = (f"Trainer, {options.stock_attention}", "ours")
    by_side = [
        Series(name=name, values=tuple(side)) for name, side in zip(names, zip(*losses, strict=True), strict=True)
    ]
    what = f"{options.encoder}, {options.steps} steps of {options.rows} x {options.max_length}"
    unigram = {"of word frequencies alone": f"{run.corpus.unigram_entropy:.3f}"}
    each = {"difference by seed": ", ".join(f"{gap:+.2%}" for gap in gaps), "mean": f"{np.mean(gaps):+.2%}"}
    loss = Row(
        what=f"held-out loss, {what}",
        theirs=by_side[0],
        ours=by_side[1],
        inverted=True,
        unit="nats",
        notes=unigram | each,
    )
    watched = [
        Series(
            name=name,
            values=tuple(pair[side].values[0] for pair in times),
            cpu=tuple(pair[side].cpu[0] for pair in times),
        )
        for side, name in enumerate(names)
    ]
    time = Row(what=f"training, {what}", theirs=watched[0], ours=watched[1], tokens=tokens)
    return Table(
        title="the same loss as transformers.Trainer", rows=[loss, time], settings={"Trainer": TRAINER_SETTINGS}
    )


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    numbers = {"steps": 300, "seeds": 3, "rows": 16, "max_length": 64, "vocab_size": 8192, "eval_examples": 1024}
    parser = make_parser("learning", __doc__ or "", **numbers)
    parser.add_argument("--encoder", default="bert-tiny")
    parser.add_argument("--stock_attention", default="sdpa", help="the Trainer's; sdpa is its own default")
    return run_benchmark(measure, parser, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
