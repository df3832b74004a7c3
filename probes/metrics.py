"""The metrics that probes are judged by."""

import numpy as np

from .probe import Metric


def score(metric: Metric, labels: np.ndarray, predictions: np.ndarray, scores: np.ndarray | None = None) -> float:
    """Return accuracy, macro-F1 over the classes that occur, or the area under the ROC curve (ties count half).

    "uuas" is the accuracy of edges, "top1" that of hidden tokens.

    NaN where there are no items, or only one class for "auroc". `scores` (N,) are needed for "auroc" alone.
    """
    if not len(labels):
        return float("nan")
    if metric in ("accuracy", "uuas", "top1"):
        return float((labels == predictions).mean())
    if metric == "macro_f1":
        size = int(max(labels.max(), predictions.max())) + 1
        right = np.bincount(labels[labels == predictions], minlength=size)
        both = np.bincount(labels, minlength=size) + np.bincount(predictions, minlength=size)
        return float((2 * right[both > 0] / both[both > 0]).mean())
    if scores is None or labels.max() > 1:
        raise ValueError("the area under the ROC curve is for two classes, with a score for each item")
    _, ranks, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - (counts - 1) / 2)[ranks]  # mid-ranks, from 1
    positives = int((labels == 1).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    return float((middle[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))
