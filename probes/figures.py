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
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .results import ProbeRecord, Score

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "probes", "font.size": 10, "axes.linewidth": 0.8}
METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "auroc": "AUROC",
    "uuas": "UUAS",
    "spearman": "Spearman's ρ",
    "top1": "top-1 accuracy",
    "explained": "share of loss saved",
}
LIGHT = ("#0072b2", "#c8500a", "#00845f", "#a9548a", "#8a6d00", "#3f7fa8", "#5d3a9b", "#7f4f24")  # on white
DARK = ("#58a6ff", "#f0883e", "#3fb98a", "#d18fbd", "#d4b53a", "#8cc4e8", "#a99bf0", "#c99a6b")  # on black
SERIES = [f"#0f0e0{number}" for number in range(len(LIGHT))]  # drawn with these, then renamed
INK = "#0f0e0a"
_NAMES = {INK: "currentColor"} | {colour: f"var(--series-{n})" for n, colour in enumerate(SERIES)}
_MARKERS = "osD^vP*"  # as many as share no factor with the colours


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
        return _NAMES[self.ink]

    @property
    def ink(self) -> str:
        """The colour that it is drawn with, which `render` renames."""
        return SERIES[self.number % len(SERIES)] if self.is_trained else INK

    @property
    def marker(self) -> str:
        """A marker of matplotlib's, so that colour is not the only mark."""
        return _MARKERS[self.number % len(_MARKERS)] if self.is_trained else "x"


def draw_layers(probe: ProbeRecord, curves: Sequence[tuple[Line, Sequence[Score]]], prefix: str) -> str:
    """Return an SVG of scores over layers: a line with its interval for each encoder, dotted lines for what sees none.

    `prefix` starts every id in the picture: several of them share one page.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(3.6, 2.5), layout="constrained")
        panel = figure.subplots()
        for line, scores in curves:
            layers = [int(score.layer) for score in scores]
            panel.fill_between(
                layers,
                [100 * score.low for score in scores],
                [100 * score.high for score in scores],
                color=line.ink,
                alpha=0.16 if line.is_trained else 0.08,
                linewidth=0,
            )
            if len(scores) == 1:  # a band of one layer would have no width
                low, high = 100 * scores[0].low, 100 * scores[0].high
                panel.vlines(layers, low, high, color=line.ink, linewidth=4, alpha=0.3)
            panel.plot(
                layers,
                [100 * score.score for score in scores],
                color=line.ink,
                marker=line.marker,
                markersize=4,
                linewidth=1.6 if line.is_trained else 1,
                linestyle="-" if line.is_trained else "--",
            )
        panel.axhline(100 * probe.floor, color=INK, linestyle=":", linewidth=1.2)
        panel.set_xlabel("layer (0: embeddings)")
        panel.set_ylabel(f"{METRICS[probe.metric]} × 100")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        drawn = {int(score.layer) for _, scores in curves for score in scores}
        if len(drawn) == 1:
            panel.set_xlim(min(drawn) - 1, max(drawn) + 1)
            panel.set_xticks(list(drawn))
        ink_axes(panel)
    return render(figure, f"{probe.name}: score by layer", prefix)


def ink_axes(panel: Axes) -> None:
    """Give a panel a faint grid, two spines, and everything in the colour of the page's text."""
    panel.grid(alpha=0.2, color=INK)
    panel.spines[["top", "right"]].set_visible(False)
    for part in (panel.spines["left"], panel.spines["bottom"]):
        part.set_color(INK)
    panel.tick_params(which="both", colors=INK)
    for label in (panel.xaxis.label, panel.yaxis.label, panel.title):
        label.set_color(INK)
    panel.patch.set_visible(False)


def draw_sample(line: Line) -> str:
    """Return a small SVG of the line and its marker, for the legend."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(0.5, 0.2))
        panel = figure.add_axes((0.02, 0.05, 0.96, 0.9))
        panel.set_axis_off()
        panel.set_xlim(0, 2)
        panel.plot([0, 1, 2], [0, 0, 0], color=line.ink, linestyle="-" if line.is_trained else "--", linewidth=1.8)
        panel.plot([1], [0], color=line.ink, marker=line.marker, markersize=5)
    return render(figure, "", f"sample-{line.number}-{int(line.is_trained)}-")


def render(figure: Figure, title: str, prefix: str) -> str:
    """Return the figure as SVG for a page; `prefix` starts every id in it, and `title` says what it shows.

    Without a title it is an ornament, which is not read out.
    """
    buffer = io.StringIO()
    figure.patch.set_visible(False)
    with matplotlib.rc_context(SETTINGS):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return _clean(buffer.getvalue(), title, prefix)


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
