"""The artefact gate: what can be read off a probe without an encoder, and what must not be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import log2, sqrt

import numpy as np
import scipy.sparse as sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import f1_score, roc_auc_score

from corpora.errors import UserError

from .probe import TEST, TRAIN, Metric, Probe
from .words import bin_count, cut_tokens, cut_words, name_shape

NUM_STANDARD_ERRORS = 3.0
MANY_CLASSES = 20  # with more, ridge regression on the classes stands in for logistic regression, which takes minutes

Counts = Mapping[str, int]  # of words in lower case


class ArtefactError(UserError):
    """A probe whose labels are guessed by a baseline that should know nothing of them."""


def pass_gate(
    probe: Probe, *, at_chance: Sequence[str] = (), recorded: Sequence[str] = (), counts: Counts | None = None
) -> Probe:
    """Return the probe with its baselines' scores in `surface`; ArtefactError where one of `at_chance` is above it.

    Above means by more than three standard errors of the test items. `recorded` baselines carry signal that belongs to
    the question, and are only written down. `counts` are the word frequencies that "frequency" goes by.
    """
    scores = score_baselines(probe, [*at_chance, *recorded], counts)
    limit = chance_score(probe) + NUM_STANDARD_ERRORS * standard_error(probe)
    for name in at_chance:
        if scores[name] > limit:
            raise ArtefactError(
                f"probe {probe.name}: the baseline '{name}' scores {100 * scores[name]:.1f}, where chance is "
                f"{100 * chance_score(probe):.1f} and {100 * limit:.1f} the limit for {(probe.split == TEST).sum():,} "
                "test items; its items give the label away without an encoder, so build them in another way"
            )
    return replace(probe, surface={**probe.surface, **scores})


def score_baselines(probe: Probe, names: Sequence[str], counts: Counts | None = None) -> dict[str, float]:
    """Return the test score, in the probe's metric, of each baseline of BASELINES that is named, fitted on training."""
    if counts is None:
        counts = count_texts(probe)
    scores = {}
    for name in names:
        if name not in BASELINES:
            raise ValueError(f"baseline {name!r} is unknown; known: {', '.join(BASELINES)}")
        scores[name] = score_features(BASELINES[name](probe, counts), probe)
    return scores


def score_features(features: sparse.csr_matrix, probe: Probe) -> float:
    """Fit a linear classifier on the training rows of `features` (N, F), and return its score on the test rows."""
    train, test = probe.split == TRAIN, probe.split == TEST
    labels = probe.labels
    if len(np.unique(labels[train])) < 2:
        raise UserError(f"probe {probe.name}: its training items have one label only; give more text")
    many = len(probe.label_names) > MANY_CLASSES
    model = RidgeClassifier() if many else LogisticRegression(max_iter=5000, tol=1e-5)
    model.fit(features[train], labels[train])
    if probe.metric == "auroc":
        return float(roc_auc_score(labels[test], model.decision_function(features[test])))
    return score_labels(labels[test], model.predict(features[test]), probe.metric)


def score_labels(labels: np.ndarray, guesses: np.ndarray, metric: Metric) -> float:
    """Return accuracy or macro-F1 of guessed labels."""
    if metric == "macro_f1":
        return float(f1_score(labels, guesses, average="macro", zero_division=0))
    return float((labels == guesses).mean())


def chance_score(probe: Probe) -> float:
    """Return what guessing scores: .5 for AUROC, else the share of the commonest label in the test items."""
    if probe.metric == "auroc":
        return 0.5
    labels = probe.labels[probe.split == TEST]
    return float(np.bincount(labels, minlength=len(probe.label_names)).max() / len(labels))


def standard_error(probe: Probe) -> float:
    """Return the standard error of a guesser's test score (of AUROC: Hanley and McNeil, 1982, with equal scores)."""
    labels = probe.labels[probe.split == TEST]
    if probe.metric == "auroc":
        positive = int((labels == 1).sum())
        negative = len(labels) - positive
        return sqrt((positive + negative + 1) / (12 * positive * negative))
    chance = chance_score(probe)
    return sqrt(chance * (1 - chance) / len(labels))


def count_texts(probe: Probe) -> dict[str, int]:
    """Return how often each word, in lower case, occurs in the probe's texts."""
    counts: dict[str, int] = {}
    for text in probe.texts:
        for word in cut_words(text.lower()):
            counts[word] = counts.get(word, 0) + 1
    return counts


def read_places(probe: Probe, place: int) -> list[str]:
    """Return the text of one place of each item: the whole text, or the characters of its span."""
    rows = probe.places[:, place].tolist()
    return [probe.texts[text] if start < 0 else probe.texts[text][start:end] for text, start, end in rows]


def weigh(probe: Probe, texts: list[str], cut: Callable[[str], list[str]], reach: int = 1) -> sparse.csr_matrix:
    """Return TF-IDF weights (N, F) of what `cut` makes of the texts, in runs up to `reach`; vocabulary of training."""
    train = np.flatnonzero(probe.split == TRAIN)

    def cut_runs(text: str) -> list[str]:
        units = cut(text)
        return [" ".join(units[i : i + n]) for n in range(1, reach + 1) for i in range(len(units) - n + 1)]

    vectorizer = TfidfVectorizer(analyzer=cut_runs, sublinear_tf=True)
    try:
        vectorizer.fit([texts[i] for i in train])
    except ValueError:  # scikit-learn's "empty vocabulary": no place has a word
        return sparse.csr_matrix((len(texts), 1))
    return vectorizer.transform(texts)


