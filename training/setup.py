"""From a configuration to everything a run consists of."""

import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from corpora import Corpus, prepare_corpus
from corpora.errors import CorpusError, UserError
from corpora.processors import count_own_processors
from corpora.tables import Tables
from generators.unpadded import UNPADDED, is_unpadded
from objectives.base import Objective, TextStatistics, levels_of
from objectives.draws import hash_fields
from objectives.loops import compiled_loops, use_compiled

from .config import Config
from .embeddings import start_from_cooccurrences
from .encoders import EncoderSpec, build_encoder, known_encoders
from .folders import storage_errors
from .mixture import Arm
from .model import PretrainingModel
from .optimizer import default_rate, make_optimizer
from .stream import MicroBatches, Stream

NARROW = 256  # units
EVALUATION_SEED = 20190409  # the same held-out questions for every run, whatever its seed


@dataclass(kw_only=True)
class Run:
    """A run in memory: what it learns from, what learns, and how far it is."""

    config: Config
    folder: Path
    accelerator: Accelerator
    corpus: Corpus
    objectives: tuple[Objective, ...]
    model: PretrainingModel
    wrapped: nn.Module  # the model as accelerate placed it: what is called to train
    optimizer: torch.optim.Optimizer
    train: MicroBatches
    held_out: tuple[MicroBatches, ...]  # for each arm of a mixture that has held-out text
    max_steps: int
    peak: float  # learning rate
    step: int = 0
    tokens: int = 0  # seen so far, special tokens counted, padding not
    seconds: float = 0.0
    window: dict[str, list[float]] = field(default_factory=dict)  # sums since the last log line
    figures: dict[str, dict[str, float]] = field(default_factory=dict)  # of the last held-out evaluation

    @property
    def chance(self) -> dict[str, dict[str, float]]:
        """Return for each loss what predictors reach that do not look at the text."""
        statistics = TextStatistics(
            num_ordinary=len(self.corpus.vocabulary.ordinary_ids),
            unigram_entropy=self.corpus.unigram_entropy,
            tables=self.train.stream.tables,
            rows=self.config.micro_batch_size,
            lengths=self.train.stream.passages.ends - self.train.stream.passages.starts + 2,
        )
        levels: dict[str, dict[str, float]] = {}
        for objective in self.objectives:
            levels |= levels_of(objective, statistics)
        hidden_tokens = {"ln V": float(np.log(statistics.num_ordinary)), "unigram": statistics.unigram_entropy}
        return {name: levels.get(name, hidden_tokens) for name in self.model.weights}


def make_accelerator(config: Config) -> Accelerator:
    """Start accelerate, and make sure that it runs on as many processes as the launcher started."""
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    precision = config.mixed_precision
    if precision == "auto":
        precision = "bf16" if computes_in_bf16() else "no"
    torch.set_num_threads(config.threads or count_own_processors())
    trackers = list(config.trackers) or None
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision, log_with=trackers, project_dir=config.out)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise UserError(
            f"{launched} processes were launched and accelerate runs {accelerator.num_processes}; "
            f"use torchrun --nproc_per_node {launched}"
        )
    return accelerator


def choose_loops(asked: str, progress: bool) -> None:
    """Let this process build batches by compiled loops where that is asked for, or where steps are short: on a GPU."""
    try:
        use_compiled(asked == "compiled" or (asked == "auto" and torch.cuda.is_available()))
    except (ImportError, OSError) as error:  # OSError: its compiler's library does not load
        use_compiled(False)
        if asked == "compiled":
            raise UserError(f"--loops compiled needs numba ({error}); pip install 'numba>=0.61'") from error
    if progress and (loops := compiled_loops()) is not None and not loops.is_kept():
        print("compiling the loops that build batches: some ten seconds", file=sys.stderr)


