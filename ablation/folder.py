"""Where everything of a study lies, and which of its runs are done.

studies/first/study.yaml, plan.json         what was asked for; steps and costs, fixed
studies/first/runs/<arm>/seed0.yaml, .log   a run's settings, and what it said
studies/first/runs/<arm>/seed0/             the run: an ordinary folder of pretrain.py
studies/first/probes/sets/                  the probes' items, made once
studies/first/probes/<arm>/seed0.npz        an encoder's answers; seed0-step12.npz those of a snapshot
studies/first/results.json                  all that was found
studies/first/report/                       the page, its figures and tables
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from corpora.errors import UserError
from probes.results import publish_text
from training.config import HARMLESS, Config
from training.folders import storage_errors
from training.yaml_settings import write_yaml

from .arms import UNTRAINED, Arm
from .plan import Plan
from .study import Study

STUDY, RESULTS, REPORT = "study.yaml", "results.json", "report"
_OUR_OWN = frozenset({"out", "resume"})  # settings that say where a run is, and not what it is

State = Literal["absent", "begun", "finished"]


@dataclass(frozen=True, kw_only=True)
class RunPlace:
    """One run of a study: an arm with a seed."""

    arm: str
    seed: int
    folder: Path
    config: Config

    @property
    def name(self) -> str:
        return f"{self.arm} {self.seed}"

    @property
    def settings(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.yaml")

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    def read_record(self) -> dict[str, Any]:
        """Return what run.json says; nothing where there is none yet. UserError for one that is another run's."""
        path = self.folder / "run.json"
        if not path.is_file():
            return {}
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            config = record["config"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} can't be read as the record of a run: {error}; move {self.folder} away") from error
        for name, value in self.config.as_dict().items():
            if name not in HARMLESS | _OUR_OWN and config.get(name) != value:
                raise UserError(
                    f"{self.folder} holds another run: {name} is {config.get(name)!r} there, {value!r} in the study; "
                    "move it away"
                )
        return record

    @property
    def state(self) -> State:
        record = self.read_record()
        return "finished" if "steps_done" in record else "begun" if record else "absent"

    def prepare(self) -> list[str]:
        """Write the run's settings, and return the arguments of pretrain.py that start it or go on with it."""
        if self.state == "begun":
            return ["--resume", str(self.folder)]
        with storage_errors(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)  # what was killed before its first step holds nothing
        publish_text(self.settings, write_yaml(self.config.as_dict()))
        return ["--config", str(self.settings)]

    def last_step(self) -> int:
        """Return how far the run has come, by its log."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            return max((int(json.loads(line)["step"]) for line in lines[-2:]), default=0)
        except (OSError, ValueError, KeyError):
            return 0


@dataclass(frozen=True, kw_only=True)
class EncoderPlace:
    """An encoder to be probed: where it is, and where its answers go."""

    arm: str
    seed: int
    step: int | None  # of a snapshot; None: finished
    location: str
    answers: Path


class StudyFolder:
    """The paths of a study."""

    def __init__(self, root: Path, study: Study, plan: Plan) -> None:
        self.root, self.study, self.plan = root, study, plan

    @property
    def sets(self) -> Path:
        return self.root / "probes" / "sets"

    @property
    def results(self) -> Path:
        return self.root / RESULTS

    @property
    def report(self) -> Path:
        return self.root / REPORT

    def list_runs(self) -> list[RunPlace]:
        """Return every run, all arms of the first seed before those of the second: what fails does so early."""
        return [self.find_run(arm, seed) for seed in self.study.seeds for arm in self.study.trained]

    def find_run(self, arm: Arm, seed: int) -> RunPlace:
        """Return where the run of an arm with a seed is, and its configuration."""
        steps, given = self.plan.find(arm.name), self.study.settings_of(arm)
        folder = self.root / "runs" / arm.name / f"seed{seed}"
        tenth = max(1, -(-steps.steps // 10))
        often: dict[str, Any] = {"eval_every": tenth, "save_every": tenth, "log_every": max(1, -(-steps.steps // 50))}
        is_first = arm == self.study.trained[0] and self.study.has_untrained
        config = replace(
            self.study.config_of(arm),
            out=str(folder),
            seed=seed,
            max_steps=steps.steps,
            snapshots=(*([0] if is_first else []), *steps.snapshots),
            **{name: value for name, value in often.items() if name not in given},
        )
        return RunPlace(arm=arm.name, seed=seed, folder=folder, config=config)

    def list_encoders(self, run: RunPlace) -> Iterator[EncoderPlace]:
        """Yield the encoders that a run makes: the untrained one that all arms start from, snapshots, its own."""
        for step in run.config.snapshots:
            place = str(run.folder / "snapshots" / str(step))
            arm, shown = (run.arm, step) if step else (UNTRAINED, None)
            yield self._encoder(arm, run.seed, shown, place)
        yield self._encoder(run.arm, run.seed, None, str(run.folder))

    def list_references(self) -> Iterator[EncoderPlace]:
        """Yield the encoders that no run makes."""
        for arm in self.study.arms:
            if arm.kind == "reference":
                yield self._encoder(arm.name, self.study.seeds[0], None, arm.location)

    def _encoder(self, arm: str, seed: int, step: int | None, location: str) -> EncoderPlace:
        name = f"seed{seed}" if step is None else f"seed{seed}-step{step}"
        return EncoderPlace(
            arm=arm, seed=seed, step=step, location=location, answers=self.root / "probes" / arm / f"{name}.npz"
        )
