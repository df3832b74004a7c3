"""The suite: every encoder reads the probes' texts once, every layer is scored, groups are compared."""

import contextlib
import dataclasses
import datetime
import hashlib
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from corpora.errors import UserError

from .build import Built
from .encoder import FrozenEncoder, load_encoder, random_twin
from .feature_store import FeatureStore
from .groups import compare_groups, summarise
from .kinds import KINDS
from .members import Member
from .probe import TEST, Probe
from .progress import Progress
from .reached import HowToProbe, as_score
from .results import ALL, EncoderRecord, ProbeRecord, Results, Score
from .statistics import Resampled

__all__ = ["LIBRARIES", "HowToProbe", "describe_encoder", "describe_probe", "run_suite", "score_probe"]

MOST_MEMORY = 1 << 30  # bytes of features that are kept in memory
LIBRARIES = ("torch", "transformers", "numpy", "scikit-learn", "scipy")


@dataclass(kw_only=True)
class _Run:
    """What the probing of one encoder after another shares and adds to."""

    probes: Sequence[Probe]
    described: Sequence[ProbeRecord]
    how: HowToProbe
    progress: Progress
    encoders: list[EncoderRecord] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    chosen: dict[tuple[str, str], tuple[int, Resampled]] = field(default_factory=dict)  # (encoder, probe) -> it
    failed: dict[str, str] = field(default_factory=dict)
    twins: dict[str, str] = field(default_factory=dict)  # architecture -> the group of its untrained encoders

    def probe_member(self, member: Member) -> None:
        """Probe an encoder, and before it the untrained twins of its architecture where that is new."""
        encoder = load_encoder(member.location)
        architecture = _describe_architecture(encoder)
        if architecture not in self.twins:
            group = _name_twin(encoder, member, set(self.twins.values()))
            for seed in range(self.how.twins):
                name = group if self.how.twins == 1 else f"{group} {seed}"
                twin = random_twin(encoder, seed)
                record = describe_encoder(twin, Member(location="", name=name, group=group, seed=seed))
                self.probe_encoder(twin, replace(record, is_trained=False))
            self.twins[architecture] = group
        else:
            self.progress.skip(len(self.probes) * self.how.twins)
        self.probe_encoder(encoder, replace(describe_encoder(encoder, member), twin=self.twins[architecture]))

    def probe_encoder(self, encoder: FrozenEncoder, record: EncoderRecord) -> None:
        """Add all of an encoder's scores, or none where one of the probes fails."""
        scores: list[Score] = []
        chosen: dict[tuple[str, str], tuple[int, Resampled]] = {}
        with _features_folder(encoder, self.probes, self.how.cache) as folder:
            self.progress.note(f"{record.name}: encoding")
            store = FeatureStore(encoder, self.probes, pooling=self.how.pooling, cache=folder)
            for probe, described in zip(self.probes, self.described, strict=True):
                found, draws = score_probe(record, probe, described, store, self.how)
                scores += found
                chosen[record.name, probe.name] = (next(int(s.layer) for s in found if s.is_chosen), draws)
                self.progress.advance(f"{record.name}: {probe.name}")
            truncated = store.num_truncated
        self.scores += scores
        self.chosen |= chosen
        self.encoders.append(replace(record, texts_truncated=truncated))


