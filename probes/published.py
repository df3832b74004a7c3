"""Readers of published probing data: SentEval's ten tasks and DiscoEval's, from files in their own formats.

The items are the authors': their tokens joined by spaces, their splits, and their artefacts, which the baselines in
`surface` show.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from corpora.compression import SUFFIXES
from corpora.errors import CorpusError, UserError
from corpora.lines import Notes, read_lines

from .gate import score_baselines
from .probe import DEV, TEST, TRAIN, WHOLE_TEXT, Probe

PARTITIONS = {"tr": TRAIN, "va": DEV, "te": TEST}
FILES = {"train": TRAIN, "valid": DEV, "test": TEST}


@dataclass(frozen=True, kw_only=True)
class PublishedTask:
    """What a task asks and answers; without `labels` the labels are those of the file."""

    question: str
    short: str  # its name in the paper
    labels: dict[str, str] | None = None  # as in the file -> in words
    baselines: tuple[str, ...] = ("words", "length")


SENTEVAL_TASKS = {
    "sentence_length": PublishedTask(
        question="How many words does the sentence have?",
        short="SentLen",
        labels={"0": "5-8", "1": "9-12", "2": "13-16", "3": "17-20", "4": "21-25", "5": "26-28"},
    ),
    "word_content": PublishedTask(question="Which of the target words does the sentence hold?", short="WC"),
    "tree_depth": PublishedTask(question="How deep is the sentence's constituent tree?", short="TreeDepth"),
    "top_constituents": PublishedTask(question="Which constituents stand below the sentence node?", short="TopConst"),
    "bigram_shift": PublishedTask(
        question="Were two neighbouring words of the sentence swapped?",
        short="BShift",
        labels={"O": "original", "I": "swapped"},
        baselines=("words", "bigrams", "shapes"),
    ),
    "past_present": PublishedTask(
        question="Is the main verb in the past or in the present?",
        short="Tense",
        labels={"PAST": "past", "PRES": "present"},
    ),
    "subj_number": PublishedTask(
        question="Is the subject of the main clause singular or plural?",
        short="SubjNum",
        labels={"NN": "singular", "NNS": "plural"},
    ),
    "obj_number": PublishedTask(
        question="Is the direct object of the main clause singular or plural?",
        short="ObjNum",
        labels={"NN": "singular", "NNS": "plural"},
    ),
    "odd_man_out": PublishedTask(
        question="Was a noun or verb of the sentence replaced by another one?",
        short="SOMO",
        labels={"O": "original", "C": "replaced"},
        baselines=("words", "bigrams", "frequency"),
    ),
    "coordination_inversion": PublishedTask(
        question="Have the two coordinated clauses changed places?",
        short="CoordInv",
        labels={"O": "original", "I": "inverted"},
        baselines=("words", "bigrams", "shapes"),
    ),
}

Row = tuple[tuple[str, ...], str, int, int]  # texts, label, split, group


def read_senteval(
    path: str | Path, *, task: str | None = None, seed: int = 0, size: int | None = None, surface: bool = True
) -> Probe:
    """Read one of SentEval's ten probing files, plain or compressed: `split<TAB>label<TAB>tokens` lines.

    Conneau et al. (2018, https://aclanthology.org/P18-1198/). The task is the file's name unless given. Partitions come
    partly sorted by label, so they are shuffled with `seed`, and cut to `size` items in all where that is given, in
    their own proportions. Raises CorpusError, with file and line, for what isn't in this format.
    """
    path = Path(path)
    task = name_senteval_task(path, task)
    about = SENTEVAL_TASKS[task]

    def parse(columns: list[str], where: str, number: int) -> Row:
        check(len(columns) == 3, where, f"{len(columns)} columns, not the 3 of SentEval: tr/va/te, label, sentence")
        check(columns[0] in PARTITIONS, where, f"the split is {columns[0]!r}, not tr, va or te")
        check(about.labels is None or columns[1] in about.labels, where, f"{columns[1]!r} is no label of {task}")
        return (columns[2],), columns[1], PARTITIONS[columns[0]], number

    rows = list(read_rows(path, parse))
    names = about.labels or {label: label for label in sorted({row[1] for row in rows}, key=sort_key)}
    return make_published(
        rows,
        names,
        seed=seed,
        size=size,
        baselines=about.baselines if surface else (),
        name=f"senteval_{task}",
        question=about.question,
        source=f"Conneau et al., 2018, section 3 ({about.short})",
        note="SentEval's own items and partitions, shuffled.",
    )


def name_senteval_task(path: str | Path, task: str | None = None) -> str:
    """Return which task a file holds: the one given, or its name. UserError for one unknown, or a file that is not."""
    path = Path(path)
    if not path.is_file():
        raise CorpusError(f"there is no file {str(path)!r}; name a file of the data set")
    task = task or name_stem(path)
    if task not in SENTEVAL_TASKS:
        raise UserError(
            f"{path}: task {task!r} is unknown; the file's name says which it is: {', '.join(SENTEVAL_TASKS)}"
        )
    return task


DISCOEVAL_TASKS = {
    "bso": PublishedTask(
        question="Do the two sentences stand in their order?",
        short="BSO, section 3.3",
        baselines=("words", "first", "second", "length"),
    ),
    "sp": PublishedTask(
        question="Where among the five sentences does the one belong that was moved to the front?",
        short="SP, section 3.2",
        baselines=("words", "first", "length"),
    ),
    "dc": PublishedTask(
        question="Do the six sentences belong together, or was one put in from elsewhere?",
        short="DC, section 3.4",
        labels={"0": "replaced", "1": "coherent"},
    ),
    "ssp": PublishedTask(
        question="Does the sentence come from the abstract?",
        short="SSP, section 3.5",
        labels={"0": "elsewhere", "1": "abstract"},
    ),
}
WIDTHS = {"sp": 6, "dc": 7, "ssp": 2}  # columns: the label and the sentences
LABELS = {"sp": tuple("01234"), "dc": ("0", "1"), "ssp": ("0", "1")}


def read_discoeval(
    folder: str | Path, *, task: str, seed: int = 0, size: int | None = None, surface: bool = True
) -> Probe:
    """Read one of DiscoEval's tasks (bso, sp, dc, ssp) from its folder of train.txt, valid.txt and test.txt.

    Chen et al. (2019, https://aclanthology.org/D19-1060/). Files may be compressed (train.txt.gz). A line is
    `label<TAB>sentence<TAB>...`; in BSO it is a pair in order, of which both orders become items, as in their code.
    The items of one line, and in DC a line and its corrupted twin, form a group. Raises CorpusError for a file that is
    missing or not in this format.
    """
    files = find_discoeval_files(folder, task)
    about = DISCOEVAL_TASKS[task]
    rows: list[Row] = []
    for split, path in files.items():
        rows += read_rows(path, parse_discoeval(task, split, len(rows)))
    if task == "dc":  # a line and its corrupted twin share their outer sentences
        twins: dict[tuple[str, str], int] = {}
        rows = [(*row[:3], twins.setdefault((row[0][0], row[0][-1]), row[3])) for row in rows]
    if task == "bso":
        names = {"1": "in order", "0": "swapped"}
        rows = [row for texts, _, *rest in rows for row in ((texts, "1", *rest), (texts[::-1], "0", *rest))]  # type: ignore[misc]
    else:
        names = about.labels or {label: label for label in LABELS[task]}
    return make_published(
        rows,
        names,
        seed=seed,
        size=size,
        baselines=about.baselines if surface else (),
        name=f"discoeval_{task}",
        question=about.question,
        combine="difference" if task == "bso" else "concat",
        source=f"Chen et al., 2019 ({about.short})",
        note="DiscoEval's own items and partitions, shuffled." + (" Both orders of each pair." * (task == "bso")),
    )


def parse_discoeval(task: str, split: int, first_group: int) -> Callable[[list[str], str, int], Row]:
    def parse(columns: list[str], where: str, number: int) -> Row:
        if task == "bso":
            check(len(columns) == 2, where, f"{len(columns)} columns, not the 2 sentences of BSO")
            return tuple(columns), "1", split, first_group + number
        wanted = WIDTHS[task]
        check(len(columns) == wanted, where, f"{len(columns)} columns, not the {wanted} of {task.upper()}")
        check(columns[0] in LABELS[task], where, f"{columns[0]!r} is no label of {task.upper()}")
        return tuple(columns[1:]), columns[0], split, first_group + number

    return parse


def name_stem(path: Path) -> str:
    """Return a file's name without its suffixes: "bigram_shift" of bigram_shift.txt.gz."""
    return path.name.split(".")[0]


def find_discoeval_files(folder: str | Path, task: str) -> dict[int, Path]:
    """Return {split: file} of a task's folder. UserError for a task that is unknown, and for what is missing."""
    if task not in DISCOEVAL_TASKS:
        raise UserError(f"DiscoEval task {task!r} is unknown; known: {', '.join(DISCOEVAL_TASKS)}")
    if not Path(folder).is_dir():
        raise CorpusError(f"there is no folder {str(folder)!r} of DiscoEval's {task}; name one that holds train.txt")
    return {split: find_file(Path(folder), stem) for stem, split in FILES.items()}


def find_file(folder: Path, stem: str) -> Path:
    for suffix in ("", *SUFFIXES):
        path = folder / f"{stem}.txt{suffix}"
        if path.is_file():
            return path
    raise CorpusError(f"{folder} has no {stem}.txt; DiscoEval's folders hold train.txt, valid.txt and test.txt")


def read_rows(path: Path, parse: Callable[[list[str], str, int], Row]) -> Iterator[Row]:
    """Yield the rows of a file of tab-separated lines; blank lines are passed over."""
    for number, line in enumerate(read_lines(path, "strict", Notes())):
        if line.strip():
            columns = [column.strip() for column in line.split("\t")]
            where = f"{path}, line {number + 1}"
            check(all(columns), where, "an empty column")
            yield parse(columns, where, number)


def check(holds: bool, where: str, problem: str) -> None:
    if not holds:
        raise CorpusError(f"{where}: {problem}; mend the line")


def sort_key(label: str) -> tuple[int, str]:
    """Order labels that are numbers by value."""
    return (int(label), label) if label.isdigit() else (-1, label)


def make_published(
    rows: Sequence[Row],
    names: dict[str, str],
    *,
    seed: int,
    size: int | None,
    baselines: Iterable[str],
    **fields: Any,
) -> Probe:
    """Make a probe of rows, shuffled within each split, and cut there to its share of `size`; score its baselines."""
    in_split = Counter(row[2] for row in rows)
    for split, partition in {TRAIN: "training", DEV: "development", TEST: "test"}.items():
        if not in_split[split]:
            raise UserError(f"probe {fields['name']}: the data have no {partition} items; give the whole data set")
    draws = np.random.default_rng([seed, crc32(fields["name"].encode())])
    chosen: list[int] = []
    for split in sorted(in_split):
        members = draws.permutation([i for i, row in enumerate(rows) if row[2] == split])
        room = in_split[split] if size is None else max(1, size * in_split[split] // len(rows))
        chosen += members[:room].tolist()
    number = {label: i for i, label in enumerate(names)}
    index: dict[str, int] = {}
    places = [[(index.setdefault(text, len(index)), WHOLE_TEXT, WHOLE_TEXT) for text in rows[i][0]] for i in chosen]
    probe = Probe(
        texts=tuple(index),
        places=np.array(places, dtype=np.int64),
        labels=np.array([number[rows[i][1]] for i in chosen], dtype=np.int64),
        label_names=tuple(names.values()),
        split=np.array([rows[i][2] for i in chosen], dtype=np.int8),
        groups=np.array([rows[i][3] for i in chosen], dtype=np.int64),
        **fields,
    )
    return replace(probe, surface=score_baselines(probe, list(baselines)))
