"""What a study will run, fixed once and for all before its first run: steps, costs, the text, the machine."""

import dataclasses
import datetime
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpora.errors import UserError
from probes.results import publish_text
from training.config import Config

from .budget import Rates, choose_steps, spread
from .questions import Probing
from .results import CorpusRecord
from .study import Study

if TYPE_CHECKING:  # it takes seconds, for which a mistake in a study's file need not wait
    from transformers import PreTrainedModel

PLAN = "plan.json"
FORMAT = 1
POINTS = 5  # of a trajectory, each half as far as the next
_MEASURED_STEPS = 1000  # of the run whose costs are measured: schedules are a matter of how far it is


@dataclass(frozen=True, kw_only=True)
class ArmPlan:
    """What one run of an arm takes."""

    name: str
    steps: int
    rates: Rates
    flops: Mapping[str, float]  # part -> FLOPs of a step
    formula: tuple[str, ...]  # the same in words
    parameters: Mapping[str, int]
    start: str = ""  # a hash of the encoder before its first step
    starts_from_counts: bool = False  # its word table: vectors of co-occurrences in the text
    snapshots: tuple[int, ...] = ()

    @property
    def total_flops(self) -> float:
        return self.steps * self.rates.flops


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study's numbers; they never change afterwards."""

    study: Mapping[str, Any]  # as it was written
    arms: tuple[ArmPlan, ...]  # trained ones
    corpus: CorpusRecord
    machine: str
    versions: Mapping[str, str]
    command: str
    created: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    format: int = FORMAT

    def find(self, arm: str) -> ArmPlan:
        """Return the plan of that arm."""
        return next(each for each in self.arms if each.name == arm)

    @property
    def spread(self) -> float:
        """How far the arm that costs most is above the one that costs least, in FLOPs, as a share."""
        return spread([arm.total_flops for arm in self.arms])


def make_plan(study: Study, command: str, *, timed: bool) -> Plan:
    """Measure what a step of each arm costs, and choose how many each takes. UserError, for all arms at once.

    Nothing is written but the prepared text, into the cache, where it isn't there yet. `timed`: seconds are measured
    even where the budget does without.
    """
    timed = timed or "time" in (study.budget.unit, study.fairness)
    measured: dict[str, ArmPlan] = {}
    problems: list[str] = []
    records: list[dict[str, Any]] = []
    for arm in study.trained:
        print(f"measuring {arm.name}", file=sys.stderr)
        config = dataclasses.replace(study.config_of(arm), max_steps=_MEASURED_STEPS, seed=study.seeds[0])
        try:
            measured[arm.name], record = measure_arm(arm.name, config, timed=timed)
            records.append(record)
        except UserError as error:
            problems += [f"arm {arm.name}: {line}" for line in str(error).splitlines()]
    if problems:
        raise UserError("\n".join(problems))
    rates = {name: each.rates for name, each in measured.items()}
    steps = choose_steps(study.budget, study.fairness, rates, study.anchor)
    arms = [
        dataclasses.replace(each, steps=steps[name], snapshots=choose_snapshots(study.probing, steps[name]))
        for name, each in measured.items()
    ]
    first = records[0]
    return Plan(
        study=study.written,
        arms=tuple(arms),
        corpus=_describe_corpus(study, first),
        machine=first["device"],
        versions=first["versions"],
        command=command,
    )


def measure_arm(name: str, config: Config, *, timed: bool) -> tuple[ArmPlan, dict[str, Any]]:
    """Return what an arm costs, for one step, and what its run.json would say."""
    from training.describe import describe_run
    from training.flops import measure_step
    from training.loop import calibrate
    from training.setup import build_run, make_accelerator, starts_from_cooccurrences

    run = build_run(config, make_accelerator(config), Path(config.out))
    start = hash_encoder(run.model.encoder)
    costs = measure_step(run)
    seconds = 3600 / calibrate(run, 60.0) if timed else None
    record = describe_run(run)
    plan = ArmPlan(
        name=name,
        steps=1,
        rates=Rates(flops=costs.total, tokens=costs.tokens, seconds=seconds),
        flops=costs.flops,
        formula=tuple(costs.describe()),
        parameters=record["parameters"],
        start=start,
        starts_from_counts=starts_from_cooccurrences(config, run.model.encoder),
    )
    return plan, record


