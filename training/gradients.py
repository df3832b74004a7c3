"""The gradient of each loss by itself: which one moves which weights."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from objectives.batch import Batch

from .setup import Run


def gradients_by_loss(
    run: Run, batches: Iterable[Batch], parameters: Sequence[nn.Parameter]
) -> dict[str, list[Tensor | None]]:
    """Return for each loss its gradient for each of the parameters, None where it does not reach one.

    Each loss is its mean over all targets of `batches` times its weight in the sum that is trained. Nothing is added to
    the parameters' own gradients, and no random number is drawn while the model evaluates.
    """
    on_device = [batch.to(run.accelerator.device) for batch in batches]
    counted = [run.model.count_targets(batch) for batch in on_device]
    counts = {name: sum(each[name] for each in counted) for name in run.model.weights}
    found: dict[str, list[Tensor | None]] = {}
    with torch.enable_grad(), run.accelerator.autocast():
        for batch in on_device:
            for name, loss in run.model(batch).items():
                if not loss.total.requires_grad:
                    continue
                scaled = run.model.weights[name] * loss.total / max(counts[name], 1)
                more = torch.autograd.grad(scaled, parameters, retain_graph=True, allow_unused=True)
                before = found.get(name, [None] * len(parameters))
                found[name] = [_add(one, other) for one, other in zip(before, more, strict=True)]
    return found


def _add(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def norm_of(gradients: Iterable[Tensor | None]) -> float:
    """Return the norm of gradients taken together; 0 of those that no loss reaches."""
    squares = [each.double().square().sum() for each in gradients if each is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def table_gradients(run: Run) -> dict[str, float]:
    """Return the norm of each loss's gradient on the encoder's word table, over one held-out micro-batch of each arm.

    Of a table that is added to a generator's, both count, each where its own loss reaches it. All processes read the
    same micro-batch.
    """
    parameters = list(run.model.encoder.get_input_embeddings().parameters())
    norms = {}
    for held_out in run.held_out:
        for name, gradients in gradients_by_loss(run, [held_out[0]], parameters).items():
            norms[name] = norm_of(gradients)
    return norms
