"""Muon for the matrices of the layers and AdamW for everything else, as one optimizer."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)  # of the odd polynomial a x + b x^3 + c x^5 (Jordan et al., 2024)
_ITERATIONS = 5


def orthogonalise(matrix: Tensor) -> Tensor:
    """Return the nearest orthogonal matrix, roughly: the same singular vectors, the values between .68 and 1.14.

    By Newton and Schulz's iteration with the quintic of Jordan et al. (2024,
    https://kellerjordan.github.io/posts/muon), in the matrix's own precision.
    """
    a, b, c = _QUINTIC
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose every step has singular values near 1 (Jordan et al., 2024).

    A step is lr * sqrt(max(1, rows / columns)) times the orthogonalised Nesterov momentum. `torch.optim.Muon` is not
    used because it multiplies in bfloat16 whatever the device: on a processor without it that took 12 times as long
    (166 against 14 ms for 128 x 512 on one core).
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # returns no loss
        """Take a step with every gradient that is there."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalise(parameter.grad.lerp(momentum, group["momentum"]))
                rows, columns = parameter.shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


class MuonWithAdam(torch.optim.Optimizer):
    """Two optimizers that share their groups and their state with this one, so that a run sees one.

    Groups whose "muon" is true are Muon's, the others AdamW's with `adam` as its arguments.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, adam: Mapping[str, Any]) -> None:
        super().__init__(groups, {"lr": lr})
        by_muon = [group for group in self.param_groups if group["muon"]]
        by_adam = [group for group in self.param_groups if not group["muon"]]
        self.parts: list[torch.optim.Optimizer] = []
        if by_muon:
            self.parts.append(Muon(by_muon, lr=lr))
        if by_adam:
            self.parts.append(torch.optim.AdamW(by_adam, lr=lr, **adam))
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        for part in self.parts:
            part.state = self.state

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # returns no loss
        """Take a step with both."""
        for part in self.parts:
            part.step()
