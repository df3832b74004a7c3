"""Probes for sentences of a treebank: tense, number, depth, the order of clauses."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from corpora.errors import UserError

from .gate import score_baselines
from .probe import TRAIN, Probe
from .raw_pool import Item, balance, make_probe, whole
from .treebank_read import Tree
from .words import name_case

FEWEST_WORDS, MOST_WORDS = 5, 28  # SentEval's
SENTEVAL = "after Conneau et al., 2018, section 3"


def build_tense(trees: Sequence[Tree], seed: int, size: int | None) -> Probe:
    """Whether the main verb is in the past or the present (Conneau et al., 2018, https://aclanthology.org/P18-1198/)."""

    def find(tree: Tree) -> tuple[int, str] | None:
        root = tree.words[tree.root]
        if root.upos not in ("VERB", "AUX") or root.features.get("VerbForm") != "Fin":
            return None
        return tree.root, root.features.get("Tense", "")

    return build_form_probe(
        trees, seed, size, find, ("Past", "Pres"), "tense", "Is the main verb in the past or in the present?", "Tense"
    )


def build_subject_number(trees: Sequence[Tree], seed: int, size: int | None) -> Probe:
    """Whether the main verb's subject, a common noun, is one or many (Conneau et al., 2018)."""
    return build_form_probe(
        trees,
        seed,
        size,
        lambda tree: find_noun(tree, "nsubj"),
        ("Sing", "Plur"),
        "subject_number",
        "Is the subject of the main clause singular or plural?",
        "SubjNum",
    )


def build_object_number(trees: Sequence[Tree], seed: int, size: int | None) -> Probe:
    """Whether the main verb's direct object, a common noun, is one or many (Conneau et al., 2018)."""
    return build_form_probe(
        trees,
        seed,
        size,
        lambda tree: find_noun(tree, "obj"),
        ("Sing", "Plur"),
        "object_number",
        "Is the direct object of the main clause singular or plural?",
        "ObjNum",
    )


def find_noun(tree: Tree, relation: str) -> tuple[int, str] | None:
    nouns = [i for i in tree.children(tree.root) if tree.words[i].relation == relation]
    if len(nouns) != 1 or tree.words[nouns[0]].upos != "NOUN":
        return None
    return nouns[0], tree.words[nouns[0]].features.get("Number", "")


def build_form_probe(
    trees: Sequence[Tree],
    seed: int,
    size: int | None,
    find: Callable[[Tree], tuple[int, str] | None],
    values: tuple[str, str],
    name: str,
    question: str,
    task: str,
) -> Probe:
    """A question about the sentence that one of its words answers; no form of that word is in two splits."""
    found = []
    for tree in list_short(trees):
        answer = find(tree)
        if answer is not None and answer[1] in values:
            found.append((tree, answer[0], values.index(answer[1])))
    check_classes(name, [label for *_, label in found], values)
    part = divide_forms([(tree.words[i].form.lower(), tree.split) for tree, i, _ in found], seed)
    kept = [(tree, i, label) for tree, i, label in found if part[tree.words[i].form.lower()] == tree.split]
    order = np.random.default_rng([seed, 3]).permutation(len(kept))
    entries = {}  # by item, to look at the same items word by word
    for number in order:
        tree, i, label = kept[number]
        item = Item(places=(whole(tree.text),), label=label, split=tree.split, group=tree.group)
        entries[id(item)] = (item, (tree.text, *tree.words[i].span))
    chosen = balance([item for item, _ in entries.values()], size or len(kept) * 10, 2)
    probe = make_probe(
        chosen,
        name=name,
        seed=seed,
        question=question,
        label_names=values,
        source=f"{SENTEVAL} ({task})",
        note="Sentences of 5 to 28 words, as many of each answer; no form of the word asked about is in two splits.",
    )
    words = make_probe(
        [replace(item, places=(entries[id(item)][1],)) for item in chosen],
        name=name,
        seed=seed,
        question=question,
        label_names=values,
    )
    surface = score_baselines(probe, ["words", "length"])
    return replace(probe, surface=surface | {"form": score_baselines(words, ["characters"])["characters"]})


def check_classes(name: str, labels: list[int], values: Sequence[str], fewest: int = 2) -> None:
    """Raise UserError where an answer has hardly an item."""
    counts = Counter(labels)
    for label, value in enumerate(values):
        if counts[label] < fewest:
            raise UserError(
                f"probe {name}: the treebank has {counts[label]} sentences with the answer {value!r}; give a larger "
                "treebank, or one with this annotation"
            )


def list_short(trees: Sequence[Tree]) -> list[Tree]:
    """Return the sentences of 5 to 28 words, punctuation not counted, each text once."""
    seen: set[str] = set()
    short = []
    for tree in trees:
        count = sum(word.upos != "PUNCT" for word in tree.words)
        if FEWEST_WORDS <= count <= MOST_WORDS and tree.text not in seen:
            short.append(tree)
            seen.add(tree.text)
    return short


def divide_forms(found: Sequence[tuple[str, int]], seed: int) -> dict[str, int]:
    """Return one split for each form: at random, as often as it makes up a share of the split's items."""
    totals = Counter(split for _, split in found)
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for form, split in found:
        counts[form][split] += 1
    draws = np.random.default_rng([seed, 4])
    part = {}
    for form in sorted(counts):
        splits = sorted(counts[form])
        weights = np.array([counts[form][split] / totals[split] for split in splits])
        part[form] = splits[int(draws.choice(len(splits), p=weights / weights.sum()))]
    return part


def build_tree_depth(trees: Sequence[Tree], seed: int, size: int | None) -> Probe:
    """Whether the tree is deeper than is usual for a sentence of its length.

    Conneau et al. (2018, section 3) ask for the depth of a constituent tree, with length decorrelated. Depth and length
    of dependency trees correlate at .74 (English Web Treebank and GUM), so that here each length has as many deep trees
    as shallow ones.
    """
    short = list_short(trees)
    depths: dict[int, list[int]] = defaultdict(list)
    for tree in short:
        if tree.split == TRAIN:
            depths[len(tree.words)].append(tree.depth())
    limit = {}
    for length, found in depths.items():
        below = Counter({depth: sum(other <= depth for other in found) for depth in set(found)})
        limit[length] = min(below, key=lambda depth: (abs(2 * below[depth] - len(found)), depth))
    items = []
    lengths = []
    for i in np.random.default_rng([seed, 5]).permutation(len(short)):
        tree = short[i]
        if len(tree.words) in limit:
            label = int(tree.depth() > limit[len(tree.words)])
            items.append(Item(places=(whole(tree.text),), label=label, split=tree.split, group=tree.group))
            lengths.append(len(tree.words))
    check_classes("tree_depth", [item.label for item in items], ("shallow", "deep"))
    probe = make_probe(
        balance(items, size or len(items) * 10, 2, stratum=lengths),
        name="tree_depth",
        seed=seed,
        question="Is the sentence's tree deeper than those of most sentences of its length?",
        label_names=("shallow", "deep"),
        source=f"{SENTEVAL} (TreeDepth), within length",
        note="Arcs on the longest path from the root, against the median of the length; equally many at each length.",
    )
    return replace(probe, surface=score_baselines(probe, ["words", "length"]))


def build_coordination_inversion(trees: Sequence[Tree], seed: int, size: int | None) -> Probe:
    """Whether the two clauses of a coordination have changed places (Conneau et al., 2018, section 3)."""
    draws = np.random.default_rng([seed, 6])
    filled: Counter[tuple[int, bool]] = Counter()
    items = []
    short = list_short(trees)
    for i in draws.permutation(len(short)):
        tree = short[i]
        halves = find_clauses(tree)
        if halves is None:
            continue
        key = (tree.split, halves[0][1] - halves[0][0] > halves[1][1] - halves[1][0])
        label = filled[key] % 2
        filled[key] += 1
        text = invert(tree, *halves) if label else tree.text
        items.append(Item(places=(whole(text),), label=label, split=tree.split, group=tree.group))
    probe = make_probe(
        balance(items, size or len(items) * 10, 2),
        name="coordination_inversion",
        seed=seed,
        question="Have the two coordinated clauses changed places?",
        label_names=("original", "inverted"),
        source=f"{SENTEVAL} (CoordInv)",
        note="Two clauses with subjects and one conjunction; as often the longer clause first in both classes.",
    )
    return replace(probe, surface=score_baselines(probe, ["words", "bigrams", "length"]))


def find_clauses(tree: Tree) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the words [start, end) of two clauses joined by one conjunction, which stands between; else None."""
    root = tree.root
    joined = [i for i in tree.children(root) if tree.words[i].relation == "conj"]
    if len(joined) != 1 or not all(has_subject(tree, clause) for clause in (root, joined[0])):
        return None
    conjunctions = [i for i, word in enumerate(tree.words) if word.relation == "cc"]
    if len(conjunctions) != 1 or tree.words[conjunctions[0]].head != joined[0]:
        return None
    at = conjunctions[0]
    inside = [i for i in range(len(tree.words)) if is_below(tree, i, joined[0])]
    last = len(tree.words)
    while tree.words[last - 1].upos == "PUNCT" and last > at + 1:
        last -= 1
    before = at
    while tree.words[before - 1].upos == "PUNCT" and before > 0:
        before -= 1
    first_of_second = [i for i in inside if i > at]
    outside = [i for i in range(at + 1, last) if i not in inside and tree.words[i].upos != "PUNCT"]
    if not first_of_second or outside or any(i < before for i in inside) or before == 0 or root >= before:
        return None
    return (0, before), (at + 1, last)


def has_subject(tree: Tree, clause: int) -> bool:
    return any(tree.words[i].relation in ("nsubj", "csubj") for i in tree.children(clause))


def is_below(tree: Tree, word: int, top: int) -> bool:
    while word >= 0 and word != top:
        word = tree.words[word].head
    return word == top


def invert(tree: Tree, first: tuple[int, int], second: tuple[int, int]) -> str:
    """Return the text with the clauses exchanged, the new first word capitalised and the old one not."""
    text = tree.text
    (a, b), (c, d) = ((tree.words[s].span[0], tree.words[e - 1].span[1]) for s, e in (first, second))
    early, late = text[a:b], text[c:d]
    opener = tree.words[first[0]]
    if name_case(opener.form) == "upper" and opener.upos != "PROPN" and not opener.form.startswith("I"):
        early = early[0].lower() + early[1:]
        late = late[0].upper() + late[1:]
    return text[:a] + late + text[b:c] + early + text[d:]
