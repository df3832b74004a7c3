"""What one encoder answered to a study's probes, in a file: scores, resampled draws, and the probes that failed."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from corpora.errors import CheckpointError, StorageError
from probes.results import EncoderRecord, Score
from probes.statistics import Resampled

EVERY = ""  # in place of a probe's name, where the encoder could not be asked at all


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One encoder's scores at all layers, and for each probe the layer that its dev items chose, with its draws."""

    encoder: EncoderRecord | None = None  # None: it could not be read
    scores: tuple[Score, ...] = ()
    chosen: Mapping[str, tuple[int, Resampled]] = field(default_factory=dict)  # probe -> layer, draws
    failures: Mapping[str, str] = field(default_factory=dict)  # probe, or EVERY -> why
    example: str | None = None  # what its arm makes of a passage


def write_answers(path: Path, answers: Answers) -> None:
    """Write an .npz file that appears whole or not at all. StorageError."""
    arrays: dict[str, np.ndarray] = {}
    for name, (_, resampled) in answers.chosen.items():
        arrays |= {f"{name}.draws": resampled.draws, f"{name}.jackknife": resampled.jackknife}
    record = {
        "encoder": answers.encoder and dataclasses.asdict(answers.encoder),
        "scores": [dataclasses.asdict(score) for score in answers.scores],
        "chosen": {name: [layer, resampled.value] for name, (layer, resampled) in answers.chosen.items()},
        "failures": dict(answers.failures),
        "example": answers.example,
    }
    arrays["record"] = np.frombuffer(json.dumps(record, default=_plain).encode(), dtype=np.uint8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes the names for flags
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror}") from error


def read_answers(path: Path) -> Answers:
    """Read what `write_answers` wrote. CheckpointError where it can't be."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            record = json.loads(arrays["record"].tobytes())
            chosen = {
                name: (
                    layer,
                    Resampled(value=value, draws=arrays[f"{name}.draws"], jackknife=arrays[f"{name}.jackknife"]),
                )
                for name, (layer, value) in record["chosen"].items()
            }
        scores = (Score(**each | {"mix": each["mix"] and tuple(each["mix"])}) for each in record["scores"])
        return Answers(
            encoder=record["encoder"] and EncoderRecord(**record["encoder"]),
            scores=tuple(scores),
            chosen=chosen,
            failures=record["failures"],
            example=record["example"],
        )
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise CheckpointError(f"{path} can't be read: {error}; remove it, and the probes are asked again") from error


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):  # a numpy number
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a record")
