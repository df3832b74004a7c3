"""The rows of all processes, with their gradients: what objectives need that set examples against each other."""

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    """Concatenate equal numbers of rows of every process; the gradient of a row goes back to where it came from."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, rows: Tensor) -> Tensor:
        everyone = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, rows.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        count = len(gradient) // dist.get_world_size()
        return gradient[dist.get_rank() * count : (dist.get_rank() + 1) * count]


def gather_rows(rows: Tensor, training: bool) -> tuple[Tensor, int]:
    """Return the rows (B, D) of all processes (world x B, D), and at which of them this process's own begin.

    Only while training: an evaluation may give the processes unequal numbers of batches.
    """
    if not (training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows, 0
    return _Gather.apply(rows), dist.get_rank() * len(rows)  # type: ignore[no-untyped-call]  # of torch
