"""The main job: from a configuration to a trained, exported encoder."""

import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from corpora.errors import TrainingError, UserError
from objectives.batch import Batch
from objectives.draws import hash_fields
from objectives.loops import compiled_loops, use_compiled

from .closing import closing_words
from .config import Config
from .describe import describe_run
from .evaluate import evaluate
from .guard import find_stuck
from .log import Log
from .profile import BACKWARD, BUILDING, STEP, watch_steps
from .progress import finish_run, load_progress, open_folder, save_progress, save_snapshot
from .schedule import learning_rate_at
from .setup import Run, build_run, make_accelerator, write_json
from .stream import numbers_of

_CALIBRATION_STEPS = 12


class Stopped(UserError):
    """A signal asked the run to stop, and it has saved what it has."""


def pretrain(config: Config) -> Path:
    """Train as configured, or go on where a run was stopped; return the folder with the exported encoder."""
    accelerator = make_accelerator(config)
    folder = Path(config.resume or config.out)
    with open_folder(folder, config, accelerator):
        run = build_run(config, accelerator, folder)
        load_progress(run)
        if config.max_minutes is not None and config.resume is None:
            run.max_steps = run.train.max_steps = calibrate(run, config.max_minutes)
        elif accelerator.num_processes > 1:
            warm_up(run)
        record = describe_run(run)
        if accelerator.is_main_process:
            write_json(folder / "run.json", record)
        log = Log(folder, accelerator, run.chance, run.max_steps)
        log.rewind(run.step)
        if config.trackers:
            accelerator.init_trackers("pretext", {key: str(value) for key, value in config.as_dict().items()})
        try:
            train(run, log)
        finally:
            log.close()
        finish_run(run, record)
        if accelerator.is_main_process:
            print(closing_words(run), file=sys.stderr)
        # Not accelerator.end_training(): it takes the process group from under the model, whose end may then wait for a
        # thread that waits for it.
        for tracker in accelerator.trackers:
            tracker.finish()
    return folder


def train(run: Run, log: Log) -> None:
    """Take the steps that are left, with evaluations, log lines and checkpoints on the way."""
    config, last = run.config, run.max_steps
    signals = Signals()
    log.start(run.step)
    started, first_step = time.monotonic(), run.step
    save_snapshot(run)
    with signals, watch_steps(run) as watch_step:
        for batches in batches_by_step(run, run.step, last):
            before = time.monotonic()
            with record_function(STEP):
                row = take_step(run, batches, signals.received)
            run.seconds += time.monotonic() - before
            watch_step()
            log.advance()
            if run.step == 1 or run.step % config.log_every == 0 or run.step == last:
                left = (time.monotonic() - started) / (run.step - first_step) * (last - run.step)
                log.write(read_window(run, row), left)
            if run.step % config.eval_every == 0 or run.step == last:
                report(run, log)
            save_snapshot(run)
            stop = int(row["signal"])
            if run.step % config.save_every == 0 or run.step == last or stop:
                save_progress(run)
            if stop and run.step < last:
                error = Stopped(
                    f"stopped by {signal.Signals(stop).name} after step {run.step:,} of {last:,}, which is saved; "
                    f"go on with: python pretrain.py --resume {run.folder}"
                )
                error.exit_code = 128 + stop
                raise error


def report(run: Run, log: Log) -> None:
    """Evaluate on the held-out text and log it."""
    run.figures = evaluate(run)
    if run.figures:
        losses = {name: each["loss"] for name, each in run.figures.items()}
        metrics = {name: {k: v for k, v in each.items() if k != "loss"} for name, each in run.figures.items()}
        row = {"step": run.step, "tokens": run.tokens, "split": "held_out", "losses": losses, "metrics": metrics}
        stuck = find_stuck(run, log.told)
        log.write(row | {"stuck": stuck} if stuck else row)


