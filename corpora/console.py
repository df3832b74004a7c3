"""What all commands do alike: options, help, mistakes told in one line, times, and libraries kept from talking."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from .errors import UserError


class Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the examples, and fits 80 columns wherever it is read."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=80)


class Parser(argparse.ArgumentParser):
    """Raises what can't be understood as a UserError of one line; options are written out, and help is `Help`'s."""

    def __init__(self, *, prog: str, usage: str, description: str, epilog: str, add_help: bool = True) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=Help,
            allow_abbrev=False,
            add_help=add_help,
        )

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the options of a command line; an option that is unknown is told first, with the nearest name."""
        check_options(argv, self._option_string_actions)
        return self.parse_args(list(argv))

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help shows every option")


def check_options(argv: Sequence[str], known: Iterable[str]) -> None:
    """Raise UserError for the first word that begins with -- and is none of `known`; what follows a bare -- is text."""
    known = list(known)
    for word in argv:
        name = word.partition("=")[0]
        if word == "--":
            return
        if name.startswith("--") and name not in known:
            near = difflib.get_close_matches(name.replace("-", "_").replace("__", "--", 1), known, n=1)
            hint = f"did you mean {near[0]}?" if near else "--help shows every option"
            raise UserError(f"option {name} is unknown; {hint}")


def run_command(command: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Do what a command line asks for and return the exit status: the command's, or 130 after Ctrl-C.

    A UserError is told on stderr, each line of it beginning with "error:", and gives its own status. A reader that
    closes early (`| head`) ends the command without a word.
    """
    try:
        status = command(argv)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(*(f"error: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may Python complain when it ends
        return 0


def format_seconds(seconds: float) -> str:
    """Return 4:05, or 1:02:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep bars and remarks of `transformers` off the terminal; who loads something checks its report himself."""
    from transformers.utils import logging  # here, since a command that loads nothing need not wait for it

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
