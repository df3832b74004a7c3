"""Probes made from a Universal Dependencies treebank, in any language that has one."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import minimum_spanning_tree

from corpora.errors import UserError

from .probe import TEST, Probe
from .treebank_read import Files, Tree, read_treebank
from .treebank_sentences import (
    build_coordination_inversion,
    build_object_number,
    build_subject_number,
    build_tense,
    build_tree_depth,
)
from .treebank_words import build_dependency_arc, build_dependency_label, build_pos, control_ceiling, type_majority

__all__ = [
    "TREEBANK_PROBES",
    "Trees",
    "build_suite",
    "build_treebank_suite",
    "build_trees",
    "collect_trees",
    "control_ceiling",
    "linear_chain",
    "read_treebank",
    "score_unlabelled",
    "type_majority",
]

TREEBANK_PROBES: dict[str, Callable[[Sequence[Tree], int, int | None], Probe]] = {
    "pos": build_pos,
    "dependency_arc": build_dependency_arc,
    "dependency_label": build_dependency_label,
    "tense": build_tense,
    "subject_number": build_subject_number,
    "object_number": build_object_number,
    "tree_depth": build_tree_depth,
    "coordination_inversion": build_coordination_inversion,
}


@dataclass(frozen=True, kw_only=True)
class Trees:
    """M sentences with their words and heads, for the structural probe; W words in a sentence."""

    texts: tuple[str, ...]  # M
    spans: tuple[np.ndarray, ...]  # M of (W, 2): characters of each word; words of a contraction may share theirs
    heads: tuple[np.ndarray, ...]  # M of (W,) int64: the index of a word's head in the sentence, -1 for the root
    is_punctuation: tuple[np.ndarray, ...]  # M of (W,) bool
    split: np.ndarray  # (M,) int8
    groups: np.ndarray  # (M,) int64

    def __len__(self) -> int:
        return len(self.texts)


def build_treebank_suite(
    train_files: Files,
    dev_files: Files = (),
    test_files: Files = (),
    *,
    seed: int = 0,
    size: int | None = 30_000,
    names: Sequence[str] | None = None,
) -> list[Probe]:
    """Read a treebank and build its probes, of at most `size` items each (60 % training), or of all there are for None.

    Without test files (and development files) the sentences are split by document. `names` chooses from
    TREEBANK_PROBES; a probe that is asked for by name and can't be built raises its UserError, else it is left out with
    a line on standard error. Raises CorpusError for files that can't be read.
    """
    return build_suite(read_treebank(train_files, dev_files, test_files, seed=seed), seed=seed, size=size, names=names)


def build_suite(
    trees: Sequence[Tree], *, seed: int = 0, size: int | None = 30_000, names: Sequence[str] | None = None
) -> list[Probe]:
    """Build the probes of sentences that were read already; see `build_treebank_suite`."""
    for name in names or ():
        if name not in TREEBANK_PROBES:
            raise UserError(f"probe {name!r} is unknown; known: {', '.join(TREEBANK_PROBES)}")
    probes = []
    for name in names or TREEBANK_PROBES:
        try:
            probes.append(TREEBANK_PROBES[name](trees, seed, size))
        except UserError as error:
            if names:
                raise
            print(f"left out: {error}", file=sys.stderr)
    if not probes:
        raise UserError("the treebank is too small for any probe; give a larger one")
    return probes


def build_trees(train_files: Files, dev_files: Files = (), test_files: Files = (), *, seed: int = 0) -> Trees:
    """Read a treebank's trees for the structural probe (Hewitt and Manning, 2019, https://aclanthology.org/N19-1419/)."""
    return collect_trees(read_treebank(train_files, dev_files, test_files, seed=seed))


def collect_trees(trees: Sequence[Tree]) -> Trees:
    """Put the trees of sentences together as arrays."""
    return Trees(
        texts=tuple(tree.text for tree in trees),
        spans=tuple(np.array([word.span for word in tree.words], dtype=np.int64) for tree in trees),
        heads=tuple(np.array([word.head for word in tree.words], dtype=np.int64) for tree in trees),
        is_punctuation=tuple(np.array([word.upos == "PUNCT" for word in tree.words]) for tree in trees),
        split=np.array([tree.split for tree in trees], dtype=np.int8),
        groups=np.array([tree.group for tree in trees], dtype=np.int64),
    )


def linear_chain(trees: Trees, split: int = TEST) -> float:
    """Return the UUAS of joining each word to the next, punctuation left out: the floor of the structural probe."""
    chosen = [i for i in range(len(trees)) if trees.split[i] == split]
    distances = [abs(np.subtract.outer(*(2 * [np.arange(len(trees.heads[i]))]))).astype(float) for i in chosen]
    return score_unlabelled(trees, chosen, distances)


def score_unlabelled(trees: Trees, chosen: Sequence[int], distances: Sequence[np.ndarray]) -> float:
    """Return the share of gold arcs found by minimum spanning trees of (W, W) distances, punctuation left out (UUAS).

    As Hewitt and Manning (2019, section 4.1): gold arcs that touch punctuation don't count, nor do punctuation marks
    take part in the spanning tree.
    """
    hits = total = 0
    for i, distance in zip(chosen, distances, strict=True):
        words = np.flatnonzero(~trees.is_punctuation[i])
        gold = {
            (min(a, b), max(a, b))
            for a, b in enumerate(trees.heads[i].tolist())
            if b >= 0 and not trees.is_punctuation[i][[a, b]].any()
        }
        if len(words) > 1:
            near = distance[np.ix_(words, words)]
            rows, columns = minimum_spanning_tree(csr_matrix(np.triu(near + 1e-9, 1))).nonzero()
            pairs = zip(words[rows].tolist(), words[columns].tolist(), strict=True)
            hits += len(gold & {(min(pair), max(pair)) for pair in pairs})
        total += len(gold)
    return hits / max(total, 1)
