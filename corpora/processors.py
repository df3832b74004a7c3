"""How many processors there are for this process."""

import os


def count_processors() -> int:
    """Return how many processors this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_own_processors() -> int:
    """Return how many of them are this process's share, where a launcher started several, at least 1."""
    return max(1, count_processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
