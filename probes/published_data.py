"""Published probing data as a run names it: files of SentEval, folders of DiscoEval."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpora.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PublishedData:
    """What a run asks of SentEval (Conneau et al., 2018) and DiscoEval (Chen et al., 2019), from files at hand."""

    senteval: tuple[str, ...] = ()  # files, each named after its task
    discoeval: tuple[tuple[str, str], ...] = ()  # tasks, each with its folder

    def __bool__(self) -> bool:
        return bool(self.senteval or self.discoeval)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that its probes have, in results and in hypotheses."""
        from .published import name_stem

        return (
            *(f"senteval_{name_stem(Path(file))}" for file in self.senteval),
            *(f"discoeval_{task}" for task, _ in self.discoeval),
        )

    @property
    def sources(self) -> dict[str, str]:
        """What results say of where the items are from: no path of the machine."""
        known = {
            "SentEval": ", ".join(Path(file).name for file in self.senteval),
            "DiscoEval": ", ".join(f"{task} ({Path(folder).name})" for task, folder in self.discoeval),
        }
        unknown = "whether an encoder has read them is not known"
        return {name: f"{files}; {unknown}" for name, files in known.items() if files}

    def list_problems(self) -> list[str]:
        """Return what is wrong with it, as far as names of tasks and files tell: nothing is read."""
        found = [*self._check_files(), *self._check_folders()]
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
        return found + [f"{name} is asked of two places; name one of them" for name in twice]

    def _check_files(self) -> Iterator[str]:
        from .published import name_senteval_task

        for file in self.senteval:
            try:
                name_senteval_task(file)
            except UserError as error:
                yield str(error)

    def _check_folders(self) -> Iterator[str]:
        from .published import find_discoeval_files

        for task, folder in self.discoeval:
            try:
                find_discoeval_files(folder, task)
            except UserError as error:
                yield str(error)


NOTHING = PublishedData()


def choose_suite(published: PublishedData, *, treebank: bool, others: bool) -> str:
    """Return the suite of who names none: published data are all that is asked where nothing else is named.

    `others`: whether a text or probes of a suite are.
    """
    if published and not (treebank or others):
        return "published"
    return "all" if treebank else "raw"


def read_discoeval_names(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return tasks with their folders, from words TASK=FOLDER. Raises UserError."""
    pairs = [word.partition("=") for word in words]
    for word, (task, _, folder) in zip(words, pairs, strict=True):
        if not (task and folder):
            raise UserError(f"--discoeval is '{word}'; write TASK=FOLDER, as in --discoeval bso=wiki/bso")
    return tuple((task, folder) for task, _, folder in pairs)
