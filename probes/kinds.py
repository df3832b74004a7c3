"""The kinds of probes: how each is fitted to an encoder, and what figures that gives.

KINDS: kind -> function(probe, store, how, with_mix) -> list of Reached, one of them chosen on all items
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .descent import fit_mlp, fit_scalar_mix
from .feature_store import FeatureStore, LayerFeatures
from .fit import Fit, fit_linear
from .mdl import online_code
from .probe import DEV, TEST, TRAIN, Kind, Probe
from .reached import HowToProbe, Reached
from .readout import HiddenAnswers, ReadoutSettings, answer_hidden, train_readout
from .readout_rows import count_tokens, cut_rows
from .results import MIX
from .statistics import Resampled, resample, resample_scores
from .structural import StructuralFit, fit_structural
from .treebank_trees import find_sentences

DISTANCES, LOSS = "distances", "loss"  # subsets that are all items in another measure


def reach_classes(probe: Probe, store: FeatureStore, how: HowToProbe, with_mix: bool) -> list[Reached]:
    """Fit a classifier to every layer, and to a mix of them; judge subsets at the layer that dev chose.

    All encoders are judged on the same test items: where a text is too long for one, it guesses from the rest.
    """
    features, split = store.features_for(probe), store.split_of(probe)
    fit = fit_mlp if how.kind == "mlp" else fit_linear
    fitted = fit(features, probe.labels, split, control_labels=probe.control_labels, metric=probe.metric)
    test = probe.split == TEST
    layers = [_judge_classes(probe, fitted, layer, test) for layer in range(len(features))]
    if how.code_lengths:
        layers = _add_code_lengths(layers, probe, features, split == TRAIN)
    subsets = []
    for name, members in probe.subsets.items():
        if len(np.unique(probe.groups[test & members])) > 1:
            judged = _judge_classes(probe, fitted, fitted.best_layer, test & members)
            subsets.append(replace(judged, subset=name, control=None))
    mixes = []
    if with_mix:
        mixed = fit_scalar_mix(features, probe.labels, split, metric=probe.metric)
        weights = None if mixed.mix is None else tuple(mixed.mix.tolist())
        mixes = [replace(_judge_classes(probe, mixed, 0, test), layer=MIX, is_chosen=False, mix=weights)]
    return [*layers, *subsets, *mixes]


def reach_trees(probe: Probe, store: FeatureStore, how: HowToProbe, with_mix: bool) -> list[Reached]:
    """Fit the structural probe to every layer: the share of edges found, and at dev's layer how distances correlate."""
    offsets = find_sentences(probe.places[:, 0, 0])
    groups, split = probe.groups[offsets[:-1]], probe.split[offsets[:-1]]
    lost = np.logical_or.reduceat(store.split_of(probe) < 0, offsets[:-1])
    fitted = fit_structural(
        _First(store.features_for(probe)),
        probe.labels - 1,
        offsets,
        np.where(lost & (split != TEST), -1, split),  # what one can't read it is not taught; all are asked the same
        is_punctuation=probe.subsets["punctuation"],
    )
    best, test = fitted.best_layer, split == TEST
    layers = [
        Reached(
            layer=layer,
            draws=_resample_edges(fitted, layer, test, groups),
            items=int(fitted.num_edges[test].sum()),
            dev=float(fitted.dev_uuas[layer]),
            metric=probe.metric,
            is_chosen=layer == best,
        )
        for layer in range(len(fitted.uuas))
    ]
    draws = resample(groups[test], lambda weights, members: fitted.weigh_dspr(best, _spread(weights, members, test)))
    distances = replace(layers[best], subset=DISTANCES, metric="spearman", draws=draws, items=int(test.sum()))
    return [*layers, distances]


