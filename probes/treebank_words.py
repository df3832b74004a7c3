"""Probes for words in a treebank: their part of speech, their head, their relation to it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from corpora.errors import UserError

from .gate import score_baselines
from .probe import TEST, TOO_RARE, TRAIN, Probe
from .raw_pool import Item, Place, make_probe, quota
from .treebank_read import Tree

FEWEST_OF_CLASS = 5  # training items; rarer classes are left out


def build_pos(trees: Sequence[Tree], seed: int, size: int | None) -> Probe:
    """The universal part of speech of each word (Liu et al., 2019, section 2, https://aclanthology.org/N19-1112/).

    `control_labels` give every word form one tag at random, in the proportions of the real ones (Hewitt and Liang,
    2019, section 2, https://aclanthology.org/D19-1275/). Words that share their characters with others aren't asked.
    """
    items = []
    for tree in choose_trees(trees, seed, size):
        for word in tree.words:
            if not word.is_shared:
                items.append(((tree.text, *word.span), word.upos, word.form, tree))
    label_names, dropped = choose_labels("pos", [(label, tree.split) for _, label, _, tree in items])
    kept = [entry for entry in items if entry[1] in label_names]
    seen: dict[str, set[str]] = defaultdict(set)
    for _, label, form, tree in kept:
        if tree.split == TRAIN:
            seen[form].add(label)
    probe = make_probe(
        [
            Item(
                places=(place,),
                label=label_names.index(label),
                split=tree.split,
                group=tree.group,
                subsets=("unseen",) if form not in seen else ("ambiguous",) if len(seen[form]) > 1 else (),
            )
            for place, label, form, tree in kept
        ],
        name="pos",
        seed=seed,
        subset_names=("unseen", "ambiguous"),
        question="Which part of speech is this word?",
        label_names=label_names,
        source="Liu et al., 2019, section 2; control task of Hewitt and Liang, 2019",
        note="Universal tags of all words." + describe_dropped(dropped),
    )
    probe = replace(probe, control_labels=draw_control_labels(probe, seed))
    surface = {"type_majority": type_majority(probe), **score_baselines(probe, ["characters"])}
    return replace(probe, surface=surface)


def build_dependency_arc(trees: Sequence[Tree], seed: int, size: int | None) -> Probe:
    """Whether the second word is the head of the first; else it is another word of the sentence, drawn at random.

    Liu et al., 2019, section 2, https://aclanthology.org/N19-1112/. Punctuation and the root aren't asked. How far the
    two are apart tells much: it stands in `surface`, as do the two words by themselves.
    """
    draws = np.random.default_rng([seed, 1])
    items = []
    for tree in choose_trees(trees, seed, None if size is None else size / 2):
        for child, head in list_arcs(tree):
            others = [i for i, w in enumerate(tree.words) if i not in (child, head) and not w.is_shared]
            if others:
                other = others[draws.integers(len(others))]
                items += [
                    Item(places=place_pair(tree, child, end), label=label, split=tree.split, group=tree.group)
                    for end, label in ((head, 1), (other, 0))
                ]
    probe = make_probe(
        items,
        name="dependency_arc",
        seed=seed,
        question="Is the second word the head of the first?",
        label_names=("other", "head"),
        combine="arc",
        source="Liu et al., 2019, section 2 (syntactic dependency arc prediction)",
        note="Each word but root and punctuation once with its head and once with another word of its sentence.",
    )
    return replace(probe, surface=score_baselines(probe, ["first", "second", "words", "distance"]))


def build_dependency_label(trees: Sequence[Tree], seed: int, size: int | None) -> Probe:
    """The universal relation of a word to its head (Liu et al., 2019, section 2, https://aclanthology.org/N19-1112/)."""
    entries = [
        (place_pair(tree, child, head), tree.words[child].relation, tree)
        for tree in choose_trees(trees, seed, size)
        for child, head in list_arcs(tree)
    ]
    label_names, dropped = choose_labels("dependency_label", [(label, tree.split) for _, label, tree in entries])
    probe = make_probe(
        [
            Item(places=places, label=label_names.index(label), split=tree.split, group=tree.group)
            for places, label, tree in entries
            if label in label_names
        ],
        name="dependency_label",
        seed=seed,
        question="Which relation has the first word to the second, its head?",
        label_names=label_names,
        combine="arc",
        source="Liu et al., 2019, section 2 (syntactic dependency arc classification)",
        note="Relations without subtypes, of all words but root and punctuation." + describe_dropped(dropped),
    )
    return replace(
        probe, surface={"type_majority": type_majority(probe), **score_baselines(probe, ["words", "distance"])}
    )


def choose_trees(trees: Sequence[Tree], seed: int, size: float | None) -> list[Tree]:
    """Return whole sentences at random that have `size` words together, in the shares of the splits; all for None."""
    if size is None:
        return list(trees)
    chosen = []
    filled: Counter[int] = Counter()
    for i in np.random.default_rng([seed, 0]).permutation(len(trees)):
        tree = trees[i]
        if filled[tree.split] < quota(round(size), tree.split):
            filled[tree.split] += len(tree.words)
            chosen.append(tree)
    return chosen


def choose_labels(name: str, found: Sequence[tuple[str, int]]) -> tuple[tuple[str, ...], list[str]]:
    """Return the labels with enough training items, and those without; UserError where fewer than two have enough."""
    every = Counter(label for label, _ in found)
    in_training = Counter(label for label, split in found if split == TRAIN)
    kept = sorted(label for label in every if in_training[label] >= FEWEST_OF_CLASS)
    if len(kept) < 2:
        counts = ", ".join(f"{label} {in_training[label]:,}" for label in sorted(every)[:6]) or "none"
        raise UserError(
            f"probe {name}: two labels with {FEWEST_OF_CLASS} training items are needed; the treebank has {counts}; "
            "give a larger treebank, or one with this annotation"
        )
    return tuple(kept), sorted(every.keys() - set(kept))


def describe_dropped(labels: list[str]) -> str:
    return f" {TOO_RARE}{', '.join(labels)}." if labels else ""


def list_arcs(tree: Tree) -> list[tuple[int, int]]:
    """Return (word, head) of every word that is neither root nor punctuation, nor shares its characters with others."""
    return [
        (i, word.head)
        for i, word in enumerate(tree.words)
        if word.head >= 0 and word.upos != "PUNCT" and not word.is_shared and not tree.words[word.head].is_shared
    ]


def place_pair(tree: Tree, first: int, second: int) -> tuple[Place, Place]:
    return (tree.text, *tree.words[first].span), (tree.text, *tree.words[second].span)


def type_majority(probe: Probe) -> float:
    """Return the test accuracy of each word form's commonest training label, and the commonest of all for new forms.

    With several places a type is all of their forms together.
    """
    types = read_types(probe)
    of_type: dict[tuple[str, ...], Counter[int]] = defaultdict(Counter)
    training = np.flatnonzero(probe.split == TRAIN)
    for i in training:
        of_type[types[i]][int(probe.labels[i])] += 1
    commonest = int(np.bincount(probe.labels[training]).argmax())
    guess = {form: min(found, key=lambda label: (-found[label], label)) for form, found in of_type.items()}
    tested = np.flatnonzero(probe.split == TEST)
    return float(np.mean([guess.get(types[i], commonest) == probe.labels[i] for i in tested]))


def control_ceiling(probe: Probe) -> float:
    """Return the share of test items whose word form was seen in training: what memorising scores on the control task.

    Chance on the unseen forms comes on top.
    """
    types = read_types(probe)
    seen = {types[i] for i in np.flatnonzero(probe.split == TRAIN)}
    return float(np.mean([types[i] in seen for i in np.flatnonzero(probe.split == TEST)]))


def draw_control_labels(probe: Probe, seed: int) -> np.ndarray:
    """Return for each item a label drawn once for its word form, int64 (N,), in the proportions of training."""
    types = read_types(probe)
    rates = np.bincount(probe.labels[probe.split == TRAIN], minlength=len(probe.label_names)).astype(float)
    forms = sorted(set(types))
    drawn = np.random.default_rng([seed, 2]).choice(len(rates), size=len(forms), p=rates / rates.sum())
    of_form = dict(zip(forms, drawn.tolist(), strict=True))
    return np.array([of_form[form] for form in types], dtype=np.int64)


def read_types(probe: Probe) -> list[tuple[str, ...]]:
    return [tuple(probe.texts[text][start:end] for text, start, end in places) for places in probe.places.tolist()]
