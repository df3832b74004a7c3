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

# The project's requirements and theirs, as distribution: package; what only the developers' tools bring is left out.
PACKAGES = {
    name: package
    for name, _, package in (
        entry.partition("=")
        for entry in (
            "numpy=numpy networkx=networkx pandas=pandas matplotlib=matplotlib torch=torch transformers=transformers"
            " sympy=sympy datasets=datasets accelerate=accelerate huggingface_hub=huggingface_hub fsspec=fsspec"
            " jsonargparse=jsonargparse pyarrow=pyarrow tokenizers=tokenizers safetensors=safetensors filelock=filelock tqdm=tqdm PyYAML=yaml"
            " Jinja2=jinja2 packaging=packaging dill=dill pillow=PIL python-dateutil=dateutil pyparsing=pyparsing"
            " contourpy=contourpy fonttools=fontTools cycler=cycler psutil=psutil mpmath=mpmath httpx=httpx"
        ).split()
    )
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
    for distribution, package in PACKAGES.items():
        if find_package(package):
            try:
                versions[distribution] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                versions[distribution] = "unknown"
    return versions


def find_package(package: str) -> Path | None:
    """The folder of a top-level package; found, not imported."""
    spec = util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin and spec.origin.endswith("__init__.py") else None


def list_modules() -> list[str]:
    """The files worth parsing: the standard library first, then package by package, sorted by name."""
    roots = [Path(sysconfig.get_path("stdlib"))]
    roots += [folder for package in PACKAGES.values() if (folder := find_package(package))]
    files = []
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith("."))
            paths = [os.path.join(folder, name) for name in sorted(names) if name.endswith(".py")]
            files += [path for path in paths if not SKIPPED_FILES.match(os.path.basename(path))]
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
    words = (re.sub(r"[^\w]", "", word) for word in sentence.split())
    return " ".join("#" if re.search(r"[\d_]|.[A-Z]", word) else word.lower() for word in words)
