"""Useful tokens a second: rows of whole sentences against one sentence a row, padded to the batch's longest.

    python -m benchmarks.padding --corpus wiki.txt.gz [--encoder bert-tiny] [--json padding.json]

A useful token is one of the text, special ones and padding not counted. The Trainer reads each sentence as an example.
"""

import argparse
import sys

import datasets
import numpy as np

from training.setup import Run

from .interleaved import Row, Series
from .runs import make_run
from .step import take_trainer_turns
from .stock import TRAINER_SETTINGS
from .table import Table, make_parser, run_benchmark

_PER = 1000  # useful tokens that the seconds are for


def measure(options: argparse.Namespace) -> Table:
    """Measure steps of as many rows on both sides."""
    steps = options.warm_up + options.pairs
    size = {"encoder": options.encoder, "max_length": options.max_length, "batch_size": options.rows}
    run = make_run(options, **size, vocab_size=options.vocab_size, max_steps=steps)
    sentences = sample_sentences(run, options.rows * steps)
    theirs, ours = take_trainer_turns(run, options.stock_attention, options.warm_up, frame_sentences(run, sentences))
    lengths = np.diff(run.corpus.sentence_offsets)[sentences].clip(max=options.max_length - 2)
    batches = lengths.reshape(steps, options.rows)
    widest = batches.max(axis=1) + 2
    useful_theirs = batches.sum(axis=1)
    useful_ours = np.array([run.train[number].num_tokens - 2 * options.rows for number in range(steps)])
    rows = [run.train[number].input_ids.numel() for number in range(steps)]
    shares = useful_theirs.sum() / (widest * options.rows).sum(), useful_ours.sum() / sum(rows)
    notes = {"useful share of positions": f"{shares[0]:.2f} padded to the longest, {shares[1]:.2f} ours"}
    row = Row(
        what=f"{_PER:,} useful tokens, {options.encoder}, {options.rows} rows",
        theirs=per_tokens(theirs, useful_theirs[options.warm_up :]),
        ours=per_tokens(ours, useful_ours[options.warm_up :]),
        tokens=float(_PER),
        notes=notes,
    )
    return Table(
        title="rows of whole sentences against a sentence a row, padded",
        rows=[row],
        settings={"Trainer": TRAINER_SETTINGS},
    )


def per_tokens(series: Series, useful: np.ndarray) -> Series:
    """Return seconds for each `_PER` useful tokens, from seconds of turns (P,) with so many useful ones (P,)."""
    factors = _PER / useful
    return Series(
        name=series.name,
        values=tuple((np.array(series.values) * factors).tolist()),
        cpu=tuple((np.array(series.cpu) * factors).tolist()),
    )


def sample_sentences(run: Run, count: int) -> np.ndarray:
    """Return sentences of the text in a random order (count,)."""
    return np.random.default_rng(0).permutation(run.corpus.num_sentences)[:count]


def frame_sentences(run: Run, sentences: np.ndarray) -> datasets.Dataset:
    """Return sentences as a table for the Trainer, cut to the longest row."""
    vocabulary, offsets = run.corpus.vocabulary, run.corpus.sentence_offsets
    rows = []
    for sentence in sentences.tolist():
        ids = run.corpus.token_ids[offsets[sentence] : offsets[sentence + 1]][: run.config.max_length - 2].tolist()
        special = [1, *[0] * len(ids), 1]
        rows.append({"input_ids": [vocabulary.cls_id, *ids, vocabulary.sep_id], "special_tokens_mask": special})
    return datasets.Dataset.from_list(rows)


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    parser = make_parser("padding", __doc__ or "", rows=32, max_length=128, vocab_size=8192)
    parser.add_argument("--encoder", default="bert-tiny")
    parser.add_argument("--stock_attention", default="sdpa", help="the Trainer's; sdpa is its own default")
    return run_benchmark(measure, parser, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
