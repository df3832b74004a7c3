"""Pictures of the page: scores by layer, as SVG that needs no style attribute, no font and no network.

Colours are names that the page defines (`var(--series-0)`, `currentColor`), so that they follow a light or dark screen.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .results import ProbeRecord, Score

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "probes", "font.size": 10, "axes.linewidth": 0.8}
METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "auroc": "AUROC"}
NUM_COLOURS = 6
_PLACEHOLDERS = [f"#0f0e0{number}" for number in range(NUM_COLOURS)]  # drawn with these, then renamed
_INK = "#0f0e0a"
_NAMES = {_INK: "currentColor"} | {colour: f"var(--series-{n})" for n, colour in enumerate(_PLACEHOLDERS)}
_MARKERS = "osD^vP"


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one encoder draws in each picture: colour and marker by its number, dashed where it is untrained."""

    encoder: str
    label: str
    number: int
    is_trained: bool = True

    @property
    def colour(self) -> str:
        """The colour's name on the page."""
        return f"var(--series-{self.number % NUM_COLOURS})" if self.is_trained else "currentColor"

    @property
    def marker(self) -> str:
        """A marker of matplotlib's, so that colour is not the only mark."""
        return _MARKERS[self.number % len(_MARKERS)] if self.is_trained else "x"


def draw_layers(probe: ProbeRecord, curves: Sequence[tuple[Line, Sequence[Score]]], prefix: str) -> str:
    """Return an SVG of scores over layers: a line with its interval for each encoder, dotted lines for what sees none.

    `prefix` starts every id in the picture: several of them share one page.
    """
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(3.6, 2.5), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        panel = figure.subplots()
        for line, scores in curves:
            colour = _PLACEHOLDERS[line.number % NUM_COLOURS] if line.is_trained else _INK
            layers = [int(score.layer) for score in scores]
            panel.fill_between(
                layers,
                [100 * score.low for score in scores],
                [100 * score.high for score in scores],
                color=colour,
                alpha=0.16 if line.is_trained else 0.08,
                linewidth=0,
            )
            panel.plot(
                layers,
                [100 * score.score for score in scores],
                color=colour,
                marker=line.marker,
                markersize=4,
                linewidth=1.6 if line.is_trained else 1,
                linestyle="-" if line.is_trained else "--",
            )
        panel.axhline(100 * probe.floor, color=_INK, linestyle=":", linewidth=1.2)
        panel.set_xlabel("layer (0: embeddings)", color=_INK)
        panel.set_ylabel(f"{METRICS[probe.metric]} × 100")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.2, color=_INK)
        panel.spines[["top", "right"]].set_visible(False)
        for part in (panel.spines["left"], panel.spines["bottom"]):
            part.set_color(_INK)
        panel.tick_params(colors=_INK)
        panel.yaxis.label.set_color(_INK)
        buffer = io.StringIO()
        figure.patch.set_visible(False)
        panel.patch.set_visible(False)
        canvas.print_svg(buffer, metadata={"Date": None})
    return _clean(buffer.getvalue(), f"{probe.name}: score by layer", prefix)


def draw_sample(line: Line) -> str:
    """Return a small SVG of the line and its marker, for the legend."""
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(0.5, 0.2))
        canvas = FigureCanvasSVG(figure)
        colour = _PLACEHOLDERS[line.number % NUM_COLOURS] if line.is_trained else _INK
        panel = figure.add_axes((0.02, 0.05, 0.96, 0.9))
        panel.set_axis_off()
        panel.set_xlim(0, 2)
        panel.plot([0, 1, 2], [0, 0, 0], color=colour, linestyle="-" if line.is_trained else "--", linewidth=1.8)
        panel.plot([1], [0], color=colour, marker=line.marker, markersize=5)
        figure.patch.set_visible(False)
        buffer = io.StringIO()
        canvas.print_svg(buffer, metadata={"Date": None})
    return _clean(buffer.getvalue(), "", f"sample-{line.number}-{int(line.is_trained)}-")


def _clean(markup: str, title: str, prefix: str) -> str:
    """Return the drawing alone: styles as attributes, colours by name, ids with a prefix; no metadata, no style sheet.

    A policy that forbids inline styles would blank matplotlib's own markup.
    """
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(markup)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    used = set(re.findall(r"url\(#([^)]+)\)", markup)) | set(re.findall(r'xlink:href="#([^"]+)"', markup))
    for element in root.iter():
        for name, value in _read_style(element.attrib.pop("style", "")).items():
            element.set(name, value)
        for name, value in list(element.attrib.items()):
            if name == "id":
                if value in used:
                    element.set(name, prefix + value)
                else:
                    del element.attrib[name]
            elif name == f"{{{_XLINK}}}href":
                element.set(name, value.replace("#", f"#{prefix}", 1))
            else:
                element.set(name, _NAMES.get(value, value.replace("url(#", f"url(#{prefix}")))
    view = [float(number) for number in root.attrib["viewBox"].split()]
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    root.attrib |= {"width": f"{view[2]:.0f}pt", "height": f"{view[3]:.0f}pt"}
    if title:
        root.attrib |= {"role": "img", "aria-label": title}
    else:
        root.set("aria-hidden", "true")
    return ElementTree.tostring(root, encoding="unicode")


def _read_style(style: str) -> dict[str, str]:
    """Return the attributes that say the same: every property that matplotlib writes has one of its name."""
    attributes = {}
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name != "font-family":  # the page's own
            attributes[name] = value
    return attributes
