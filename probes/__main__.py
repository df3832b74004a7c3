"""`python -m probes`: what frozen encoders know, which sentences they prefer, what they learn to do, what they say.

    python -m probes runs/mlm runs/rtd              probes of every layer: a table, results.json, a page
    python -m probes minimal-pairs runs/mlm --pairs blimp/
    python -m probes finetune runs/mlm --task token --train train.conllu --dev dev.conllu
    python -m probes explain runs/rtd "The cat sat on the hat."

`--help` after each says more. Exit status: 0 done, 1 done in part, 2 a mistake in what was asked for, 4 the disk.
"""

import importlib
import sys
from collections.abc import Sequence

from corpora.console import run_command

COMMANDS = {  # first word -> the module whose main(argv) does it
    "minimal-pairs": "probes.pairs_command",
    "finetune": "probes.finetune.command",
    "explain": "probes.explain",
}


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status; what a user can mend is one line each, without a traceback."""
    return run_command(_run, argv)


def _run(argv: Sequence[str]) -> int:
    named = COMMANDS.get(argv[0]) if argv else None
    module = importlib.import_module(named or "probes.command")  # that one alone: --help must not wait for torch
    return int(module.main(argv[1:] if named else argv))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
