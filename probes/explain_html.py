"""One explanation, or several, as a page: self-contained, without scripts, everything of the text escaped."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from .explain_tables import Explanation, Line

_STYLE = """
:root { color-scheme: light dark;
  --ink: #1c2126; --paper: #ffffff; --faint: #6a737d; --line: #d8dee4; --mark: 217, 95, 14; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --paper: #14181c; --faint: #98a2ad; --line: #333b44; --mark: 240, 140, 60; }
}
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 1rem; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; overflow-wrap: anywhere; }
.warning { border-left: 4px solid rgb(var(--mark)); padding: .5rem .8rem; margin: .5rem 0; overflow-wrap: anywhere; }
.classes, .summary { color: var(--faint); overflow-wrap: anywhere; }
.text { line-height: 2; overflow-wrap: anywhere; } .text span { padding: .15rem .2rem; border-radius: 3px; }
.box { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font: 14px/1.4 ui-monospace, monospace; }
th, td { padding: .3rem .7rem; text-align: left; white-space: pre; border-bottom: 1px solid var(--line); }
@media (max-width: 30rem) { th, td { padding: .3rem .4rem; font-size: 13px; } }
tr:last-child td { border-bottom: 0; } th { color: var(--faint); font-weight: 600; }
td.quiet { color: var(--faint); }
"""
_SHADES = "".join(f".s{step} {{ background: rgba(var(--mark), {step / 12:.3f}); }}\n" for step in range(11))


def write_page(explanations: Sequence[Explanation], text: str, second: str = "") -> str:
    """Return an HTML page; its policy lets nothing load or run, and only this page's own style apply."""
    style = _STYLE + _SHADES
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    shown = " / ".join(escape(show(part)) for part in (text, second) if part)
    parts = [_section(explanation) for explanation in explanations]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>What a head says of a text</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<h1>What the heads say of: <bdi>{shown}</bdi></h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _section(explanation: Explanation) -> str:
    warnings = [f'<p class="warning">{escape(show(warning))}</p>' for warning in explanation.warnings]
    classes = f'<p class="classes">{escape(show(", ".join(explanation.classes)))}</p>'
    is_text = explanation.columns[0] == "Token"
    text = f'<p class="text">{" ".join(map(_span, explanation.lines))}</p>' if is_text else ""
    head = "".join(f"<th>{escape(show(column))}</th>" for column in explanation.columns)
    body = "\n".join(_row(line) for line in explanation.lines)
    shade = [f"Shaded: {explanation.shade}."] if explanation.shade else []
    summary = "".join(f'<p class="summary">{escape(show(line))}</p>' for line in (*shade, *explanation.summary))
    return (
        f"<section>\n<h2>{escape(show(explanation.title))}</h2>\n{''.join(warnings)}\n{classes}\n{text}\n"
        f'<div class="box"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n'
        f"{summary}\n</section>"
    )


def _span(line: Line) -> str:
    return f'<span class="{_shade(line)}"><bdi>{escape(show(line.cells[0]))}</bdi></span>'


def _row(line: Line) -> str:
    kind = _shade(line) if line.strength is not None else "quiet"
    first, *rest = (f"<bdi>{escape(show(cell))}</bdi>" for cell in line.cells)
    quiet = ' class="quiet"' if line.strength is None else ""
    return f'<tr><td class="{kind}">{first}</td>' + "".join(f"<td{quiet}>{cell}</td>" for cell in rest) + "</tr>"


def _shade(line: Line) -> str:
    return "s0" if line.strength is None else f"s{round(10 * min(max(line.strength, 0.0), 1.0))}"


def show(text: str) -> str:
    """Return a text with what is invisible or would steer a screen (controls, marks of direction) spelled out."""
    return "".join(
        each if each.isprintable() else f"\\x{ord(each):02x}" if ord(each) < 256 else f"\\u{ord(each):04x}"
        for each in text
    )
