"""The files of a report."""

from pathlib import Path

from ablation.results import StudyResults, write_study_results
from corpora.errors import StorageError
from probes.results import publish_text

from .latex import write_latex
from .matrix import list_rows
from .measures import list_mean_gains
from .page import draw_all, render_page
from .tables import list_tables

PAGE, RESULTS, LATEX, FIGURES, TABLES = "index.html", "results.json", "main.tex", "figures", "tables"


def write_report(results: StudyResults, folder: Path) -> Path:
    """Write the page, its figures and tables, the LaTeX table and results.json into a folder; return the page's path.

    Equal results give equal bytes. Figures and tables of an earlier report are replaced. Raises StorageError for a disk
    that can't take it.
    """
    rows, gains = list_rows(results), list_mean_gains(results)
    drawn = draw_all(results, rows, gains)
    page = render_page(results, rows, gains, drawn)
    _remove(folder / FIGURES, "*.svg")
    _remove(folder / TABLES, "*.csv")
    for name, markup in drawn.files.items():
        publish_text(folder / FIGURES / f"{name}.svg", markup)
    for table in list_tables(results, rows):
        publish_text(folder / TABLES / f"{table.name}.csv", table.write())
    publish_text(folder / LATEX, write_latex(results, rows, gains))
    write_study_results(folder / RESULTS, results)
    publish_text(folder / PAGE, page)
    return folder / PAGE


def _remove(folder: Path, pattern: str) -> None:
    """Remove what an earlier report left, which may be of arms that are no more."""
    try:
        for path in folder.glob(pattern):
            path.unlink()
    except OSError as error:
        raise StorageError(f"{folder} can't be written anew: {error.strerror}; --out DIR says where to") from error
