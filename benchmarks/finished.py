"""What the pictures of finished runs share: their command line, what they read, and how they are written."""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from corpora.errors import UserError


def read_options(name: str, description: str, argv: list[str]) -> argparse.Namespace:
    """Read folders of runs, and where the picture goes."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders that pretrain.py wrote")
    parser.add_argument("--out", type=Path, default=Path(f"{name}.svg"), metavar="FILE")
    return parser.parse_args(argv)


def read_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a run's record and the rows of its evaluations; UserError where there are none."""
    try:
        record = json.loads((folder / "run.json").read_text("utf-8"))
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is no run of pretrain.py ({error})") from error
    held_out = [row for row in rows if row["split"] == "held_out"]
    if not held_out:
        raise UserError(f"{folder} has not been evaluated yet; let the run go on to its end")
    return record, held_out


def write_picture(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, the same bytes from the same numbers, and say where."""
    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})
    print(f"picture: {path}")
