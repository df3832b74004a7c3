"""Hiding tokens: a whole batch from stored ids, masking alone, and whole words, against the stock collator.

    python -m benchmarks.masking --corpus wiki.txt.gz [--rows 128] [--max_length 128] [--json masking.json]

"From stored ids" is all that a batch takes here: the passages are looked up, framed, masked and laid out in rows as
torch tensors. The stock collator starts from examples that are framed already, as lists or as arrays. It returns dense
labels, of -100 where nothing is asked; ours are positions and values, and beside them token types. "Masking alone"
selects and hides on both sides: theirs in padded rows, ours in flat sequences, by chance that hangs on the example
alone. The rows are as long as whole sentences make them, so that not every place holds a token.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from objectives.base import Corruption
from objectives.draws import Draws
from objectives.sequences import Context, Sequences
from training.setup import Run
from training.stream import to_batch

from .interleaved import Row, take_turns
from .runs import STOCK_MASKING, make_run
from .stock import framed_examples, make_collator, to_lists
from .table import Table, make_parser, run_benchmark

_LEAST_SECONDS = 0.05  # of a turn
Call = Callable[[], object]


def measure(options: argparse.Namespace) -> Table:
    """Measure a batch of `rows` x `max_length`."""
    size = {"encoder": "bert-tiny", "batch_size": options.rows, "max_length": options.max_length}
    tokens, words = (make_run(options, objective=each, **size) for each in (STOCK_MASKING, "mlm:strategy=words"))
    framed = framed_examples(tokens.train, np.arange(options.rows))
    lists = to_lists(framed)
    arrays = [{name: np.array(values) for name, values in each.items()} for each in lists]
    collator, numpy_collator = make_collator(tokens), make_collator(tokens, return_tensors="np")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that its whole words are all hidden, none random
        word_collator = make_collator(tokens, whole_word_mask=True)
    ready = collator.tokenizer.pad(lists, return_tensors="pt")
    located = locate_words(framed, tokens.corpus.vocabulary.pad_id)

    def mask_ready() -> object:  # it changes what it is given
        return collator.torch_mask_tokens(ready["input_ids"].clone(), ready["special_tokens_mask"])

    def row(what: str, theirs: tuple[str, Call], ours: Call) -> Row:
        turns = {"pairs": options.pairs, "warm_up": options.warm_up}
        first, second = take_turns({theirs[0]: theirs[1], "ours": ours}, **turns, least_seconds=_LEAST_SECONDS)
        shown = f"{what}, {options.rows} x {options.max_length}"
        return Row(what=shown, theirs=first, ours=second, tokens=float(framed.offsets[-1]))

    stored = "masked batch from stored ids"
    rows = [
        row(stored, ("collator, lists", lambda: collator(copies(lists))), lambda: build_batch(tokens)),
        row(stored, ("collator, arrays", lambda: numpy_collator(copies(arrays))), lambda: build_batch(tokens)),
        row("masking alone", ("torch_mask_tokens, ready tensor", mask_ready), lambda: mask(tokens, framed)),
        row("whole words", ("collator, lists", lambda: word_collator(copies(located))), lambda: build_batch(words)),
    ]
    return Table(title="hiding tokens against DataCollatorForLanguageModeling", rows=rows, settings={"mask rate": 0.15})


def build_batch(run: Run) -> object:
    """Build the first batch of the stream."""
    return to_batch(run.train.stream.build(np.arange(run.config.batch_size)), run.corpus.vocabulary)


def mask(run: Run, framed: Sequences) -> Corruption:
    """Hide tokens of framed examples."""
    examples = np.arange(framed.num_examples)
    context = Context(vocabulary=run.corpus.vocabulary, tables=run.train.stream.tables, progress=np.ones(len(examples)))
    return run.objectives[0].corrupt(framed, Draws(seed=0, examples=examples), context)


def copies(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return examples whose keys a collator may take away."""
    return [dict(each) for each in examples]


def locate_words(framed: Sequences, pad_id: int) -> list[dict[str, Any]]:
    """Return examples with the offsets that the stock collator knows words by, all equally long: it pads no offsets.

    A token that starts a word begins one character after the token before it ends.
    """
    longest = int(framed.lengths.max())
    located = []
    for begin, end in zip(framed.offsets, framed.offsets[1:], strict=False):
        padding = longest - int(end - begin)
        starts = np.arange(end - begin) * 10 + framed.is_word_start[begin:end]
        offsets = np.stack([starts, np.arange(1, end - begin + 1) * 10], axis=1).tolist()
        located.append(
            {
                "input_ids": framed.original_ids[begin:end].tolist() + [pad_id] * padding,
                "special_tokens_mask": framed.is_special[begin:end].astype(int).tolist() + [1] * padding,
                "offset_mapping": offsets + [[0, 0]] * padding,
            }
        )
    return located


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    return run_benchmark(measure, make_parser("masking", __doc__ or "", rows=128, max_length=128), argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