def hash_encoder(encoder: "PreTrainedModel") -> str:
    """Return the SHA-256 of an encoder's weights, its word table as the one table that it amounts to."""
    embedding = encoder.get_input_embeddings()
    place = next(name for name, module in encoder.named_modules() if module is embedding)
    tensors = {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith(f"{place}.")}
    digest = hashlib.sha256()
    for name, tensor in sorted((tensors | {place: embedding.weight}).items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def choose_snapshots(probing: Probing, steps: int) -> tuple[int, ...]:
    """Return after which steps the encoder is kept for the trajectories; the last one is the finished encoder."""
    if probing.suite == "none" or probing.trajectory == "none":
        return ()
    if probing.trajectory == "log":
        chosen = {max(1, round(steps / 2**halvings)) for halvings in range(1, POINTS + 1)}
    else:
        chosen = set(probing.trajectory)
    return tuple(sorted(step for step in chosen if step < steps))


def _describe_corpus(study: Study, record: Mapping[str, Any]) -> CorpusRecord:
    corpus = record["corpus"]
    names = ("fingerprint", "documents", "sentences", "tokens", "unigram_entropy")
    return CorpusRecord(name=Path(str(record["config"]["corpus"])).name, **{name: corpus[name] for name in names})


def write_plan(folder: Path, plan: Plan) -> None:
    """Write plan.json, whole or not at all."""
    publish_text(folder / PLAN, json.dumps(dataclasses.asdict(plan), indent=1, ensure_ascii=False) + "\n")


def read_plan(folder: Path) -> Plan | None:
    """Return the plan of a study's folder; None where there is none yet. UserError where it can't be read."""
    path = folder / PLAN
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("format") != FORMAT:
            raise UserError(f"{path} has format {raw.get('format')!r}; this version reads {FORMAT}")
        arms = [
            ArmPlan(
                **each
                | {
                    "rates": Rates(**each["rates"]),
                    "formula": tuple(each["formula"]),
                    "snapshots": tuple(each["snapshots"]),
                }
            )
            for each in raw["arms"]
        ]
        return Plan(**raw | {"arms": tuple(arms), "corpus": CorpusRecord(**raw["corpus"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} can't be read as the plan of a study: {error}; start with a new --out") from error


def check_same(folder: Path, plan: Plan, written: Mapping[str, Any]) -> None:
    """Raise a UserError where the folder holds another study than the one that is asked for."""
    keys = [*plan.study, *(key for key in written if key not in plan.study)]
    plain = json.loads(json.dumps(written))
    changed = [key for key in keys if plan.study.get(key) != plain.get(key)]
    if changed:
        key = changed[0]
        before, after = (json.dumps(each.get(key), ensure_ascii=False) for each in (plan.study, plain))
        raise UserError(
            f"{folder} holds another study: {key} is {_shorten(before)} there, and {_shorten(after)} here; "
            "give --out a new folder"
        )


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def estimate_seconds(plan: Plan, seeds: Sequence[int], slots: int) -> float | None:
    """Return about how long all runs take on so many slots, probing not counted; None where times were not measured."""
    if any(arm.rates.seconds is None for arm in plan.arms):
        return None
    return sum(arm.steps * (arm.rates.seconds or 0.0) for arm in plan.arms) * len(seeds) / slots


def estimate_bytes(plan: Plan, seeds: Sequence[int]) -> float:
    """Return about how much disk the runs take: exports, snapshots, two checkpoints and one being written."""
    total = 0.0
    for arm in plan.arms:
        every, encoder = sum(arm.parameters.values()), arm.parameters["encoder"]
        total += 4 * (encoder * (2 + len(arm.snapshots) + 1) + 2 * (every - encoder)) + 3 * 12 * every
    return total * len(seeds)
