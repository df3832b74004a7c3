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
from typing import Any, Literal

import numpy as np

from corpora.errors import UserError

from .build import Built
from .encoder import FrozenEncoder, load_encoder, random_twin
from .features import FeatureStore
from .fit import Fit, fit_linear, fit_mlp, fit_scalar_mix
from .groups import compare_groups, summarise
from .mdl import online_code
from .members import Member
from .probe import TEST, TRAIN, Probe
from .progress import Progress
from .results import CEILING, MIX, EncoderRecord, ProbeRecord, Results, Score
from .statistics import Resampled, extreme, interval, resample_scores

MOST_MEMORY = 1 << 30  # bytes of features that are kept in memory
LIBRARIES = ("torch", "transformers", "numpy", "scikit-learn", "scipy")


@dataclass(frozen=True, kw_only=True)
class HowToProbe:
    """What is fitted to the vectors of every encoder."""

    kind: Literal["linear", "mlp"] = "linear"
    pooling: Literal["mean", "cls"] = "mean"
    code_lengths: bool = False
    mix: bool = True  # a learned mix of all layers too, of trained encoders
    twins: int = 1  # untrained ones of each architecture
    cache: Path | None = None


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
    vectors = sum(len(probe.texts) + probe.places[..., 0].size for probe in probes)
    size = 4 * encoder.num_layers * encoder.hidden_size * vectors
    if cache is not None or size <= MOST_MEMORY:
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="probes-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def score_probe(
    encoder: EncoderRecord, probe: Probe, described: ProbeRecord, store: FeatureStore, how: HowToProbe
) -> tuple[list[Score], Resampled]:
    """Return an encoder's scores on a probe: every layer, a mix of them, subsets; and the chosen layer's draws.

    All encoders are judged on the same test items: where a text is too long for one, it guesses from the rest.
    """
    features, split = store.features_for(probe), store.split_of(probe)
    fit = fit_mlp if how.kind == "mlp" else fit_linear
    fitted = fit(features, probe.labels, split, control_labels=probe.control_labels, metric=probe.metric)
    scores, draws = _score_layers(encoder.name, probe, described, fitted)
    if how.code_lengths:
        scores = _add_code_lengths(scores, probe, store)
    scores += _score_subsets(encoder.name, probe, fitted)
    if how.mix and encoder.is_trained:
        mixed = fit_scalar_mix(features, probe.labels, split, metric=probe.metric)
        mixes, _ = _score_layers(encoder.name, probe, described, mixed)
        weights = None if mixed.mix is None else tuple(mixed.mix.tolist())
        scores.append(replace(mixes[0], layer=MIX, is_chosen=False, mix=weights))
    return scores, draws


def _resample(probe: Probe, fitted: Fit, layer: int, test: np.ndarray) -> Resampled:
    return resample_scores(
        probe.labels[test],
        fitted.predictions[layer][test],
        probe.groups[test],
        metric=probe.metric,
        scores=None if fitted.scores is None else fitted.scores[layer][test],
    )


def _score_layers(encoder: str, probe: Probe, described: ProbeRecord, fitted: Fit) -> tuple[list[Score], Resampled]:
    """Return a score for every layer, and the draws of the layer that dev items chose."""
    test = probe.split == TEST
    scores = []
    for layer in range(len(fitted.predictions)):
        draws = _resample(probe, fitted, layer, test)
        found = interval(draws)
        control = None
        if fitted.control is not None:
            control = float((fitted.control.predictions[layer] == fitted.control.labels)[test].mean())
        is_chosen = layer == fitted.best_layer
        if is_chosen:
            best = draws
        scores.append(
            Score(
                encoder=encoder,
                probe=probe.name,
                layer=layer,
                metric=probe.metric,
                score=found.value,
                low=found.low,
                high=found.high,
                dev=float(fitted.dev[layer]),
                items=int(test.sum()),
                is_chosen=is_chosen,
                flag=extreme(found, floors=[described.floor], ceiling=CEILING) or "",
                control=control,
                selectivity=None if control is None else found.value - control,
            )
        )
    return scores, best


def _score_subsets(encoder: str, probe: Probe, fitted: Fit) -> Iterator[Score]:
    """Yield the chosen layer's score on each subset of the test items that has any."""
    layer = fitted.best_layer
    for name, members in probe.subsets.items():
        test = (probe.split == TEST) & members
        if len(np.unique(probe.groups[test])) > 1:
            found = interval(_resample(probe, fitted, layer, test))
            yield Score(
                encoder=encoder,
                probe=probe.name,
                layer=layer,
                subset=name,
                metric=probe.metric,
                score=found.value,
                low=found.low,
                high=found.high,
                dev=float(fitted.dev[layer]),
                items=int(test.sum()),
                is_chosen=True,
            )


def _add_code_lengths(scores: Sequence[Score], probe: Probe, store: FeatureStore) -> list[Score]:
    """Return the scores of all layers with the code lengths of the training labels."""
    features, train = store.features_for(probe), store.split_of(probe) == TRAIN
    code = online_code(
        _Rows(features, np.flatnonzero(train)),
        probe.labels[train],
        num_classes=len(probe.label_names),
        units=probe.places[train, 0, 0],  # texts
    )
    return [
        replace(score, mdl_bits=float(code.bits[number]), compression=float(code.compression[number]))
        for number, score in enumerate(scores)
    ]


class _Rows(Sequence[np.ndarray]):
    """Some rows of every layer's features, made when they are asked for."""

    def __init__(self, features: Sequence[np.ndarray], rows: np.ndarray) -> None:
        self._features, self._rows = features, rows

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, layer: Any) -> Any:
        return self._features[layer][self._rows]
