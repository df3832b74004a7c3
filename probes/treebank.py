"""Probes made from a Universal Dependencies treebank, in any language that has one."""

import sys
from collections.abc import Callable, Sequence

from corpora.errors import UserError

from .probe import Probe
from .treebank_read import Files, Tree, read_treebank
from .treebank_sentences import (
    build_coordination_inversion,
    build_object_number,
    build_subject_number,
    build_tense,
    build_tree_depth,
)
from .treebank_trees import build_dependency_tree
from .treebank_words import build_dependency_arc, build_dependency_label, build_pos, control_ceiling, type_majority

__all__ = [
    "TREEBANK_PROBES",
    "build_suite",
    "build_treebank_suite",
    "control_ceiling",
    "read_treebank",
    "type_majority",
]

TREEBANK_PROBES: dict[str, Callable[[Sequence[Tree], int, int | None], Probe]] = {
    "pos": build_pos,
    "dependency_arc": build_dependency_arc,
    "dependency_label": build_dependency_label,
    "dependency_tree": build_dependency_tree,
    "tense": build_tense,
    "subject_number": build_subject_number,
    "object_number": build_object_number,
    "tree_depth": build_tree_depth,
    "coordination_inversion": build_coordination_inversion,
}


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
