"""The cross-entropy that overwrites its logits, against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from objectives.cross_entropy import spend_logits


def both(logits: torch.Tensor, values: torch.Tensor, weights: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the losses and the gradients of torch's function and of ours."""
    found = []
    for function in (lambda x: F.cross_entropy(x, values, reduction="none"), lambda x: spend_logits(x, values)):
        leaf = logits.clone().requires_grad_()
        losses = function(leaf * 1)
        (gradient,) = torch.autograd.grad(losses @ weights, leaf)
        found.append((losses.detach(), gradient))
    return found


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0, 1e4])
def test_losses_and_gradients_are_those_of_torch(spread: float) -> None:
    torch.manual_seed(0)
    logits, values = torch.randn(50, 1000) * spread, torch.randint(1000, (50,))
    (expected, slopes), (losses, gradients) = both(logits, values, torch.randn(50))
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients, slopes, rtol=1e-4, atol=1e-6)


def test_no_target_is_no_error() -> None:
    logits = torch.zeros(0, 7, requires_grad=True)
    losses = spend_logits(logits * 1, torch.zeros(0, dtype=torch.long))
    losses.sum().backward()
    assert losses.shape == (0,) and logits.grad is not None and logits.grad.shape == (0, 7)


def test_a_graph_that_is_kept_gives_the_same_gradient_again() -> None:
    leaf = torch.randn(5, 9, requires_grad=True)
    loss = spend_logits(leaf * 1, torch.arange(5)).sum()
    first, second = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_logits_that_another_gradient_needs_are_missed_aloud() -> None:
    leaf = torch.randn(5, 9, requires_grad=True)
    logits = leaf.exp()  # its gradient needs what it gave
    loss = spend_logits(logits, torch.arange(5)).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
