"""Objectives side by side: the same text, the same encoder, the same cost, several seeds each; one report.

    python ablate.py docs/studies/demo.yaml
    python ablate.py docs/studies/demo.yaml --dry_run
    python ablate.py --objectives mlm rtd nsp --seeds 5 --budget 10m
    python ablate.py report studies/demo

Stopped by Ctrl-C, a signal or a power cut, the same command goes on; finished runs are never run again. Exit status:
0 done, 1 done but for runs or probes that failed, 2 a mistake in what was asked for, 4 the disk, 130 and 143 stopped by
a signal.
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status; what a user can mend is one line each, without a traceback."""
    from ablation.command import run
    from corpora.console import run_command

    return run_command(run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
