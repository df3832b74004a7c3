"""Shown examples as a page: self-contained, without scripts, everything of the text escaped."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from .config import Config
from .example_text import Token
from .examples import Example, ShownText

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --paper: #ffffff; --faint: #626b75; --line: #d8dee4;
  --changed: #b3261e; --hidden: #1f5fbf; --inserted: #1a7f37; --piece: #8250df; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --paper: #14181c; --faint: #98a2ad; --line: #333b44;
    --changed: #ff8a80; --hidden: #82b1ff; --inserted: #6fdd8b; --piece: #c4a7ff; }
}
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
section { border-top: 1px solid var(--line); }
dt { color: var(--faint); margin-top: .8rem; font-size: .85rem; } dd { margin: 0; overflow-wrap: anywhere; }
.text { line-height: 1.9; } .faint, .special { color: var(--faint); }
ins { text-decoration: underline; } ins, .piece { font-weight: 600; }
.changed ins { color: var(--changed); } .hidden ins { color: var(--hidden); } .inserted { color: var(--inserted); }
.piece { color: var(--piece); } del { color: var(--faint); }
"""


def write_page(examples: Sequence[Example], config: Config) -> str:
    """Return an HTML page; its policy lets nothing load or run, and only this page's own style apply."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = escape(f"What {config.mix or config.objective} makes of a text")
    sections = "\n".join(map(_section, examples))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        '<p class="faint"><span class="changed"><ins>changed</ins> <del>what was there</del></span>; '
        '<span class="hidden"><ins>[MASK]</ins> <del>what is hidden</del></span>; '
        '<ins class="inserted">put in</ins>; <del>taken out</del>; <span class="piece">(2)</span> the second piece '
        'of the text, <span class="piece">(else)</span> one from elsewhere.</p>\n'
        f"{sections}\n</body>\n</html>\n"
    )


def _section(example: Example) -> str:
    texts = "\n".join(map(_text, example.texts))
    questions = "\n".join(
        f"<dt>{escape(question.title)}</dt>\n<dd><bdi>{escape(question.answer)}</bdi></dd>"
        for question in example.questions
    )
    return f"<section>\n<h2>{escape(example.title)}</h2>\n<dl>\n{texts}\n{questions}\n</dl>\n</section>"


def _text(text: ShownText) -> str:
    tokens = "".join((" " if token.space else "") + _token(token) for token in text.tokens)
    return f'<dt>{escape(text.title)}</dt>\n<dd class="text"><bdi>{tokens.strip()}</bdi></dd>'


def _token(token: Token) -> str:
    text, was = escape(token.text), escape(token.was)
    if token.kind in ("changed", "hidden"):
        return f'<span class="{token.kind}"><ins>{text}</ins> <del>{was}</del></span>'
    if token.kind == "inserted":
        return f'<ins class="inserted">{text}</ins>'
    if token.kind == "removed":
        return f"<del>{text}</del>"
    return text if token.kind == "plain" else f'<span class="{token.kind}">{text}</span>'
