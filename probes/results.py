"""What a probing run found, as it stands in results.json."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from corpora.errors import StorageError, UserError

SCHEMA_VERSION = 1
MIX: Final = "mix"  # the layer of a scalar mix of all layers
ALL = "all"  # the subset of all test items
CEILING = 0.99  # a score that reaches it leaves nothing to be seen

Layer = int | Literal["mix"]
Flag = Literal["", "floor", "ceiling"]
Claim = Literal["checkpoints", "objective"]


@dataclass(frozen=True, kw_only=True)
class EncoderRecord:
    """One encoder that was probed, or an untrained twin of one."""

    name: str  # as the tables call it
    group: str  # what it is a seed of; its own name where it stands alone
    location: str  # as it was given, shortened to the last name of a path
    is_trained: bool = True
    twin: str | None = None  # the untrained encoder of the same architecture
    objective: str | None = None  # of its run.json
    seed: int | None = None
    architecture: str = ""
    layers: int = 0  # the embeddings' layer 0 is not counted
    width: int = 0
    parameters: int = 0
    weights: str = ""  # a hash of them
    texts_truncated: int = 0


@dataclass(frozen=True, kw_only=True)
class ProbeRecord:
    """One probe: what it asked, of how many, and what is reached without an encoder."""

    name: str
    question: str
    metric: str
    classes: tuple[str, ...]
    items: Mapping[str, int]  # train, dev, test
    documents: int  # of the test items: what the intervals resample
    floors: Mapping[str, float]  # what sees no encoder -> its test score
    has_control: bool = False
    source: str = ""
    note: str = ""

    @property
    def floor(self) -> float:
        """The highest score that sees no encoder.

        A baseline that is right throughout doesn't count: it reads what is asked for off the text (as the words do for
        word_content), where the question is how much of that a vector keeps.
        """
        return self.floors.get(self.floor_name, 0.0)

    @property
    def floor_name(self) -> str:
        """What reaches that score."""
        counted = {name: score for name, score in self.floors.items() if score < CEILING}
        return max(counted, key=lambda name: counted[name], default="nothing")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One encoder's score at one layer on one probe, all items or a subset of them; scores are in [0, 1]."""

    encoder: str
    probe: str
    layer: Layer
    subset: str = ALL
    metric: str = "accuracy"
    score: float  # on the test items
    low: float  # of a 95 % interval over the documents of the test items
    high: float
    dev: float  # what layers and strengths were chosen by
    items: int  # test items
    is_chosen: bool = False  # the layer with the best dev score
    flag: Flag = ""
    control: float | None = None  # the same probe on random labels by word type
    selectivity: float | None = None  # score - control
    mdl_bits: float | None = None  # online code length of the training labels
    compression: float | None = None  # uniform code length over that
    mix: tuple[float, ...] | None = None  # of a scalar mix: the weights of the layers


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One group on one probe: the mean over its encoders, each at the layer that its dev items chose."""

    group: str
    probe: str
    score: float
    low: float  # over documents, and over seeds where there are several
    high: float
    seeds: int
    layers: tuple[int, ...]  # chosen, one for each encoder
    flag: Flag = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two groups on one probe, each encoder at the layer that its dev items chose."""

    probe: str
    a: str
    b: str
    difference: float  # a - b
    low: float
    high: float
    method: str
    seeds: tuple[int, int]  # encoders of a, of b
    claim: Claim
    p: float | None = None  # only where seeds allow a test
    p_holm: float | None = None  # corrected for all comparisons of the page
    detectable: float | None = None  # the difference that is found four times out of five


