"""What a study would run, as a table: steps, tokens, FLOPs, time, disk."""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from corpora.console import format_seconds
from probes.report import WIDTH

from .plan import Plan, estimate_bytes, estimate_seconds
from .study import Study


def print_plan(study: Study, plan: Plan, root: Path, places: int) -> None:
    """Print the table to standard output, the formula of its FLOPs below it."""
    from training.flops import FORMULA

    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    table = Table(title=study.title, title_justify="left", box=None, pad_edge=False)
    table.add_column("arm")
    for title in ("steps", "tokens", "FLOPs", "a step", "time of a run", "snapshots"):
        table.add_column(title, justify="right")
    for arm in plan.arms:
        time = "" if arm.rates.seconds is None else format_seconds(arm.steps * arm.rates.seconds)
        table.add_row(
            arm.name,
            f"{arm.steps:,}",
            f"{arm.steps * arm.rates.tokens:,.0f}",
            f"{arm.total_flops:.4g}",
            f"{arm.rates.flops:.3g}",
            time,
            ", ".join(map(str, arm.snapshots)) or "none",
        )
    console.print(table)
    others = [arm.name for arm in study.arms if arm.kind != "trained"]
    runs = len(plan.arms) * len(study.seeds)
    console.print(f"\n{runs} runs ({len(plan.arms)} arms x {len(study.seeds)} seeds), {places} at once, into {root}")
    if others:
        console.print(f"probed beside them, without training: {', '.join(others)}")
    console.print(f"equal {study.fairness}; FLOPs of the arms are {plan.spread:.2%} apart; budget {study.budget}")
    seconds = estimate_seconds(plan, study.seeds, places)
    if seconds is not None:
        console.print(f"about {format_seconds(seconds)} of training, and then the probes")
    console.print(f"about {estimate_bytes(plan, study.seeds) / 1e6:,.0f} MB of disk")
    console.print(f"text: {plan.corpus.name}, {plan.corpus.documents:,} documents, {plan.corpus.tokens:,} tokens")
    console.print(f"\n{FORMULA}")
    for arm in plan.arms:
        console.print(f"{arm.name}:")
        for line in arm.formula:
            console.print(f"  {line}")
