"""The timing core: two contestants take turns, and what is reported is medians, spread and ratios with intervals."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True, kw_only=True)
class Series:
    """What one contestant needed at each turn: seconds of the clock and of the processor, or bytes."""

    name: str
    values: tuple[float, ...]
    cpu: tuple[float, ...] = ()  # seconds of all threads of this process; empty where bytes are counted

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    @property
    def spread(self) -> float:
        """Return the interquartile range as a share of the median."""
        low, high = np.percentile(self.values, (25, 75))
        return float((high - low) / self.median) if self.median else 0.0


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as much one needed as the other, with a 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 2 if self.value < 20 else 0
        return f"{self.value:.{digits}f}x [{self.low:.{digits}f}, {self.high:.{digits}f}]"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: the alternative, what stands against it, and how often the one's need holds the other's.

    `tokens` of a turn turn seconds into tokens a second. With `inverted` the ratio is ours to theirs: a price.
    """

    what: str
    theirs: Series
    ours: Series
    tokens: float | None = None
    inverted: bool = False
    unit: str = "s"  # of the values: seconds, "MB" for bytes, or any other
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> Ratio:
        return self._compare(self.theirs.values, self.ours.values)

    @property
    def cpu_ratio(self) -> Ratio | None:
        """Return the ratio by processor time, which programs that run beside change less."""
        return self._compare(self.theirs.cpu, self.ours.cpu) if self.theirs.cpu and self.ours.cpu else None

    def _compare(self, theirs: Sequence[float], ours: Sequence[float]) -> Ratio:
        return ratio_of_medians(ours, theirs) if self.inverted else ratio_of_medians(theirs, ours)


def ratio_of_medians(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Return median(above) / median(below), and the percentile bootstrap over the pairs (Efron and Tibshirani, 1993).

    The turns of a pair follow each other, so they are resampled together. ValueError where they are not as many.
    """
    if len(above) != len(below):
        raise ValueError(f"{len(above)} turns against {len(below)}; interleaved contestants have equally many")
    pairs = np.array([above, below], dtype=np.float64)  # (2, P)
    chosen = np.random.default_rng(0).integers(pairs.shape[1], size=(RESAMPLES, pairs.shape[1]))
    drawn = np.median(pairs[:, chosen], axis=2)  # (2, RESAMPLES)
    low, high = np.percentile(drawn[0] / drawn[1], _INTERVAL)
    value = np.median(pairs[0]) / np.median(pairs[1])
    return Ratio(value=float(value), low=float(low), high=float(high))


@dataclass
class Watch:
    """Adds up what one contestant needs, turn by turn."""

    values: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    _since: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        self._since = (time.perf_counter(), time.process_time())

    def stop(self, calls: int = 1) -> None:
        """Note the time since `start`, for one of `calls` equal ones."""
        wall, cpu = self._since
        self.values.append((time.perf_counter() - wall) / calls)
        self.cpu.append((time.process_time() - cpu) / calls)

    def series(self, name: str, warm_up: int) -> Series:
        """Return the turns after the first `warm_up` ones."""
        return Series(name=name, values=tuple(self.values[warm_up:]), cpu=tuple(self.cpu[warm_up:]))


def take_turns(
    contestants: Mapping[str, Callable[[], object]], *, pairs: int, warm_up: int, least_seconds: float = 0.0
) -> list[Series]:
    """Time callables in turn, A B A B ..., and leave out the first `warm_up` turns of each.

    Where a call takes less than `least_seconds` of the processor, a turn is as many calls as fill them, and what is
    returned is one's.
    """
    calls = dict.fromkeys(contestants, 1)
    if least_seconds:
        for name, call in contestants.items():
            call()  # what is made once is made here
            began = time.process_time()  # not the clock: what else runs would make the turns of one side shorter
            call()
            calls[name] = max(1, int(least_seconds / max(time.process_time() - began, 1e-6)))
    watches = {name: Watch() for name in contestants}
    for _ in range(warm_up + pairs):
        for name, call in contestants.items():
            watches[name].start()
            for _ in range(calls[name]):
                call()
            watches[name].stop(calls[name])
    return [watch.series(name, warm_up) for name, watch in watches.items()]
