"""Whether the loops that build batches are numpy's or compiled ones. What they build is the same bit for bit."""

from types import ModuleType

_chosen: ModuleType | None = None


def use_compiled(wanted: bool) -> None:
    """Build batches by compiled loops in this process from now on, or by numpy. ImportError where numba is missing."""
    global _chosen
    if wanted:
        from . import compiled

        _chosen = compiled
    else:
        _chosen = None


def compiled_loops() -> ModuleType | None:
    """Return the module of compiled loops where they are used."""
    return _chosen
