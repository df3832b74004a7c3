"""One process against two, and the cost model by which more are predicted.

    python -m benchmarks.scaling --corpus wiki.txt.gz [--encoder bert-tiny] [--bandwidth 100] [--json scaling.json]

The global batch is the same; each process has one thread. The model, for N devices that each have M micro-batches of a
step: M x (input + compute) + all-reduce of the gradients, where a ring moves 2 (N - 1) / N of their bytes at the link's
bandwidth (Patarasuk and Yuan, 2009, section 3). Nothing is taken to overlap, so it is an upper bound of the time.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from .children import run_child, tell
from .interleaved import Row, Series
from .runs import Stepper, make_run
from .table import Table, make_parser, run_benchmark
from .whole_process import spell

_PREDICTED = (2, 8, 64)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The terms of a step: seconds of a micro-batch, bytes of gradients, bytes a second of the link."""

    input: float
    compute: float
    gradient_bytes: float
    bandwidth: float

    def step_seconds(self, devices: int, micro_batches: int) -> float:
        """Return the seconds of a step in which each device has so many micro-batches."""
        moved = 2 * (devices - 1) / devices * self.gradient_bytes
        return micro_batches * (self.input + self.compute) + moved / self.bandwidth

    def efficiency(self, devices: int, micro_batches: int) -> float:
        """Return what share of N times the tokens a second is left, each device keeping its own micro-batches."""
        return self.step_seconds(1, micro_batches) / self.step_seconds(devices, micro_batches)


def measure(options: argparse.Namespace) -> Table:
    """Launch one process and two in turn, and compare the second with what the first predicts."""
    given = {name: value for name in ("corpus", "cache") if (value := getattr(options, name))}
    given |= {name: getattr(options, name) for name in ("rows", "max_length", "encoder", "vocab_size", "steps")}
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(options.pairs):
        for processes, sides in found.items():
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
            words = [*launch, "-m", "benchmarks.scaling", "--child", "1", *spell(given)]
            sides.append(json.loads(run_child(words, 1, {"ACCELERATE_USE_CPU": "true"}).said))
    one, two = ([each["step"] for each in found[number]] for number in (1, 2))
    middle = {name: float(np.median([each[name] for each in found[1]])) for name in ("input", "compute", "bytes")}
    reduced = float(np.median([each["all_reduce"] for each in found[2]]))
    costs = Costs(
        input=middle["input"],
        compute=middle["compute"],
        gradient_bytes=middle["bytes"],
        bandwidth=middle["bytes"] / max(reduced, 1e-9),  # of two devices, each moves the gradients once
    )
    notes = {
        "input, compute of a micro-batch": f"{costs.input * 1e3:.2f} ms, {costs.compute * 1e3:.0f} ms",
        "gradients, this link": f"{costs.gradient_bytes / 1e6:.1f} MB, {costs.bandwidth / 1e9:.2f} GB/s",
        "two processes: predicted, measured": f"{costs.step_seconds(2, 1):.3f} s, {float(np.median(two)):.3f} s",
    }
    links = {"this link": costs.bandwidth, f"{options.bandwidth} GB/s": options.bandwidth * 1e9}
    for link, bandwidth in links.items():
        there = Costs(**{**vars(costs), "bandwidth": bandwidth})
        shares = (f"{number}: {there.efficiency(number, 1):.0%}" for number in _PREDICTED)
        notes[f"predicted efficiency, {link}"] = ", ".join(shares)
    row = Row(
        what=f"step, {options.encoder}, 2 micro-batches of {options.rows} x {options.max_length}",
        theirs=Series(name="one process", values=tuple(one)),
        ours=Series(name="two processes", values=tuple(two)),
        tokens=2.0 * options.rows * options.max_length,
        notes=notes,
    )
    missing = ["more than two processes: predicted only"]
    return Table(title="one process against two", rows=[row], missing=missing)


def be_child(options: argparse.Namespace) -> None:
    """Take steps as one of the processes; the first tells its medians in seconds, and the bytes of its gradients."""
    size = {"encoder": options.encoder, "vocab_size": options.vocab_size, "max_length": options.max_length}
    run = make_run(options, **size, batch_size=2 * options.rows, micro_batch_size=options.rows, max_steps=options.steps)
    world, device = run.accelerator.num_processes, run.accelerator.device
    step, times = Stepper(run), []
    for _ in range(options.steps):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    for number in range(options.steps):
        run.train[number]
    building = (time.perf_counter() - began) / options.steps
    gradients = torch.zeros(sum(p.numel() for p in run.model.parameters() if p.requires_grad), device=device)
    waits = [0.0]
    for _ in range(options.steps if world > 1 else 0):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(gradients)
        waits.append(time.perf_counter() - began)
    typical = float(np.median(times[1:] or times))
    if run.accelerator.is_main_process:
        tell(
            step=typical,
            input=building,
            compute=typical / (2 / world) - building,
            bytes=4 * gradients.numel(),
            all_reduce=float(np.median(waits[1:] or waits)),
        )


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    numbers = {"pairs": 3, "rows": 8, "max_length": 64, "vocab_size": 8192, "steps": 6, "bandwidth": 100}
    parser = make_parser("scaling", __doc__ or "", **numbers)
    parser.add_argument("--encoder", default="bert-tiny")
    return run_benchmark(measure, parser, argv, be_child)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
