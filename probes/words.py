"""One way of finding words in text, the same for every encoder that is compared."""

import re
import unicodedata
from itertools import groupby
from math import log2

QUOTES = frozenset("\"“”„«»‹›「」『』‘’'`")


def _list_marks() -> str:
    """Combining marks and joiners as a set of a regular expression: `\\w` lacks them, and Hindi would fall apart."""
    marks = [code for code in range(0x300, 0x10000) if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    runs = [[code for _, code in run] for _, run in groupby(enumerate(marks), lambda pair: pair[1] - pair[0])]
    return "\u200c\u200d" + "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)


_LETTERS = rf"[\w{_list_marks()}]+"
_WORD = re.compile(rf"{_LETTERS}(?:['’\-.]{_LETTERS})*")
_TOKEN = re.compile(rf"{_WORD.pattern}|[^\w\s]")

Span = tuple[int, int]


def find_words(text: str) -> list[Span]:
    """Return the characters [start, end) of each word: letters, digits and marks, with ' - . allowed inside."""
    return [match.span() for match in _WORD.finditer(text)]


def cut_words(text: str) -> list[str]:
    return _WORD.findall(text)


def cut_tokens(text: str) -> list[str]:
    """Return words, and every other character that is not white space as one of its own."""
    return _TOKEN.findall(text)


def name_shape(token: str) -> str:
    """Return what a token looks like: "Xx", "XX", "xx", "9", "mixed", or itself where it is punctuation."""
    if not token[0].isalnum():
        return token
    if token.isdigit():
        return "9"
    if token.islower():
        return "xx"
    if token.isupper():
        return "X" if len(token) == 1 else "XX"
    return "Xx" if token.istitle() else "mixed"


def name_case(word: str) -> str:
    """Return the case of a word's first character: "upper", "lower", "digit", or "none" for scripts without."""
    first = word[0]
    return "upper" if first.isupper() else "lower" if first.islower() else "digit" if first.isdigit() else "none"


def bin_count(count: int) -> int:
    """Return the half power of two that a frequency lies in; 0 for a word never seen, 1 for one seen once."""
    return 1 + int(2 * log2(count)) if count > 0 else 0


def lower_in_place(text: str) -> str:
    """Lower-case, but keep characters whose lower case is longer ("İ"), so that spans of the text stay valid."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)