def each_place(probe: Probe, cut: Callable[[str], list[str]], reach: int = 1) -> sparse.csr_matrix:
    count = probe.places.shape[1]
    return sparse.hstack([weigh(probe, read_places(probe, k), cut, reach) for k in range(count)], format="csr")


def lower_words(text: str) -> list[str]:
    return cut_words(text.lower())


def characters(text: str) -> list[str]:
    """Return the beginnings and endings of up to four characters, and each character."""
    text = text.lower()
    return [f"^{text[:n]}" for n in range(1, 5)] + [f"{text[-n:]}$" for n in range(1, 5)] + list(text)


def weigh_context(probe: Probe, counts: Counts) -> sparse.csr_matrix:
    texts = [probe.texts[text] for text in probe.places[:, 0, 0]]
    return weigh(probe, texts, lower_words)


def measure_lengths(probe: Probe, counts: Counts) -> sparse.csr_matrix:
    """One-hot quantiles of the words and of the characters of each place, and of the two places' differences."""
    columns = []
    for k in range(probe.places.shape[1]):
        texts = read_places(probe, k)
        columns += [[len(cut_words(text)) for text in texts], [len(text) for text in texts]]
    if probe.places.shape[1] == 2:
        columns += [[a - b for a, b in zip(columns[i], columns[i + 2], strict=True)] for i in (0, 1)]
    return spread([np.array(column) for column in columns])


def measure_overlap(probe: Probe, counts: Counts) -> sparse.csr_matrix:
    """Words that two places share: how many, their share of all, and the share of the rare among them."""
    columns: list[list[float]] = [[], [], []]
    for first, second in zip(read_places(probe, 0), read_places(probe, 1), strict=True):
        a, b = set(lower_words(first)), set(lower_words(second))
        columns[0].append(len(a & b))
        columns[1].append(len(a & b) / max(len(a | b), 1))
        columns[2].append(sum(1 / log2(2 + counts.get(word, 0)) for word in a & b))
    return spread([np.array(column) for column in columns])


def measure_frequency(probe: Probe, counts: Counts) -> sparse.csr_matrix:
    """How many words of each place have which frequency, in bins of half a power of two."""
    rows = []
    for k in range(probe.places.shape[1]):
        table = np.zeros((len(probe.labels), 64))
        for i, text in enumerate(read_places(probe, k)):
            for word in lower_words(text):
                table[i, min(bin_count(counts.get(word, 0)), 63)] += 1
        rows.append(table / np.maximum(table.sum(1, keepdims=True), 1))
        rows.append((table > 0).astype(float))
    return sparse.csr_matrix(np.hstack(rows))


def measure_position(probe: Probe, counts: Counts) -> sparse.csr_matrix:
    """How many words stand before the first place, how many after, and their ratio."""
    columns: list[list[float]] = [[], [], []]
    for text, start, end in probe.places[:, 0].tolist():
        before, after = len(cut_words(probe.texts[text][: max(start, 0)])), len(cut_words(probe.texts[text][end:]))
        for column, value in zip(columns, (before, after, before / max(before + after, 1)), strict=True):
            column.append(value)
    return spread([np.array(column) for column in columns])


def measure_distance(probe: Probe, counts: Counts) -> sparse.csr_matrix:
    """How many words apart two places of one text are, and which comes first; one-hot up to 20."""
    table = sparse.lil_matrix((len(probe.labels), 43))
    for i, ((text, start, _), (_, other, _)) in enumerate(probe.places.tolist()):
        between = len(cut_words(probe.texts[text][min(start, other) : max(start, other)]))
        table[i, 21 + (min(between, 21) if other > start else -min(between, 21))] = 1
    return table.tocsr()


def spread(columns: list[np.ndarray]) -> sparse.csr_matrix:
    """Return each column of numbers one-hot over its deciles, so that a linear classifier can use any part of it."""
    parts = []
    for column in columns:
        edges = np.unique(np.quantile(column, np.linspace(0, 1, 11)[1:-1]))
        bins = np.searchsorted(edges, column, side="right")
        parts.append(np.eye(len(edges) + 1)[bins])
    return sparse.csr_matrix(np.hstack(parts))


BASELINES: dict[str, Callable[[Probe, Counts], sparse.csr_matrix]] = {
    "words": lambda probe, counts: each_place(probe, lower_words),  # of every place, kept apart
    "first": lambda probe, counts: weigh(probe, read_places(probe, 0), lower_words),
    "second": lambda probe, counts: weigh(probe, read_places(probe, 1), lower_words),
    "bigrams": lambda probe, counts: each_place(probe, lower_words, reach=2),
    "shapes": lambda probe, counts: each_place(probe, lambda text: [name_shape(t) for t in cut_tokens(text)], reach=2),
    "characters": lambda probe, counts: each_place(probe, characters),  # beginnings and endings, for words
    "context": weigh_context,  # the words of the whole text around a place
    "length": measure_lengths,
    "overlap": measure_overlap,
    "frequency": measure_frequency,
    "position": measure_position,
    "distance": measure_distance,
}
