"""From a configuration to everything a run consists of."""

import json
import os
import platform
import shlex
import sys
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from corpora import Corpus, prepare_corpus
from corpora.errors import CorpusError, UserError
from objectives.base import Objective, TextStatistics
from objectives.draws import hash_fields

from .config import Config
from .encoders import EncoderSpec, build_encoder, known_encoders
from .folders import storage_errors
from .model import PretrainingModel
from .stream import MicroBatches, Stream

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "numpy", "safetensors")
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
    held_out: MicroBatches | None
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
            num_ordinary=len(self.corpus.vocabulary.ordinary_ids), unigram_entropy=self.corpus.unigram_entropy
        )
        levels = {objective.name: objective.chance(statistics) for objective in self.objectives}
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
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(config.threads or max(1, len(os.sched_getaffinity(0)) // local_world))
    trackers = list(config.trackers) or None
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision, log_with=trackers, project_dir=config.out)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise UserError(
            f"{launched} processes were launched and accelerate runs {accelerator.num_processes}; "
            f"use torchrun --nproc_per_node {launched}"
        )
    return accelerator


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
    objectives = config.build_objectives()
    check_apart(config)
    corpus = prepare_corpus(
        replace(config.corpus_settings(), tokenizer=choose_tokenizer(config)),
        cache=Path(config.cache) if config.cache else None,
        progress=accelerator.is_local_main_process,
    )
    train, held_out = open_batches(config, corpus, objectives, accelerator)
    torch.manual_seed(hash_fields(config.seed, "weights") & 0xFFFFFFFF)
    model = build_model(config, corpus, objectives)
    wrapped = accelerator.prepare_model(model)
    peak = config.learning_rate or 0.384 / model.encoder.config.hidden_size
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
    corpus = Path(config.corpus).expanduser().resolve()
    for option, value in (("out", config.out), ("cache", config.cache)):
        place = Path(value or "/").expanduser().resolve()
        if not os.path.isdir(corpus) or not place.is_relative_to(corpus):
            continue
        if not any(part.startswith(".") for part in place.relative_to(corpus).parts):  # hidden folders are not read
            raise UserError(
                f"--{option} {value} is inside the corpus folder {config.corpus}, and what is written there "
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
    config: Config, corpus: Corpus, objectives: tuple[Objective, ...], accelerator: Accelerator
) -> tuple[MicroBatches, MicroBatches | None]:
    """Return the training batches and, where the held-out documents can carry the objectives, the held-out ones."""
    stream = Stream.open(corpus, objectives, seed=config.seed, max_length=config.max_length)
    train = MicroBatches(stream=stream, batch_size=config.batch_size, micro_batch_size=config.micro_batch_size)
    if len(stream.passages) < config.batch_size:
        skipped = f" ({describe_skipped(stream)})" if stream.num_skipped else ""
        raise CorpusError(
            f"the corpus is too small for one batch: training passages found {len(stream.passages):,}{skipped}, "
            f"--batch_size {config.batch_size:,}; give more text, or --batch_size {len(stream.passages)} or less"
        )
    if train.per_step < accelerator.num_processes:
        world = accelerator.num_processes
        raise UserError(
            f"a step has {train.per_step} micro-batches for {world} processes; "
            f"give --micro_batch_size {max(1, config.batch_size // world)} or less, or a larger --batch_size"
        )
    if stream.num_skipped and accelerator.is_main_process:
        print(describe_skipped(stream), file=sys.stderr)
    try:
        seen = Stream.open(corpus, objectives, seed=EVALUATION_SEED, max_length=config.max_length, held_out=True)
    except CorpusError as error:
        if accelerator.is_main_process:
            print(f"warning: no held-out evaluation: {error}", file=sys.stderr)
        return train, None
    size = min(config.eval_examples, len(seen.passages))
    return train, MicroBatches(stream=seen, batch_size=size, micro_batch_size=min(config.micro_batch_size, size))


def describe_skipped(stream: Stream) -> str:
    """Say how many passages the objectives leave out, and what they need."""
    every = len(stream.passages) + stream.num_skipped
    needs = "; ".join(f"{o.name} needs {o.needs}" for o in stream.objectives if o.needs)
    return f"{stream.num_skipped:,} of {every:,} training passages are skipped: {needs}"


def build_model(config: Config, corpus: Corpus, objectives: tuple[Objective, ...]) -> PretrainingModel:
    """Make the encoder with its heads and generators, on the CPU."""
    attention = config.attention
    if attention == "auto":
        attention = "eager" if not torch.cuda.is_available() and config.max_length < 512 else "sdpa"
    spec = EncoderSpec(
        name=config.encoder,
        vocabulary=corpus.vocabulary,
        max_length=config.max_length,
        dropout=config.dropout,
        init_range=config.init_range,
        attention=attention,
    )
    return PretrainingModel(
        build_encoder(spec),
        objectives,
        config.build_generator(),
        corpus.vocabulary,
        np.asarray(corpus.unigram_counts),
        attention,
    )


def make_optimizer(model: PretrainingModel, config: Config, peak: float) -> torch.optim.Optimizer:
    """Make AdamW; vectors (biases and norms) do not decay."""
    parameters: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (config.adam_beta1, config.adam_beta2)
    return torch.optim.AdamW(groups, lr=peak, betas=betas, eps=config.adam_epsilon, fused=True)


def describe_run(run: Run) -> dict[str, Any]:
    """Return what it takes to repeat the run, for run.json."""
    corpus = run.corpus
    generators = sum(p.numel() for g in run.model.generators.values() for p in g.parameters())
    stream = run.train.stream
    return {
        "config": run.config.as_dict(),
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "max_steps": run.max_steps,
        "peak_learning_rate": run.peak,
        "objectives": {objective.name: repr(objective) for objective in run.objectives},
        "chance": run.chance,
        "corpus": {
            "fingerprint": corpus.fingerprint,
            "documents": corpus.num_documents,
            "sentences": corpus.num_sentences,
            "tokens": corpus.num_tokens,
            "unigram_entropy": corpus.unigram_entropy,
            "passages": len(stream.passages),
            "passages_skipped": stream.num_skipped,
        },
        "parameters": {
            "encoder": sum(p.numel() for p in run.model.encoder.parameters()),
            "heads": sum(p.numel() for p in run.model.heads.parameters()),
            "generators": generators,
        },
        "processes": run.accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "precision": run.accelerator.mixed_precision,
        "attention": run.model.encoder.config._attn_implementation,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else name_processor(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def name_processor() -> str:
    """Return the processor's name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with storage_errors(path):
            temporary.write_text(json.dumps(content, indent=2) + "\n")
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
