"""What a training step costs, in floating-point operations: counted from the factors of its matrix products.

A product of (m, k) with (k, n) multiplies and adds m k n times, which is 2 m k n operations. Backward costs as much
again for each factor that has a gradient: three times forward for a layer that learns, twice for one that only passes
gradients on, once for a teacher or a frozen generator. Every view that the encoder reads is counted, with its padding
where padding is computed (in attention always, in dense layers with `--attention eager` or `sdpa`), heads where
something is asked, generators with heads of their own. Lookups, norms, softmaxes, losses and the optimizer are not
counted, nor is what attention kernels or `--recompute` compute twice to save memory (Kaplan et al., 2020, section 2.1,
and `torch.utils.flop_counter` count alike).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from objectives.batch import Batch

from .model import PretrainingModel
from .setup import Run

PARTS = ("encoder", "other views", "heads", "generators")
FORMULA = (
    "FLOPs of a step = sum over its matrix products (m, k) x (k, n) of 2 m k n x (1 + factors with a gradient): "
    "dense layers and word tables at the tokens they are given, attention over all pairs of places of a row, "
    "padding counted where it is computed"
)

SAMPLES = 16  # micro-batches of each arm of a mixture

Kind = Literal["dense", "attention"]  # by weights; of activations with each other
Costs = dict[tuple[str, Kind], float]  # (part, kind) -> FLOPs


@dataclass(frozen=True, kw_only=True)
class StepCosts:
    """What one optimizer step of a run costs on average."""

    flops: Mapping[str, float]  # part -> FLOPs, forward and backward
    attention: Mapping[str, float]  # part -> those of them that are attention's
    tokens: float  # that are read, padding not counted
    positions: float  # of the rows of all views, padding counted
    targets: float

    @property
    def total(self) -> float:
        return sum(self.flops.values())

    def describe(self) -> list[str]:
        """Return the formula with this run's numbers, a line for each part."""
        lines = []
        for part, flops in self.flops.items():
            attention = self.attention.get(part, 0.0)
            lines.append(f"{part}: {flops - attention:.3g} dense + {attention:.3g} attention = {flops:.3g}")
        where = f"{self.positions:,.0f} positions, {self.targets:,.0f} targets"
        return [*lines, f"a step: {where}, {self.total:.4g} FLOPs"]


@dataclass
class ProductCounter(TorchFunctionMode):
    """Counts the matrix products of forward passes, and those that their gradients will take; nothing runs backward."""

    costs: Costs = field(default_factory=lambda: defaultdict(float))
    part: str = "generators"  # what stands between the modules of a model carries their gradient

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        count = _COUNTED.get(func)
        if count is not None:
            for kind, size, factors in count(*args, **kwargs):
                passes = 1 + (sum(factor.requires_grad for factor in factors) if torch.is_grad_enabled() else 0)
                self.costs[self.part, kind] += 2 * size * passes
        return result


Products = Iterator[tuple[Kind, int, tuple[Tensor, Tensor]]]  # multiplications of one product, and its factors


def _count_linear(given: Tensor, weight: Tensor, bias: Tensor | None = None) -> Products:
    yield "dense", given.numel() * weight.shape[0], (given, weight)


def _count_matmul(first: Tensor, second: Tensor, **_: Any) -> Products:
    columns = second.shape[-1] if second.dim() > 1 else 1
    rows = first.numel() // first.shape[-1]
    batches = math.prod(torch.broadcast_shapes(first.shape[:-2], second.shape[:-2]))
    rows = max(rows, batches * (first.shape[-2] if first.dim() > 1 else 1))
    yield ("attention" if second.dim() > 2 else "dense"), rows * first.shape[-1] * columns, (first, second)


def _count_added(added: Tensor, first: Tensor, second: Tensor, **_: Any) -> Products:
    yield from _count_matmul(first, second)


def _count_einsum(equation: str, *operands: Any) -> Products:
    first, second = operands[0] if isinstance(operands[0], list | tuple) else operands
    ours, theirs = equation.replace(" ", "").partition("->")[0].split(",")
    sizes = dict(zip(ours, first.shape, strict=True)) | dict(zip(theirs, second.shape, strict=True))
    yield "attention", math.prod(sizes.values()), (first, second)


