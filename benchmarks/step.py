"""A training step against `transformers.Trainer`: the same model, examples, precision and dropout.

    python -m benchmarks.step --corpus wiki.txt.gz [--only small-8k] [--json step.json]

The real Trainer trains, and whenever it has ended a step a callback takes one of ours: A B A B ... in one process. A
turn is everything from the fetching of the examples to the updated weights.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from transformers import TrainerCallback

from corpora.errors import UserError
from training.setup import Run, computes_in_bf16

from .interleaved import Row, Series, Watch
from .runs import Stepper, make_run
from .stock import TRAINER_SETTINGS, make_dataset, make_stock_model, make_trainer
from .table import Table, make_parser, run_benchmark


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row: an encoder and a vocabulary, a precision, a dropout."""

    encoder: str
    vocab_size: int
    batch_size: int
    precision: str
    dropout: float

    @property
    def name(self) -> str:
        size = self.encoder.rpartition("-")[2]
        return f"{size}-{self.vocab_size // 1000}k-{'bf16' if self.precision == 'bf16' else 'fp32'}-{self.dropout:g}"


MODELS = (("bert-small", 8192, 8), ("bert-small", 30_000, 8), ("bert-tiny", 30_000, 16))
SETTINGS = tuple(
    Setting(encoder=encoder, vocab_size=vocab_size, batch_size=batch_size, precision=precision, dropout=dropout)
    for encoder, vocab_size, batch_size in MODELS
    for precision in ("no", "bf16")
    for dropout in (0.1, 0.0)
)


class TakeTurns(TrainerCallback):
    """Times the Trainer's steps, and takes one of ours after each."""

    def __init__(self, step: Stepper) -> None:
        self.step = step
        self.theirs, self.ours = Watch(), Watch()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.theirs.start()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.theirs.stop()
        self.ours.start()
        self.step()
        self.ours.stop()
        self.theirs.start()


def measure_setting(setting: Setting, options: argparse.Namespace) -> Row:
    """Return the row of one setting: seconds of a step on both sides."""
    steps = options.warm_up + options.pairs
    run = make_run(
        options,
        encoder=setting.encoder,
        vocab_size=setting.vocab_size,
        batch_size=setting.batch_size,
        max_length=options.max_length,
        dropout=setting.dropout,
        mixed_precision=setting.precision,
        max_steps=steps,
    )
    theirs, ours = take_trainer_turns(run, options.stock_attention, options.warm_up)
    tokens = run.tokens / steps
    return Row(
        what=f"step, {setting.name}, {setting.batch_size} x {options.max_length}",
        theirs=theirs,
        ours=ours,
        tokens=tokens,
    )


def take_trainer_turns(
    run: Run, attention: str, warm_up: int, dataset: datasets.Dataset | None = None
) -> tuple[Series, Series]:
    """Train a run and its copy under the Trainer in turn, to the end of the run; return what each step took.

    The Trainer reads the run's own examples, or another `dataset`.
    """
    dataset = dataset or make_dataset(run.train, run.config.batch_size * run.max_steps)
    turns = TakeTurns(Stepper(run))
    with tempfile.TemporaryDirectory() as folder:
        model = make_stock_model(run, attention)
        make_trainer(run, model, dataset, steps=run.max_steps, folder=Path(folder), callbacks=[turns]).train()
    return turns.theirs.series(f"Trainer, {attention}", warm_up), turns.ours.series("ours", warm_up)


def measure(options: argparse.Namespace) -> Table:
    """Measure every setting, or the chosen ones."""
    chosen = [each for each in SETTINGS if not options.only or each.name.startswith(tuple(options.only))]
    if not chosen:
        raise UserError(f"--only {' '.join(options.only)} is none of {', '.join(each.name for each in SETTINGS)}")
    shown = [each for each in chosen if each.precision == "no" or computes_in_bf16()]
    rows = []
    for each in shown:
        rows.append(measure_setting(each, options))
        print(f"{rows[-1].what}: {rows[-1].ratio}, by processor time {rows[-1].cpu_ratio}", file=sys.stderr)
    missing = [f"{each.name}: this processor computes no bf16" for each in chosen if each not in shown]
    settings = {"Trainer": TRAINER_SETTINGS, "attention": f"Trainer {options.stock_attention}, ours as `auto` chooses"}
    return Table(title="a training step against transformers.Trainer", rows=rows, missing=missing, settings=settings)


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    parser = make_parser("step", __doc__ or "", max_length=128)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="settings, or how their names begin")
    parser.add_argument("--stock_attention", default="sdpa", help="the Trainer's; sdpa is its own default")
    return run_benchmark(measure, parser, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
