"""A study that is small enough for a test, and a queue that does its jobs in this process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ablation import command
from ablation.queue import Job, Place
from ablation.runs import PRETRAIN
from corpora.errors import UserError
from probes.progress import Progress
from tests.raw_documents import invent_documents
from training.command import parse
from training.loop import pretrain


def write_study(folder: Path, **changes: Any) -> Path:
    """Write a study of two arms and two seeds, six steps each, and the text that it reads; return the study's path."""
    text = folder / "text.txt"
    if not text.exists():
        documents = invent_documents(count=60, paragraphs=4, sentences=9)
        text.write_text("\n\n".join("\n".join(document) for document in documents) + "\n")
    common = {
        "corpus": str(text),
        "cache": str(folder / "cache"),
        "encoder": "tiny",
        "vocab_size": 200,
        "held_out_rate": 0.5,
        "max_length": 32,
        "batch_size": 8,
        "micro_batch_size": 8,
        "eval_examples": 16,
        "mixed_precision": "no",
    }
    study = {
        "title": "Two objectives in six steps",
        "arms": {"mlm": "mlm", "rtd": {"objective": "rtd", "generator": "uniform"}},
        "seeds": 2,
        "budget": "6steps",
        "fairness": "steps",
        "probes": {
            "only": ["sentence_length", "casing"],
            "size": 480,
            "trajectory": {"steps": [2], "only": ["casing"]},
        },
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(study | {"common": common | changes.pop("common", {})} | changes, sort_keys=False))
    return path


class QueueHere:
    """Does what `Queue` does, one job after the other and without processes."""

    started: list[list[str]] = []

    def __init__(self, jobs: Sequence[Job], places: Sequence[Place], progress: Progress) -> None:
        self.jobs = jobs

    def run(self) -> dict[str, str]:
        failed: dict[str, str] = {}
        for job in self.jobs:
            if any(name in failed for name in job.after):
                continue
            try:
                program, *arguments = job.start()
                self.started.append(arguments)
                if program == str(PRETRAIN):
                    pretrain(parse(arguments))
                else:
                    command.run(arguments)
            except UserError as error:
                failed[job.name] = str(error)
        return failed


TIMES = ("seconds", "peak_memory", "created", "command")
_TIMED = "seconds of training"  # in a sentence about it


def without_times(value: Any) -> Any:
    """Return what results.json holds without what depends on the clock, the machine and the command line."""
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [without_times(each) for each in value if not (isinstance(each, str) and _TIMED in each)]
    return value
