"""A text, a configuration and a run that are small enough to train in a test."""

import json
from pathlib import Path

import numpy as np

from training.config import Config
from training.setup import Run, build_run, make_accelerator

WORDS = [
    first + second for first in "b d f g k l m n p r s t".split() for second in "ar ei olu anto ish u eden".split()
]


def write_text(path: Path, num_documents: int = 40) -> Path:
    """Write documents of 2 to 9 sentences in which each word makes the next one likely.

    So there is something to learn.
    """
    rng = np.random.default_rng(0)
    documents = []
    for _ in range(num_documents):
        sentences = []
        for _ in range(rng.integers(2, 10)):
            words = [int(rng.integers(len(WORDS)))]
            for _ in range(rng.integers(2, 9)):
                words.append((words[-1] * 5 + int(rng.integers(3))) % len(WORDS))
            sentences.append(" ".join(WORDS[word] for word in words).capitalize() + ".")
        documents.append(" ".join(sentences))
    path.write_text("\n\n".join(documents) + "\n")
    return path


def make_config(folder: Path, **changes: object) -> Config:
    """Return the configuration of a short float32 run on that text, in `folder`."""
    corpus = folder / "text.txt"
    if not corpus.exists():
        write_text(corpus)
    settings = {
        "objective": "mlm",
        "corpus": str(corpus),
        "cache": str(folder / "cache"),
        "out": str(folder / "run"),
        "encoder": "tiny",
        "embedding_init": "random",
        "vocab_size": 200,
        "held_out_rate": 0.2,
        "max_length": 32,
        "batch_size": 8,
        "micro_batch_size": 4,
        "max_steps": 12,
        "log_every": 1,
        "eval_every": 6,
        "eval_examples": 16,
        "save_every": 3,
        "mixed_precision": "no",
        "threads": 1,
    }
    return Config(**(settings | changes))


def make_run(config: Config) -> Run:
    """Return the run in memory, nothing of it on disk but the corpus."""
    return build_run(config, make_accelerator(config), Path(config.out))


def read_log(folder: Path) -> list[dict]:
    """Return the rows of a run's log without what depends on the clock."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows]
