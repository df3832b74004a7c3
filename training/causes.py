"""Why an objective may sit at chance: what a run knows of itself, and what follows from it."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from corpora import Corpus

from .encoders import known_encoders
from .model import generator_loss_name
from .optimizer import default_rate
from .setup import Run, starts_from_cooccurrences

FEW_TARGETS = 1.5  # an example: no more than that is one label a sequence
MANY_TARGETS = 4.0  # an example: a loss that tells the encoder something at many tokens
NARROW = 0.5  # of 1 / sqrt(hidden width): weights below start an encoder that hardly mixes its tokens
RATE_FACTOR = 3.0  # from the default learning rate: farther away it may be the cause
FIRST_TOKENS = {"token": 1_000_000, "sequence": 2_000_000}  # after which `tiny` had left chance: docs/stuck.md
MANY_PASSES = 5.0  # over the training text
AT_UNIGRAM = 0.98  # of the generator's chance loss
EASIER = {  # an option of an objective, and its value -> another value, and why it is learned sooner
    ("pooling", "cls"): ("segments", "which compares both texts for the encoder"),
    ("within", "document"): ("paragraph", "which leaves out the ends of paragraphs"),
}


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A likely cause, and what to try."""

    cause: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a run knows that bears on one of its losses."""

    name: str
    width: int  # D
    init_range: float | None  # of a new encoder's weights; None: it had learned before
    learns_positions: bool  # absolute ones
    random_table: bool
    peak: float  # learning rate
    tokens: int
    planned_tokens: int  # by the end of the run
    passes: float  # over the training examples
    targets: float  # an example
    others: tuple[str, ...] = ()  # losses on the same input with many targets an example
    stuck_others: tuple[str, ...] = ()  # those of them that sit at chance too
    generator: float | None = None  # its held-out loss, as a share of its lowest level of chance
    options: tuple[tuple[str, str], ...] = ()  # of the objective: those that could be easier, as (name, value)
    replaced: float | None = None  # the share of the asked tokens whose label is positive, where it has a generator


def learned_positions(encoder: PreTrainedModel) -> list[str]:
    """Return the names of the tables of absolute positions that an encoder learns, if it has such."""
    return [
        name
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Embedding) and "position" in name.rpartition(".")[2]
    ]


def has_paragraphs(corpus: Corpus) -> bool:
    """Say whether documents have several paragraphs, and these two sentences or more on average."""
    return corpus.num_documents < int(np.sum(corpus.paragraph_starts)) <= corpus.num_sentences / 2


def read_facts(run: Run, name: str, sitting: Collection[str]) -> Facts:
    """Return what bears on the loss `name`, when the losses `sitting` are at chance."""
    config, owner = run.model.encoder.config, run.model.owners[name]
    is_new = run.config.encoder in known_encoders()
    (held_out,) = [each for each in run.held_out if owner in [o.name for o in each.arms[0].objectives]]
    beside = [objective.name for objective in held_out.arms[0].objectives]

    def per_example(loss: str) -> float:
        return run.figures[loss]["targets"] / held_out.batch_size

    others = [
        other
        for other in run.figures
        if other != name and run.model.owners[other] in beside and per_example(other) >= MANY_TARGETS
    ]
    made = generator_loss_name(owner)
    share = None
    if name != made and made in run.figures:
        loss = run.figures[made].get("hidden_loss", run.figures[made]["loss"])
        share = loss / min(run.chance[made].values())
    return Facts(
        name=name,
        width=config.hidden_size,
        init_range=config.initializer_range if is_new else None,
        learns_positions=bool(learned_positions(run.model.encoder)),
        random_table=is_new and not starts_from_cooccurrences(run.config, run.model.encoder),
        peak=run.peak,
        tokens=run.tokens,
        planned_tokens=int(run.tokens * run.max_steps / max(run.step, 1)),
        passes=run.step * run.config.batch_size / sum(len(stream.passages) for stream in run.train.streams),
        targets=per_example(name),
        others=tuple(others),
        stuck_others=tuple(other for other in others if other in sitting),
        options=tuple(
            (option, value)
            for option, value in EASIER
            if getattr(run.model.objectives[owner], option, None) == value and name == owner
            if option != "within" or has_paragraphs(run.corpus)
        ),
        generator=share,
        replaced=run.figures[name].get("positive_rate") if share is not None else None,
    )


def list_causes(facts: Sequence[Facts]) -> list[Cause]:
    """Return the likely causes of all these losses, the likeliest first, each once."""
    found: dict[Cause, None] = {}
    for judge in (_start, _positions, _budget, _signal, _options, _generator, _table, _rate, _passes):
        for each in facts:
            found |= dict.fromkeys(judge(each))
    return list(found)


def _start(facts: Facts) -> list[Cause]:
    wanted = 1 / math.sqrt(facts.width)
    if facts.init_range is None or facts.init_range >= NARROW * wanted:
        return []
    what = f"weights start at {facts.init_range:g} in an encoder of width {facts.width}, so that attention is even"
    return [Cause(cause=f"{what} and adds next to nothing", advice=f"--init_range width starts them at {wanted:.3f}")]


def _budget(facts: Facts) -> list[Cause]:
    kind = "sequence" if facts.targets <= FEW_TARGETS else "token"
    needed = FIRST_TOKENS[kind]
    if facts.tokens >= needed:
        return []
    what = f"{facts.tokens / 1e6:.2f} M tokens are few: the encoder tiny needed about {needed / 1e6:.0f} M to leave"
    enough = facts.planned_tokens >= needed
    advice = f"wait, the run will read {facts.planned_tokens / 1e6:.1f} M" if enough else "more --max_steps"
    labels = "one label a sequence, beside one a token" if kind == "sequence" else "labels at single tokens"
    return [Cause(cause=f"{what} chance with {labels}", advice=advice)]


def _signal(facts: Facts) -> list[Cause]:
    if facts.targets > FEW_TARGETS:
        return []
    what = f"{facts.name} is one label a sequence"
    if not facts.others:
        advice = f"compose it with labels at tokens, mlm+{facts.name} or rtd+{facts.name}"
        return [Cause(cause=f"{what}, alone on its input: too little to build an encoder from", advice=advice)]
    if facts.stuck_others:
        return [Cause(cause=f"{what}, and {_join(facts.stuck_others)} beside it has not left chance", advice=_FIRST)]
    what += f", and follows {_join(facts.others)}, which has left chance, later"
    return [Cause(cause=what, advice=f"more --max_steps, or a larger weight, {facts.name}:weight=...")]


def _options(facts: Facts) -> list[Cause]:
    return [
        Cause(
            cause=f"{facts.name} asks the harder way, {option}={value}",
            advice=f"{facts.name}:{option}={EASIER[option, value][0]}, {EASIER[option, value][1]}",
        )
        for option, value in facts.options
    ]


_FIRST = "what frees the one frees the other"


def _generator(facts: Facts) -> list[Cause]:
    if facts.generator is not None and facts.generator >= AT_UNIGRAM:
        what = f"the generator of {facts.name} is at the word frequencies itself, and so is what it teaches the table"
        advice = "--generator masked_lm:sharing=gdes,depth_rate=0.25, and --embedding_init cooccurrence"
        return [Cause(cause=what, advice=advice)]
    if facts.replaced is not None and facts.replaced < 0.02:
        what = f"of the tokens that {facts.name} asks about {100 * facts.replaced:.1f} % are replaced"
        return [Cause(cause=what, advice=f"a weaker generator, or {facts.name}:mask_rate=...")]
    return []


def _positions(facts: Facts) -> list[Cause]:
    if not facts.learns_positions or facts.init_range is None:
        return []
    what = "learned absolute positions leave chance later than relative ones"
    return [Cause(cause=what, advice="--encoder tiny, mini, ... have rotary positions")]


def _rate(facts: Facts) -> list[Cause]:
    usual = default_rate(facts.width)
    if facts.init_range is None or usual / RATE_FACTOR <= facts.peak <= usual * RATE_FACTOR:
        return []
    where = "high" if facts.peak > usual else "low"
    what = f"the learning rate of {facts.peak:g} is {where} for a width of {facts.width}"
    return [Cause(cause=what, advice=f"--learning_rate {usual:.2g} is the default")]


def _table(facts: Facts) -> list[Cause]:
    if not facts.random_table:
        return []
    return [Cause(cause="the word table started at random", advice="--embedding_init cooccurrence")]


def _passes(facts: Facts) -> list[Cause]:
    if facts.passes < MANY_PASSES:
        return []
    what = f"the training text has been read {facts.passes:.0f} times, and may be known by heart"
    return [Cause(cause=what, advice="more text (--corpus), or --dropout 0.1")]


def _join(names: Sequence[str]) -> str:
    return " and ".join(names)
