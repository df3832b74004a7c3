"""Our own step by how rows are read, and by their length: sdpa against eager, and eager against rows without padding.

python -m benchmarks.attention --corpus wiki.txt.gz [--encoder tiny] [--lengths 64 128 256 512] [--json attention.json]

The first is what decides how attention is computed on a CPU, the second what `--attention auto` gains.
"""

import argparse
import sys

from .interleaved import Row, take_turns
from .runs import Stepper, make_run
from .table import Table, make_parser, run_benchmark


def measure(options: argparse.Namespace) -> Table:
    """Measure rows of each length, as many as make up the tokens of a batch."""
    rows = []
    for length in options.lengths:
        count = max(1, options.tokens // length)
        size = {"encoder": options.encoder, "max_length": length, "batch_size": count}
        size |= {"max_steps": options.warm_up + options.pairs, "vocab_size": options.vocab_size}
        for pair in (("sdpa", "eager"), ("eager", "unpadded")):
            steps = {name: Stepper(make_run(options, attention=name, **size)) for name in pair}
            theirs, ours = take_turns(steps, pairs=options.pairs, warm_up=options.warm_up)
            tokens = steps[pair[1]].run.tokens / (options.warm_up + options.pairs)
            what = f"step, {options.encoder}, {count} x {length}"
            rows.append(Row(what=what, theirs=theirs, ours=ours, tokens=tokens))
    return Table(title="attention: sdpa to eager, eager to unpadded", rows=rows)


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    parser = make_parser("attention", __doc__ or "", tokens=2048, vocab_size=8192)
    parser.add_argument("--encoder", default="bert-tiny")
    parser.add_argument("--lengths", type=int, nargs="*", default=[64, 128, 256, 512])
    return run_benchmark(measure, parser, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
