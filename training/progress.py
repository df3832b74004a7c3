"""A run's folder: opened, saved to, resumed from, finished."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from corpora.errors import CheckpointError, UserError

from .card import write_card
from .checkpoint import load_newest, lock_run, save_checkpoint, sweep
from .config import Config
from .evaluate import evaluate
from .export import export_run
from .setup import Run, write_json


@contextmanager
def open_folder(folder: Path, config: Config, accelerator: Accelerator) -> Iterator[None]:
    """Make the run's folder or open the one to resume, and hold its lock; UserError where it holds something else."""
    if accelerator.is_main_process:
        if config.resume is None:
            if folder.exists() and any(folder.iterdir()):
                advice = f"python pretrain.py --resume {folder} goes on with it" if (folder / "run.json").exists() else "it is not a run's"
                raise UserError(f"the folder {folder} is not empty ({advice}); give --out a new one")
            folder.mkdir(parents=True, exist_ok=True)
        elif not (folder / "run.json").is_file():
            raise UserError(f"{folder} has no run.json, so there is no run to resume; --out {folder} starts one")
    with lock_run(folder) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            sweep(folder / "checkpoints")
        accelerator.wait_for_everyone()
        yield


def read_record(folder: Path) -> dict[str, Any]:
    """Return the content of run.json; CheckpointError where it can't be read."""
    try:
        return json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / 'run.json'} can't be read: {error}") from error


def save_progress(run: Run) -> None:
    """Write a checkpoint: weights, the optimizer's state, and how far the run is. No random state: there is none."""
    if run.accelerator.is_main_process:
        names = {id(parameter): name for name, parameter in run.model.named_parameters()}
        optimizer = {
            f"{names[id(parameter)]}|{key}": value
            for parameter, state in run.optimizer.state.items()
            for key, value in state.items()
        }
        state = {
            "step": run.step,
            "tokens": run.tokens,
            "seconds": run.seconds,
            "window": run.window,
            "max_steps": run.max_steps,
            "corpus": run.corpus.fingerprint,
        }
        tensors = {"model": model_tensors(run), "optimizer": optimizer}
        save_checkpoint(run.folder / "checkpoints", run.step, tensors, state, keep=run.config.keep)
    run.accelerator.wait_for_everyone()


def model_tensors(run: Run) -> dict[str, Tensor]:
    """Return every weight once, shared ones under their first name."""
    buffers = {name: buffer for name, buffer in run.model.state_dict().items() if name not in dict(run.model.named_parameters(remove_duplicate=False))}
    return {name: parameter.detach() for name, parameter in run.model.named_parameters()} | buffers


def load_progress(run: Run) -> None:
    """Go on from the newest checkpoint that verifies, if the folder has any."""
    if run.config.resume is None:
        return
    record = read_record(run.folder)
    run.max_steps = record["max_steps"]
    if record["corpus"]["fingerprint"] != run.corpus.fingerprint:
        raise CheckpointError(f"the corpus has changed since {run.folder} was started (fingerprint {record['corpus']['fingerprint'][:12]}, now {run.corpus.fingerprint[:12]}); a resumed run needs the same text and tokenizer")
    checkpoint = load_newest(run.folder / "checkpoints")
    if checkpoint is None:
        _tell(run, f"{run.folder} has no checkpoint yet: starting at step 0")
        return
    state = checkpoint.state
    if state["corpus"] != run.corpus.fingerprint or state["max_steps"] != run.max_steps:
        raise CheckpointError(f"{checkpoint.path} belongs to another run than {run.folder / 'run.json'}")
    _restore_weights(run, checkpoint.tensors["model"])
    _restore_optimizer(run, checkpoint.tensors["optimizer"])
    run.step, run.tokens, run.seconds, run.window = state["step"], state["tokens"], state["seconds"], state["window"]
    _tell(run, f"resuming {run.folder} after step {run.step:,} of {run.max_steps:,}")


def _restore_weights(run: Run, saved: dict[str, Tensor]) -> None:
    held = model_tensors(run)
    if held.keys() != saved.keys() or any(held[name].shape != saved[name].shape for name in held):
        odd = sorted(held.keys() ^ saved.keys()) or [name for name in held if held[name].shape != saved[name].shape]
        raise CheckpointError(f"the checkpoint's weights are not this model's: {', '.join(odd[:3])}{' ...' if len(odd) > 3 else ''}")
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(saved[name])


def _restore_optimizer(run: Run, saved: dict[str, Tensor]) -> None:
    parameters = dict(run.model.named_parameters())
    for entry, value in saved.items():
        name, _, key = entry.rpartition("|")
        device = "cpu" if key == "step" and not torch.cuda.is_available() else parameters[name].device
        run.optimizer.state[parameters[name]][key] = value.to(device)


def finish_run(run: Run, record: dict[str, Any]) -> None:
    """Export the encoder with its heads and write the model card."""
    figures = evaluate(run)
    if run.accelerator.is_main_process:
        tokenizer = run.corpus.load_tokenizer()
        export_run(run.folder, run.model, tokenizer, run.objectives, vocabulary=run.corpus.vocabulary)
        rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        finished = record | {"steps_done": run.step, "tokens_seen": run.tokens, "seconds": run.seconds, "held_out": figures}
        write_card(run.folder, finished, rows)
        write_json(run.folder / "run.json", finished)
    run.accelerator.wait_for_everyone()


def _tell(run: Run, message: str) -> None:
    if run.accelerator.is_main_process:
        print(message, file=sys.stderr)
