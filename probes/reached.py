"""What an encoder reaches on a probe, before it is a row of the results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .probe import Probe
from .results import ALL, CEILING, Layer, ProbeRecord, Score
from .statistics import Resampled, extreme, interval


@dataclass(frozen=True, kw_only=True)
class HowToProbe:
    """What is fitted to the vectors of every encoder."""

    kind: Literal["linear", "mlp"] = "linear"
    pooling: Literal["mean", "cls"] = "mean"
    code_lengths: bool = False
    mix: bool = True  # a learned mix of all layers too, of trained encoders
    twins: int = 1  # untrained ones of each architecture
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Reached:
    """One figure of an encoder: at one layer, on all test items or some, or of them in another measure."""

    layer: Layer
    draws: Resampled
    items: int
    dev: float
    metric: str
    subset: str = ALL
    is_chosen: bool = False  # the layer with the best dev score
    control: float | None = None
    mdl_bits: float | None = None
    compression: float | None = None
    mix: tuple[float, ...] | None = None


def as_score(encoder: str, probe: Probe, described: ProbeRecord, reached: Reached) -> Score:
    """Return the row of the results: with an interval over documents, and a flag where it tells nothing."""
    found = interval(reached.draws)
    is_whole = reached.subset == ALL
    return Score(
        encoder=encoder,
        probe=probe.name,
        layer=reached.layer,
        subset=reached.subset,
        metric=reached.metric,
        score=found.value,
        low=found.low,
        high=found.high,
        dev=reached.dev,
        items=reached.items,
        is_chosen=reached.is_chosen,
        flag=(extreme(found, floors=[described.floor], ceiling=CEILING) or "") if is_whole else "",
        control=reached.control,
        selectivity=None if reached.control is None else found.value - reached.control,
        mdl_bits=reached.mdl_bits,
        compression=reached.compression,
        mix=reached.mix,
    )
