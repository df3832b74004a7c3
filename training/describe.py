"""What it takes to repeat a run, for its run.json."""

import platform
import resource
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .setup import Run

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "numpy", "safetensors")


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


def peak_memory() -> int:
    """Return the most bytes that this process has held: allocated on a GPU, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def name_processor() -> str:
    """Return the processor's name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()
