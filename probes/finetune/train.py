"""The loop: rows in, gradients exact, figures out.

The loss of a step is the sum over its targets divided by their number, however the step is cut into micro-batches.

Dimensions: B rows, L positions, C classes.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from corpora.errors import TrainingError, UserError

from .recipe import Recipe, layer_factors, schedule_factor

IGNORED = -100  # the target of a position that is not asked, as in `transformers`


@dataclass(frozen=True, kw_only=True)
class Row:
    """One input of the model."""

    input_ids: list[int]
    token_types: list[int] | None
    targets: list[float]  # one for each token, IGNORED where it is not asked; or, unless `per_token`, one for the row
    per_token: bool
    example: int  # the sentence or text that it comes from
    words: tuple[int, ...] = ()  # of that sentence, those with a target here, in order

    @property
    def asked(self) -> int:
        """The number of targets."""
        return sum(target != IGNORED for target in self.targets) if self.per_token else 1


class Task(ABC):
    """What is asked of a row: how logits are judged, and what figure the answers make."""

    auto_class: str
    names: tuple[str, ...]  # of the C classes; empty for numbers
    metric: str

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        """Return the summed loss and the number of targets."""

    @abstractmethod
    def answer(self, logits: Tensor, targets: Tensor) -> list[list[float]]:
        """Return for each of the B rows the answers at its targets."""

    @abstractmethod
    def score(self, rows: Sequence[Row], answers: Sequence[Sequence[float]]) -> dict[str, float]:
        """Return the figures, `metric` first."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A line of the table."""

    step: int
    epoch: float
    training_loss: float | None  # mean over the targets since the line above; None before the first step
    loss: float
    figures: dict[str, float]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def collate(rows: Sequence[Row], pad_id: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return the model's inputs, each (B, L) with L the longest row's length, and the targets, (B, L) or (B,)."""
    length = max(len(row.input_ids) for row in rows)
    shape = (len(rows), length)
    ids, mask = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    types = np.zeros(shape, dtype=np.int64)
    per_token = rows[0].per_token
    targets = np.full(shape, IGNORED, dtype=np.int64)
    for number, row in enumerate(rows):
        size = len(row.input_ids)
        ids[number, :size], mask[number, :size] = row.input_ids, 1
        if row.token_types is not None:
            types[number, :size] = row.token_types
        if per_token:
            targets[number, :size] = row.targets
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if rows[0].token_types is not None:
        inputs["token_type_ids"] = torch.from_numpy(types)
    if per_token:
        return inputs, torch.from_numpy(targets)
    return inputs, torch.tensor([row.targets[0] for row in rows])


def order_rows(lengths: Sequence[int], batch_size: int, epoch: int, recipe: Recipe) -> Iterator[np.ndarray]:
    """Yield the numbers of the rows of each batch of an epoch: a pure function of (seed, epoch).

    By length: shuffled rows are sorted within stretches of 50 batches, and the batches shuffled.
    """
    random = np.random.default_rng([recipe.seed, epoch])
    order = random.permutation(len(lengths))
    if recipe.by_length:
        stretch = 50 * batch_size
        sizes = np.asarray(lengths)
        parts = [order[start : start + stretch] for start in range(0, len(order), stretch)]
        order = np.concatenate([part[np.argsort(sizes[part], kind="stable")] for part in parts])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if recipe.by_length:
        batches = [batches[number] for number in random.permutation(len(batches))]
    yield from batches


def make_optimizer(model: PreTrainedModel, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW with a group for each learning rate, and no weight decay for biases, norms and other vectors."""
    factors = layer_factors(model, recipe.layer_decay, electra_rates=recipe.electra_rates)
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((factors[name], parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "factor": factor, "weight_decay": recipe.weight_decay if is_matrix else 0.0}
            for (factor, is_matrix), parameters in groups.items()
        ],
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
        fused=True,
    )


