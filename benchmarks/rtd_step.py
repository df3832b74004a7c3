"""What a step of replaced token detection costs beside one of masked language modelling.

    python -m benchmarks.rtd_step --corpus wiki.txt.gz [--encoder bert-small] [--json rtd_step.json]

The same encoder, rows and dropout; the generator has a quarter of the width, and the ratio is rtd's time to mlm's.
"""

import argparse
import sys

from .interleaved import Row, take_turns
from .runs import STOCK_MASKING, Stepper, make_run
from .table import Table, make_parser, run_benchmark


def measure(options: argparse.Namespace) -> Table:
    """Measure both steps in turn."""
    size = {"encoder": options.encoder, "vocab_size": options.vocab_size, "max_length": options.max_length}
    size |= {"batch_size": options.rows, "max_steps": options.warm_up + options.pairs}
    steps = {name: Stepper(make_run(options, objective=name, **size)) for name in (STOCK_MASKING, "rtd")}
    mlm, rtd = take_turns(steps, pairs=options.pairs, warm_up=options.warm_up)
    tokens = steps["rtd"].run.tokens / (options.warm_up + options.pairs)
    what = f"step, {options.encoder}, {options.rows} x {options.max_length}, {options.vocab_size:,} tokens"
    row = Row(what=what, theirs=mlm, ours=rtd, tokens=tokens, inverted=True)
    return Table(title="a step of rtd to one of mlm", rows=[row])


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    parser = make_parser("rtd_step", __doc__ or "", rows=8, max_length=128, vocab_size=8192)
    parser.add_argument("--encoder", default="bert-small")
    return run_benchmark(measure, parser, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
