"""`python -m probes`: what frozen encoders know, which sentences they prefer, what they learn to do, what they say.

    python -m probes runs/mlm runs/rtd              probes of every layer: a table, results.json, a page
    python -m probes minimal-pairs runs/mlm --pairs blimp/
    python -m probes finetune runs/mlm --task token --train train.conllu --dev dev.conllu
    python -m probes explain runs/rtd "The cat sat on the hat."

`--help` after each says more. Exit status: 0 done, 1 done in part, 2 a mistake in what was asked for, 4 the disk.
"""

import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {  # first word -> the module whose main(argv) does it
    "minimal-pairs": "probes.pairs_command",
    "finetune": "probes.finetune.command",
    "explain": "probes.explain",
}


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status; what a user can mend is one line each, without a traceback."""
    from corpora.errors import UserError

    named = COMMANDS.get(argv[0]) if argv else None
    module = importlib.import_module(named or "probes.command")  # that one alone: --help must not wait for torch
    try:
        status = module.main(argv[1:] if named else argv)
        sys.stdout.flush()
        return int(status)
    except UserError as error:
        print(*(f"error: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
