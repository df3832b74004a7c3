"""`python ablate.py`: its options, and what it does in which order."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corpora.console import Parser
from corpora.errors import UserError

from .folder import STUDY, StudyFolder
from .plan import PLAN, Plan, check_same, make_plan, read_plan, write_plan
from .study import Study, make_study, read_study

_FAILED = "failed.json"
_DESCRIPTION = """\
Train encoders that differ in one thing, and see what it changes: objectives (with
options, recipes, mixtures, grids) at equal cost, several seeds each, probed and
set side by side in one page.

examples:
  python ablate.py docs/studies/demo.yaml
  python ablate.py docs/studies/demo.yaml --dry_run
  python ablate.py --objectives mlm rtd nsp --seeds 5 --budget 10m
  python ablate.py studies/demo                go on with it
  python ablate.py report studies/demo         write the report anew
"""
_EPILOG = """\
A study's file: title, arms (a list of objectives, or names with settings), common
(any setting of pretrain.py), seeds, budget, fairness, anchor, untrained,
reference, probes, hypotheses; docs/studies has examples. Each run is an ordinary
one of pretrain.py, in STUDY/runs. Exit status: 0 done; 1 done, but something
failed and is named; 2 a mistake in what was asked for; 4 the disk; 130 and 143
stopped by a signal: the same command goes on.
"""


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="ablate.py",
        usage="python ablate.py STUDY.yaml | --objectives SPEC ... [--OPTION VALUE ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("study", nargs="?", metavar="STUDY", help="a study's YAML file, or the folder of one begun")
    without = parser.add_argument_group("Without a file, or instead of what it says")
    without.add_argument("--objectives", nargs="+", metavar="SPEC", help="the arms: mlm rtd mlm+nsp ...")
    without.add_argument("--seeds", type=int, metavar="INT", help="runs of each arm (default: 5)")
    without.add_argument("--budget", metavar="TEXT", help="of a run: 10m, 2h, 500steps, 2e6tokens, 1e13flops")
    without.add_argument("--fairness", metavar="UNIT", help="what is equal: flops (default), tokens, steps, time")
    without.add_argument("--corpus", metavar="TEXT", help="text to learn from (default: builtin)")
    without.add_argument("--encoder", metavar="TEXT", help="what learns (default: tiny)")
    rest = parser.add_argument_group("How")
    rest.add_argument("--out", metavar="DIR", help="the study's folder (default: studies/ and the file's name)")
    rest.add_argument("--dry_run", action="store_true", help="say what would run, how long, how large; then stop")
    rest.add_argument("--jobs", type=int, metavar="INT", help="processes at once (default: one for each core or GPU)")
    launcher = "slurm writes an array script of the runs, and stops"
    rest.add_argument("--launcher", choices=("local", "slurm"), default="local", help=launcher)
    return parser


def run(argv: Sequence[str]) -> int:
    """Do what a command line asks for; return the exit status. Raises UserError."""
    words = {"report": _report, "probe": _probe}
    if argv and argv[0] in words:
        return words[argv[0]](argv[1:])
    options = build_parser().read(argv)
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs is {options.jobs}; it must be at least 1")
    study, root = open_study(options)
    command = shlex.join(["python", "ablate.py", *argv])
    if options.dry_run:
        return _describe(study, root, options, command)
    from training.checkpoint import lock_run

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    check_free(root)
    with lock_run(root):
        folder = begin(study, root, command)
        return _run(folder, options)


def open_study(options: argparse.Namespace) -> tuple[Study, Path]:
    """Return the study that is asked for, and its folder."""
    given: dict[str, Any] = {}
    for name in ("seeds", "budget", "fairness"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    common = {name: getattr(options, name) for name in ("corpus", "encoder") if getattr(options, name) is not None}
    if options.study is None:
        if not options.objectives:
            raise UserError("no study was given; name a YAML file (docs/studies has some), or --objectives mlm rtd")
        written = {"arms": options.objectives, "common": common, "budget": "10m", **given}
        from .arms import name_of_spec

        name = "-".join(name_of_spec(spec) for spec in options.objectives)[:80]
        return make_study(written, "--objectives"), Path(options.out or f"studies/{name}")
    if options.objectives:
        raise UserError(f"--objectives and {options.study} both say what to compare; give one of them")
    place = Path(options.study)
    if place.is_dir():
        if not (place / STUDY).is_file():
            raise UserError(f"{place} holds no study ({STUDY} is missing); give a YAML file")
        study = read_study(str(place / STUDY))
        root = Path(options.out or place)
    else:
        study = read_study(options.study)
        root = Path(options.out or f"studies/{place.stem}")
    if given or common:
        changed = dict(study.written) | given
        if common:
            changed["common"] = {**(study.written.get("common") or {}), **common}
        study = make_study(changed, options.study)
    return study, root


def check_free(root: Path) -> None:
    """Raise a UserError where a study can't be begun or gone on with in that folder."""
    if root.exists() and not root.is_dir():
        raise UserError(f"--out {root} is a file; give a folder, absent or empty")
    names = sorted(each.name for each in root.iterdir() if each.name != ".lock") if root.is_dir() else []
    if names and PLAN not in names and not set(names) <= {STUDY, "probes"}:  # what was killed before its plan
        raise UserError(f"the folder {root} is not empty, and no study ({names[0]} is in it); give --out a new one")


