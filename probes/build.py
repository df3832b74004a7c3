"""Which probes a run asks, and of what text: the held-out documents of a run, a file, a treebank."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from corpora.errors import UserError

from .members import read_run
from .probe import Probe
from .progress import Progress
from .published import read_discoeval, read_senteval
from .published_data import NOTHING, PublishedData
from .raw_pool import build_pool
from .raw_text import RAW_PROBES, Document, held_out_documents, read_documents
from .treebank import TREEBANK_PROBES, read_treebank

MOST_CHARACTERS = 20_000_000  # of a text: more makes no better probes of a few thousand items, and takes minutes

MOST_TEXTS = 4_000  # items of a probe of texts
MOST_WORDS = 15_000  # items of a probe of words: what the intervals need, and a minute an encoder


@dataclass(kw_only=True)
class Built:
    """Probes, what they were made of, and those that could not be made."""

    probes: list[Probe] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def reasons(self) -> list[str]:
        """Why each probe that is left out could not be made, a line each."""
        return [f"probe {name}: {why}" for name, why in self.skipped.items()]

    def add(self, other: "Built") -> None:
        """Take in what was made of something else."""
        self.probes += other.probes
        self.sources |= other.sources
        self.skipped |= other.skipped


def choose_names(asked: str | None, suite: str) -> tuple[list[str], list[str]]:
    """Return the names of raw-text and of treebank probes that a run asks. Raises UserError for one that is unknown."""
    raw = list(RAW_PROBES) if suite in ("raw", "all") else []
    treebank = list(TREEBANK_PROBES) if suite in ("treebank", "all") else []
    if asked is None:
        return raw, treebank
    names = [name.strip().replace("-", "_") for name in asked.split(",") if name.strip()]
    for name in names:
        if name not in [*raw, *treebank]:
            elsewhere = " (it wants --treebank FILES)" if name in TREEBANK_PROBES else ""
            if name.startswith(("senteval_", "discoeval_")):
                elsewhere = " (published data that are given are always asked)"
            raise UserError(f"probe '{name}' is unknown here{elsewhere}; known: {', '.join([*raw, *treebank])}")
    return [name for name in raw if name in names], [name for name in treebank if name in names]


def build_raw(
    names: Sequence[str], documents: Sequence[Document], source: str, *, size: int, language: str, progress: Progress
) -> Built:
    """Build raw-text probes; what the text is too small for, or gives away, is skipped with its reason."""
    built = Built(sources={"Text": source})
    progress.start(len(names) + 1)
    pool = build_pool(documents, seed=0, language=language)
    progress.advance("sentences")
    for name in names:
        try:
            built.probes.append(RAW_PROBES[name](pool, size))
        except UserError as error:
            built.skipped[name] = str(error).removeprefix(f"probe {name}: ")
        progress.advance(f"items of {name}")
    progress.close()
    return built


def find_text(corpus: str | None, folders: Sequence[str]) -> tuple[list[Document], str]:
    """Return the documents to probe with, and where they are from.

    The file that was named; else what the first run held out; else the built-in text. Raises UserError where a run's
    text can't be read.
    """
    unknown = "whether an encoder has read it is not known"
    if corpus is not None:
        return read_documents(corpus, MOST_CHARACTERS), f"{Path(corpus).name}; {unknown}"
    runs = [folder for folder in folders if (Path(folder) / "run.json").is_file()]
    if not runs:
        return read_documents("builtin", MOST_CHARACTERS), f"the built-in text; {unknown}"
    documents = held_out_documents(runs[0])
    held_out = _describe_held_out(runs[0])
    alike = [Path(folder).name for folder in folders if _describe_held_out(folder) == held_out]
    others = [Path(folder).name or folder for folder in folders if _describe_held_out(folder) != held_out]
    source = f"{len(documents):,} documents that {', '.join(alike)} held out"
    return documents, f"{source}; {', '.join(others)} may have read them" if others else source


def _describe_held_out(folder: str) -> tuple[object, ...]:
    """Return what two runs share that held out the same documents; nothing for what is no run of ours."""
    run = read_run(folder)
    config = run.get("config", {})
    text = [config.get(key) for key in ("corpus", "documents", "text_column", "errors", "held_out_rate", "held_out")]
    return (*text, run.get("corpus", {}).get("documents")) if run else ()


def build_suite(
    *,
    names: str | None,
    suite: str,
    corpus: str | None,
    treebank: Sequence[str],
    folders: Sequence[str],
    size: int | None,
    language: str,
    progress: Progress,
    published: PublishedData = NOTHING,
) -> Built:
    """Build all probes that a run asks, of at most `size` items each. Raises UserError where none can be built."""
    of_texts, of_words = size or MOST_TEXTS, size or MOST_WORDS
    raw, of_trees = choose_names(names, suite)
    built = Built()
    if raw:
        documents, source = find_text(corpus, folders)
        built.add(build_raw(raw, documents, source, size=of_texts, language=language, progress=progress))
    if of_trees:
        built.add(build_treebank(of_trees, treebank, size=of_words, progress=progress))
    if published:
        built.add(build_published(published, size=of_texts, progress=progress))
    if not built.probes:
        raise UserError("\n".join(built.reasons) or "no probe was asked for")
    return built


def build_treebank(names: Sequence[str], files: Sequence[str], *, progress: Progress, size: int = MOST_WORDS) -> Built:
    """Build the probes of a treebank, of at most `size` items each.

    Its files are told apart by "train", "dev" and "test" in their names; files without such names are split by
    document. Raises UserError where a file has two of them, or some have none.
    """
    parts = {part: [file for file in files if part in Path(file).name] for part in ("train", "dev", "test")}
    named = sum(len(each) for each in parts.values())
    if named not in (0, len(files)) or (named and not parts["train"]):
        raise UserError(
            f"of the treebank's files ({', '.join(Path(file).name for file in files)}) each must have one of train, "
            "dev and test in its name, and one train; or none of them, and they are split by document"
        )
    built = Built(sources={"Treebank": ", ".join(Path(file).name for file in files)})
    progress.start(len(names) + 1)
    progress.note("reading the treebank")
    trees = read_treebank(parts["train"] or list(files), parts["dev"], parts["test"])
    progress.advance("trees")
    for name in names:
        try:
            built.probes.append(TREEBANK_PROBES[name](trees, 0, size))
        except UserError as error:
            built.skipped[name] = str(error).removeprefix(f"probe {name}: ")
        progress.advance(f"items of {name}")
    progress.close()
    return built


def build_published(published: PublishedData, *, size: int, progress: Progress) -> Built:
    """Build the probes of published data, of at most `size` items each. Raises UserError for what can't be read."""
    built = Built(sources=published.sources)
    progress.start(len(published.names))
    for file in published.senteval:
        built.probes.append(read_senteval(file, size=size))
        progress.advance(f"items of {Path(file).name}")
    for task, folder in published.discoeval:
        built.probes.append(read_discoeval(folder, task=task, size=size))
        progress.advance(f"items of DiscoEval's {task}")
    progress.close()
    return built
