"""What a study starts: its pretraining runs, and behind each the probing of its encoders."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from corpora.errors import UserError
from corpora.processors import count_processors
from probes.results import publish_text
from training.checkpoint import lock_run

from .folder import EncoderPlace, RunPlace, StudyFolder
from .queue import Job, NotYet, Place

_HERE = Path(__file__).resolve().parent.parent
PRETRAIN, ABLATE = _HERE / "pretrain.py", _HERE / "ablate.py"


def list_places(num_jobs: int | None, threads: int) -> list[Place]:
    """Return where processes run: one on each GPU; on a CPU as many as have `threads` cores each."""
    environment = {"TOKENIZERS_PARALLELISM": "false"}
    gpus = torch.cuda.device_count()
    if gpus:
        names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = names if len(names) == gpus and all(names) else [str(number) for number in range(gpus)]
        return [
            Place(environment=environment | {"CUDA_VISIBLE_DEVICES": names[number % gpus]})
            for number in range(num_jobs or gpus)
        ]
    cores = count_processors()
    environment |= {"OMP_NUM_THREADS": str(threads)}
    return [Place(environment=environment)] * (num_jobs or max(1, cores // threads))


def list_jobs(study: StudyFolder) -> list[Job]:
    """Return what is left to do, each run followed by the probing of what it made. UserError for runs of others."""
    jobs = []
    for run in study.list_runs():
        is_finished = run.state == "finished"
        if not is_finished:
            jobs.append(make_run_job(study, run))
        left = [place for place in study.list_encoders(run) if not place.answers.is_file()]
        if left and study.study.probing.suite != "none":
            jobs.append(make_probe_job(study, left, [run.arm, str(run.seed)], () if is_finished else (run.name,)))
    references = [place for place in study.list_references() if not place.answers.is_file()]
    if references and study.study.probing.suite != "none":
        jobs.append(make_probe_job(study, references, [references[0].arm, str(references[0].seed)], ()))
    return jobs


def make_run_job(study: StudyFolder, run: RunPlace) -> Job:
    """Return the job that starts a run, or goes on with it."""
    plan, before = study.plan.find(run.arm), run.last_step()

    def start() -> list[str]:
        try:
            with lock_run(run.folder):
                pass
        except UserError as error:  # a process of a killed study saves; or someone runs it by hand
            raise NotYet(str(error)) from error
        return [str(PRETRAIN), *run.prepare()]

    return Job(
        name=run.name,
        kind="training",
        work=(plan.steps - before) * plan.rates.flops,
        start=start,
        log=run.log,
        measure=lambda: (run.last_step() - before) / max(plan.steps - before, 1),
    )


def make_probe_job(study: StudyFolder, left: Sequence[EncoderPlace], words: list[str], after: tuple[str, ...]) -> Job:
    """Return the job that asks the encoders of a run."""
    return Job(
        name=f"probing {' '.join(words)}",
        kind="probing",
        work=float(len(left)),
        start=lambda: [str(ABLATE), "probe", str(study.root), *words],
        log=study.root / "probes" / words[0] / f"seed{words[1]}.log",
        after=after,
        measure=lambda: sum(place.answers.is_file() for place in left) / len(left),
    )


def write_array(study: StudyFolder) -> Path:
    """Write a Slurm array script with a task for each run that is not finished; return its path."""
    runs = [run for run in study.list_runs() if run.state != "finished"]
    if not runs:
        raise UserError("all runs are finished; leave --launcher slurm out to probe them and to write the report")
    for run in runs:
        run.prepare()
    folders = " ".join(shlex.quote(str(run.folder)) for run in runs)
    script = f"""\
#!/bin/bash
#SBATCH --job-name={study.root.name}
#SBATCH --array=0-{len(runs) - 1}
#SBATCH --ntasks=1
#SBATCH --signal=TERM@120
# Each task is one run of the study. When all are done, the command that wrote this probes them and reports.
RUNS=({folders})
RUN=${{RUNS[$SLURM_ARRAY_TASK_ID]}}
if [ -f "$RUN/run.json" ]; then
    exec python {shlex.quote(str(PRETRAIN))} --resume "$RUN"
fi
exec python {shlex.quote(str(PRETRAIN))} --config "$RUN.yaml"
"""
    path = study.root / "slurm.sh"
    publish_text(path, script)
    return path