@dataclass(frozen=True, kw_only=True)
class Results:
    """All of a run. `failed` and `skipped` say what is not in it, and why."""

    command: str
    created: str  # ISO 8601, UTC
    settings: Mapping[str, Any]
    sources: Mapping[str, str]  # what the items were made of
    versions: Mapping[str, str]
    encoders: tuple[EncoderRecord, ...]
    probes: tuple[ProbeRecord, ...]
    scores: tuple[Score, ...]
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)  # probe -> why
    failed: Mapping[str, str] = field(default_factory=dict)  # encoder -> why
    seconds: float = 0.0
    schema_version: int = SCHEMA_VERSION

    @property
    def claim(self) -> Claim:
        """What the page as a whole may speak about."""
        levels = {comparison.claim for comparison in self.comparisons}
        return "objective" if levels == {"objective"} else "checkpoints"

    @property
    def groups(self) -> list[str]:
        """The names of the groups of trained encoders, in the order in which they were given."""
        return list(dict.fromkeys(encoder.group for encoder in self.encoders if encoder.is_trained))

    @property
    def untrained(self) -> list[str]:
        """The names of the groups of untrained twins."""
        return list(dict.fromkeys(encoder.group for encoder in self.encoders if not encoder.is_trained))

    def find_summary(self, group: str, probe: str) -> Summary | None:
        """Return what a group reaches on a probe, or None where it has not been probed."""
        return next((each for each in self.summaries if (each.group, each.probe) == (group, probe)), None)

    def find_probe(self, name: str) -> ProbeRecord:
        """Return the probe of that name."""
        return next(probe for probe in self.probes if probe.name == name)

    def list_layers(self, encoder: str, probe: str) -> list[Score]:
        """Return the scores of all single layers, lowest first, on all items."""
        wanted = (encoder, probe, ALL)
        found = [s for s in self.scores if s.layer != MIX and (s.encoder, s.probe, s.subset) == wanted]
        return sorted(found, key=lambda score: int(score.layer))

    def list_counted(self) -> list[str]:
        """Return the probes that averages count: not those where all groups are at the floor, or all at the ceiling."""
        counted = []
        for probe in self.probes:
            flags = [each.flag for each in self.summaries if each.probe == probe.name and each.group in self.groups]
            if len(flags) == len(self.groups) and set(flags) not in ({"floor"}, {"ceiling"}):
                counted.append(probe.name)
        return counted

    def mean_gain(self, group: str) -> float | None:
        """Return the mean, over counted probes, of (score - floor) / (1 - floor); None where there is nothing."""
        gains = []
        for name in self.list_counted():
            summary, floor = self.find_summary(group, name), self.find_probe(name).floor
            if summary is None:
                return None
            gains.append((summary.score - floor) / max(1 - floor, 1e-9))
        return sum(gains) / len(gains) if gains else None


def write_results(path: Path, results: Results) -> None:
    """Write results.json, whole or not at all. Raises StorageError for a disk that can't take it."""
    text = json.dumps(dataclasses.asdict(results), indent=1, ensure_ascii=False, default=_as_json, allow_nan=False)
    publish_text(path, text + "\n")


def publish_text(path: Path, text: str) -> None:
    """Write a file that appears by rename. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror}; --out DIR says where to") from error


def read_results(path: Path) -> Results:
    """Read results.json. Raises UserError for a file that is not one, or of another schema."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as results of probes: {error}") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} has schema_version {version!r}; this version reads {SCHEMA_VERSION}")
    return read_results_of(raw)


def read_results_of(raw: Mapping[str, Any]) -> Results:
    """Return the results that a mapping stands for, as `dataclasses.asdict` and JSON made it."""
    lists: dict[str, Any] = {
        "encoders": tuple(EncoderRecord(**each) for each in raw["encoders"]),
        "probes": tuple(ProbeRecord(**(each | {"classes": tuple(each["classes"])})) for each in raw["probes"]),
        "scores": tuple(Score(**(each | {"mix": each["mix"] and tuple(each["mix"])})) for each in raw["scores"]),
        "summaries": tuple(Summary(**(each | {"layers": tuple(each["layers"])})) for each in raw["summaries"]),
        "comparisons": tuple(Comparison(**(each | {"seeds": tuple(each["seeds"])})) for each in raw["comparisons"]),
    }
    return Results(**(dict(raw) | lists))


def _as_json(value: Any) -> Any:
    if hasattr(value, "item"):  # a numpy number
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in results.json")
