"""The dependency trees of whole sentences, for the structural probe."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .probe import TEST, Probe
from .raw_pool import check_counts
from .treebank_read import Tree
from .treebank_words import choose_trees
from .trees import linear_chain_uuas


def build_dependency_tree(trees: Sequence[Tree], seed: int, size: int | None) -> Probe:
    """The undirected trees of sentences, by distances between their words.

    Hewitt and Manning, 2019, section 4, https://aclanthology.org/N19-1419/. Linking each word to the next is the floor.
    """
    chosen = choose_trees(trees, seed, size)
    words = [(number, word) for number, tree in enumerate(chosen) for word in tree.words]
    check_counts("dependency_tree", Counter(chosen[number].split for number, _ in words))
    places = np.array([[(number, *word.span)] for number, word in words], dtype=np.int64)  # (N, 1, 3)
    heads = np.array([word.head for _, word in words], dtype=np.int64)
    split = np.array([chosen[number].split for number, _ in words], dtype=np.int8)
    is_punctuation = np.array([word.upos == "PUNCT" for _, word in words])
    tested = split == TEST
    chain = linear_chain_uuas(heads[tested], find_sentences(places[tested, 0, 0]), is_punctuation[tested])
    return Probe(
        name="dependency_tree",
        question="Which words are joined by an arc?",
        texts=tuple(tree.text for tree in chosen),  # one for each sentence, though two may read the same
        places=places,
        labels=heads + 1,
        label_names=("root", *map(str, range(1, max(len(tree.words) for tree in chosen) + 1))),
        split=split,
        groups=np.array([chosen[number].group for number, _ in words], dtype=np.int64),
        kind="structural",
        metric="uuas",
        subsets={"punctuation": is_punctuation},
        surface={"linear_chain": chain},
        source="Hewitt and Manning, 2019, section 4 (structural probe, UUAS and DSpr.)",
        note="Arcs between words, without their direction and without punctuation; whole sentences.",
    )


def find_sentences(texts: np.ndarray) -> np.ndarray:
    """Return where sentences begin, and where the last ends (S + 1,), from the text of each word (N,)."""
    return np.concatenate([[0], np.flatnonzero(np.diff(texts)) + 1, [len(texts)]])
