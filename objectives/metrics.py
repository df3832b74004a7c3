"""Held-out figures from sums that add up: over batches, over devices, in any order."""

import numpy as np
import torch
from torch import Tensor

LOGIT_BINS = 2**15  # detection keeps a histogram of logits, so that its state is fixed and adds up over devices
LOGIT_RANGE = 16.0


def count_logits(logits: Tensor, is_positive: Tensor) -> Tensor:
    """Return a histogram (2, LOGIT_BINS) of logits (N,): of negatives, then of positives.

    Bins are .001 wide; what lies outside +-16 goes to the ends.
    """
    bins = ((logits.float() + LOGIT_RANGE) * (LOGIT_BINS / (2 * LOGIT_RANGE))).long().clamp(0, LOGIT_BINS - 1)
    counts = torch.bincount(bins + LOGIT_BINS * is_positive.long(), minlength=2 * LOGIT_BINS)
    return counts.view(2, LOGIT_BINS).double()


def summarise_detection(histogram: np.ndarray) -> dict[str, float]:
    """Return AUROC, average precision, F1, precision and recall at probability .5, and the share of positives.

    Logits in one bin count as tied. With only one class present, AUROC and average precision are undefined and left
    out.
    """
    negatives, positives = histogram
    num_negatives, num_positives = negatives.sum(), positives.sum()
    figures = {"positive_rate": float(num_positives / max(num_negatives + num_positives, 1))}
    called = positives[LOGIT_BINS // 2 :].sum()
    false_alarms = negatives[LOGIT_BINS // 2 :].sum()
    figures["f1"] = float(2 * called / max(called + false_alarms + num_positives, 1))
    figures["precision"] = float(called / max(called + false_alarms, 1))
    figures["recall"] = float(called / max(num_positives, 1))
    if num_positives and num_negatives:
        below = np.cumsum(negatives) - negatives
        figures["auroc"] = float((positives * (below + negatives / 2)).sum() / (num_positives * num_negatives))
        true_found, all_found = np.cumsum(positives[::-1]), np.cumsum((positives + negatives)[::-1])
        precision = true_found / np.maximum(all_found, 1)
        figures["average_precision"] = float((precision * positives[::-1]).sum() / num_positives)
    return figures


def summarise_classes(confusion: np.ndarray) -> dict[str, float]:
    """Return accuracy beside the majority class's share, from counts (C, C) of (true, predicted)."""
    total = max(confusion.sum(), 1)
    return {"accuracy": float(np.trace(confusion) / total), "majority": float(confusion.sum(axis=1).max() / total)}