def take_step(run: Run, batches: list[tuple[int, Batch]], received: int) -> dict[str, Any]:
    """Take one optimizer step over this process's share of the micro-batches; return its figures."""
    names = list(run.model.weights)
    local = [[*run.model.count_targets(batch).values(), batch.num_tokens] for _, batch in batches]
    *counts, tokens, stop = reduce_sums(run, [*map(float, map(sum, zip(*local, strict=True))), float(received)])
    rate = learning_rate_at(
        run.step,
        peak=run.peak,
        schedule=run.config.schedule,
        warmup_rate=run.config.warmup_rate,
        decay_rate=run.config.decay_rate,
        max_steps=run.max_steps,
    )
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]
    run.model.begin_step()
    totals = reduce_sums(run, accumulate(run, batches, dict(zip(names, counts, strict=True))))
    norm = clip_gradients(run)
    check_finite(run, dict(zip(names, totals, strict=True)), norm, [number for number, _ in batches])
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.step += 1
    run.model.finish_step(run.step / run.max_steps, lambda tensor: run.accelerator.reduce(tensor, reduction="sum"))
    run.tokens += int(tokens)
    for name, total, count in zip(names, totals, counts, strict=True):
        window = run.window.setdefault(name, [0.0, 0.0])
        window[0] += total
        window[1] += count
    number = (received or int(signal.SIGTERM)) if stop else 0  # another process may have got the signal
    return {"learning_rate": rate, "gradient_norm": norm, "signal": number}


def accumulate(run: Run, batches: list[tuple[int, Batch]], counts: dict[str, float]) -> list[float]:
    """Add up the gradients of this process's micro-batches; return the sum of each loss over them.

    Each loss is its sum divided by `counts`, the number of its targets in the whole step, over all micro-batches and
    processes: how a step is cut up changes nothing. In a mixture it also has the weight of its arm's share of the step.
    Data-parallel training averages over processes, hence the factor.
    """
    accelerator = run.accelerator
    shares = run.train.shares_at(run.step)
    weights = {name: weight * shares[run.model.owners[name]] for name, weight in run.model.weights.items()}
    sums = torch.zeros(len(weights), dtype=torch.float64, device=accelerator.device)
    for place, (number, batch) in enumerate(batches):
        torch.manual_seed(hash_fields(run.config.seed, "dropout", number) & 0xFFFFFFFF)
        is_last = place == len(batches) - 1
        with nullcontext() if is_last else accelerator.no_sync(run.wrapped):
            losses = run.wrapped(batch.to(accelerator.device))
            parts = [weights[name] * loss.total / max(counts[name], 1) for name, loss in losses.items()]
            with record_function(BACKWARD):
                accelerator.backward(torch.stack(parts).sum() * accelerator.num_processes)
        for place, name in enumerate(weights):
            if name in losses:
                sums[place] += losses[name].total.detach().double()
    return sums.tolist()


def clip_gradients(run: Run) -> float:
    """Scale gradients down to the largest norm that is allowed; return the norm that they had.

    A generator that is optimised apart from the encoder is clipped apart from it too.
    """
    norms = []
    for apart in (False, True):
        parameters = [p for group in run.optimizer.param_groups if group["apart"] == apart for p in group["params"]]
        if parameters:
            norms.append(torch.nn.utils.clip_grad_norm_(parameters, run.config.max_grad_norm))
    return float(torch.stack(norms).norm())


def reduce_sums(run: Run, values: list[float]) -> list[float]:
    """Add numbers up over all processes."""
    if run.accelerator.num_processes == 1:
        return values
    return run.accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=run.accelerator.device)).tolist()


def check_finite(run: Run, totals: dict[str, float], norm: float, numbers: list[int]) -> None:
    """Raise a TrainingError, before the weights are touched, where a loss or the gradient is not finite."""
    bad = [name for name, total in totals.items() if not math.isfinite(total)]
    if not bad and math.isfinite(norm):
        return
    examples = [int(example) for number in numbers for example in run.train.examples_of(number)]
    what = f"the loss of {', '.join(bad)}" if bad else "the gradient"
    raise TrainingError(
        f"{what} is not finite at step {run.step + 1:,} (examples {examples[0]:,} to {examples[-1]:,} of the stream "
        f"on this process); the weights are those of step {run.step:,}. "
        f"Try a --learning_rate below {run.peak:g} or --mixed_precision no"
    )