def begin(study: Study, root: Path, command: str) -> StudyFolder:
    """Return the study's folder, with its plan and the items of its probes made where they were not yet."""
    from probes.progress import Progress
    from probes.results import publish_text
    from training.yaml_settings import write_yaml

    from .probe_sets import build_sets, save_sets

    begun = read_plan(root)
    if begun is not None:
        check_same(root, begun, study.written)
    plan = begun or make_plan(study, command, timed=False)
    folder = StudyFolder(root, study, plan)
    if not folder.sets.is_dir() and study.probing.suite != "none":
        config = folder.list_runs()[0].config
        built = build_sets(study.probing, config, plan.corpus.documents, Progress(sys.stderr))
        save_sets(folder.sets, built)
    if begun is None:  # last: what can't be carried out leaves no study behind
        publish_text(root / STUDY, write_yaml(json.loads(json.dumps(study.written))))
        write_plan(root, plan)
    return folder


def _run(study: StudyFolder, options: argparse.Namespace) -> int:
    from probes.progress import Progress
    from probes.results import publish_text

    from .queue import Queue
    from .runs import list_jobs, list_places, write_array

    if options.launcher == "slurm":
        path = write_array(study)
        print(f"sbatch {path}\nthen, when all of it is done: python ablate.py {study.root}")
        return 0
    jobs = list_jobs(study)
    places = list_places(options.jobs, int(study.study.common.get("threads") or 1))
    failed = Queue(jobs, places, Progress(sys.stderr)).run() if jobs else {}
    publish_text(study.root / _FAILED, json.dumps(failed, indent=1, ensure_ascii=False) + "\n")
    return _finish(study, failed)


def _finish(study: StudyFolder, failed: Mapping[str, str]) -> int:
    """Gather what there is, write it down, and say where."""
    from rich.console import Console

    from probes.report import WIDTH, print_table

    from .gather import gather
    from .report import write_report
    from .results import write_study_results

    results = gather(study, failed)
    write_study_results(study.results, results)
    page = write_report(results, study.report)
    if results.probes is not None:
        print_table(results.probes, Console(width=None if sys.stdout.isatty() else WIDTH))
    for failure in results.failures:
        where = " ".join(map(str, filter(None, (failure.arm, failure.seed, failure.probe))))
        print(f"failed: {where}: {failure.error}", file=sys.stderr)
    print(f"\n{page}\n{study.results}")
    return 1 if results.failures else 0


def _describe(study: Study, root: Path, options: argparse.Namespace, command: str) -> int:
    """Print what would run; nothing is written but the prepared text, into the cache."""
    from .dry_run import print_plan
    from .runs import list_places

    plan = read_plan(root)
    if plan is not None:
        check_same(root, plan, study.written)
    else:
        check_free(root)
        plan = make_plan(study, command, timed=True)
    places = len(list_places(options.jobs, int(study.common.get("threads") or 1)))
    print_plan(study, plan, root, places)
    return 0


def _report(argv: Sequence[str]) -> int:
    """Write the report of a study anew, from its runs, or from results.json alone."""
    from .report import write_report
    from .results import read_study_results

    if len(argv) != 1:
        raise UserError("give the folder of one study: python ablate.py report studies/demo")
    root = Path(argv[0])
    if (root / PLAN).is_file():
        folder = open_folder(root)
        failed = root / _FAILED
        return _finish(folder, json.loads(failed.read_text(encoding="utf-8")) if failed.is_file() else {})
    if not (root / "results.json").is_file():
        raise UserError(f"{root} holds no study: neither {PLAN} nor results.json is there")
    print(write_report(read_study_results(root / "results.json"), root))
    return 0


def _probe(argv: Sequence[str]) -> int:
    """Ask the encoders of one run, or a reference: what the queue starts."""
    if len(argv) != 3 or not argv[2].isdigit():
        raise UserError("give a study, an arm and a seed: python ablate.py probe studies/demo mlm 0")
    from .probing import probe_places

    folder, name, seed = open_folder(Path(argv[0])), argv[1], int(argv[2])
    found = [run for run in folder.list_runs() if (run.arm, run.seed) == (name, seed)]
    if found:
        probe_places(folder, list(folder.list_encoders(found[0])), found[0])
        return 0
    probe_places(folder, [place for place in folder.list_references() if place.arm == name])
    return 0


def open_folder(root: Path) -> StudyFolder:
    """Return a study that was begun. UserError where there is none."""
    plan: Plan | None = read_plan(root)
    if plan is None:
        raise UserError(f"{root} holds no study that was begun: {PLAN} is missing")
    return StudyFolder(root, make_study(plan.study, str(root / PLAN)), plan)
