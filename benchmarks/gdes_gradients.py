"""How the gradients of the generator's and of the detector's loss on the shared word table stand to each other.

    python benchmarks/gdes_gradients.py --corpus wiki.txt.gz --out results/gdes [--max_steps 600] [--every 10]

Trains rtd twice from the same start and on the same batches, with the table shared hard and by gradient-disentangled
sharing (He et al., 2023, section 3.2, https://arxiv.org/abs/2111.09543). Every few steps it takes the gradient of each
loss, with its weight in the sum, for the table as the generator and as the encoder read it, and writes their norms and
their cosine to gradients.json and gradients.svg. Hard sharing adds the two; the other keeps them in tables
of their own.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, cast

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from objectives.batch import Batch  # noqa: E402
from training.config import Config  # noqa: E402
from training.embeddings import DisentangledEmbedding  # noqa: E402
from training.loop import batches_by_step, take_step  # noqa: E402
from training.setup import Run, build_run, make_accelerator  # noqa: E402

SHARINGS = ("hard", "gdes")


def measure(run: Run, batches: list[tuple[int, Batch]]) -> dict[str, Any]:
    """Return the norms of both weighted gradients on the table (V, E), their cosine, and the losses, at one step."""
    table = cast(nn.Embedding | DisentangledEmbedding, run.model.encoder.get_input_embeddings())
    if isinstance(table, DisentangledEmbedding):
        places = {"generator": table.generator_table.weight, "detector": table.difference}
    else:
        places = {"generator": table.weight, "detector": table.weight}
    names = {"generator": "rtd_generator", "detector": "rtd"}
    counts = {name: sum(run.model.count_targets(batch)[name] for _, batch in batches) for name in names.values()}
    gradients = {part: torch.zeros_like(place) for part, place in places.items()}
    row = dict.fromkeys(names, 0.0)
    for _, batch in batches:
        losses = run.model(batch.to(run.accelerator.device))
        for part, name in names.items():
            mean = losses[name].total / max(counts[name], 1)
            row[part] += float(mean.detach())
            scaled = run.model.weights[name] * mean
            gradients[part] += torch.autograd.grad(scaled, places[part], retain_graph=True)[0]
    norms = {part: float(gradient.norm()) for part, gradient in gradients.items()}
    product = float((gradients["generator"] * gradients["detector"]).sum())
    return {
        "step": run.step,
        "generator_loss": row["generator"],
        "detector_loss": row["detector"],
        "generator_norm": norms["generator"],
        "detector_norm": norms["detector"],
        "cosine": product / max(norms["generator"] * norms["detector"], 1e-30),
    }


def train_with(sharing: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train under one way of sharing; return a row for every step that was measured."""
    config = Config(
        objective="rtd",
        corpus=options.corpus,
        cache=options.cache,
        out=str(Path(options.out) / sharing),
        encoder=options.encoder,
        generator={"masked_lm": {"sharing": sharing, "width_rate": options.width_rate}},
        vocab_size=options.vocab_size,
        max_length=options.max_length,
        batch_size=options.batch_size,
        micro_batch_size=options.batch_size,
        max_steps=options.max_steps,
        learning_rate=options.learning_rate,
        threads=options.threads,
        seed=options.seed,
        mixed_precision="no",
    )
    run = build_run(config, make_accelerator(config), Path(config.out))
    rows = []
    for batches in batches_by_step(run, 0, run.max_steps):
        if run.step % options.every == 0 or run.step == run.max_steps - 1:
            rows.append({"sharing": sharing, **measure(run, batches)})
            print(json.dumps(rows[-1]), flush=True)
        take_step(run, batches, 0)
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw norms and cosine over the steps, one column for each way of sharing."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, len(SHARINGS), sharex=True, sharey="row")
    for column, sharing in enumerate(SHARINGS):
        chosen = [row for row in rows if row["sharing"] == sharing]
        steps = [row["step"] for row in chosen]
        for part, name in (("generator", "masked LM x 1"), ("detector", "detection x 50")):
            axes[0, column].plot(steps, [row[f"{part}_norm"] for row in chosen], label=name)
        axes[0, column].set(yscale="log", title=f"sharing={sharing}")
        axes[1, column].plot(steps, [row["cosine"] for row in chosen], color="black")
        axes[1, column].axhline(0, color="grey", linewidth=0.5)
        axes[1, column].set(xlabel="step")
    axes[0, 0].set(ylabel="gradient norm on the word table")
    axes[0, 0].legend()
    axes[1, 0].set(ylabel="cosine of the two gradients")
    with matplotlib.rc_context({"svg.hashsalt": "gdes"}):  # the same bytes from the same numbers
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Train under both ways of sharing, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="builtin")
    parser.add_argument("--cache", default=None)
    parser.add_argument("--out", required=True)
    parser.add_argument("--encoder", default="tiny")
    parser.add_argument("--width_rate", type=float, default=0.25)
    parser.add_argument("--learning_rate", type=float, default=None)
    for name, default in (
        ("vocab_size", 8192),
        ("max_length", 128),
        ("batch_size", 32),
        ("max_steps", 600),
        ("every", 10),
        ("threads", 1),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for sharing in SHARINGS for row in train_with(sharing, options)]
    (folder / "gradients.json").write_text(json.dumps({"options": vars(options), "rows": rows}, indent=2) + "\n")
    draw(rows, folder / "gradients.svg")


if __name__ == "__main__":
    main()
