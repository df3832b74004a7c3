"""Where the time of a step goes: a trace of a few steps, their time by part and by operation, and the FLOPs it buys."""

import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from tqdm import tqdm

from .flops import FORMULA, count_products
from .setup import Run
from .stream import numbers_of

TRACE = "trace.json"
SKIPPED, TIMED, TRACED = 3, 10, 3  # steps: to warm up, for the clock alone, for the trace
STEP, BUILDING, BACKWARD = "step", "building batches", "backward"  # ranges that the loop marks
_OPTIMIZER = "Optimizer.step#"  # how torch marks its own
OPERATIONS = (  # the first whose words an operation's name holds is the one that it counts to
    ("matrix products", ("mm", "bmm", "linear", "matmul", "einsum")),
    ("attention kernels", ("attention",)),
    ("softmax and loss", ("softmax", "nll_loss", "cross_entropy", "binary_cross")),
    ("norms", ("norm",)),
    ("dropout", ("dropout", "bernoulli")),
    ("activations", ("gelu", "relu", "tanh", "silu", "sigmoid")),
    ("optimizer", ("adam", "optimizer")),
    ("gathering and scattering", ("index", "embedding", "gather", "scatter", "select", "slice", "cat")),
    ("copies and zeros", ("copy", "clone", "contiguous", "zero", "fill", "empty", "_to_")),
    ("sums, products, masks", ("add", "mul", "sub", "div", "sum", "where", "mask")),
)


@contextmanager
def watch_steps(run: Run) -> Iterator[Callable[[], None]]:
    """Yield what the loop calls after each step; where --profile was given, it traces and tells, else it does nothing.

    The steps are the run's own and learn what they learn without it. After the traced ones the trace is in the run's
    folder, and what it shows is printed. A run that ends before says so.
    """
    if not run.config.profile or not run.accelerator.is_main_process:
        yield _do_nothing
        return
    watch = _Watch(run)
    try:
        yield watch.step
    finally:
        watch.close()


def _do_nothing() -> None:
    pass