def reach_hidden(probe: Probe, store: FeatureStore, how: HowToProbe, with_mix: bool) -> list[Reached]:
    """Train a masked readout on the last layer: how many hidden tokens it names, and what its loss explains."""
    settings = ReadoutSettings()
    texts = {part: [probe.texts[n] for n in probe.places[probe.split == part, 0, 0]] for part in (TRAIN, DEV, TEST)}
    readout = train_readout(store.encoder, texts[TRAIN], settings)
    dev, test = (answer_hidden(readout, texts[part], settings) for part in (DEV, TEST))
    counts = count_tokens(store.encoder, cut_rows(store.encoder, texts[TRAIN], settings.max_length))
    groups = probe.groups[probe.split == TEST][test.owners]
    named = Reached(
        layer=store.num_layers - 1,
        draws=resample_scores(test.wanted, test.answers, groups, metric=probe.metric),
        items=len(test.wanted),
        dev=float((dev.wanted == dev.answers).mean()),
        metric=probe.metric,
        is_chosen=True,
    )
    explained = replace(named, subset=LOSS, metric="explained", draws=_resample_losses(test, counts, groups))
    return [named, explained]


KINDS: dict[Kind, Callable[[Probe, FeatureStore, HowToProbe, bool], list[Reached]]] = {
    "classification": reach_classes,
    "structural": reach_trees,
    "readout": reach_hidden,
}


def _judge_classes(probe: Probe, fitted: Fit, layer: int, test: np.ndarray) -> Reached:
    """Return what a classifier reaches on the items `test` (N,)."""
    draws = resample_scores(
        probe.labels[test],
        fitted.predictions[layer][test],
        probe.groups[test],
        metric=probe.metric,
        scores=None if fitted.scores is None else fitted.scores[layer][test],
    )
    control = fitted.control
    return Reached(
        layer=layer,
        draws=draws,
        items=int(test.sum()),
        dev=float(fitted.dev[layer]),
        metric=probe.metric,
        is_chosen=layer == fitted.best_layer,
        control=None if control is None else float((control.predictions[layer] == control.labels)[test].mean()),
    )


def _add_code_lengths(
    layers: Sequence[Reached], probe: Probe, features: LayerFeatures, train: np.ndarray
) -> list[Reached]:
    """Return all layers with the code lengths of the training labels."""
    code = online_code(
        _Rows(features, np.flatnonzero(train)),
        probe.labels[train],
        num_classes=len(probe.label_names),
        units=probe.places[train, 0, 0],  # texts
    )
    return [
        replace(reached, mdl_bits=float(code.bits[number]), compression=float(code.compression[number]))
        for number, reached in enumerate(layers)
    ]


def _resample_edges(fitted: StructuralFit, layer: int, test: np.ndarray, groups: np.ndarray) -> Resampled:
    """Resample the share of edges found, over the documents (S,) of the sentences `test` (S,)."""

    def measure(weights: np.ndarray, members: np.ndarray) -> np.ndarray:
        right, total = (
            np.bincount(members, weights=each[test]) for each in (fitted.right_edges[layer], fitted.num_edges)
        )
        return (weights @ right) / np.maximum(weights @ total, 1)

    return resample(groups[test], measure)


def _spread(weights: np.ndarray, members: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return how often each sentence counts (draws, S), from how often its document does; none but test's do."""
    made = np.zeros((len(weights), len(test)))
    made[:, test] = weights[:, members]
    return made


def _resample_losses(test: HiddenAnswers, counts: np.ndarray, groups: np.ndarray) -> Resampled:
    """Resample 1 - the loss over that of the training texts' token counts, one added to each."""
    unigram = np.log(counts.sum() + len(counts)) - np.log(counts[test.wanted] + 1)  # nats of each hidden token

    def measure(weights: np.ndarray, members: np.ndarray) -> np.ndarray:
        lost, known = (np.bincount(members, weights=each) for each in (test.losses, unigram))
        return 1 - (weights @ lost) / (weights @ known)

    return resample(groups, measure)


class _Rows(Sequence[np.ndarray]):
    """Some rows of every layer's features, made when they are asked for."""

    def __init__(self, features: Sequence[np.ndarray], rows: np.ndarray) -> None:
        self._features, self._rows = features, rows

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, layer: Any) -> Any:
        return self._features[layer][self._rows]


class _First(Sequence[np.ndarray]):
    """The vectors (N, D) of every item's first place, layer by layer."""

    def __init__(self, features: LayerFeatures) -> None:
        self._features = features

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, layer: Any) -> Any:
        return self._features.vectors(layer)[:, 0]
