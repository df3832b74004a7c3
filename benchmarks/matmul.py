"""Float32 matrix products through oneDNN's bfloat16 route against the default one, and what either gets wrong.

    python -m benchmarks.matmul [--size 2048] [--json matmul.json]

`torch.backends.mkldnn.matmul.fp32_precision = "bf16"` sends float32 products to oneDNN: up to twice as fast where the
default library leaves a processor's widest instructions unused. It may compute in bfloat16 there, so look at the error.
"""

import argparse
import sys
from collections.abc import Callable

import torch

from .interleaved import Row, take_turns
from .table import Table, make_parser, run_benchmark


def measure(options: argparse.Namespace) -> Table:
    """Measure a product of two square matrices."""
    torch.manual_seed(0)
    first, second = torch.randn(2, options.size, options.size)
    exact = first.double() @ second.double()
    route = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # made when torch is loaded
    before = route.fp32_precision
    products: dict[str, torch.Tensor] = {}

    def multiply(precision: str) -> Callable[[], None]:
        def call() -> None:
            route.fp32_precision = precision
            products[precision] = first @ second

        return call

    try:
        default, onednn = take_turns(
            {"default": multiply("none"), "oneDNN": multiply("bf16")}, pairs=options.pairs, warm_up=options.warm_up
        )
    finally:
        route.fp32_precision = before
    errors = {name: float((product - exact).norm() / exact.norm()) for name, product in products.items()}
    rate = 2 * options.size**3 / 1e9
    notes = {
        "GFLOP/s, default and oneDNN": f"{rate / default.median:.0f}, {rate / onednn.median:.0f}",
        "relative error, default and oneDNN": f"{errors['none']:.1e}, {errors['bf16']:.1e}",
    }
    row = Row(what=f"float32 product, {options.size} x {options.size}", theirs=default, ours=onednn, notes=notes)
    return Table(title=f"oneDNN's route for float32 ({torch.backends.cpu.get_cpu_capability()})", rows=[row])


def main(argv: list[str]) -> int:
    """Run the benchmark of a command line."""
    return run_benchmark(measure, make_parser("matmul", __doc__ or "", size=2048), argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