class _Watch:
    """Counts steps: skips some, times some, traces some."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.seconds: list[float] = []  # of the timed steps
        self.done = 0
        self._before = 0.0
        self._tracing: tuple[profile, list[Any]] | None = None

    def step(self) -> None:
        self.done += 1
        now = time.perf_counter()
        if SKIPPED < self.done <= SKIPPED + TIMED:
            self.seconds.append(now - self._before)
        if self.done == SKIPPED + TIMED:
            self._start()
        elif self.done == SKIPPED + TIMED + TRACED:
            self._finish()
        self._before = time.perf_counter()

    def close(self) -> None:
        """End a trace that was begun; say so where there is none."""
        needed = SKIPPED + TIMED + TRACED
        if self._tracing is not None:
            self._stop()
        if self.done < needed:
            print(f"no profile: it takes {needed} steps, and this was {self.done}", file=sys.stderr)

    def _start(self) -> None:
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        profiler = profile(activities=activities)
        hooks = [hook for name, module in _name_parts(self.run) for hook in _mark(module, name)]
        self._tracing = (profiler, hooks)
        profiler.start()

    def _stop(self) -> profile:
        assert self._tracing is not None
        profiler, hooks = self._tracing
        self._tracing = None
        profiler.stop()
        for hook in hooks:
            hook.remove()
        return profiler

    def _finish(self) -> None:
        profiler = self._stop()
        profiler.export_chrome_trace(str(self.run.folder / TRACE))
        times = read_times(profiler)
        text = format_profile(self.run, times, statistics.median(self.seconds))
        tqdm.write(text, file=sys.stderr)


def _name_parts(run: Run) -> list[tuple[str, nn.Module]]:
    model = run.model
    parts: list[tuple[str, nn.Module]] = [("forward: encoder", model.encoder)]
    parts += [("forward: heads", head) for head in model.heads.values()]
    return parts + [("forward: generators", made) for made in model.generators.values()]


def _mark(module: nn.Module, name: str) -> list[Any]:
    """Mark the module's forward passes in the trace; return the hooks to take away again."""
    open_ranges: list[Any] = []

    def enter(*_: Any) -> None:
        open_ranges.append(record_function(name))
        open_ranges[-1].__enter__()

    def leave(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def read_times(profiler: profile) -> tuple[dict[str, float], dict[str, float]]:
    """Return seconds of a traced step by part of the model, then by kind of operation (their own, not their calls').

    On a GPU these are the seconds of its kernels.
    """
    on_gpu = torch.cuda.is_available()
    parts: dict[str, float] = {}
    operations: dict[str, float] = {}
    for event in profiler.key_averages():
        total = event.device_time_total if on_gpu else event.cpu_time_total
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        name = "optimizer" if event.key.startswith(_OPTIMIZER) else event.key
        if name in (STEP, BUILDING, BACKWARD, "optimizer") or name.startswith("forward: "):
            parts[name] = parts.get(name, 0.0) + total / 1e6 / TRACED
        elif not name.startswith("ProfilerStep"):
            kind = kind_of(name)
            operations[kind] = operations.get(kind, 0.0) + own / 1e6 / TRACED
    parts["the rest of the step"] = max(parts.pop(STEP, 0.0) - sum(parts.values()) + parts.get(BUILDING, 0.0), 0.0)
    return parts, operations


def kind_of(operation: str) -> str:
    """Return which kind of operation a profiler's name is: aten::addmm is a matrix product."""
    name = operation.lower().rpartition("::")[2]
    return next((kind for kind, words in OPERATIONS if any(word in name for word in words)), "the rest")


def format_profile(run: Run, times: tuple[Mapping[str, float], Mapping[str, float]], seconds: float) -> str:
    """Return what is printed: the times, and the utilisation with its formula, at 80 columns."""
    lines = [f"a step takes {seconds * 1e3:,.1f} ms; where it goes (traced, which makes it slower):"]
    for each in times:
        total = sum(each.values())
        lines += [
            f"  {name:<28}{value * 1e3:>12,.2f} ms{value / max(total, 1e-12):>8.1%}"
            for name, value in sorted(each.items(), key=lambda item: -item[1])
        ] + [""]
    flops, used = count_step(run)
    dtype = torch.bfloat16 if run.accelerator.mixed_precision == "bf16" else torch.float32
    peak, size = measure_peak(run.accelerator.device, dtype)
    share = flops / seconds / peak
    lines += [
        f"model FLOPs utilisation = F / (t x P) = {share:.1%}",
        f"tokens stand at {used:.1%} of the places of the rows",
        f"  F = {flops:.4g} FLOPs, t = {seconds:.4g} s",
        f"  P = {peak:.4g} FLOP/s, the fastest {size} x {size} product in {str(dtype)[6:]} just now",
        *textwrap.wrap(FORMULA, 80, initial_indent="  ", subsequent_indent="  "),
        f"trace: {run.folder / TRACE} (open it in ui.perfetto.dev)",
    ]
    return "\n".join(lines)


def count_step(run: Run) -> tuple[float, float]:
    """Return the FLOPs of this process's share of the last step, and what share of its positions hold a token."""
    accelerator = run.accelerator
    rank, world = accelerator.process_index, accelerator.num_processes
    flops, tokens, positions = 0.0, 0, 0
    for number in numbers_of(rank, world, run.train.per_step, run.step - 1, run.step):
        batch = run.train[number].to(accelerator.device)
        flops += sum(count_products(run.model, batch).values())
        tokens += batch.num_tokens
        positions += sum(view.input_ids.numel() for view in batch.all_views)
    return flops, tokens / max(positions, 1)


def measure_peak(device: torch.device, dtype: torch.dtype) -> tuple[float, int]:
    """Return the highest rate of a square matrix product here and now, in FLOP/s, and its size."""
    best, best_size = 0.0, 0
    chance = torch.Generator(device).manual_seed(0)  # the run's own is left as it is
    for size in (4096, 8192) if device.type == "cuda" else (512, 1024, 2048):
        first = torch.randn(size, size, device=device, dtype=dtype, generator=chance)
        for _ in range(4):
            _wait(device)
            began = time.perf_counter()
            first @ first
            _wait(device)
            rate = 2 * size**3 / (time.perf_counter() - began)
            if rate > best:
                best, best_size = rate, size
    return best, best_size


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
