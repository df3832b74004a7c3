"""What a model does while it reads a batch: of any architecture, seen from outside."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from generators.base import Proposed
from generators.network import run_network
from objectives.batch import DeviceProposal, Loss, View
from objectives.cross_entropy import spend_logits

from .model import PretrainingModel


def find_blocks(encoder: PreTrainedModel) -> list[nn.Module]:
    """Return the encoder's blocks, its only list of as many modules as it has layers; none where there is no such."""
    count = encoder.config.num_hidden_layers
    lists = [each for each in encoder.modules() if isinstance(each, nn.ModuleList) and len(each) == count]
    return list(lists[0]) if lists else []


class BranchWatch:
    """Keeps what the linear layers of each block put out, in the order in which they are called."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        self.outputs: list[list[tuple[str, Tensor]]] = [[] for _ in blocks]
        self.hooks = [
            module.register_forward_hook(self._keep(place, name))
            for place, block in enumerate(blocks)
            for name, module in block.named_modules()
            if isinstance(module, nn.Linear)
        ]

    def _keep(self, place: int, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, given, output: self.outputs[place].append((name, output.detach()))

    def branches(self, place: int, shape: torch.Size) -> tuple[Tensor | None, Tensor | None]:
        """Return what attention and the feed-forward part add to a block's stream of this `shape` (B, L, D).

        They are what the last linear layer of each puts out, which all of `transformers`' encoders add as it is.
        Attention's is called before the other's, in a module whose name says attention.
        """
        fitting = [(name, output) for name, output in self.outputs[place] if output.shape == shape]
        attending = [output for name, output in fitting if "att" in name]
        rest = [output for name, output in fitting if "att" not in name]
        return (attending[-1] if attending else None), (rest[-1] if rest else None)


@torch.no_grad()
def measure_blocks(encoder: PreTrainedModel, view: View) -> tuple[list[tuple[float, float, float]], float]:
    """Return (entropy, attention, feed-forward) of each block, and the root mean square of what the first one reads.

    Entropy is that of a token's attention over ln of how many tokens it sees, the mean over tokens and heads: 1 looks
    at all alike. The others are norms of what is added, over the norm of what the block reads. Not a number where the
    architecture does not show it. The attention of the encoder must be eager.
    """
    watch = BranchWatch(find_blocks(encoder))
    try:
        out = cast(Any, run_network(encoder, view, every_layer=True, every_attention=True))
    finally:
        for hook in watch.hooks:
            hook.remove()
    real = view.attention_mask.bool()
    states = [state.float() for state in out.hidden_states]
    found = []
    for place, weights in enumerate(out.attentions):
        stream = states[place]
        branches = watch.branches(place, stream.shape) if watch.outputs else (None, None)
        shares = [
            float(each.float()[real].norm() / stream[real].norm()) if each is not None else torch.nan
            for each in branches
        ]
        found.append((_entropy(weights.float(), real), *shares))
    return cast(list[tuple[float, float, float]], found), float(states[0][real].square().mean().sqrt())


def _entropy(weights: Tensor, real: Tensor) -> float:
    """Return the mean of H / ln n over the real tokens' attention `weights` (B, heads, L, L), n visible ones each."""
    visible = (weights > 0).sum(-1).clamp(min=2).log()
    entropy = -(weights * weights.clamp(min=1e-30).log()).sum(-1) / visible  # (B, heads, L)
    return float(entropy.transpose(1, 2)[real].mean())


class ModelWatch(TorchFunctionMode):
    """Keeps, while it is on, the losses of a model, the logits that they are made of, and its generators' proposals."""

    def __init__(self, model: PretrainingModel) -> None:
        super().__init__()
        self.totals: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.scales: dict[tuple[str, str], list[float]] = defaultdict(list)  # by (heads or generators, objective)
        self.proposed: dict[str, list[tuple[DeviceProposal, Proposed]]] = defaultdict(list)
        self.inside: list[tuple[str, str]] = []
        self.hooks = [model.register_forward_hook(self._keep_losses)]
        for kind, parts in (("heads", model.heads), ("generators", model.generators)):
            for name, part in parts.items():
                self.hooks.append(part.register_forward_pre_hook(self._enter((kind, name))))
                self.hooks.append(part.register_forward_hook(self._leave((kind, name))))

    def _enter(self, key: tuple[str, str]) -> Callable[[nn.Module, Any], None]:
        return lambda module, given: self.inside.append(key)

    def _leave(self, key: tuple[str, str]) -> Callable[[nn.Module, Any, Any], None]:
        def leave(module: nn.Module, given: Any, output: Any) -> None:
            self.inside.pop()
            if isinstance(output, Proposed):
                self.proposed[key[1]].append((given[1], output))

        return leave

    def _keep_losses(self, module: nn.Module, given: Any, losses: Mapping[str, Loss]) -> None:
        for name, loss in losses.items():
            self.totals[name] += float(loss.total.detach())
            self.counts[name] += loss.count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.inside and args and func in (F.cross_entropy, spend_logits, F.binary_cross_entropy_with_logits):
            logits = args[0].detach().float()
            centred = logits if func is F.binary_cross_entropy_with_logits else logits - logits.mean(-1, keepdim=True)
            self.scales[self.inside[-1]].append(float(centred.square().mean().sqrt()))
        return func(*args, **(kwargs or {}))


@contextmanager
def watching(model: PretrainingModel) -> Iterator[ModelWatch]:
    """Watch a model for as long as the block lasts."""
    watch = ModelWatch(model)
    try:
        with watch:
            yield watch
    finally:
        for hook in watch.hooks:
            hook.remove()
