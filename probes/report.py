"""The results as a table for the terminal and as one HTML page that needs nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .figures import METRICS, Line, draw_layers, draw_sample
from .pages import open_templates, state_policy
from .probe import TOO_RARE
from .results import ALL, MIX, Comparison, ProbeRecord, Results, Score, Summary, publish_text

WIDTH = 80
_PROBE_COLUMN, _FLOOR_COLUMNS, _GROUP_COLUMN = 22, 16, 13
_MARKS = {"": "", "floor": "_", "ceiling": "^"}
_HEATS = 8  # shades of gain over the floor
CLAIMS = {
    "checkpoints": "These figures are about these checkpoints. Another seed of the same objective may differ by as "
    "much: a claim about an objective wants 5 seeds or more for each.",
    "objective": "Every comparison rests on 5 or more seeds for each side: it may speak about the objectives.",
}


def print_table(results: Results, console: Console) -> None:
    """Print probes by groups, 80 columns wide: score and half its interval, chosen layer; floors beside them."""
    _print_missing(results, console)
    groups = results.groups
    per_table = max(1, (WIDTH - _PROBE_COLUMN - _FLOOR_COLUMNS) // (_GROUP_COLUMN + 1))
    for start in range(0, len(groups), per_table):
        console.print(_make_table(results, groups[start : start + per_table]))
    words = [
        "score x 100 ± half its 95 % interval; L: the layer, chosen on dev items",
        "floor: best score without an encoder; untrained: same network, random weights",
    ]
    if any(summary.flag for summary in results.summaries):
        words.append("_ at the floor, ^ at the ceiling: tells nothing of the encoder")
    words.append("gain: mean share of the way from floor to 100, without such rows")
    for line in words:
        console.print(Text(line, style="dim"))
    for line in _describe_comparisons(results):
        console.print(Text(line))
    console.print(Text(CLAIMS[results.claim]))


def _print_missing(results: Results, console: Console) -> None:
    for name, reason in results.failed.items():
        console.print(Text(f"missing: {name}: {reason}", style="bold red"))
    for name, reason in results.skipped.items():
        console.print(Text(f"left out: {name}: {reason}", style="yellow"))
    for probe in results.probes:
        rare = probe.note.partition(TOO_RARE)[2]
        if rare:
            console.print(Text(f"left out of {probe.name}, as too rare: {rare.removesuffix('.')}", style="yellow"))


def _make_table(results: Results, groups: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    table.add_column("probe", no_wrap=True, max_width=_PROBE_COLUMN, overflow="ellipsis")
    table.add_column("floor", justify="right", no_wrap=True)
    table.add_column("untrained", justify="right", no_wrap=True)
    for group in groups:
        table.add_column(group, justify="right", overflow="fold", min_width=9, max_width=_GROUP_COLUMN)
    counted = set(results.list_counted())
    for probe in results.probes:
        cells = [_terminal_cell(results.find_summary(group, probe.name)) for group in groups]
        untrained = [results.find_summary(group, probe.name) for group in results.untrained]
        best = max((each.score for each in untrained if each is not None), default=None)
        style = "" if probe.name in counted else "dim"
        table.add_row(probe.name, percent(probe.floor), percent(best), *cells, style=style)
    gains = [percent(results.mean_gain(group)) for group in groups]
    untrained_gains = [gain for gain in map(results.mean_gain, results.untrained) if gain is not None]
    table.add_row("gain", "0.0", percent(max(untrained_gains, default=None)), *gains, style="bold")
    return table


def _terminal_cell(summary: Summary | None) -> str:
    if summary is None:
        return "–"
    half = 100 * (summary.high - summary.low) / 2
    layers = f"L{summary.layers[0]}" if len(set(summary.layers)) == 1 else "L*"
    return f"{percent(summary.score)}{_MARKS[summary.flag] or ' '}±{half:.1f} {layers}"


def _describe_comparisons(results: Results) -> Iterator[str]:
    """Say which differences stand, and how large one would have to be to be found."""
    if not results.comparisons:
        return
    firm = [each for each in results.comparisons if is_firm(each)]
    yield f"differences whose interval leaves out 0: {len(firm)} of {len(results.comparisons)}"
    for each in firm[:12]:
        yield f"  {each.probe}: {each.a} - {each.b} {signed(each.difference)} {interval(each)}"
    if len(firm) > 12:
        yield f"  and {len(firm) - 12} more: see the page"


def is_firm(comparison: Comparison) -> bool:
    """Return whether a difference stands: by the corrected test where there is one, by its interval otherwise."""
    if comparison.p_holm is not None:
        return comparison.p_holm < 0.05
    return comparison.low > 0 or comparison.high < 0


def percent(score: float | None) -> str:
    """Return 71.2 for .712."""
    return "–" if score is None else f"{100 * score:.1f}"


def signed(difference: float) -> str:
    """Return +1.2 for .012."""
    return f"{100 * difference:+.1f}"


def interval(each: Score | Summary | Comparison) -> str:
    """Return [69.0, 73.3]."""
    return f"[{100 * each.low:.1f}, {100 * each.high:.1f}]"


@dataclass(frozen=True, kw_only=True)
class _Cell:
    summary: Summary | None
    heat: str  # a class of the style sheet


def shade(summary: Summary | None, probe: ProbeRecord) -> str:
    """Return the shade of a cell, a class of the style sheet: the share of the way from the floor to 100."""
    if summary is None or summary.flag:
        return "flat"
    gain = (summary.score - probe.floor) / max(1 - probe.floor, 1e-9)
    return f"heat-{min(_HEATS - 1, max(0, int(gain * _HEATS)))}"


def render_page(results: Results) -> str:
    """Return the page: one file, no script, nothing fetched, and a policy that forbids both."""
    environment = open_templates("probes")
    filters = {"percent": percent, "signed": signed, "interval": interval, "is_firm": is_firm}
    environment.filters |= filters
    style = environment.get_template("style.css.j2").render()
    lines = _make_lines(results)
    counted = set(results.list_counted())
    groups = [*results.groups, *results.untrained]
    rows = []
    for probe in results.probes:
        summaries = [results.find_summary(group, probe.name) for group in groups]
        cells = [_Cell(summary=summary, heat=shade(summary, probe)) for summary in summaries]
        rows.append({"probe": probe, "cells": cells, "is_counted": probe.name in counted})
    return environment.get_template("report.html.j2").render(
        results=results,
        style=Markup(style),
        policy=state_policy(style),
        groups=groups,
        rows=rows,
        gains=[results.mean_gain(group) for group in groups],
        figures=list(_draw_figures(results, lines)),
        legend=[(line, Markup(draw_sample(line))) for line in lines],
        controls=_list_controls(results),
        claim=CLAIMS[results.claim],
        metrics=METRICS,
        num_trained=sum(encoder.is_trained for encoder in results.encoders),
    )


def write_page(path: Path, results: Results) -> None:
    """Write the page, whole or not at all. Raises StorageError."""
    publish_text(path, render_page(results))


def _make_lines(results: Results) -> list[Line]:
    """Return a line for each encoder, untrained ones first, so that they are drawn beneath the others."""
    untrained = [encoder for encoder in results.encoders if not encoder.is_trained]
    trained = [encoder for encoder in results.encoders if encoder.is_trained]
    groups = results.groups
    return [
        *(Line(encoder=each.name, label=each.name, number=n, is_trained=False) for n, each in enumerate(untrained)),
        *(Line(encoder=each.name, label=each.name, number=groups.index(each.group)) for each in trained),
    ]


def _draw_figures(results: Results, lines: list[Line]) -> Iterator[tuple[ProbeRecord, Markup]]:
    for number, probe in enumerate(results.probes):
        curves = [(line, results.list_layers(line.encoder, probe.name)) for line in lines]
        curves = [(line, scores) for line, scores in curves if scores]
        if curves:
            yield probe, Markup(draw_layers(probe, curves, f"p{number}-"))


def _list_controls(results: Results) -> list[Score]:
    """Return what the first table has no room for, by probe: chosen layers with a control or a code, subsets, mixes."""
    shown = [
        score
        for score in results.scores
        if score.layer == MIX
        or (score.is_chosen and (score.subset != ALL or score.control is not None or score.mdl_bits is not None))
    ]
    probes = [probe.name for probe in results.probes]
    encoders = [each.name for each in sorted(results.encoders, key=lambda each: not each.is_trained)]
    return sorted(shown, key=lambda score: (probes.index(score.probe), encoders.index(score.encoder)))