def computes_in_bf16() -> bool:
    """Say whether the processor has bfloat16 arithmetic of its own (emulated, it is slower than float32)."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def build_run(config: Config, accelerator: Accelerator, folder: Path) -> Run:
    """Prepare the corpus, then make the stream, the model and the optimizer."""
    choose_loops(config.loops, accelerator.is_local_main_process)
    arms = config.build_arms()
    objectives = tuple(objective for arm in arms for objective in arm.objectives)
    check_apart(config)
    corpus = prepare_corpus(
        replace(config.corpus_settings(), tokenizer=choose_tokenizer(config)),
        cache=Path(config.cache) if config.cache else None,
        progress=accelerator.is_local_main_process,
    )
    train, held_out = open_batches(config, corpus, arms, accelerator)
    train[0]  # makes what is counted over the corpus, before workers start
    torch.manual_seed(hash_fields(config.seed, "weights") & 0xFFFFFFFF)
    model = build_model(config, train.stream.tables, objectives)
    wrapped = accelerator.prepare_model(model)
    peak = config.learning_rate or default_rate(model.encoder.config.hidden_size)
    return Run(
        config=config,
        folder=folder,
        accelerator=accelerator,
        corpus=corpus,
        objectives=objectives,
        model=model,
        wrapped=wrapped,
        optimizer=make_optimizer(model, config, peak),
        train=train,
        held_out=held_out,
        max_steps=config.max_steps,
        peak=peak,
    )


def check_apart(config: Config) -> None:
    """Raise a UserError where what we write would be read as part of the corpus, and change it."""
    for text in filter(None, (config.corpus, config.held_out)):
        corpus = Path(text).expanduser().resolve()
        for option, value in (("out", config.out), ("cache", config.cache)):
            place = Path(value or "/").expanduser().resolve()
            if not os.path.isdir(corpus) or not place.is_relative_to(corpus):
                continue
            if not any(part.startswith(".") for part in place.relative_to(corpus).parts):  # hidden folders aren't read
                raise UserError(
                    f"--{option} {value} is inside the corpus folder {text}, and what is written there "
                    f"would be read as text; give --{option} a folder elsewhere"
                )


def choose_tokenizer(config: Config) -> str | None:
    """Return where the tokenizer is loaded from, or None where one is to be trained.

    An existing encoder comes with its own.
    """
    if config.tokenizer is not None or config.encoder in known_encoders():
        return config.tokenizer
    folder = Path(config.encoder)
    if folder.is_dir() and not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")):
        raise UserError(
            f"the encoder folder {folder} has no tokenizer; give --tokenizer the one that it was trained with"
        )
    return config.encoder


def open_batches(
    config: Config, corpus: Corpus, arms: tuple[Arm, ...], accelerator: Accelerator
) -> tuple[MicroBatches, tuple[MicroBatches, ...]]:
    """Return the training batches and, where the held-out documents can carry the objectives, the held-out ones."""
    tables = Tables(corpus)
    streams = tuple(
        Stream.open(corpus, arm.objectives, seed=config.seed, max_length=config.max_length, tables=tables)
        for arm in arms
    )
    train = MicroBatches(
        streams=streams,
        arms=arms,
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        seed=config.seed,
        max_steps=config.max_steps,
    )
    for stream in streams:
        if len(stream.passages) < config.batch_size:
            skipped = f" ({describe_skipped(stream)})" if stream.num_skipped else ""
            raise CorpusError(
                f"the corpus is too small for one batch: training passages found {len(stream.passages):,}{skipped}, "
                f"--batch_size {config.batch_size:,}; give more text, or --batch_size {len(stream.passages)} or less"
            )
    check_comparing(config, train, accelerator)
    if train.per_step < accelerator.num_processes:
        world = accelerator.num_processes
        raise UserError(
            f"a step has {train.per_step} micro-batches for {world} processes; "
            f"give --micro_batch_size {max(1, config.batch_size // world)} or less, or a larger --batch_size"
        )
    for stream in streams:
        if stream.num_skipped and accelerator.is_main_process:
            print(describe_skipped(stream), file=sys.stderr)
    held_out = (open_held_out(config, corpus, arm, tables, accelerator) for arm in arms)
    return train, tuple(batches for batches in held_out if batches is not None)


def open_held_out(
    config: Config, corpus: Corpus, arm: Arm, tables: Tables, accelerator: Accelerator
) -> MicroBatches | None:
    """Return the evaluation's batches of an arm: the same questions for every run, whatever its seed."""
    try:
        seen = Stream.open(
            corpus, arm.objectives, seed=EVALUATION_SEED, max_length=config.max_length, held_out=True, tables=tables
        )
    except CorpusError as error:
        if accelerator.is_main_process:
            print(f"warning: no held-out evaluation: {error}", file=sys.stderr)
        return None
    size = min(config.eval_examples, len(seen.passages))
    return MicroBatches(
        streams=(seen,),
        arms=(arm,),
        batch_size=size,
        micro_batch_size=min(config.micro_batch_size, size),
        seed=EVALUATION_SEED,
    )


