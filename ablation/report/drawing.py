"""Figures of the report, each as SVG for the page and as a file of its own."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablation.results import StudyResults
from probes.figures import LIGHT, SETTINGS, Line, ink_axes, render

from .measures import is_trained, list_columns

Paint = Callable[[Axes], None]
PANEL = (3.5, 2.5)  # inches, as the margins are
_LEFT, _RIGHT, _BOTTOM, _TOP, _TITLE = 0.62, 0.12, 0.5, 0.1, 0.3
_COLUMNS = 3  # of panels in a file
_INK, _PAPER = "#1b1f24", "#ffffff"
_SVG = "http://www.w3.org/2000/svg"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure: the name of its file, what it shows for who can't see it, its caption, and the drawing."""

    name: str
    alt: str
    caption: str
    markup: str


def list_lines(results: StudyResults) -> dict[str, Line]:
    """Return the colour and marker of each column, the same in all figures."""
    lines: dict[str, Line] = {}
    for name in list_columns(results):
        trained = is_trained(results, name)
        same = sum(line.is_trained == trained for line in lines.values())
        lines[name] = Line(encoder=name, label=name, number=same, is_trained=trained)
    return lines


def draw_panels(panels: Sequence[tuple[str, Paint]], alt: str, prefix: str, lines: Sequence[Line] = ()) -> str:
    """Return panels with their titles in one figure, three in a row; with a legend of `lines` beneath, for a file.

    Margins are fixed: matplotlib's own layouts draw everything twice.
    """
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    below = 0.25 * -(-len(lines) // (2 * columns))  # of the legend, two names to a panel's width
    width, height = PANEL[0] * columns, PANEL[1] * rows + below
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height))
        for number, (title, paint) in enumerate(panels):
            row, column = divmod(number, columns)
            left, bottom = PANEL[0] * column + _LEFT, height - PANEL[1] * (row + 1) + _BOTTOM
            size = (PANEL[0] - _LEFT - _RIGHT, PANEL[1] - _BOTTOM - (_TITLE if title else _TOP))
            panel = figure.add_axes((left / width, bottom / height, size[0] / width, size[1] / height))
            paint(panel)
            panel.set_title(title, fontsize=10)
            ink_axes(panel)
        if lines:
            handles = [Line2D([], [], label=line.label, **style_of(line)) for line in lines]
            figure.legend(handles=handles, loc="lower center", ncols=2 * columns, frameon=False, fontsize=9)
        return render(figure, alt, prefix)


def style_of(line: Line) -> dict[str, Any]:
    """Return what matplotlib draws an arm's line with."""
    return {
        "color": line.ink,
        "marker": line.marker,
        "markersize": 4,
        "linewidth": 1.6 if line.is_trained else 1,
        "linestyle": "-" if line.is_trained else "--",
    }


def stand_alone(markup: str) -> str:
    """Return a page's figure as a file: the colours written out, on white, with a typeface."""
    names = {f"var(--series-{number})": colour for number, colour in enumerate(LIGHT)} | {"currentColor": _INK}
    root = ElementTree.fromstring(markup)
    for element in root.iter():
        for name, value in element.attrib.items():
            element.set(name, names.get(value, value))
    root.attrib |= {"font-family": "sans-serif", "fill": _INK}
    width, height = root.attrib["viewBox"].split()[2:]
    root.insert(0, ElementTree.Element(f"{{{_SVG}}}rect", {"width": width, "height": height, "fill": _PAPER}))
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def rename_ids(markup: str, section: str) -> Markup:
    """Return a drawing whose ids begin with a section's name, for one that the page shows more than once."""
    return Markup(re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{section}-", markup))
