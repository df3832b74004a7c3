"""Everything that a run can be told, in one place."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corpora import CorpusSettings, TextSource
from corpora.errors import UserError

from .schedule import SCHEDULES

if TYPE_CHECKING:  # objectives, generators and encoders import torch, which takes seconds: only where they are needed
    from generators import Generator
    from objectives import Objective

    from .mixture import Arm

HARMLESS = frozenset(
    {
        "log_every",
        "eval_every",
        "eval_examples",
        "save_every",
        "keep",
        "snapshots",
        "profile",
        "workers",
        "loops",
        "trackers",
        "cache",
        "threads",
        "resume",
        "diagnose",
    }
)
GROUPS = {  # the first setting of each group -> its title
    "objective": "What is learned, by what, from what",
    "documents": "How the text is read",
    "max_length": "Size and optimisation",
    "mixed_precision": "Device",
    "log_every": "Housekeeping",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run: what it reads, what it learns, how long, and where it goes."""

    objective: str | dict[str, Any] = "mlm"
    """What to learn: one of the names below, several on one input with a plus (mlm+nsp), options after a colon
    (rtd:mask_rate=0.25,weight=10), or a dotted path to a class of your own."""
    mix: str | dict[str, Any] | None = None
    """Instead of --objective: objectives with inputs of their own, chosen micro-batch by micro-batch, with a weight
    and, if not for the whole run, a span of it: "15*mlm; 1*causal_lm", or "causal_lm@0-0.25; mlm@0.25-1"."""
    recipe: str | None = None
    """What a paper trained with, in one word: bert, roberta, electra, ... (below); with another objective on the same
    input: electra+sop. Every setting given beside it, here or in YAML, wins."""
    corpus: str = "builtin"
    """Text to learn from: a file, a folder, a glob, the name of a `datasets` dataset, or `builtin`, the prose of the
    documentation strings on this machine."""
    out: str = ""
    """Folder for the trained encoder, its checkpoints and its log, empty or absent; by default runs/ and the names of
    the objectives, or of the recipe: runs/rtd, runs/mlm+nsp, runs/bert."""
    encoder: str = "tiny"
    """tiny (4 layers, width 128), mini, small (12, 256) or base; bert-tiny, electra-small, roberta-base,
    modernbert-mini, deberta-v2-tiny, ...; or a `transformers` folder, to go on with its pretraining."""
    generator: str | dict[str, Any] = "masked_lm"
    """Where replaced tokens come from, for objectives that need it: masked_lm (joint; options width_rate=0.25,
    depth_rate, temperature, sharing=none|hard|gdes), uniform, unigram, or another of the names below."""

    documents: str = "blank_line"
    """How plain text is cut into documents: at a blank_line, one per file, or one per line."""
    text_column: str = "text"
    """Where the text stands in JSON lines, Parquet and `datasets`."""
    errors: str = "strict"
    """What to do with bytes that are not UTF-8: strict stops, replace goes on."""
    tokenizer: str | None = None
    """A `transformers` folder or name to load the tokenizer from; without it one is trained on the corpus (or taken
    from the encoder's folder)."""
    tokenizer_kind: str = "wordpiece"
    """What kind of tokenizer to train: wordpiece (BERT), bpe (RoBERTa), unigram (ALBERT, XLM-R)."""
    vocab_size: int = 8192
    """Tokens of a trained tokenizer, special ones counted."""
    lowercase: bool = False
    """Whether a trained tokenizer lowers case and strips accents."""
    segmenter: str = "rules"
    """How sentences are found: rules, or punkt trained on the corpus (needs the punkt extra)."""
    language: str = "en"
    """The language whose abbreviations the rules know."""
    held_out_rate: float = 0.02
    """The share of documents kept for evaluation, unless --held_out names other text."""
    held_out: str | None = None
    """Text to evaluate on, in the forms of --corpus, instead of a share of its documents: valid.txt.gz."""
    cache: str | None = None
    """Folder for prepared corpora; by default $PRETEXT_CACHE, or ~/.cache/pretext."""

    max_length: int = 128
    """Tokens of a row, [CLS] and [SEP] counted (BERT: 128 for most of its training)."""
    batch_size: int = 64
    """Examples of an optimizer step, over all devices (BERT: 256)."""
    micro_batch_size: int = 32
    """Examples of one forward pass; a step's micro-batches are dealt out to the devices, and how many there are changes
    nothing that is learned."""
    max_steps: int = 10_000
    """Optimizer steps of the whole run."""
    max_minutes: float | None = None
    """Instead of max_steps: about how long to train; the number of steps is set from a short measurement at the start,
    then fixed."""
    optimizer: str = "adamw"
    """adamw; muon (Jordan et al., 2024) for the matrices of the layers, with AdamW for tables, heads and vectors; or
    adafactor (Shazeer and Stern, 2018), which keeps a row and a column for each matrix in place of two copies of it."""
    learning_rate: float | None = None
    """Peak learning rate; by default .384 / hidden width, which is .003 at 128 and .0005 at 768 (BERT-base: 1e-4,
    ELECTRA-small: 5e-4)."""
    muon_learning_rate: float = 0.02
    """Muon's peak learning rate, of matrices with singular values near 1 (Jordan et al.: .02)."""
    schedule: str = "linear"
    """After the warm-up: linear or cosine decay to zero, or constant_then_decay."""
    warmup_rate: float = 0.05
    """The share of the steps over which the learning rate rises (BERT: .01, ELECTRA: .01)."""
    decay_rate: float = 0.1
    """Of constant_then_decay, the share of the steps after the warm-up in which the rate falls."""
    weight_decay: float = 0.01
    """Decoupled weight decay; biases and norms have none."""
    adam_beta1: float = 0.9
    """AdamW's first momentum (BERT, RoBERTa and ELECTRA: .9)."""
    adam_beta2: float = 0.98
    """AdamW's second momentum (BERT: .999, RoBERTa: .98)."""
    adam_epsilon: float = 1e-6
    """AdamW's epsilon (BERT and RoBERTa: 1e-6)."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm (BERT: 1)."""
    dropout: float = 0.0
    """Dropout of a new encoder and its generator (BERT: .1; 0 learns more where the text is seen once)."""
    init_range: str = "width"
    """How a new encoder's weights start: width, normal of 1 / sqrt(hidden width), or stock, of .02, with which narrow
    encoders learn nothing in minutes."""
    embedding_init: str = "auto"
    """How a new encoder's word table starts: random, or cooccurrence, vectors factorised from counts of neighbours
    of the training text, with which topics are known from the first step; auto: cooccurrence for new encoders up to a
    width of 256."""
    seed: int = 0
    """Fixes everything that chance decides."""

    mixed_precision: str = "auto"
    """no (float32), bf16, or auto: bf16 where the processor computes in it."""
    attention: str = "auto"
    """How rows are read: unpadded (padding is left out of all but attention; auto, where the architecture allows it),
    or with their padding by an implementation of `transformers`: eager, sdpa."""
    recompute: bool = False
    """Whether what the encoder's layers computed is forgotten and computed again for the gradients: less memory for
    long rows and deep encoders, one more forward pass of the encoder a step."""
    threads: int | None = None
    """CPU threads of each process; by default the cores divided by the processes of this machine."""
    workers: int = 0
    """Processes that build batches; 0 builds them in the main one, which is almost always fast enough."""
    loops: str = "auto"
    """What builds batches, the same to the bit: numpy, or compiled loops (numba, the extra `compiled`), two to three
    times as fast; auto takes those where a GPU computes the steps and numba is there."""

    log_every: int = 50
    """Steps between log lines."""
    eval_every: int = 500
    """Steps between evaluations on the held-out documents; there is one at the end in any case."""
    eval_examples: int = 1024
    """How many held-out examples an evaluation reads."""
    save_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints that are kept, at least 2."""
    snapshots: tuple[int, ...] = ()
    """Steps after which the encoder as it is then is kept as well, for `transformers`, in snapshots/STEP of the run's
    folder; 0 is before the first."""
    trackers: tuple[str, ...] = ()
    """Trackers of accelerate to log to besides metrics.jsonl: tensorboard, wandb, trackio, ..."""
    profile: bool = False
    """Whether to trace a few steps after a warm-up: writes trace.json into the run's folder, and prints where the time
    goes and how much of the machine's peak is used."""
    resume: str | None = None
    """The folder of a run to go on with; its own settings are used, and others given beside it must not contradict
    them."""
    diagnose: bool = False
    """Instead of training: show how attention, blocks, gradients, losses and generators start, and what would help."""

    def __post_init__(self) -> None:
        if not self.out:
            name = _join_names(self.recipe or ("mix" if self.mix is not None else self.objective))
            object.__setattr__(self, "out", f"runs/{name}")

    def build_objectives(self) -> "tuple[Objective, ...]":
        """Make the objectives; UserError where the specification is wrong."""
        from objectives import build_objectives

        return build_objectives(self.objective)

    def build_arms(self) -> "tuple[Arm, ...]":
        """Make the arms of the mixture, or the one that a composition is; UserError where either is wrong."""
        from .mixture import Arm, parse_mix

        return (Arm(objectives=self.build_objectives()),) if self.mix is None else parse_mix(self.mix)

    def build_generator(self) -> "Generator":
        """Make the generator's options; UserError where the specification is wrong."""
        from generators import GENERATORS
        from objectives.spec import build_plugin, parse_spec

        parsed = parse_spec(self.generator)
        if len(parsed) != 1:
            raise UserError(f"one generator is needed, found {len(parsed)} in '{self.generator}'")
        ((name, options),) = parsed.items()
        return build_plugin("generator", name, options, GENERATORS)

    def corpus_settings(self) -> CorpusSettings:
        """Return what the preparation of the corpus depends on."""
        source = TextSource(
            location=self.corpus, documents=self.documents, text_column=self.text_column, errors=self.errors
        )
        return CorpusSettings(
            source=source,
            tokenizer=self.tokenizer,
            tokenizer_kind=self.tokenizer_kind,
            vocab_size=self.vocab_size,
            lowercase=self.lowercase,
            segmenter=self.segmenter,
            language=self.language,
            held_out_rate=self.held_out_rate,
            held_out=dataclasses.replace(source, location=self.held_out) if self.held_out is not None else None,
        )

    def problems(self) -> list[str]:
        """Return everything that is wrong with the settings, one line each, before anything slow is done."""
        return [*self._problems_of_names(), *self._problems_of_values()]

    def _problems_of_names(self) -> list[str]:
        from generators import GENERATORS, Generator
        from objectives import OBJECTIVES, Objective
        from objectives.spec import find_problems

        from .encoders import check_encoder

        found = find_problems("objective", self.objective, OBJECTIVES, Objective)
        if not found:  # each is well-formed by itself; do they go together?
            found += _message_of(self.build_arms)
        wrong = find_problems("generator", self.generator, GENERATORS, Generator)
        found += wrong or _message_of(self.build_generator)
        return found + _message_of(lambda: check_encoder(self.encoder))

    def _problems_of_values(self) -> list[str]:
        found = [f"--{name} is empty" for name in ("corpus", "text_column") if not getattr(self, name).strip()]
        found += ["--held_out is empty"] if self.held_out is not None and not self.held_out.strip() else []
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                found.append(f"--{name} is '{getattr(self, name)}'; it must be one of {', '.join(allowed)}")
        for name, low in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not low <= value < math.inf:
                finite = "finite and " if value == math.inf else ""
                found.append(f"--{name} is {value}; it must be {finite}at least {low}")
        if self.seed > _LARGEST_SEED:
            found.append(f"--seed is {self.seed}; it must be at most {_LARGEST_SEED}")
        if any(step < 0 for step in self.snapshots):
            found.append(f"--snapshots has {min(self.snapshots)}; steps are counted from 0")
        for name in ("held_out_rate", "warmup_rate", "dropout", "adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                found.append(f"--{name} is {getattr(self, name)}; it must be in [0, 1)")
        for name in ("learning_rate", "muon_learning_rate", "max_minutes", "max_grad_norm", "adam_epsilon"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                found.append(f"--{name} is {value}; it must be above 0")
        if not 0 < self.decay_rate <= 1:
            found.append(f"--decay_rate is {self.decay_rate}; it must be above 0 and at most 1")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON and YAML."""
        settings = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Config":
        """Make a configuration from what `as_dict` gave."""
        plain: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in settings.items()}
        return cls(**plain)


def _join_names(spec: str | Mapping[str, Any]) -> str:
    """Return rtd+nsp of `rtd:mask_rate=0.25+nsp`, and of a dotted path its last part."""
    parts = spec.split("+") if isinstance(spec, str) else list(spec)
    return "+".join(str(part).partition(":")[0].strip().rpartition(".")[2] for part in parts)


def _message_of(check: Callable[[], object]) -> list[str]:
    """Return what a check complains about, if it does."""
    try:
        check()
    except UserError as error:
        return [str(error)]
    return []


_LARGEST_SEED = 2**63 - 1
CHOICES = {
    "documents": ("blank_line", "file", "line"),
    "errors": ("strict", "replace"),
    "tokenizer_kind": ("wordpiece", "bpe", "unigram"),
    "segmenter": ("rules", "punkt"),
    "optimizer": ("adamw", "muon", "adafactor"),
    "schedule": tuple(SCHEDULES),
    "init_range": ("width", "stock"),
    "embedding_init": ("auto", "random", "cooccurrence"),
    "mixed_precision": ("auto", "no", "bf16"),
    "attention": ("auto", "unpadded", "eager", "sdpa"),
    "loops": ("auto", "numpy", "compiled"),
}
_AT_LEAST = {
    "vocab_size": 100,
    "max_length": 8,
    "batch_size": 1,
    "micro_batch_size": 1,
    "max_steps": 1,
    "threads": 1,
    "workers": 0,
    "seed": 0,
    "log_every": 1,
    "eval_every": 1,
    "eval_examples": 1,
    "save_every": 1,
    "keep": 2,
    "weight_decay": 0,
}