def check_comparing(config: Config, train: MicroBatches, accelerator: Accelerator) -> None:
    """Raise a UserError where examples that are set against each other would be dealt out unevenly."""
    comparing = [o.name for arm in train.arms for o in arm.objectives if o.compares_rows]
    if not comparing:
        return
    if config.micro_batch_size < 2 or config.batch_size % config.micro_batch_size:
        raise UserError(
            f"{comparing[0]} compares the examples of a micro-batch with each other; let --batch_size "
            f"({config.batch_size}) be a multiple of --micro_batch_size ({config.micro_batch_size}), which is 2 or more"
        )
    if train.per_step % accelerator.num_processes or (len(train.arms) > 1 and accelerator.num_processes > 1):
        raise UserError(
            f"{comparing[0]} compares examples across processes: all {accelerator.num_processes} need the same number "
            f"of its micro-batches in a step, of which there are {train.per_step}; choose --batch_size and "
            "--micro_batch_size so, or leave other inputs (--mix) out"
        )


def describe_skipped(stream: Stream) -> str:
    """Say how many passages the objectives leave out, and what they need."""
    every = len(stream.passages) + stream.num_skipped
    needs = "; ".join(f"{o.name} needs {o.needs}" for o in stream.objectives if o.needs)
    return f"{stream.num_skipped:,} of {every:,} training passages are skipped: {needs}"


def build_model(config: Config, tables: Tables, objectives: tuple[Objective, ...]) -> PretrainingModel:
    """Make the encoder with its heads and generators, on the CPU."""
    attention = config.attention
    if attention == "auto":
        attention = UNPADDED
    spec = EncoderSpec(
        name=config.encoder,
        vocabulary=tables.vocabulary,
        max_length=config.max_length,
        dropout=config.dropout,
        init_range=config.init_range,
        attention=attention,
    )
    try:
        encoder = build_encoder(spec)
    except UserError:
        if config.attention != "auto" or attention == "eager":
            raise
        attention = "eager"  # what every architecture has
        encoder = build_encoder(replace(spec, attention=attention))
    if config.attention == UNPADDED and not is_unpadded(encoder):
        raise UserError(
            f"the encoder '{config.encoder}' can't be run without the padding of its rows; give --attention auto"
        )
    if config.recompute:
        recompute_layers(encoder)
    if starts_from_cooccurrences(config, encoder):
        start_embeddings(config, encoder, tables)
    return PretrainingModel(
        encoder,
        objectives,
        config.build_generator(),
        tables,
        attention,
        rows=config.micro_batch_size,
    )


def recompute_layers(encoder: PreTrainedModel) -> None:
    """Let the encoder's layers compute their activations again for the gradients; UserError where they can't."""
    if not encoder.supports_gradient_checkpointing:
        raise UserError(f"a {encoder.config.model_type} can't compute its layers again; leave --recompute out")
    encoder.activation_checkpointing_enable({"use_reentrant": False})


def starts_from_cooccurrences(config: Config, encoder: PreTrainedModel) -> bool:
    """Say whether the encoder's word table is to start from the corpus's co-occurrences.

    Where nothing is asked for, that of a new encoder does if it is narrow: to factorise counts into many dimensions
    takes minutes, which long runs of wide encoders don't win back.
    """
    if config.embedding_init != "auto":
        return config.embedding_init == "cooccurrence"
    return config.encoder in known_encoders() and encoder.config.hidden_size <= NARROW


def start_embeddings(config: Config, encoder: PreTrainedModel, tables: Tables) -> None:
    """Start the word table from the corpus's co-occurrences; UserError for an encoder that has learned already."""
    if config.encoder not in known_encoders():
        raise UserError(
            f"--embedding_init cooccurrence would undo what the encoder '{config.encoder}' has learned; "
            "leave it out, or give a new encoder such as tiny"
        )
    word_embeddings = cast(nn.Embedding, encoder.get_input_embeddings())
    start_from_cooccurrences(
        word_embeddings, tables.embeddings(word_embeddings.embedding_dim), np.asarray(tables.unigram_counts)
    )


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with storage_errors(path):
            temporary.write_text(json.dumps(content, indent=2) + "\n")
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
