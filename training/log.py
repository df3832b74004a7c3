"""What a run says while it goes: JSON lines always, a progress bar or lines for people, trackers where asked for."""

import json
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from corpora.console import format_seconds

from .folders import storage_errors
from .guard import describe_stuck

TELLING = {  # held-out figures worth a line, and what to call them
    "auroc": "AUROC",
    "average_precision": "average precision",
    "positive_rate": "positives",
    "hidden_loss": "at hidden tokens",
    "hidden_accuracy": "of them right",
    "accuracy": "accuracy",
    "majority": "majority",
}


class Log:
    """Writes rows to metrics.jsonl, shows progress on stderr, and feeds accelerate's trackers.

    Only the main process says anything.
    """

    def __init__(
        self, folder: Path, accelerator: Accelerator, chance: dict[str, dict[str, float]], max_steps: int
    ) -> None:
        self.path = folder / "metrics.jsonl"
        self.accelerator = accelerator
        self.chance = chance
        self.max_steps = max_steps
        self.bar: tqdm | None = None  # type: ignore[type-arg]
        self.told: set[str] = set()  # the losses that the run has said of that they sit at chance

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
                self.told |= row.get("stuck", {}).get("losses", {}).keys()
        temporary = self.path.with_name(f".metrics.{os.getpid()}")
        with storage_errors(self.path):
            temporary.write_text("".join(line + "\n" for line in kept))
            os.replace(temporary, self.path)

    def start(self, step: int) -> None:
        """Show where the run begins."""
        if self.accelerator.is_main_process and sys.stderr.isatty():
            self.bar = tqdm(
                total=self.max_steps,
                initial=step,
                bar_format="{percentage:3.0f}% {n_fmt}/{total_fmt}{postfix} [{elapsed}<{remaining}]",
                dynamic_ncols=True,
            )

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
        if row["split"] == "held_out":
            self.say(f"step {row['step']:,} held out\n{self.describe_held_out(row)}")
            if "stuck" in row:
                self.told |= row["stuck"]["losses"].keys()
                self.say(describe_stuck(row["stuck"], row["step"], self.max_steps, row["tokens"]))
        elif self.bar is not None:
            self.bar.set_postfix_str(self.describe_step(row))
        else:
            left = f" {format_seconds(seconds_left)} left" if seconds_left is not None else ""
            self.say(f"step {row['step']:,}/{self.max_steps:,}{left} {self.describe_step(row)}")
        if self.accelerator.trackers:
            self.accelerator.log(flatten(row), step=row["step"])

    def say(self, text: str) -> None:
        """Print to stderr, above the progress bar where there is one."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr)

    def describe_step(self, row: dict[str, Any]) -> str:
        """Return the speed and each loss, in parentheses the lowest loss of chance.

        A loss that stays there is stuck.
        """
        parts = [f"{row['tokens_per_second'] / 1000:.1f}k tok/s"]
        for name, loss in row["losses"].items():
            parts.append(f"{name} {loss:.3f} ({min(self.chance[name].values()):.2f})")
        return " ".join(parts)

    def describe_held_out(self, row: dict[str, Any]) -> str:
        """Return a line for each loss: its figures, then every level of chance."""
        lines = []
        for name, loss in row["losses"].items():
            figures = dict(row["metrics"].get(name, {}))
            if figures.get("hidden_loss") == loss:  # every token asked about was hidden
                del figures["hidden_loss"], figures["hidden_accuracy"]
            levels = ", ".join(f"{level} {value:.3f}" for level, value in self.chance[name].items())
            shown = [f"{TELLING[key]} {figures[key]:.3f}" for key in TELLING if key in figures]
            lines.append(f"  {name}: loss {loss:.3f} (chance: {levels}){''.join(', ' + each for each in shown)}")
        return "\n".join(textwrap.fill(line, 79, subsequent_indent="    ") for line in lines)

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
