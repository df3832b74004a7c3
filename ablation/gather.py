"""From the files of a study to its results: nothing is computed here that depends on when or how often it was run."""

import dataclasses
import itertools
import json
import platform
import shlex
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from probes.groups import compare_groups, summarise
from probes.results import Results
from probes.suite import LIBRARIES, describe_probe
from training.config import HARMLESS, Config
from training.redact import shorten_absolute_paths

from .answers import EVERY, Answers, read_answers
from .arms import Arm
from .folder import EncoderPlace, RunPlace, StudyFolder
from .hypotheses import judge
from .probe_sets import load_sets
from .probing import how_to_probe
from .results import ArmRecord, CellFailure, CurvePoint, RunRecord, Status, StudyResults, TrajectoryPoint
from .threats import list_threats

_IN_GENERAL = ("objective", "mix", "recipe", "generator")  # of an arm's settings: told by themselves


def gather(study: StudyFolder, failed: Mapping[str, str]) -> StudyResults:
    """Return everything that the study's folder holds; `failed` says why runs failed in this life of the study."""
    runs = study.list_runs()
    places = [place for run in runs for place in study.list_encoders(run)] + list(study.list_references())
    answered = {place.answers: read_answers(place.answers) for place in places if place.answers.is_file()}
    finals = [place for place in places if place.step is None]
    records = tuple(_describe_run(study, run, failed.get(run.name), answered) for run in runs)
    ran = study.study
    results = StudyResults(
        name=study.root.name,
        title=ran.title,
        created=study.plan.created,
        command=shorten_absolute_paths(study.plan.command),
        study=_without_paths(ran.written),
        corpus=study.plan.corpus,
        machine=study.plan.machine,
        versions=study.plan.versions,
        fairness=ran.fairness,
        budget=str(ran.budget),
        seeds=ran.seeds,
        arms=tuple(_describe_arm(study, arm, records) for arm in ran.arms),
        runs=records,
        probes=_put_together(study, finals, answered),
        trajectories=tuple(_list_points(study, places, answered, records)),
        failures=tuple(_list_failures(records, places, answered, failed)),
    )
    results = dataclasses.replace(results, hypotheses=judge(ran.hypotheses, results))
    return dataclasses.replace(results, threats=tuple(list_threats(results, study.plan)))


def _describe_arm(study: StudyFolder, arm: Arm, runs: tuple[RunRecord, ...]) -> ArmRecord:
    if arm.kind != "trained":
        return ArmRecord(name=arm.name, kind=arm.kind)
    plan, first = study.plan.find(arm.name), study.find_run(arm, study.study.seeds[0])
    tokens = [run.tokens for run in runs if run.arm == arm.name and run.status == "finished"]
    config = first.config
    uses_generator = any(objective.uses_generator for each in config.build_arms() for objective in each.objectives)
    objective = config.mix if config.mix is not None else config.objective
    return ArmRecord(
        name=arm.name,
        objective=_spell(objective),
        generator=_spell(config.generator) if uses_generator else None,
        settings={key: value for key, value in arm.settings.items() if key not in _IN_GENERAL},
        steps=plan.steps,
        tokens=round(sum(tokens) / len(tokens)) if tokens else round(plan.steps * plan.rates.tokens),
        flops=plan.total_flops,
        flops_per_step=plan.rates.flops,
        flops_by_part={part: plan.steps * flops for part, flops in plan.flops.items()},
        parameters=plan.parameters,
        command=_write_command(config),
    )


