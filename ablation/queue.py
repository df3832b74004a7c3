"""Processes side by side, as many as there are places for them; what fails is noted, and the others go on."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpora.console import format_seconds
from corpora.errors import UserError
from probes.progress import Progress

_POLL_SECONDS = 0.5
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, linux/prctl.h


class Stopped(UserError):
    """A signal asked the study to stop; what was running has saved what it has."""


class NotYet(Exception):
    """A job can't start now, and says why; it is tried again."""


@dataclass(kw_only=True)
class Job:
    """One process: how it is started, what has to be there before it, and how far it is."""

    name: str
    kind: str  # jobs of a kind have the same speed, in work a second
    work: float  # what is left of it, in units of its kind
    start: Callable[[], list[str]]  # arguments of Python; UserError: it can't be done; NotYet
    log: Path
    after: tuple[str, ...] = ()  # names of jobs, of which a failed one takes this one with it
    measure: Callable[[], float] | None = None  # how much of the work is done, from 0 to 1
    done: float = 0.0

    def look(self) -> None:
        """Measure how far it is."""
        if self.measure is not None:
            self.done = max(self.done, min(self.measure(), 1.0))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a process runs: its threads, its graphics processor."""

    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Running:
    job: Job
    place: Place
    process: subprocess.Popen[bytes]
    started: float


class Queue:
    """Runs jobs until none is left; SIGINT and SIGTERM stop them all, and they may save first."""

    def __init__(self, jobs: Sequence[Job], places: Sequence[Place], progress: Progress) -> None:
        self.waiting = deque(jobs)
        self.jobs = {job.name: job for job in jobs}
        self.free = list(places)
        self.num_places = len(places)
        self.running: list[_Running] = []
        self.finished: set[str] = set()
        self.failed: dict[str, str] = {}  # name -> why; jobs that were never started for a failed one are not in it
        self.received = 0
        self.progress = progress
        self.spent: dict[str, float] = {}  # kind -> seconds of its jobs that have ended
        self.worked: dict[str, float] = {}  # kind -> what they have done in that time
        self.delayed: dict[str, str] = {}

    def run(self) -> dict[str, str]:
        """Do all jobs; return those that failed, and why. Raises Stopped after a signal."""
        before = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self.waiting or self.running:
                if not self.received:
                    self._start()
                self._collect()
                if self.received and not self.running:
                    break
                self._show()
                time.sleep(_POLL_SECONDS)
        finally:
            self._stop_all()
            self.progress.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.received and (self.waiting or len(self.finished) + len(self.failed) < len(self.jobs)):
            error = Stopped(
                f"stopped by {signal.Signals(self.received).name}; what was running is saved, and the same command "
                "goes on with it"
            )
            error.exit_code = 128 + self.received
            raise error
        return self.failed

    def _start(self) -> None:
        """Start what can be, in the order given, one job for each free place."""
        later: deque[Job] = deque()
        while self.waiting and self.free:
            job = self.waiting.popleft()
            if any(name in self.failed or name not in self.jobs for name in job.after):
                continue
            if not all(name in self.finished for name in job.after):
                later.append(job)
                continue
            try:
                arguments = job.start()
            except NotYet as error:
                if self.delayed.get(job.name) != str(error):
                    self.progress.say(f"{job.name} waits: {error}")
                self.delayed[job.name] = str(error)
                later.append(job)
            except UserError as error:
                self._fail(job, str(error))
            else:
                self.running.append(_launch(job, self.free.pop(0), arguments))
        self.waiting = later + self.waiting

    def _collect(self) -> None:
        """Take in the processes that have ended."""
        for each in list(self.running):
            status = each.process.poll()
            if status is None:
                continue
            self.running.remove(each)
            self.free.append(each.place)
            job = each.job
            before = job.done
            job.look()
            self.spent[job.kind] = self.spent.get(job.kind, 0.0) + time.monotonic() - each.started
            self.worked[job.kind] = self.worked.get(job.kind, 0.0) + job.work * (job.done if status else 1.0)
            if status == 0:
                job.done = 1.0
                self.finished.add(job.name)
            elif not self.received:
                job.done = before
                self._fail(job, read_last_words(job.log, status))

    def _fail(self, job: Job, why: str) -> None:
        self.failed[job.name] = why
        self.progress.say(f"{job.name} failed: {why}")

    def _remember(self, number: int, _: Any) -> None:
        if not self.received:
            print("\nstopping; once more to stop at once", file=sys.stderr)
        self.received = number
        for each in self.running:
            each.process.send_signal(signal.SIGTERM)  # a second one ends it at once

    def _stop_all(self) -> None:
        """Leave no process behind, whatever ended us."""
        for each in self.running:
            each.process.terminate()
        for each in self.running:
            each.process.wait()

    def _show(self) -> None:
        for each in self.running:
            each.job.look()
        left = self.seconds_left()
        when = f"{format_seconds(left)} left" if left is not None else "measuring"
        doing = "; ".join(f"{each.job.name} {each.job.done:.0%}" for each in self.running)
        self.progress.tell(f"{len(self.finished)} of {len(self.jobs)} done, {when}  {doing}")

    def seconds_left(self) -> float | None:
        """Return about how long the rest takes, by the speed of what has been done; None where nothing has."""
        now = time.monotonic()
        seconds = 0.0
        speeds: dict[str, float] = {}
        for kind in {job.kind for job in self.jobs.values()}:
            mine = [each for each in self.running if each.job.kind == kind]
            worked = self.worked.get(kind, 0.0) + sum(each.job.work * each.job.done for each in mine)
            spent = self.spent.get(kind, 0.0) + sum(now - each.started for each in mine)
            if worked > 0 and spent > 0:
                speeds[kind] = worked / spent
        left = [job for job in self.jobs.values() if job.name not in self.finished and job.name not in self.failed]
        for job in left:
            if job.kind in speeds:
                seconds += job.work * (1 - job.done) / speeds[job.kind]
        return seconds / max(1, min(self.num_places, len(left))) if speeds else None


def _launch(job: Job, place: Place, arguments: Sequence[str]) -> _Running:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=os.environ | dict(place.environment),
            start_new_session=True,  # Ctrl-C is for us, and we stop it
            preexec_fn=_make_mortal() if sys.platform == "linux" else None,
        )
    return _Running(job=job, place=place, process=process, started=time.monotonic())


def _make_mortal() -> Callable[[], None]:
    """Return what a child does first, so that it is asked to stop, and saves, should we be killed."""
    library, parent = ctypes.CDLL(None), os.getpid()

    def tie() -> None:
        library.prctl(_DIE_WITH_PARENT, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return tie


def read_last_words(log: Path, status: int) -> str:
    """Return the last line that begins with "error:", or the last that there is, of a process that failed."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        lines = []
    lines = [line for line in lines if line][-50:]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1]
    if status < 0:
        return f"ended by {signal.Signals(-status).name}" + (" (out of memory?)" if status == -signal.SIGKILL else "")
    return lines[-1] if lines else f"exit status {status}"
