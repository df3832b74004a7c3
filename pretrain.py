"""Pretrain an encoder on raw text: the main job, one run.

On one device, two minutes on the documentation that is on this machine, and then on a text of one's own:

    python pretrain.py --max_minutes 2
    python pretrain.py --objective rtd --corpus wiki.txt.gz --out runs/rtd

The same run on two devices, equal to it step for step (on several machines, with torchrun's rendezvous):

    torchrun --nproc_per_node 2 pretrain.py --objective rtd --corpus wiki.txt.gz --out runs/rtd

Stopped by Ctrl-C, a signal or a power cut, it goes on where its last checkpoint stands, on any number of devices:

    python pretrain.py --resume runs/rtd

Before a long run, `--diagnose` shows in seconds whether the encoder can learn from where it starts (docs/stuck.md).

The folder then is a `transformers` folder, for `AutoModel.from_pretrained("runs/rtd")`; `pretrain.py --help` shows
every setting. Exit status: 0 done, 2 a mistake in what was asked for, 3 a loss that stopped being finite, 4 the disk,
130 and 143 stopped by a signal.
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status; what a user can mend is one line each, without a traceback."""
    try:
        return _run(argv)
    except KeyboardInterrupt:  # before or after training, which saves and ends by itself
        print("interrupted", file=sys.stderr)
        return 130


def _run(argv: Sequence[str]) -> int:
    from corpora.errors import UserError

    try:
        _pretrain(argv)
    except UserError as error:
        print(*(f"error: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
        return error.exit_code
    return 0


def _pretrain(argv: Sequence[str]) -> None:
    from training.command import parse

    config = parse(argv)
    if config.diagnose:
        from training.diagnose_table import show_diagnosis

        show_diagnosis(config)
        return
    from training.loop import pretrain  # imports torch and accelerate, for which --help need not wait

    pretrain(config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