def run_suite(
    members: Sequence[Member],
    built: Built,
    how: HowToProbe,
    *,
    command: str = "",
    progress: Progress | None = None,
) -> Results:
    """Probe every member, and an untrained twin of every architecture among them.

    An encoder that raises a UserError is named in `failed` and the others go on; UserError where all of them do.
    """
    started = time.monotonic()
    progress = progress or Progress(None)
    probes = built.probes
    progress.start(len(probes) * len(members) * (1 + how.twins))  # should every one have an architecture of its own
    run = _Run(probes=probes, described=[describe_probe(probe) for probe in probes], how=how, progress=progress)
    for member in members:
        try:
            run.probe_member(member)
        except UserError as error:
            run.failed[member.name] = str(error)
            progress.say(f"{member.name} can't be probed: {error}")
    progress.close()
    if len(run.failed) == len(members):
        raise UserError("\n".join(run.failed.values()))
    return Results(
        command=command,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        settings={**dataclasses.asdict(how), "cache": how.cache is not None},
        sources=built.sources,
        versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        encoders=tuple(run.encoders),
        probes=tuple(run.described),
        scores=tuple(run.scores),
        summaries=tuple(summarise(run.chosen, run.encoders, run.described)),
        comparisons=tuple(compare_groups(run.chosen, run.encoders, run.described)),
        skipped=built.skipped,
        failed=run.failed,
        seconds=round(time.monotonic() - started, 1),
    )


def describe_probe(probe: Probe) -> ProbeRecord:
    """Return what the results say of a probe; its floors are the majority (or chance, of AUROC) and its baselines."""
    counts = np.bincount(probe.split, minlength=3).tolist()
    floors = {"chance": 0.5} if probe.metric == "auroc" else {}
    if probe.metric == "accuracy":
        floors = {"majority": probe.majority}
    return ProbeRecord(
        name=probe.name,
        question=probe.question,
        metric=probe.metric,
        classes=probe.label_names,
        items=dict(zip(("train", "dev", "test"), counts, strict=True)),
        documents=len(np.unique(probe.groups[probe.split == TEST])),
        floors={**floors, **probe.surface},
        has_control=probe.control_labels is not None,
        source=probe.source,
        note=probe.note,
    )


def describe_encoder(encoder: FrozenEncoder, member: Member) -> EncoderRecord:
    """Return what the results say of an encoder: no path of the machine."""
    return EncoderRecord(
        name=member.name,
        group=member.group,
        location=Path(member.location).name if Path(member.location).exists() else member.location,
        objective=member.objective,
        seed=member.seed,
        architecture=encoder.network.config.model_type,
        layers=encoder.num_layers - 1,
        width=encoder.hidden_size,
        parameters=sum(parameter.numel() for parameter in encoder.network.parameters()),
        weights=encoder.weights_hash,
    )


def _describe_architecture(encoder: FrozenEncoder) -> str:
    """Return what two encoders share that have the same untrained twin: every setting, and the tokenizer."""
    config = encoder.network.config.to_diff_dict()
    of_the_copy = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
    settings = sorted((key, str(value)) for key, value in config.items() if key not in of_the_copy)
    return hashlib.sha256(f"{settings}{encoder.tokenizer_hash}".encode()).hexdigest()


def _name_twin(encoder: FrozenEncoder, member: Member, taken: set[str]) -> str:
    config = encoder.network.config
    name = f"untrained {config.model_type} {config.num_hidden_layers}x{config.hidden_size}"
    return name if name not in taken else f"{name} as {member.name}"


@contextlib.contextmanager
def _features_folder(encoder: FrozenEncoder, probes: Sequence[Probe], cache: Path | None) -> Iterator[Path | None]:
    """Yield where the features go: the cache; else memory, or a folder that goes with them where they are large."""
    vectors = sum(len(probe.texts) + probe.places[..., 0].size for probe in probes if probe.reads_vectors)
    size = 4 * encoder.num_layers * encoder.hidden_size * vectors
    if cache is not None or size <= MOST_MEMORY:
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="probes-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def score_probe(
    encoder: EncoderRecord, probe: Probe, described: ProbeRecord, store: FeatureStore, how: HowToProbe
) -> tuple[list[Score], Resampled]:
    """Return an encoder's scores on a probe, as its kind is fitted; and the draws of the layer that dev items chose."""
    reached = KINDS[probe.kind](probe, store, how, how.mix and encoder.is_trained)
    (chosen,) = (each for each in reached if each.is_chosen and each.subset == ALL)
    return [as_score(encoder.name, probe, described, each) for each in reached], chosen.draws
