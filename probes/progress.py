"""What a command says on stderr while it works: where it is, and how long it will take."""

import sys
import time
from typing import TextIO

from corpora.console import format_seconds

QUIET_SECONDS = 2.0  # nothing is said of what is over sooner
LINE_SECONDS = 15.0  # between lines, where no terminal shows one that moves


class Progress:
    """Counts units of work and says how long the rest will take; on a terminal in one line, elsewhere now and then.

    `stream` None says nothing.
    """

    def __init__(self, stream: TextIO | None = sys.stderr) -> None:
        self._stream = stream
        self._is_terminal = stream is not None and stream.isatty()
        self._total = self._done = 0
        self._started = self._last = time.monotonic()
        self._is_dirty = False  # a line that moves stands there

    def start(self, total: int) -> None:
        """Begin to count to `total`."""
        self._total, self._done, self._started = total, 0, time.monotonic()
        self._last = self._started

    def advance(self, doing: str, units: int = 1) -> None:
        """Count what is done, and say what was done last."""
        self._done += units
        now = time.monotonic()
        elapsed = now - self._started
        if self._stream is None or elapsed < QUIET_SECONDS or not self._done:
            return
        left = format_seconds(elapsed * max(self._total - self._done, 0) / self._done)
        text = f"{100 * self._done // max(self._total, 1):3}% {left} left  {doing}"
        if self._is_terminal:
            self._stream.write(f"\r{text[:78]:<78}")
            self._stream.flush()
            self._is_dirty = True
        elif now - self._last >= LINE_SECONDS:
            print(text, file=self._stream, flush=True)
            self._last = now

    def note(self, doing: str) -> None:
        """Say what is being done, on a terminal; it counts for nothing."""
        if self._is_terminal and self._stream is not None:
            self._stream.write(f"\r{doing[:78]:<78}")
            self._stream.flush()
            self._is_dirty = True

    def tell(self, text: str) -> None:
        """Say how far it is: on a terminal in the line that moves, elsewhere now and then."""
        if self._is_terminal:
            self.note(text)
        elif self._stream is not None and time.monotonic() - self._last >= LINE_SECONDS:
            print(text, file=self._stream, flush=True)
            self._last = time.monotonic()

    def skip(self, units: int) -> None:
        """Take units out of the total: they need not be done."""
        self._total -= units

    def say(self, text: str) -> None:
        """Say something that stays."""
        if self._stream is not None:
            self.close()
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Take the moving line away."""
        if self._stream is not None and self._is_dirty:
            self._stream.write("\r" + " " * 78 + "\r")
            self._stream.flush()
            self._is_dirty = False
