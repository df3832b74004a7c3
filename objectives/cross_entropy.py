"""The cross-entropy of logits that nobody needs afterwards, in their own memory.

F.cross_entropy keeps the logs of all probabilities beside them. Over 30,000 words that was 60 to 80 of 880 MB of a step
of L4 H128 (`benchmarks.memory`).
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic


def spend_logits(logits: Tensor, values: Tensor) -> Tensor:
    """Return the cross-entropy (N,) of logits (N, V) and values (N,), as F.cross_entropy with no reduction.

    The logits are overwritten. Autograd says so where their values were kept for another gradient.
    """
    if has_torch_function_variadic(logits, values):  # somebody watches
        return cast(Tensor, handle_torch_function(spend_logits, (logits, values), logits, values))
    return cast(Tensor, _CrossEntropy.apply(logits, values))  # type: ignore[no-untyped-call]  # of torch


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, logits: Tensor, values: Tensor) -> Tensor:
        highest = logits.amax(-1, keepdim=True)
        answers = logits.gather(-1, values[:, None]) - highest
        sums = logits.sub_(highest).exp_().sum(-1)
        context.save_for_backward(logits, sums, values)
        return sums.log() - answers[:, 0]

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        weights, sums, values = context.saved_tensors
        (gradient,) = gradients
        result = weights * (gradient / sums)[:, None]  # not in place: a graph may be kept, and gone through again
        result.scatter_add_(-1, values[:, None], -gradient[:, None])
        return result, None
