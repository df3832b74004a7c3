"""Sequence classification: one label for a text or a pair of texts, or a number."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from transformers import PreTrainedTokenizerBase

from corpora.errors import UserError

from .data import SequenceData
from .train import Row, Task

NUMERIC = ("spearman", "pearson")
CLASSES = ("accuracy", "mcc", "f1", "macro_f1")
_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class EncodedSequences:
    """Texts as rows, and how many were cut at the end to fit."""

    rows: tuple[Row, ...]
    truncated: int


class SequenceTask(Task):
    """A class for each text, or a number (`spearman`, `pearson`).

    Figures of classes are accuracy, Matthews' correlation (`mcc`), and F1: of class 1 where there are two, as GLUE
    counts it, otherwise the mean over the classes. Of numbers, the rank correlation and the correlation.
    """

    auto_class = "AutoModelForSequenceClassification"

    def __init__(self, names: Sequence[str], metric: str) -> None:
        """`names` are the classes in the order of their ids, none for numbers."""
        known = CLASSES if names else NUMERIC
        if metric not in known:
            raise UserError(f"--metric {metric} is not one of these labels'; known: {', '.join(known)}")
        self.names = tuple(names)
        self.metric = metric

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        if self.names:
            return cross_entropy(logits.float(), targets.long(), reduction="sum"), len(targets)
        return mse_loss(logits.float().squeeze(-1), targets.float(), reduction="sum"), len(targets)

    def answer(self, logits: Tensor, targets: Tensor) -> list[list[float]]:
        best = logits.argmax(-1) if self.names else logits.squeeze(-1)
        return [[each] for each in best.tolist()]

    def score(self, rows: Sequence[Row], answers: Sequence[Sequence[float]]) -> dict[str, float]:
        truth = np.array([row.targets[0] for row in rows])
        found = np.array([answer[0] for answer in answers])
        return score_classes(truth, found, self.metric) if self.names else score_numbers(truth, found, self.metric)


def score_classes(truth: np.ndarray, found: np.ndarray, metric: str) -> dict[str, float]:
    """Return accuracy, Matthews' correlation and F1 of class numbers, `metric` first."""
    is_binary = max(truth.max(initial=0), found.max(initial=0)) < 2
    macro = float(f1_score(truth, found, average="macro", zero_division=0))
    figures = {
        "accuracy": float(accuracy_score(truth, found)),
        "mcc": float(matthews_corrcoef(truth, found)) if len(truth) > 1 else 0.0,
        "f1": float(f1_score(truth, found, pos_label=1, average="binary", zero_division=0)) if is_binary else macro,
        "macro_f1": macro,
    }
    return {name: figures[name] for name in [metric, *(name for name in figures if name != metric)]}


def score_numbers(truth: np.ndarray, found: np.ndarray, metric: str) -> dict[str, float]:
    """Return the correlations of ranks and of values, 0 where either side is constant; `metric` first."""
    if len(truth) < 2 or np.ptp(truth) == 0 or np.ptp(found) == 0:
        return dict.fromkeys((metric, *(name for name in NUMERIC if name != metric)), 0.0)
    figures = {"spearman": float(spearmanr(truth, found).statistic), "pearson": float(pearsonr(truth, found).statistic)}
    return {name: figures[name] for name in [metric, *(name for name in figures if name != metric)]}


def find_names(data: Sequence[SequenceData], given: Sequence[str] = (), metric: str = "auto") -> tuple[str, ...]:
    """Return the classes in the order of their ids, none where the labels are numbers.

    Numbers are predicted where `metric` says so, or where it is left open and a label of the first data has a fraction.
    UserError, by file and line, where data have a label that the first of them, which is trained on, lack.
    """
    labels = data[0].labels
    if metric in NUMERIC or (metric == "auto" and not given and not data[0].names and _has_fractions(labels)):
        for part in data:
            for label, place in zip(part.labels, part.places, strict=True):
                if not _is_number(label):
                    raise UserError(f"{place}: the label {label!r} is no number, and --metric {metric} wants one")
        return ()
    names = tuple(given) or data[0].names
    if not names:
        met = set(labels)
        names = tuple(sorted(met, key=float) if all(map(_is_number, met)) else sorted(met))
    if len(names) < 2:
        raise UserError(f"every text has the label {names[0]!r}; there is nothing to tell apart")
    check_labels(data, names)
    return names


def check_labels(data: Sequence[SequenceData], names: Sequence[str]) -> None:
    """Raise UserError, by file and line, where a label is none of `names`."""
    known = set(names)
    for part in data:
        for label, place in zip(part.labels, part.places, strict=True):
            if label not in known:
                shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
                raise UserError(
                    f"{place}: the label {label!r} is none that the head knows; it knows {shown} "
                    "(--labels lists others)"
                )


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def _has_fractions(labels: Sequence[str]) -> bool:
    return all(map(_is_number, labels)) and any(not float(label).is_integer() for label in labels)


def score_baseline(train: SequenceData, data: SequenceData, names: Sequence[str], metric: str) -> dict[str, Any]:
    """Return what needs no encoder: the commonest label of training for every text, for numbers always the same."""
    if not names:
        return {"what": "always the mean", "figures": dict.fromkeys(NUMERIC, 0.0)}
    commonest = Counter(train.labels).most_common(1)[0][0]
    truth = np.array([names.index(label) for label in data.labels])
    found = np.full_like(truth, names.index(commonest))
    return {"what": f"always {commonest!r}", "figures": score_classes(truth, found, metric)}


def encode_sequences(
    data: SequenceData, names: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, *, segments: bool
) -> EncodedSequences:
    """Return a row for each text or pair. What is too long loses tokens at the end, the longer text of a pair first.

    `segments`: with token types, 0 for the first text and 1 for the second, as the tokenizer frames them.
    """
    ids = {name: float(number) for number, name in enumerate(names)}
    rows: list[Row] = []
    truncated = 0
    for start in range(0, len(data), _BATCH):
        texts = [list(part[start : start + _BATCH]) for part in (data.first, data.second) if part]
        encoded = tokenizer(
            *texts, truncation="longest_first", max_length=max_length, return_token_type_ids=segments, verbose=False
        )
        for offset, input_ids in enumerate(encoded["input_ids"]):
            label = data.labels[start + offset]
            truncated += bool(encoded.encodings[offset].overflowing)
            rows.append(
                Row(
                    input_ids=input_ids,
                    token_types=encoded["token_type_ids"][offset] if segments else None,
                    per_token=False,
                    targets=[ids[label] if names else float(label)],
                    example=start + offset,
                )
            )
    return EncodedSequences(rows=tuple(rows), truncated=truncated)
