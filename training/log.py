"""What a run says while it goes: JSON lines always, a progress bar or lines for people, trackers where asked for."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from .folders import storage_errors


class Log:
    """Writes rows to metrics.jsonl, shows progress on stderr, and feeds accelerate's trackers. Only the main process says anything."""

    def __init__(self, folder: Path, accelerator: Accelerator, chance: dict[str, dict[str, float]], max_steps: int) -> None:
        self.path = folder / "metrics.jsonl"
        self.accelerator = accelerator
        self.chance = chance
        self.max_steps = max_steps
        self.bar: tqdm | None = None  # type: ignore[type-arg]

    def rewind(self, step: int) -> None:
        """Drop the rows after `step`, and a line that a kill has torn, so that a resumed run writes each step once."""
        if not self.accelerator.is_main_process or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if row["step"] <= step:
                kept.append(line)
        temporary = self.path.with_name(f".metrics.{os.getpid()}")
        with storage_errors(self.path):
            temporary.write_text("".join(line + "\n" for line in kept))
            os.replace(temporary, self.path)

    def start(self, step: int) -> None:
        """Show where the run begins."""
        if self.accelerator.is_main_process and sys.stderr.isatty():
            self.bar = tqdm(total=self.max_steps, initial=step, bar_format="{percentage:3.0f}% {n_fmt}/{total_fmt}{postfix} [{elapsed}<{remaining}]", dynamic_ncols=True)

    def advance(self) -> None:
        """Count one step."""
        if self.bar is not None:
            self.bar.update()

    def write(self, row: dict[str, Any], seconds_left: float | None = None) -> None:
        """Append one row of figures; `losses` and `metrics` of it are by loss name."""
        if not self.accelerator.is_main_process:
            return
        with storage_errors(self.path), self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        line = self.describe(row)
        if self.bar is not None and row["split"] == "train":
            self.bar.set_postfix_str(line)
        elif self.bar is not None:
            self.bar.write(f"step {row['step']:,} held out: {line}", file=sys.stderr)
        else:
            left = f", {format_seconds(seconds_left)} left" if seconds_left is not None else ""
            kind = "held out: " if row["split"] == "held_out" else ""
            print(f"step {row['step']:,}/{self.max_steps:,}{left} {kind}{line}", file=sys.stderr)
        if self.accelerator.trackers:
            self.accelerator.log(flatten(row), step=row["step"])

    def describe(self, row: dict[str, Any]) -> str:
        """Return each loss beside its chance levels, and the figure that tells most about it."""
        parts = []
        for name, loss in row["losses"].items():
            figures = row.get("metrics", {}).get(name, {})
            loss = figures.get("hidden_loss", loss)
            levels = " ".join(f"{level} {value:.2f}" for level, value in self.chance.get(name, {}).items())
            telling = next((f"{key} {figures[key]:.3f} " for key in ("auroc", "hidden_accuracy", "accuracy") if key in figures), "")
            parts.append(f"{name} {loss:.3f} {telling}({levels})")
        if "tokens_per_second" in row:
            parts.insert(0, f"{row['tokens_per_second'] / 1000:.1f}k tok/s")
        return " ".join(parts)

    def close(self) -> None:
        """Take the progress bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def flatten(row: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a row under the names that trackers like: train/mlm/loss, held_out/rtd/auroc."""
    split = row["split"]
    flat = {f"{split}/{name}/loss": loss for name, loss in row["losses"].items()}
    for name, figures in row.get("metrics", {}).items():
        flat |= {f"{split}/{name}/{key}": value for key, value in figures.items()}
    flat |= {key: row[key] for key in ("learning_rate", "gradient_norm", "tokens_per_second", "tokens") if key in row}
    return flat


def format_seconds(seconds: float) -> str:
    """Return 4:05, or 1:02:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
