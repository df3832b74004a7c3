"""`pretrain.py --diagnose`: looks at a run before it is trained, or where it stands, and trains nothing."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from corpora.errors import UserError
from generators.base import Proposed
from generators.network import word_table
from objectives.batch import Batch, DeviceProposal

from .causes import learned_positions
from .config import Config
from .gradients import gradients_by_loss, norm_of
from .model import generator_loss_name
from .progress import load_progress
from .setup import Run, build_run, make_accelerator
from .watching import ModelWatch, find_blocks, measure_blocks, watching

BATCHES = 2  # micro-batches of each arm that are looked at
SEARCHED = 32  # times as many are searched for those of rare arms


@dataclass(frozen=True, kw_only=True)
class BlockStart:
    """One block of the encoder, over the tokens of a micro-batch; not a number where its parts were not found."""

    entropy: float  # of attention, over ln of the number of visible tokens: 1 looks at all alike
    attention: float  # norm of what attention adds, over that of what the block reads
    feed_forward: float  # the same of the feed-forward part


@dataclass(frozen=True, kw_only=True)
class LossStart:
    """One loss as it begins."""

    loss: float  # nats a target
    chance: dict[str, float]
    logits: float  # the spread of a question's logits: standard deviation; of yes or no, the root mean square
    gradients: dict[str, float]  # norm by part of the model, of the loss with its weight in the sum


@dataclass(frozen=True, kw_only=True)
class GeneratorStart:
    """One generator: how much of what it fills in is new."""

    filled: float  # share of the row's tokens
    replaced: float  # share of those that is expected to change: 1 - the mean probability of the original
    learns: str | None = None  # the name of its own loss
    shares_table: bool = False  # its loss and the objective's reach the same word table


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was measured of a run."""

    encoder: str
    step: int
    width: int  # D
    init_range: float
    table: float  # root mean square of the word table's entries
    positions: float | None  # the same of learned absolute positions, where there are such
    stream: float  # the same of what the first block reads
    blocks: tuple[BlockStart, ...]
    losses: dict[str, LossStart]
    generators: dict[str, GeneratorStart]


def diagnose(config: Config) -> Diagnosis:
    """Build the run that is asked for, or load the one that is resumed, and look at it; nothing is written.

    In float32, and with attention whose weights can be seen. UserError where several processes were started.
    """
    config = replace(config, mixed_precision="no", attention="eager")
    accelerator = make_accelerator(config)
    if accelerator.num_processes > 1:
        raise UserError("--diagnose looks at the model of one process; start it without torchrun")
    run = build_run(config, accelerator, Path(config.resume or config.out))
    load_progress(run)
    return look_at(run)


def look_at(run: Run) -> Diagnosis:
    """Measure a run over its first micro-batches; its weights and gradients stay as they are."""
    model, encoder = run.model, run.model.encoder
    batches = [batch.to(run.accelerator.device) for batch in first_batches(run)]
    parameters = dict(model.named_parameters())
    model.eval()
    blocks, stream = measure_blocks(encoder, batches[0].main)
    with watching(model) as watch:
        gradients = gradients_by_loss(run, batches, list(parameters.values()))
    model.train()
    positions = [_scale(parameters[f"encoder.{name}.weight"]) for name in learned_positions(encoder)]
    return Diagnosis(
        encoder=run.config.encoder,
        step=run.step,
        width=encoder.config.hidden_size,
        init_range=encoder.config.initializer_range,
        table=_scale(word_table(encoder)),
        positions=positions[0] if positions else None,
        stream=stream,
        blocks=tuple(BlockStart(entropy=e, attention=a, feed_forward=f) for e, a, f in blocks),
        losses=_look_at_losses(run, watch, dict(parameters), gradients),
        generators={
            name: replace(_look_at_proposals(each, batches), **_look_at_table(run, name, list(parameters), gradients))
            for name, each in watch.proposed.items()
        },
    )


def first_batches(run: Run) -> list[Batch]:
    """Return the first BATCHES micro-batches of each arm that the run begins with."""
    numbers: dict[int, list[int]] = {}
    for number in range(BATCHES * SEARCHED):
        chosen = numbers.setdefault(run.train.arm_of(number), [])
        if len(chosen) < BATCHES:
            chosen.append(number)
    return [run.train[number] for arm in sorted(numbers) for number in numbers[arm]]


def _scale(tensor: Tensor) -> float:
    return float(tensor.detach().float().square().mean().sqrt())


def _look_at_losses(
    run: Run, watch: ModelWatch, parameters: dict[str, Tensor], gradients: dict[str, list[Tensor | None]]
) -> dict[str, LossStart]:
    parts, chance, found = parts_of(run), run.chance, {}
    for name, each in gradients.items():
        by_parameter = dict(zip(parameters, each, strict=True))
        owner = run.model.owners[name]
        scales = watch.scales["generators" if name == generator_loss_name(owner) else "heads", owner]
        found[name] = LossStart(
            loss=watch.totals[name] / max(watch.counts[name], 1),
            chance=chance[name],
            logits=statistics.fmean(scales) if scales else float("nan"),
            gradients={part: norm_of(by_parameter[p] for p in names) for part, names in parts.items()},
        )
    return found


def parts_of(run: Run) -> dict[str, list[str]]:
    """Return the names of the parameters of each part: the word table, each block, heads, generators, what is left."""
    model = run.model
    shared = {id(p) for p in model.encoder.get_input_embeddings().parameters()}
    blocks = [{id(p) for p in block.parameters()} for block in find_blocks(model.encoder)]
    names = ["word table", "rest of encoder", *(f"block {place + 1}" for place in range(len(blocks)))]
    parts: dict[str, list[str]] = {name: [] for name in [*names, "heads", "generators"]}
    for name, parameter in model.named_parameters():
        inside = [place for place, ids in enumerate(blocks) if id(parameter) in ids]
        if id(parameter) in shared:
            part = "word table"
        elif inside:
            part = f"block {inside[0] + 1}"
        else:
            top = name.partition(".")[0]
            part = top if top in parts else "rest of encoder"
        parts[part].append(name)
    return {part: names for part, names in parts.items() if names}


def _look_at_table(
    run: Run, name: str, parameters: Sequence[str], gradients: dict[str, list[Tensor | None]]
) -> dict[str, Any]:
    own = generator_loss_name(name)
    if own not in gradients or name not in gradients:
        return {}
    places = [parameters.index(each) for each in parts_of(run)["word table"]]
    shared = any(gradients[own][place] is not None and gradients[name][place] is not None for place in places)
    return {"learns": own, "shares_table": shared}


def _look_at_proposals(made: Sequence[tuple[DeviceProposal, Proposed]], batches: Sequence[Batch]) -> GeneratorStart:
    replaced, filled = 0.0, 0
    for proposal, proposed in made:
        if proposed.log_probabilities is None or proposal.excludes_original:
            drawn = proposed.token_ids if proposed.token_ids.dim() == 1 else proposed.token_ids[:, 0]
            new = (drawn != proposal.original_ids).double()
        else:
            kept = proposed.log_probabilities.gather(1, proposal.original_ids[:, None]).squeeze(1)
            new = 1 - kept.double().exp()
        replaced += float((new * proposal.fills).sum())
        filled += int(proposal.fills.sum())
    tokens = sum(int(batch.attention_mask.sum()) for batch in batches)
    return GeneratorStart(filled=filled / max(tokens, 1), replaced=replaced / max(filled, 1))