def _without_paths(value: Any) -> Any:
    """Return settings, nested as they may be, with the last name of each absolute path of this machine."""
    if isinstance(value, Mapping):
        return {str(key): _without_paths(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(each) for each in value]
    return shorten_absolute_paths(value) if isinstance(value, str) else value


def _write_command(config: Config) -> str:
    """Return the command line that repeats a run: every setting that is not the default."""
    words = ["python", "pretrain.py"]
    for field in dataclasses.fields(Config):
        value = getattr(config, field.name)
        if value != field.default and field.name not in HARMLESS | {"out"}:
            words += [f"--{field.name}", _spell(value) if isinstance(value, Mapping) else str(value)]
    return shorten_absolute_paths(shlex.join(words))


def _spell(spec: str | Mapping[str, Any]) -> str:
    """Return a specification as it is written on a command line."""
    if isinstance(spec, str):
        return spec
    parts = []
    for name, options in spec.items():
        written = options if isinstance(options, str) else ",".join(f"{k}={v}" for k, v in (options or {}).items())
        parts.append(f"{name}:{written}" if written else str(name))
    return "+".join(parts)


def _describe_run(study: StudyFolder, run: RunPlace, error: str | None, answered: Mapping[Path, Answers]) -> RunRecord:
    record, per_step = run.read_record(), study.plan.find(run.arm).rates.flops
    place = list(study.list_encoders(run))[-1]
    folder = str(run.folder.relative_to(study.root))
    if "steps_done" not in record:
        status: Status = "failed" if error else "waiting"
        told = shorten_absolute_paths(error or "")
        return RunRecord(arm=run.arm, seed=run.seed, status=status, error=told, folder=folder)
    return RunRecord(
        arm=run.arm,
        seed=run.seed,
        status="finished",
        folder=folder,
        steps=record["steps_done"],
        tokens=record["tokens_seen"],
        flops=record["steps_done"] * per_step,
        seconds=record["seconds"],
        peak_memory=record.get("peak_memory", 0),
        held_out=record["held_out"],
        chance=record["chance"],
        curve=tuple(_read_curve(run.folder / "metrics.jsonl", per_step)),
        example=answered[place.answers].example if place.answers in answered else None,
    )


def _read_curve(path: Path, flops_per_step: float) -> Iterator[CurvePoint]:
    """Yield the held-out figures of a run's log, with the seconds that the speed of the last steps before them says."""
    speed = 0.0
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        speed = row.get("tokens_per_second", speed)
        if row["split"] == "held_out":
            yield CurvePoint(
                step=row["step"],
                tokens=row["tokens"],
                flops=row["step"] * flops_per_step,
                seconds=row["tokens"] / speed if speed else 0.0,
                losses=row["losses"],
                metrics=row["metrics"],
            )


def _put_together(study: StudyFolder, places: list[EncoderPlace], answered: Mapping[Path, Answers]) -> Results | None:
    """Return what all finished encoders answered, as one run of the suite would have it; every two arms compared."""
    order = {arm.name: number for number, arm in enumerate(study.study.arms)}
    places = sorted(places, key=lambda place: (order[place.arm], place.seed))
    given = [answered[place.answers] for place in places if place.answers in answered]
    encoders = [each.encoder for each in given if each.encoder is not None]
    if not encoders or not study.sets.is_dir():
        return None
    built = load_sets(study.sets)
    probes = [describe_probe(probe) for probe in built.probes]
    chosen = {(a.encoder.name, name): it for a in given if a.encoder for name, it in a.chosen.items()}
    groups = list(dict.fromkeys(encoder.group for encoder in encoders))
    pairs = [(a, b) for a, b in itertools.combinations(groups, 2)]
    failed = {
        place.arm: answered[place.answers].failures.get(EVERY, "") for place in places if place.answers in answered
    }
    return Results(
        command=shorten_absolute_paths(study.plan.command),
        created=study.plan.created,
        settings={**dataclasses.asdict(how_to_probe(study.study.probing)), "cache": False},
        sources=built.sources,
        versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        encoders=tuple(encoders),
        probes=tuple(probes),
        scores=tuple(score for each in given for score in each.scores),
        summaries=tuple(summarise(chosen, encoders, probes)),
        comparisons=tuple(compare_groups(chosen, encoders, probes, pairs)),
        skipped=built.skipped,
        failed={name: why for name, why in failed.items() if why},
    )


def _list_points(
    study: StudyFolder, places: list[EncoderPlace], answered: Mapping[Path, Answers], runs: tuple[RunRecord, ...]
) -> Iterator[TrajectoryPoint]:
    """Yield the chosen layers' scores of snapshots, and of the finished encoders behind them."""
    probing = study.study.probing
    tokens = {(run.arm, run.seed): run.tokens / run.steps for run in runs if run.steps}
    for arm in study.study.trained:
        plan = study.plan.find(arm.name)
        if not plan.snapshots:
            continue
        for place in places:
            if place.arm != arm.name or place.answers not in answered:
                continue
            step = place.step or plan.steps
            for score in answered[place.answers].scores:
                is_asked = not probing.trajectory_only or score.probe in probing.trajectory_only
                if score.is_chosen and score.subset == "all" and is_asked:
                    yield TrajectoryPoint(
                        arm=arm.name,
                        seed=place.seed,
                        step=step,
                        tokens=round(step * tokens.get((arm.name, place.seed), plan.rates.tokens)),
                        flops=step * plan.rates.flops,
                        probe=score.probe,
                        layer=score.layer,
                        score=score.score,
                        low=score.low,
                        high=score.high,
                    )


def _list_failures(
    runs: tuple[RunRecord, ...],
    places: list[EncoderPlace],
    answered: Mapping[Path, Answers],
    failed: Mapping[str, str],
) -> Iterator[CellFailure]:
    """Yield what is not there: runs, encoders that could not be asked, single probes of them."""
    for run in runs:
        if run.status == "failed":
            yield CellFailure(arm=run.arm, seed=run.seed, error=run.error)
    for place in places:
        if place.answers in answered:
            for probe, why in answered[place.answers].failures.items():
                yield CellFailure(
                    arm=place.arm,
                    seed=place.seed,
                    error=shorten_absolute_paths(why),
                    probe=None if probe == EVERY else probe,
                    step=place.step,
                )
    for name, why in failed.items():
        if name.startswith("probing "):
            arm, _, seed = name.removeprefix("probing ").rpartition(" ")
            yield CellFailure(arm=arm, seed=int(seed), error=shorten_absolute_paths(why))
