"""What is not there, and why: no failure is a blank or a zero."""

from dataclasses import dataclass

from ablation.results import StudyResults
from probes.results import Summary

from .notation import plain, plural


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Something that an arm lacks for some seeds, and why."""

    arm: str
    seeds: tuple[int, ...]
    what: str
    why: str


def list_missing(results: StudyResults) -> list[Missing]:
    """Return what failed or is still to come; seeds of an arm for which that is alike stand together."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for run in results.runs:
        if run.status != "finished":
            stopped = f", stopped at step {run.steps:,}" if run.steps else ""
            why = "not finished yet" if run.status == "waiting" else run.error or "failed without a word"
            found.setdefault((run.arm, f"the run{stopped}", why), []).append(run.seed)
    for each in results.failures:
        what = plain(each.probe) if each.probe else "all probes"
        at = f", at step {each.step:,}" if each.step is not None else ""
        found.setdefault((each.arm, what + at, each.error), []).append(each.seed)
    listed = [
        Missing(arm=arm, seeds=tuple(dict.fromkeys(seeds)), what=what, why=why)
        for (arm, what, why), seeds in found.items()
    ]
    told = {each.why for each in listed}
    failed = results.probes.failed if results.probes else {}
    listed += [
        Missing(arm=name, seeds=(), what="all probes", why=why) for name, why in failed.items() if why not in told
    ]
    return listed


def name_missing(results: StudyResults, arm: str, probe: str, summary: Summary | None) -> str:
    """Return in a word or two why a cell has no score, or of how many seeds it is; "" where all are there."""
    if summary is not None:
        is_run_here = any(each.name == arm and each.kind == "trained" for each in results.arms)
        wanted = len(results.seeds) if is_run_here else summary.seeds
        return f"{summary.seeds} of {plural(wanted, 'seed')}" if summary.seeds < wanted else ""
    runs = results.list_runs(arm)
    failed = [
        each for each in results.failures if each.arm == arm and each.step is None and each.probe in (None, probe)
    ]
    names = {arm, *(run.folder for run in runs), *(f"{arm}/seed{run.seed}" for run in runs)}
    if failed or any(run.status == "failed" for run in runs):
        return "failed"
    if results.probes is not None and names & set(results.probes.failed):
        return "failed"
    if runs and not any(run.status == "finished" for run in runs):
        return "not run yet"
    return "not probed"