def _count_attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Products:
    pairs = query.numel() // query.shape[-1] * key.shape[-2]
    yield "attention", pairs * query.shape[-1], (query, key)
    yield "attention", pairs * value.shape[-1], (query, value)  # what weighs the values has the queries' gradient


def _count_multi_head(
    query: Tensor, key: Tensor, value: Tensor, width: int, heads: int, weight: Tensor, *_: Any, **__: Any
) -> Products:
    """Count attention of (L, B, D) queries to (M, B, D) keys with its four projections."""
    for given in (query, key, value, query):
        yield "dense", given.numel() * width, (given, weight)
    pairs = query.shape[0] * key.shape[0] * query.shape[1]
    yield "attention", pairs * width, (weight, weight)  # queries and keys are made with the weights
    yield "attention", pairs * width, (weight, weight)  # and so are the values


_COUNTED: dict[Any, Callable[..., Products]] = {
    F.linear: _count_linear,
    torch.matmul: _count_matmul,
    Tensor.matmul: _count_matmul,
    Tensor.__matmul__: _count_matmul,
    torch.mm: _count_matmul,
    Tensor.mm: _count_matmul,
    torch.bmm: _count_matmul,
    Tensor.bmm: _count_matmul,
    torch.addmm: _count_added,
    torch.baddbmm: _count_added,
    torch.einsum: _count_einsum,
    F.scaled_dot_product_attention: _count_attention,
    F.multi_head_attention_forward: _count_multi_head,
}


def count_products(model: PretrainingModel, batch: Batch) -> Costs:
    """Return what a micro-batch costs, forward and backward, by part and kind; one forward pass."""
    counter = ProductCounter()
    with _parts_told(model, counter), counter:
        model(batch)
    return counter.costs


@contextmanager
def _parts_told(model: PretrainingModel, counter: ProductCounter) -> Iterator[None]:
    """Let the counter know which part of the model is at work: the encoder's second reading is of another view."""
    outer: list[str] = []
    readings = 0

    def enter(part: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal readings
            outer.append(counter.part)
            readings += part == "encoder"
            counter.part = "other views" if part == "encoder" and readings > 1 else part

        return hook

    def leave(*_: Any) -> None:
        counter.part = outer.pop()

    watched: list[tuple[str, nn.Module]] = [("encoder", model.encoder)]
    watched += [("heads", head) for head in model.heads.values()]
    watched += [("generators", made) for made in model.generators.values()]
    handles = []
    for part, module in watched:
        handles.append(module.register_forward_pre_hook(enter(part)))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measure_step(run: Run) -> StepCosts:
    """Return what a step of the run costs on average, from a sample of its micro-batches; nothing is learned.

    The arms of a mixture are sampled each, and count by how many of the run's examples are theirs.
    """
    train = run.train
    numbers: list[list[int]] = [[] for _ in train.arms]
    for number in range(run.max_steps * train.per_step):
        numbers[train.arm_of(number)].append(number)
    costs: dict[tuple[str, Kind], float] = defaultdict(float)
    sums: dict[str, float] = defaultdict(float)
    for mine in numbers:
        sample = [mine[place * len(mine) // SAMPLES] for place in range(SAMPLES)] if mine else []
        for number in sample:
            batch = train[number]
            weight = len(mine) / SAMPLES / run.max_steps  # micro-batches like this one in a step
            for key, flops in count_products(run.model, batch.to(run.accelerator.device)).items():
                costs[key] += weight * flops
            sums["tokens"] += weight * batch.num_tokens
            sums["positions"] += weight * sum(view.input_ids.numel() for view in batch.all_views)
            sums["targets"] += weight * sum(run.model.count_targets(batch).values())
    parts = [part for part in PARTS if any(key[0] == part for key in costs)]
    return StepCosts(
        flops={part: costs[part, "dense"] + costs[part, "attention"] for part in parts},
        attention={part: costs[part, "attention"] for part in parts},
        **sums,
    )
