"""How the report writes figures: 2.10 × 10¹², 1.2 M, [69.0, 73.3]."""

import math

from corpora.console import format_seconds

ABSENT = "–"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def scientific(value: float) -> str:
    """Return 2.10 × 10¹² for 2.1e12; numbers below 10,000 as they are."""
    if not math.isfinite(value):
        return ABSENT
    if abs(value) < 1e4:
        return f"{value:,.4g}"
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{digits} × 10{str(int(power)).translate(_RAISED)}"


def power_of_ten(value: float) -> str:
    """Return 10⁹ for 1e9, and 3 × 10⁹ for 3e9: a mark on a logarithmic axis."""
    digits, _, power = f"{value:.0e}".partition("e")
    raised = f"10{str(int(power)).translate(_RAISED)}"
    return raised if digits == "1" else f"{digits} × {raised}"


def count(value: float) -> str:
    """Return 1.23 M for 1,234,567; numbers below 10,000 in full."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{value:,.0f}"


def megabytes(value: float) -> str:
    """Return 601 MB for a number of bytes, and a dash where it is not known."""
    return f"{value / 1e6:,.0f} MB" if value else ABSENT


def duration(seconds: float) -> str:
    """Return 4:05, and a dash where it is not known."""
    return format_seconds(seconds) if seconds else ABSENT


def figure(value: float | None) -> str:
    """Return a held-out figure with three decimals."""
    return ABSENT if value is None or not math.isfinite(value) else f"{value:.3f}"


def points(value: float | None) -> str:
    """Return 71.2 for .712, and a dash where it is not known."""
    return ABSENT if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def difference(value: float | None) -> str:
    """Return +1.2 for .012, with a true minus sign below zero."""
    return ABSENT if value is None else f"{100 * value:+.1f}".replace("-", "−")


def bounds(low: float | None, high: float | None, *, scale: float = 100.0, places: int = 1) -> str:
    """Return [69.0, 73.3], and nothing where there is no interval."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{scale * low:.{places}f}, {scale * high:.{places}f}]".replace("-", "−")


def chance(value: float) -> str:
    """Return a probability as papers do: .012, or < .001."""
    return "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def plain(name: str) -> str:
    """Return a probe's name as words."""
    return name.replace("_", " ")


def plural(number: int, noun: str) -> str:
    """Return 1 seed, 5 seeds."""
    ending = "y" if noun.endswith("y") else ""
    many = f"{noun.removesuffix('y')}ies" if ending else f"{noun}s"
    return f"{number:,} {noun if number == 1 else many}"
