"""Processes of their own, whose start-up, memory and processor time are all counted."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A process that has ended: seconds from its start to its end, of its processor time, and its last line."""

    wall: float
    cpu: float
    said: str


def run_child(words: Sequence[str], threads: int, variables: dict[str, str] | None = None) -> Finished:
    """Run `python WORDS...`, which finds the project's modules, and wait; UserError with its last words if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)} | (variables or {})
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"python {' '.join(words)} ended with status {done.returncode}: {last}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(wall=wall, cpu=cpu, said=(done.stdout.strip().splitlines() or [""])[-1])


def tell(**facts: Any) -> None:
    """Say as the last line what this process has measured."""
    print(json.dumps(facts))


def peak_memory() -> int:
    """Return the most memory that this process has held so far, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