def batches_by_step(run: Run, first: int, last: int) -> Iterator[list[tuple[int, Batch]]]:
    """Yield for each step this process's micro-batches with their numbers."""
    rank, world, per_step = run.accelerator.process_index, run.accelerator.num_processes, run.train.per_step
    numbers = list(numbers_of(rank, world, per_step, first, last)) if run.config.workers else None
    if numbers is None:
        for step in range(first, last):
            with record_function(BUILDING):
                batches = [(number, run.train[number]) for number in numbers_of(rank, world, per_step, step, step + 1)]
            yield batches
        return
    loader = torch.utils.data.DataLoader(
        run.train,
        batch_size=None,
        sampler=numbers,
        num_workers=run.config.workers,
        worker_init_fn=partial(_start_worker, compiled_loops() is not None),
    )
    built = zip(numbers, loader, strict=True)
    for step in range(first, last):
        yield [_take_built(built) for _ in numbers_of(rank, world, per_step, step, step + 1)]


def _start_worker(compiled: bool, _: int) -> None:
    """In a worker: build by the loops of the main process, and leave Ctrl-C and `kill` of the whole group to it.

    It needs the batches to end the step.
    """
    os.setpgrp()
    use_compiled(compiled)


def _take_built(built: Iterator[tuple[int, Batch]]) -> tuple[int, Batch]:
    """Return the next batch of the workers; before what a user can mend torch puts a traceback, which is left out."""
    try:
        return next(built)
    except UserError as error:
        raise type(error)(str(error).rpartition(f"{type(error).__name__}: ")[2].strip()) from error


def calibrate(run: Run, minutes: float) -> int:
    """Return how many steps fit into `minutes`, from the time of a few that leave no trace."""
    times = []
    for batches in batches_by_step(run, 0, _CALIBRATION_STEPS):
        before = time.monotonic()
        _pass_through(run, batches)
        times.append(time.monotonic() - before)
    steps = max(1, int(minutes * 60 / statistics.median(times[2:])))
    return int(reduce_sums(run, [steps / run.accelerator.num_processes])[0])


def warm_up(run: Run) -> None:
    """Go forward and back once without learning.

    Data-parallel training orders its sums anew after the first pass of a process's life.
    """
    for batches in batches_by_step(run, run.step, run.step + 1):
        _pass_through(run, batches)


def _pass_through(run: Run, batches: list[tuple[int, Batch]]) -> None:
    for number, batch in batches:
        torch.manual_seed(number)
        losses = run.wrapped(batch.to(run.accelerator.device))
        total: Tensor = sum((loss.total for loss in losses.values()), torch.zeros((), device=run.accelerator.device))
        run.accelerator.backward(total)
    run.optimizer.zero_grad(set_to_none=True)


def read_window(run: Run, row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the log for the steps since the last one, and begin anew."""
    losses = {name: total / max(count, 1) for name, (total, count) in run.window.items()}
    run.window.clear()
    return {
        "step": run.step,
        "tokens": run.tokens,
        "split": "train",
        "losses": losses,
        "learning_rate": row["learning_rate"],
        "gradient_norm": row["gradient_norm"],
        "tokens_per_second": run.tokens / max(run.seconds, 1e-9),
    }


class Signals:
    """Remembers SIGTERM and SIGINT while training, so that a step is finished and saved first.

    A second one ends at once.
    """

    def __init__(self) -> None:
        self.received = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        for number in (signal.SIGTERM, signal.SIGINT):
            self.before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: object) -> None:
        if self.received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = number
        print("\nstopping after this step; once more to stop at once", file=sys.stderr)
