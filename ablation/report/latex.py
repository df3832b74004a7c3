"""The main table for a paper: probes by arms, in LaTeX with booktabs."""

from collections.abc import Iterator, Mapping, Sequence

from ablation.results import StudyResults
from probes.report import is_firm

from .matrix import Row
from .measures import Gain, Outcomes, find_baseline, list_columns
from .notation import plain, plural

_PER_BLOCK = 5  # arms side by side on a page of one column
_ESCAPED = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--", "×": r"$\times$"},
}
_FLAGS = {"": "", "floor": r"$^{\downarrow}$", "ceiling": r"$^{\uparrow}$"}


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it stands, on one line."""
    return "".join(_ESCAPED.get(character, character) for character in " ".join(text.split()))


def write_latex(results: StudyResults, rows: Sequence[Row], gains: Mapping[str, Gain]) -> str:
    """Return a table environment for \\input, which needs no package but booktabs."""
    columns, baseline = list_columns(results), find_baseline(results)
    best = {row.probe.name: _find_best(row) for row in rows}
    outcomes = Outcomes(results)
    lines = [
        r"% A table for \input; \usepackage{booktabs} in the preamble is all that it needs.",
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{_write_caption(results, baseline)}}}",
        rf"\label{{tab:{''.join(c for c in results.name if c.isalnum() or c in '-.')}}}",
    ]
    for start in range(0, len(columns), _PER_BLOCK):
        block = columns[start : start + _PER_BLOCK]
        if start:
            lines.append(r"\par\medskip")
        lines += [rf"\begin{{tabular}}{{l{'r' * len(block)}r}}", r"\toprule"]
        lines += [" & ".join(["Probe", *map(escape_latex, block), "Floor"]) + r" \\", r"\midrule"]
        for row in rows:
            cells = _write_cells(row, start, block, best[row.probe.name], outcomes, baseline)
            lines.append(
                " & ".join([escape_latex(plain(row.probe.name)), *cells]) + rf" & {100 * row.probe.floor:.1f} \\"
            )
        means = [f"{100 * gains[name].value:.1f}" if name in gains else "--" for name in block]
        lines += [r"\midrule", " & ".join(["Mean gain", *means, "0.0"]) + r" \\", r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _write_cells(
    row: Row, start: int, block: Sequence[str], best: str | None, outcomes: Outcomes, baseline: str | None
) -> Iterator[str]:
    for cell in row.cells[start : start + len(block)]:
        if cell.summary is None:
            yield rf"\textit{{{escape_latex(cell.missing)}}}"
            continue
        score = f"{100 * cell.summary.score:.1f}"
        score = rf"\textbf{{{score}}}" if cell.arm == best else score
        compared = outcomes.find(row.probe.name, cell.arm, baseline) if baseline else None
        star = r"$^{*}$" if compared is not None and is_firm(compared) else ""
        half = 100 * (cell.summary.high - cell.summary.low) / 2
        yield rf"{score}{star}{_FLAGS[cell.summary.flag]} {{\tiny$\pm${half:.1f}}}"


def _find_best(row: Row) -> str | None:
    """Return the arm with the highest score, if any is off its floor."""
    scores = {cell.arm: cell.summary.score for cell in row.cells if cell.summary and not cell.summary.flag}
    return max(scores, key=lambda name: scores[name], default=None)


def _write_caption(results: StudyResults, baseline: str | None) -> str:
    tested = results.probes is not None and any(each.p_holm is not None for each in results.probes.comparisons)
    stands = "$p<.05$ after Holm's correction" if tested else "its 95\\,\\% interval leaves out 0, uncorrected"
    return (
        f"{escape_latex(results.title or results.name)}. Test scores $\\times$ 100, $\\pm$ half the 95\\,\\% interval; "
        f"{plural(len(results.seeds), 'seed')}, budget {escape_latex(results.budget)}. Bold: the highest. "
        + (f"$^{{*}}$: differs from {escape_latex(baseline)} ({stands}). " if baseline else "")
        + r"$^{\downarrow}$, $^{\uparrow}$: at the floor, at the ceiling. Floor: the best score without an encoder. "
        "Mean gain: the mean share of the way from floor to 100."
    )
