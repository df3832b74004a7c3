"""The batched linear probe against scikit-learn's logistic regression: seconds, and how far the scores are apart.

    python -m benchmarks.linear_probe [--items 50000] [--width 256] [--classes 17] [--layers 1] [--pairs 3]
    python -m benchmarks.linear_probe --encoder runs/mlm --treebank *.conllu --tasks pos,dependency_label,dependency_arc

Both find, for every layer, the strength of regularisation that is best on dev, of the same five, on the same features,
standardised alike; scikit-learn fits one strength after the other, with its own tolerance. Without an encoder the
features are drawn, with directions of very different size; of an encoder, a layer stands beside the one below it where
it is narrower than --width. What an encoder makes of words is harder for both: its directions differ by more.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from probes.build import build_treebank
from probes.encoder import load_encoder
from probes.feature_store import FeatureStore
from probes.fit import L2_GRID, fit_linear
from probes.probe import DEV, TEST, TRAIN
from probes.progress import Progress

from .interleaved import Row, take_turns
from .table import Table, make_parser, run_benchmark


@dataclass(frozen=True, kw_only=True)
class Task:
    """Features (layers, N, F), labels (N,) and a split (N,)."""

    name: str
    layers: np.ndarray
    labels: np.ndarray
    split: np.ndarray


def draw_task(options: argparse.Namespace) -> Task:
    """Draw features with a few directions of large variance, and labels with Zipfian shares."""
    rng = np.random.default_rng(0)
    count, width, classes = options.items + 2 * (options.items // 5), options.width, options.classes
    labels = rng.choice(classes, size=count, p=(chances := 1 / np.arange(1, classes + 1)) / chances.sum())
    centres = rng.normal(size=(classes, width)) * (np.arange(width) < width // 4)
    mixing = rng.normal(size=(width, width)) * np.logspace(0, -1.5, width)
    layers = [(centres[labels] + 2.5 * rng.normal(size=(count, width))) @ mixing for _ in range(options.layers)]
    split = np.repeat([TRAIN, DEV, TEST], [options.items, options.items // 5, options.items // 5])
    return Task(name="drawn", layers=np.stack(layers).astype(np.float32), labels=labels, split=split.astype(np.int8))


def read_tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Yield treebank probes on the last layers of an encoder."""
    names = options.tasks.split(",")
    size = round(options.items / 0.6)  # of which 60 % are in training
    probes = build_treebank(names, options.treebank, progress=Progress(None), size=size).probes
    store = FeatureStore(load_encoder(options.encoder), probes)
    for probe in probes:
        features = store.features_for(probe)
        layers = []
        for layer in range(len(features) - options.layers, len(features)):
            parts = [features[layer]]
            while sum(part.shape[1] for part in parts) < options.width and len(parts) <= layer:
                parts.append(features[layer - len(parts)])
            layers.append(np.concatenate(parts, axis=1))
        yield Task(name=probe.name, layers=np.stack(layers), labels=probe.labels, split=store.split_of(probe))


def fit_with_scikit_learn(task: Task) -> list[float]:
    """Return each layer's test accuracy at the strength that is best on dev."""
    found = []
    train, dev, test = (task.split == part for part in (TRAIN, DEV, TEST))
    labels = task.labels
    halves = 2 if labels.max() == 1 else 1  # of two classes it has one vector, the difference of ours
    for layer in task.layers:
        deviation = layer[train].std(axis=0)
        items = (layer - layer[train].mean(axis=0)) / np.where(deviation > 0, deviation, 1)
        best = (-1.0, 0.0)
        for l2 in L2_GRID:
            model = LogisticRegression(C=halves / (l2 * train.sum()), max_iter=2000).fit(items[train], labels[train])
            best = max(best, (model.score(items[dev], labels[dev]), model.score(items[test], labels[test])))
        found.append(best[1])
    return found


def measure(options: argparse.Namespace) -> Table:
    """Measure the tasks that were asked for."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = []
    for task in read_tasks(options) if options.encoder else [draw_task(options)]:
        scores: dict[str, list[float]] = {}

        def fit_theirs(task: Task = task, scores: dict[str, list[float]] = scores) -> None:
            scores["theirs"] = fit_with_scikit_learn(task)

        def fit_ours(task: Task = task, scores: dict[str, list[float]] = scores) -> None:
            scores["ours"] = fit_linear(task.layers, task.labels, task.split).test.tolist()

        contestants = {"scikit-learn": fit_theirs, "fit_linear": fit_ours}
        theirs, ours = take_turns(contestants, pairs=options.pairs, warm_up=options.warm_up)
        apart = [100 * (b - a) for a, b in zip(scores["theirs"], scores["ours"], strict=True)]
        layers, _, width = task.layers.shape
        what = (
            f"{task.name}, {(task.split == TRAIN).sum():,} x {width}, {task.labels.max() + 1} classes, {layers} layers"
        )
        notes = {
            "test accuracy, theirs and ours": ", ".join(
                f"{100 * a:.2f} {100 * b:.2f}" for a, b in zip(*scores.values(), strict=True)
            ),
            "points apart, at most": f"{max(map(abs, apart)):.2f}",
        }
        rows.append(Row(what=what, theirs=theirs, ours=ours, notes=notes))
    return Table(title=f"Linear probes, {len(L2_GRID)} strengths, the best chosen on dev", rows=rows)


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    parser = make_parser("linear_probe", __doc__ or "", items=50_000, width=256, classes=17, layers=1)
    parser.set_defaults(pairs=3, warm_up=0)
    parser.add_argument("--encoder", metavar="FOLDER", help="whose vectors of words to use")
    parser.add_argument("--treebank", nargs="+", metavar="FILE", help="CoNLL-U: train, dev and test, by their names")
    parser.add_argument("--tasks", default="pos", metavar="NAMES", help="of the treebank (default: pos)")
    return run_benchmark(measure, parser, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