def train(
    model: PreTrainedModel,
    task: Task,
    rows: Sequence[Row],
    dev: Sequence[Row],
    recipe: Recipe,
    *,
    pad_id: int,
    tell: Callable[[Evaluation], None],
) -> list[Evaluation]:
    """Train in place, and return what was measured on `dev` every `eval_every` steps and at the end of each epoch.

    `tell` gets each line as it is made. Raises TrainingError where the loss stops being finite.
    """
    lengths = [len(row.input_ids) for row in rows]
    per_epoch = math.ceil(len(rows) / recipe.batch_size)
    num_steps = per_epoch * recipe.epochs
    optimizer = make_optimizer(model, recipe)
    evaluations: list[Evaluation] = []
    started, step, total, count = time.monotonic(), 0, 0.0, 0
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), tqdm(total=num_steps, disable=None, unit="step", leave=False) as bar:
        torch.manual_seed(recipe.seed)  # of dropout
        for epoch in range(recipe.epochs):
            for chosen in order_rows(lengths, recipe.batch_size, epoch, recipe):
                factor = schedule_factor(step, num_steps, recipe.warmup_rate, electra_rates=recipe.electra_rates)
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate * group["factor"] * factor
                summed, asked = train_step(model, task, [rows[number] for number in chosen], recipe, pad_id)
                if not math.isfinite(summed):
                    raise TrainingError(
                        f"the loss is {summed} at step {step + 1}; a lower --learning_rate than "
                        f"{recipe.learning_rate:g}, or a --warmup_rate, would do"
                    )
                optimizer.step()
                step, total, count = step + 1, total + summed, count + asked
                bar.update()
                if (recipe.eval_every and step % recipe.eval_every == 0) or step % per_epoch == 0:
                    loss, figures = evaluate(model, task, dev, recipe.batch_size, pad_id)
                    evaluation = Evaluation(
                        step=step,
                        epoch=step / per_epoch,
                        training_loss=total / max(count, 1),
                        loss=loss,
                        figures=figures,
                        seconds=time.monotonic() - started,
                    )
                    evaluations.append(evaluation)
                    tell(evaluation)
                    total, count = 0.0, 0
    return evaluations


def train_step(
    model: PreTrainedModel, task: Task, rows: Sequence[Row], recipe: Recipe, pad_id: int
) -> tuple[float, int]:
    """Leave the gradient of the rows' mean loss in the model, shortened if asked; return the sum and the count."""
    model.train()
    model.zero_grad(set_to_none=True)
    asked = sum(row.asked for row in rows)
    size = recipe.micro_batch_size or len(rows)
    summed = 0.0
    for start in range(0, len(rows), size):
        inputs, targets = _move(collate(rows[start : start + size], pad_id), model.device)
        loss, _ = task.loss(model(**inputs).logits, targets)
        (loss / max(asked, 1)).backward()
        summed += float(loss.detach())
    if recipe.max_grad_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
    return summed, asked


@torch.no_grad()
def evaluate(
    model: PreTrainedModel, task: Task, rows: Sequence[Row], batch_size: int, pad_id: int
) -> tuple[float, dict[str, float]]:
    """Return the mean loss over all targets, and the task's figures."""
    model.eval()
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].input_ids))
    answers: list[list[float]] = [[] for _ in rows]
    total, count = 0.0, 0
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        inputs, targets = _move(collate([rows[number] for number in chosen], pad_id), model.device)
        logits = model(**inputs).logits
        loss, asked = task.loss(logits, targets)
        total, count = total + float(loss), count + asked
        for number, answer in zip(chosen, task.answer(logits, targets), strict=True):
            answers[number] = answer
    if not count:
        raise UserError("nothing can be scored: no word of the text is left after tokenisation")
    return total / count, task.score(rows, answers)


def _move(batch: tuple[dict[str, Tensor], Tensor], device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
    inputs, targets = batch
    return {name: tensor.to(device) for name, tensor in inputs.items()}, targets.to(device)
