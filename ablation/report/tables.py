"""The report's tables as CSV: one row a fact, figures unrounded, scores in [0, 1]; what is not known is empty."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ablation.results import StudyResults
from probes.report import is_firm
from probes.results import MIX

from .matrix import Row
from .measures import Outcomes, find_baseline, is_chosen, list_gains, mean_interval, mean_of_runs

Value = str | int | float | None
_OF_RUNS = ("arm", "seed", "status", "error", "folder", "steps", "tokens", "flops", "seconds", "peak_memory")
_OF_TRAJECTORIES = ("arm", "seed", "probe", "step", "tokens", "flops", "layer", "score", "low", "high")
_OF_HYPOTHESES = ("name", "claim", "source", "a", "b", "measure", "verdict", "difference", "low", "high", "p", "why")
_OF_FAILURES = ("arm", "seed", "probe", "step", "error")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A file of the folder: its name, its columns, its rows."""

    name: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Value]]

    def write(self) -> str:
        """Return the table as CSV (RFC 4180, lines end in \\n)."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            writer.writerow(["" if _is_unknown(value) else value for value in row])
        return stream.getvalue()


def list_tables(results: StudyResults, rows: Sequence[Row]) -> list[Table]:
    """Return every table; one without rows has its columns all the same."""
    return [
        _make_matrix(results, rows),
        _make_arms(results),
        _copy("runs", _OF_RUNS, results.runs),
        _make_differences(results),
        _make_layers(results),
        _copy("trajectories", _OF_TRAJECTORIES, results.trajectories),
        _make_held_out(results),
        _copy("hypotheses", _OF_HYPOTHESES, results.hypotheses),
        _copy("failures", _OF_FAILURES, results.failures),
    ]


def _copy(name: str, columns: tuple[str, ...], records: Iterable[object]) -> Table:
    """Return a table of the records' own fields."""
    return Table(name=name, columns=columns, rows=[[getattr(each, name) for name in columns] for each in records])


def _is_unknown(value: Value) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _make_matrix(results: StudyResults, rows: Sequence[Row]) -> Table:
    baseline, outcomes = find_baseline(results), Outcomes(results)
    columns = (
        *("probe", "arm", "score", "low", "high", "seeds", "layers", "flag", "floor", "metric"),
        *("minus_baseline", "baseline", "p_holm", "missing"),
    )
    lines: list[Sequence[Value]] = []
    for row in rows:
        for cell in row.cells:
            found, score = cell.summary, (None,) * 6
            if found is not None:
                layers = " ".join(str(layer) for layer in found.layers)
                score = (found.score, found.low, found.high, found.seeds, layers, found.flag)  # type: ignore[assignment]  # a row of None else
            compared = outcomes.find(row.probe.name, cell.arm, baseline) if baseline else None
            beside = (compared.difference, baseline, compared.p_holm) if compared else (None, baseline, None)
            lines.append((row.probe.name, cell.arm, *score, row.probe.floor, row.probe.metric, *beside, cell.missing))
    return Table(name="matrix", columns=columns, rows=lines)


def _make_arms(results: StudyResults) -> Table:
    columns = (
        *("arm", "kind", "objective", "generator", "steps", "tokens", "flops", "flops_per_step", "parameters"),
        *("seconds", "peak_memory", "mean_gain", "low", "high"),
    )
    rows = []
    for arm in results.arms:
        gains = list_gains(results.probes, arm.name) if results.probes else []
        gain = mean_interval(gains) if gains else None
        rows.append(
            (
                *(arm.name, arm.kind, arm.objective, arm.generator, arm.steps, arm.tokens, arm.flops),
                *(arm.flops_per_step, sum(arm.parameters.values())),
                *(mean_of_runs(results, arm.name, name) or None for name in ("seconds", "peak_memory")),
                *((gain.value, gain.low, gain.high) if gain else (None, None, None)),
            )
        )
    return Table(name="arms", columns=columns, rows=rows)


def _make_differences(results: StudyResults) -> Table:
    names = ("probe", "a", "b", "difference", "low", "high", "method", "claim", "p", "p_holm", "detectable")
    columns = (*names, "seeds_a", "seeds_b", "stands")
    compared = results.probes.comparisons if results.probes else ()
    rows = [
        [*(getattr(each, name) for name in names), *each.seeds, "yes" if is_firm(each) else "no"] for each in compared
    ]
    return Table(name="differences", columns=columns, rows=rows)


def _make_layers(results: StudyResults) -> Table:
    names = ("probe", "layer", "subset", "metric", "score", "low", "high", "dev", "items", "control", "mdl_bits")
    columns = ("arm", "seed", "encoder", *names, "chosen", "mix")
    rows = []
    if results.probes is not None:
        of = {encoder.name: encoder for encoder in results.probes.encoders}
        for each in results.probes.scores:
            encoder = of[each.encoder]
            mix = " ".join(f"{weight:.6g}" for weight in each.mix or ()) if each.layer == MIX else ""
            figures = [getattr(each, name) for name in names]
            chosen = "yes" if is_chosen(each) else "no"
            rows.append([encoder.group, encoder.seed, encoder.name, *figures, chosen, mix])
    return Table(name="layers", columns=columns, rows=rows)


def _make_held_out(results: StudyResults) -> Table:
    return Table(
        name="held_out", columns=("arm", "seed", "loss", "figure", "value"), rows=list(_list_held_out(results))
    )


def _list_held_out(results: StudyResults) -> Iterator[Sequence[Value]]:
    for run in results.runs:
        for loss, figures in run.held_out.items():
            for name, value in figures.items():
                yield run.arm, run.seed, loss, name, value
        for loss, levels in run.chance.items():
            for name, value in levels.items():
                yield run.arm, run.seed, loss, f"chance: {name}", value
