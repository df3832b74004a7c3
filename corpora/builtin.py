"""The built-in prose: the documentation strings of Python and of the required packages, read from this machine."""

import functools
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import metadata, util
from pathlib import Path

from . import docstrings
from .errors import CorpusError

BUILTIN_VERSION = 1  # raise it when the same packages would give another text

# The project's requirements and theirs; what only the developers' tools bring is left out.
DISTRIBUTIONS = (
    "numpy networkx pandas matplotlib torch transformers sympy datasets accelerate huggingface_hub fsspec jsonargparse"
    " pyarrow tokenizers safetensors filelock tqdm PyYAML Jinja2 packaging dill pillow python-dateutil pyparsing"
    " contourpy fonttools cycler psutil mpmath httpx"
).split()
IMPORT_NAMES = {
    "PyYAML": "yaml",
    "Jinja2": "jinja2",
    "pillow": "PIL",
    "python-dateutil": "dateutil",
    "fonttools": "fontTools",
}
SKIPPED_FOLDERS = frozenset(
    "test tests testing idle_test site-packages dist-packages lib2to3 __pycache__ _vendor vendor externals".split()
)
SKIPPED_FILES = re.compile(r"(test_.*|.*_tests?|conftest|testing|setup|_?version)\.py$")

MIN_DOCUMENT_SENTENCES = 3
MAX_PROCESSES = 4


def read_builtin_prose() -> Iterator[str]:
    """One document per module, one paragraph a line; a sentence occurs once. The same packages give the same text.

    Raises CorpusError where there are no sources to read, or where a process that parses them fails.
    """
    yield from gather_documents()


@functools.cache  # five megabytes, against seconds of parsing for each pass over the corpus
def gather_documents() -> tuple[str, ...]:
    files = list_modules()
    if not files:
        raise CorpusError("the built-in text needs the .py files of Python and its packages, and there are none here")
    documents = []
    seen: set[str] = set()
    for paragraphs in parse_modules(files):
        kept = [text for paragraph in paragraphs if (text := drop_repeated(paragraph, seen))]
        if sum(map(len, kept)) >= MIN_DOCUMENT_SENTENCES:
            documents.append("\n".join(" ".join(sentences) for sentences in kept))
    return tuple(documents)


def fingerprint_builtin() -> dict[str, str]:
    """What decides the built-in text: the versions of Python, of the packages, and of the cleaning."""
    versions = {"builtin": str(BUILTIN_VERSION), "python": sys.version.split()[0]}
    for distribution in DISTRIBUTIONS:
        if find_package(distribution):
            try:
                versions[distribution] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                versions[distribution] = "unknown"
    return versions


def find_package(distribution: str) -> Path | None:
    """The folder of a distribution's package; found, not imported."""
    spec = util.find_spec(IMPORT_NAMES.get(distribution, distribution))
    return Path(spec.origin).parent if spec and spec.origin and spec.origin.endswith("__init__.py") else None


def list_modules() -> list[str]:
    """The files worth parsing: the standard library first, then package by package, sorted by name."""
    roots = [Path(sysconfig.get_path("stdlib"))]
    roots += [folder for name in DISTRIBUTIONS if (folder := find_package(name))]
    files = []
    for root in roots:
        for parent, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith("."))
            modules = sorted(name for name in names if name.endswith(".py") and not SKIPPED_FILES.match(name))
            files += [os.path.join(parent, name) for name in modules]
    return files


def parse_modules(files: list[str]) -> Iterator[list[docstrings.Paragraph]]:
    """The paragraphs of each file, in the order of `files`, parsed by a few processes.

    Plain subprocesses, since a forked copy of a process with threads may hang, and a spawned one would run the user's
    script again.
    """
    num_processes = max(1, min(MAX_PROCESSES, os.cpu_count() or 1, len(files)))
    with ExitStack() as stack:
        workers = []
        for index in range(num_processes):
            command = [sys.executable, "-I", docstrings.__file__]
            worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.enter_context(worker)
            stack.callback(worker.kill)
            assert worker.stdin and worker.stdout
            worker.stdin.write(json.dumps(files[index::num_processes]).encode())
            worker.stdin.close()
            workers.append(worker)
        for index in range(len(files)):
            line = workers[index % num_processes].stdout.readline()  # type: ignore[union-attr]
            if not line:
                raise CorpusError(f"the process that reads the documentation strings stopped at {files[index]}")
            yield json.loads(line)


def drop_repeated(paragraph: docstrings.Paragraph, seen: set[str]) -> docstrings.Paragraph:
    """The sentences that have not been seen; none where what is left would not read on."""
    keys = [key_of(sentence) for sentence in paragraph]
    fresh = [sentence for sentence, key in zip(paragraph, keys, strict=True) if key not in seen]
    seen.update(keys)
    enough = sum(map(len, fresh)) > docstrings.MIN_KEPT_RATE * sum(map(len, paragraph))
    return fresh if enough else []


def key_of(sentence: str) -> str:
    """A sentence without its names and numbers: one template filled in for many classes counts as a repetition."""
    return " ".join(map(key_of_word, sentence.split()))


@functools.lru_cache(maxsize=1 << 16)
def key_of_word(word: str) -> str:
    word = re.sub(r"\W", "", word)
    return "#" if re.search(r"[\d_]|.[A-Z]", word) else word.lower()
