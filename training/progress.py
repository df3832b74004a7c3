"""A run's folder: opened, saved to, resumed from, finished."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from corpora.errors import CheckpointError, UserError

from .card import write_card
from .checkpoint import LOCK, load_newest, lock_run, save_checkpoint, sweep
from .config import Config
from .describe import peak_memory
from .evaluate import evaluate
from .export import export_encoder, export_run
from .folders import storage_errors
from .setup import Run, write_json

RECORD = "run.json"
SNAPSHOTS = "snapshots"


@contextmanager
def open_folder(folder: Path, config: Config, accelerator: Accelerator) -> Iterator[None]:
    """Make the run's folder or open the one to resume, and hold its lock; UserError where it holds something else.

    A new run that ends before it has noted its settings leaves nothing behind: the same command can be given again.
    """
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        yield
        return
    check_folder(folder, config)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with lock_run(folder):
        try:
            check_folder(folder, config)  # again: until we had the lock, another run may have written there
            _check_lock(folder)
            sweep(folder / "checkpoints")
            sweep(folder / SNAPSHOTS)
            accelerator.wait_for_everyone()
            yield
        finally:
            if config.resume is None and not (folder / RECORD).exists():
                _give_up(folder, made)


def check_folder(folder: Path, config: Config) -> None:
    """Raise a UserError where `folder` is not free for a new run, or holds none that can be resumed."""
    if config.resume is not None:
        if not (folder / RECORD).is_file():
            raise UserError(f"{folder} has no {RECORD}, so there is no run to resume; --out {folder} starts one")
        read_record(folder)
        return
    with storage_errors(folder):
        found = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
        if not found.is_dir():
            raise UserError(
                f"--out {folder} can't be made: {found} is a file, or a link that leads nowhere; "
                "give a folder, absent or empty"
            )
        names = sorted(os.listdir(folder)) if folder.exists() else []
    if names not in ([], [LOCK]):  # a run that was killed before its first step leaves the lock's file
        is_run = RECORD in names
        advice = (
            f"python pretrain.py --resume {shlex.quote(str(folder))} goes on with it" if is_run else "it is not a run's"
        )
        raise UserError(f"the folder {folder} is not empty ({advice}); give --out a new one")


def _check_lock(folder: Path) -> None:
    """Raise a UserError where our lock is on a file that another run, giving up, has removed since we opened it."""
    with storage_errors(folder):
        owner = (folder / LOCK).read_text().split() if (folder / LOCK).exists() else []
    if owner[:1] != [str(os.getpid())]:
        raise UserError(f"another run has just given up {folder}; start again")


def _give_up(folder: Path, made: list[Path]) -> None:
    """Remove the lock's file and the folders that were `made` for it, as long as they hold nothing else."""
    (folder / LOCK).unlink(missing_ok=True)
    for each in made:
        if not each.is_dir() or os.listdir(each):
            return
        each.rmdir()


def read_record(folder: Path) -> dict[str, Any]:
    """Return the content of run.json; CheckpointError where it can't be read, or lacks what resuming needs."""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / RECORD} can't be read: {error}") from error
    corpus = record.get("corpus") if isinstance(record, dict) else None
    if not isinstance(corpus, dict) or "fingerprint" not in corpus or type(record.get("max_steps")) is not int:
        raise CheckpointError(
            f"{folder / RECORD} lacks max_steps or the corpus's fingerprint; "
            "restore it from a copy, or start again with a new --out"
        )
    return record


def save_progress(run: Run) -> None:
    """Write a checkpoint: weights, the optimizer's state, and how far the run is. No random state: there is none."""
    if run.accelerator.is_main_process:
        names = {id(parameter): name for name, parameter in run.model.named_parameters()}
        optimizer = {
            f"{names[id(parameter)]}|{key}": torch.as_tensor(value)
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


def save_snapshot(run: Run) -> None:
    """Keep the encoder as it is now, where the run is to; before the checkpoint of its step, which may be the last."""
    if run.step not in run.config.snapshots:
        return
    if run.accelerator.is_main_process:
        folder = run.folder / SNAPSHOTS / str(run.step)
        export_encoder(folder, run.model, run.corpus.load_tokenizer(), run.objectives, vocabulary=run.corpus.vocabulary)
    run.accelerator.wait_for_everyone()


def model_tensors(run: Run) -> dict[str, Tensor]:
    """Return every weight once, shared ones under their first name."""
    buffers = {
        name: buffer
        for name, buffer in run.model.state_dict().items()
        if name not in dict(run.model.named_parameters(remove_duplicate=False))
    }
    return {name: parameter.detach() for name, parameter in run.model.named_parameters()} | buffers


def load_progress(run: Run) -> None:
    """Go on from the newest checkpoint that verifies, if the folder has any."""
    if run.config.resume is None:
        return
    record = read_record(run.folder)
    run.max_steps = record["max_steps"]
    if record["corpus"]["fingerprint"] != run.corpus.fingerprint:
        raise CheckpointError(
            f"the corpus has changed since {run.folder} was started (fingerprint "
            f"{record['corpus']['fingerprint'][:12]}, now {run.corpus.fingerprint[:12]}); "
            "a resumed run needs the same text and tokenizer"
        )
    checkpoint = load_newest(run.folder / "checkpoints")
    if checkpoint is None:
        _tell(run, f"{run.folder} has no checkpoint yet: starting at step 0")
        return
    state = checkpoint.state
    if state["corpus"] != run.corpus.fingerprint or state["max_steps"] != run.max_steps:
        raise CheckpointError(f"{checkpoint.path} belongs to another run than {run.folder / RECORD}")
    _restore_weights(run, checkpoint.tensors["model"])
    _restore_optimizer(run, checkpoint.tensors["optimizer"])
    run.step, run.tokens, run.seconds, run.window = state["step"], state["tokens"], state["seconds"], state["window"]
    _tell(run, f"resuming {run.folder} after step {run.step:,} of {run.max_steps:,}")


def _restore_weights(run: Run, saved: dict[str, Tensor]) -> None:
    held = model_tensors(run)
    if held.keys() != saved.keys() or any(held[name].shape != saved[name].shape for name in held):
        odd = sorted(held.keys() ^ saved.keys()) or [name for name in held if held[name].shape != saved[name].shape]
        raise CheckpointError(
            f"the checkpoint's weights are not this model's: {', '.join(odd[:3])}{' ...' if len(odd) > 3 else ''}"
        )
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
    run.figures = run.figures or evaluate(run)  # they are there but for a run that was finished before
    if run.accelerator.is_main_process:
        tokenizer = run.corpus.load_tokenizer()
        export_run(run.folder, run.model, tokenizer, run.objectives, vocabulary=run.corpus.vocabulary)
        rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        finished = record | {
            "steps_done": run.step,
            "tokens_seen": run.tokens,
            "seconds": run.seconds,
            "peak_memory": peak_memory(),
            "held_out": run.figures,
        }
        write_card(run.folder, finished, rows)
        write_json(run.folder / RECORD, finished)
    run.accelerator.wait_for_everyone()


def _tell(run: Run, message: str) -> None:
    if run.accelerator.is_main_process:
        print(message, file=sys.stderr)
