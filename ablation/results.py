"""What a study found, as it stands in results.json."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from corpora.errors import UserError
from probes.results import Layer, Results, publish_text, read_results_of

SCHEMA_VERSION = 1

Fairness = Literal["flops", "tokens", "steps", "time"]
Kind = Literal["trained", "untrained", "reference"]
Status = Literal["finished", "failed", "waiting"]
Verdict = Literal["reproduced", "not reproduced", "undecided", "not run"]
Figures = Mapping[str, Mapping[str, float]]  # loss -> figure -> value


@dataclass(frozen=True, kw_only=True)
class ArmRecord:
    """One thing that is compared: what it learns, how long, at what cost. All costs are those of one run."""

    name: str
    kind: Kind = "trained"
    objective: str = ""  # as it is written on the command line; "" where nothing is learned
    generator: str | None = None  # where the objective asks for one
    settings: Mapping[str, Any] = field(default_factory=dict)  # those that differ from the study's common ones
    steps: int = 0
    tokens: int = 0  # read in training, special tokens counted, padding not; the mean over seeds, rounded
    flops: float = 0.0  # floating-point operations of the whole training
    flops_per_step: float = 0.0
    flops_by_part: Mapping[str, float] = field(
        default_factory=dict
    )  # encoder, heads, ... -> share of flops, summing to it
    parameters: Mapping[str, int] = field(default_factory=dict)  # encoder, heads, generators
    command: str = ""  # that repeats its first run


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The held-out figures of a run at one step."""

    step: int
    tokens: int
    flops: float
    seconds: float  # of training, so far
    losses: Mapping[str, float]  # loss -> nats (or what its objective measures) per target
    metrics: Figures


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One arm with one seed."""

    arm: str
    seed: int
    status: Status
    error: str = ""  # the last line that it said, where it failed
    folder: str = ""  # relative to the study's
    steps: int = 0  # done
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0  # of training
    peak_memory: int = 0  # bytes: resident on a CPU, allocated on a GPU; 0 where it is not known
    held_out: Figures = field(default_factory=dict)  # loss -> {"loss": ..., figures}
    chance: Figures = field(default_factory=dict)  # what predictors reach that do not look at the text
    curve: tuple[CurvePoint, ...] = ()
    example: str | None = None  # what the arm makes of a real passage, as plain text; for the first seed only


@dataclass(frozen=True, kw_only=True)
class TrajectoryPoint:
    """What one run's encoder reached on a probe part of the way, at the layer that its dev items chose."""

    arm: str
    seed: int
    step: int
    tokens: int
    flops: float
    probe: str
    layer: Layer
    score: float
    low: float  # of a 95 % interval over the documents of the test items
    high: float


@dataclass(frozen=True, kw_only=True)
class HypothesisRecord:
    """A claim made before the study ran, and what the study says of it. `difference` is a - b; a was to be higher."""

    name: str
    claim: str
    source: str
    a: str  # the arm that was claimed to be better
    b: str
    measure: str  # a probe[@best|@last], or held_out:LOSS.FIGURE
    verdict: Verdict = "not run"
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None  # two-sided; only where there are seeds enough for a test
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class CellFailure:
    """A run, a probe of it, or a snapshot's, that is not there, and why."""

    arm: str
    seed: int
    error: str
    probe: str | None = None  # None: all of them
    step: int | None = None  # of a snapshot; None: the finished encoder


@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """What was read."""

    name: str
    fingerprint: str
    documents: int
    sentences: int
    tokens: int
    unigram_entropy: float  # nats per token


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """All of a study. What failed or is still to come is in it too, by name."""

    name: str  # of its folder
    title: str
    created: str  # ISO 8601, UTC: when the study was begun
    command: str
    study: Mapping[str, Any]  # the YAML, as a mapping
    corpus: CorpusRecord
    machine: str
    versions: Mapping[str, str]
    fairness: Fairness
    budget: str  # as a reader says it: 2.1e+12 FLOPs a run
    seeds: tuple[int, ...]
    arms: tuple[ArmRecord, ...]
    runs: tuple[RunRecord, ...]
    probes: Results | None = None  # of the finished encoders; the group of each is its arm
    trajectories: tuple[TrajectoryPoint, ...] = ()
    hypotheses: tuple[HypothesisRecord, ...] = ()
    failures: tuple[CellFailure, ...] = ()
    threats: tuple[str, ...] = ()  # to validity, in sentences
    schema_version: int = SCHEMA_VERSION

    def find_arm(self, name: str) -> ArmRecord:
        """Return the arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def list_runs(self, arm: str) -> list[RunRecord]:
        """Return the arm's runs, by seed."""
        return sorted((run for run in self.runs if run.arm == arm), key=lambda run: run.seed)


def write_study_results(path: Path, results: StudyResults) -> None:
    """Write results.json, whole or not at all. Raises StorageError for a disk that can't take it."""
    publish_text(path, json.dumps(dataclasses.asdict(results), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_study_results(path: Path) -> StudyResults:
    """Read results.json. Raises UserError for a file that is not one, or of another schema."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as results of a study: {error}") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION or "arms" not in raw:
        raise UserError(f"{path} has schema_version {version!r}; this version reads {SCHEMA_VERSION} of a study")
    runs = [each | {"curve": tuple(CurvePoint(**point) for point in each["curve"])} for each in raw["runs"]]
    lists: dict[str, Any] = {
        "corpus": CorpusRecord(**raw["corpus"]),
        "seeds": tuple(raw["seeds"]),
        "arms": tuple(ArmRecord(**each) for each in raw["arms"]),
        "runs": tuple(RunRecord(**each) for each in runs),
        "probes": raw["probes"] and read_results_of(raw["probes"]),
        "trajectories": tuple(TrajectoryPoint(**each) for each in raw["trajectories"]),
        "hypotheses": tuple(HypothesisRecord(**each) for each in raw["hypotheses"]),
        "failures": tuple(CellFailure(**each) for each in raw["failures"]),
        "threats": tuple(raw["threats"]),
    }
    return StudyResults(**(raw | lists))
