"""Probes for what a vector keeps of words: how many, which, how frequent, in which case."""

from collections import Counter, defaultdict
from itertools import product

import numpy as np

from corpora.errors import UserError

from .gate import pass_gate
from .probe import DEV, TEST, TRAIN, Probe
from .raw_edits import find_inner
from .raw_pool import Item, Pool, Sentence, balance, make_probe, quota, whole
from .words import bin_count, lower_in_place, name_case

LENGTH_BINS = ((5, 8), (9, 12), (13, 16), (17, 20), (21, 25), (26, 28))  # SentEval's
PER_TARGET = {TRAIN: 24, DEV: 6, TEST: 10}  # sentences of each word_content class
MOST_TARGETS, FEWEST_TARGETS = 200, 10
FREQUENCY_BINS = 6
TOP_TYPES = 120  # word types of the most frequent bin
ALIKE_RATE = 0.1  # a type is ambiguous whose rarer case makes up this share of it


def build_sentence_length(pool: Pool, size: int) -> Probe:
    """How many words the sentence has, in SentEval's six bins (Conneau et al., 2018, section 3)."""
    bin_of = {n: i for i, (low, high) in enumerate(LENGTH_BINS) for n in range(low, high + 1)}
    items = [
        Item(
            places=(whole(sentence.text),),
            label=bin_of[len(sentence.words)],
            split=pool.split_of(sentence),
            group=sentence.document,
        )
        for sentence in pool.sentences()
    ]
    probe = make_probe(
        balance(items, size, len(LENGTH_BINS)),
        name="sentence_length",
        seed=pool.seed,
        question="How many words does the sentence have?",
        label_names=tuple(f"{low}-{high}" for low, high in LENGTH_BINS),
        source="Conneau et al., 2018, section 3 (SentLen)",
        note="Words without punctuation marks; as many sentences of each bin.",
    )
    return pass_gate(probe, recorded=("words",), counts=pool.counts)


def build_word_content(pool: Pool, size: int) -> Probe:
    """Which of up to 200 words the sentence holds (Conneau et al., 2018, section 3).

    They take ranks 2,001 to 3,000 of a large corpus. Here the targets are the rarest words of four letters or more that
    occur in enough sentences of every split; a sentence holds exactly one of them, once.
    """
    per_target = sum(PER_TARGET.values())
    limit = max(min(MOST_TARGETS, size // per_target), FEWEST_TARGETS)
    sentences = [
        (s, pool.split_of(s), Counter(s.word(i).lower() for i in range(len(s.words)))) for s in pool.sentences()
    ]
    occurs: dict[str, Counter[int]] = defaultdict(Counter)
    for _, split, words in sentences:
        for word, count in words.items():
            if len(word) >= 4 and word.isalpha() and count == 1:
                occurs[word][split] += 1
    rare_first = sorted(occurs, key=lambda word: (pool.counts.get(word, 0), word))
    chosen: dict[str, dict[int, list[Sentence]]] = {}
    for wanted, margin in product((limit, limit // 2, limit // 4), (1.3, 2.0, 3.0)):
        if len(chosen) >= max(wanted, FEWEST_TARGETS):
            break  # more targets leave fewer sentences that hold one of them only
        fit = [w for w in rare_first if all(occurs[w][split] >= margin * n for split, n in PER_TARGET.items())]
        chosen = max(chosen, collect_targets(sentences, set(fit[: 3 * wanted // 2])), key=len)
    if len(chosen) < FEWEST_TARGETS:
        raise UserError(
            f"probe word_content: the text has {len(chosen)} words that occur often enough, and {FEWEST_TARGETS} are "
            "needed; give more text"
        )
    full = sorted(sorted(chosen, key=lambda word: (pool.counts.get(word, 0), word))[:limit])
    items = [
        Item(places=(whole(sentence.text),), label=label, split=split, group=sentence.document)
        for label, word in enumerate(full)
        for split, n in PER_TARGET.items()
        for sentence in chosen[word][split][:n]
    ]
    probe = make_probe(
        items,
        name="word_content",
        seed=pool.seed,
        question="Which of the target words does the sentence hold?",
        label_names=tuple(full),
        source="Conneau et al., 2018, section 3 (WC)",
        note=f"{len(full)} targets, {per_target} sentences each, every one with exactly one target, once.",
    )
    return pass_gate(probe, recorded=("words",), counts=pool.counts)


def collect_targets(
    sentences: list[tuple[Sentence, int, Counter[str]]], targets: set[str]
) -> dict[str, dict[int, list[Sentence]]]:
    """Return, by target and split, the sentences that hold it once and no other, for targets that have enough."""
    chosen: dict[str, dict[int, list[Sentence]]] = defaultdict(lambda: defaultdict(list))
    for sentence, split, words in sentences:
        held = targets & words.keys()
        if len(held) == 1:
            word = next(iter(held))
            if words[word] == 1:
                chosen[word][split].append(sentence)
    return {
        word: by_split
        for word, by_split in chosen.items()
        if all(len(by_split[split]) >= n for split, n in PER_TARGET.items())
    }


def list_mid_words(sentence: Sentence) -> list[int]:
    """Return the numbers of the words before which a word stands, so that no rule capitalises them."""
    text = sentence.text
    words = sentence.words
    return [i for i in find_inner(sentence) if i and text[words[i - 1][1] : words[i][0]].isspace()]


def build_casing(pool: Pool, size: int) -> Probe:
    """Whether a word had a capital, from the sentence in lower case (true-casing: Lita et al., 2003).

    https://aclanthology.org/P03-1020/. Only words within a sentence count. No type is in two splits, and the two
    classes have the same frequencies; words that occur in both forms are scored on their own as "ambiguous".
    """
    capital: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for sentence in pool.order:
        for i in list_mid_words(sentence):
            word = sentence.word(i)
            if word.isalpha() and name_case(word) in ("upper", "lower"):
                capital[word.lower()][word[0].isupper()] += 1
    if not any(upper for _, upper in capital.values()):
        raise UserError("probe casing: the text has no capitals within sentences; leave this probe out")
    ambiguous = {word for word, found in capital.items() if min(found) >= max(ALIKE_RATE * sum(found), 1)}
    draws = pool.draw("casing")
    found: dict[int, Counter[int]] = defaultdict(Counter)
    uses: Counter[str] = Counter()
    items: list[Item] = []
    strata = []
    for sentence in pool.sentences():
        split = pool.split_of(sentence)
        if min(found[split][0], found[split][1]) >= quota(size, split):
            continue
        text = lower_in_place(sentence.text)
        of_case: dict[int, list[int]] = {0: [], 1: []}
        for i in list_mid_words(sentence):
            word = sentence.word(i)
            lower = word.lower()
            if lower in capital and len(word) > 1 and pool.part_of(lower) == split and uses[lower] < 8:
                if not word.isupper():
                    of_case[int(word[0].isupper())].append(i)
        for label, places in of_case.items():
            for i in draws.permutation(places)[:2]:
                word = sentence.word(i).lower()
                uses[word] += 1
                found[split][label] += 1
                subsets = ("ambiguous",) if word in ambiguous else ()
                place = (text, *sentence.words[i])
                items.append(Item(places=(place,), label=label, split=split, group=sentence.document, subsets=subsets))
                strata.append((bin_count(pool.counts.get(word, 0)) // 2, bool(subsets)))
    probe = make_probe(
        balance(items, size, 2, stratum=strata),
        name="casing",
        seed=pool.seed,
        subset_names=("ambiguous",),
        question="Was this word capitalised, before the text was put in lower case?",
        label_names=("lower", "capital"),
        source="after Lita et al., 2003 (truecasing)",
        note="Words within sentences, all letters; types differ between splits; frequencies matched between classes.",
    )
    chance = ("words", "frequency")
    return pass_gate(probe, at_chance=chance, recorded=("characters", "context", "position"), counts=pool.counts)


def build_frequency_bin(pool: Pool, size: int) -> Probe:
    """How frequent a word is, in six bins of about equal width in log frequency; no type is in two splits.

    The uppermost holds the 120 most frequent types, since a probe of fewer would ask for their identity. Fewer bins
    where many types are equally frequent.
    """
    ranked = sorted((n for word, n in pool.counts.items() if word.isalpha()), reverse=True)
    if len(ranked) <= 2 * TOP_TYPES:
        raise UserError(f"probe frequency_bin: the text has {len(ranked)} word types, too few; give more text")
    ratio = (len(ranked) / TOP_TYPES) ** (1 / (FREQUENCY_BINS - 1))
    edges = sorted({ranked[int(TOP_TYPES * ratio**i)] + 1 for i in range(FREQUENCY_BINS - 1)})
    num_bins = len(edges) + 1
    draws = pool.draw("frequency_bin")
    types: dict[tuple[int, int], set[str]] = defaultdict(set)
    for word, count in pool.counts.items():
        if word.isalpha():
            types[pool.part_of(word), int(np.searchsorted(edges, count, side="right"))].add(word)
    uses: Counter[str] = Counter()
    filled: Counter[tuple[int, int]] = Counter()
    items = []
    for sentence in pool.sentences():
        split = pool.split_of(sentence)
        for i in draws.permutation(find_inner(sentence))[:6]:
            word = sentence.word(i).lower()
            if not word.isalpha() or pool.part_of(word) != split:
                continue
            label = int(np.searchsorted(edges, pool.counts.get(word, 0), side="right"))
            room = quota(size, split) / num_bins
            most = max(1, round(1.5 * room / max(len(types[split, label]), 1)))
            if filled[split, label] >= room or uses[word] >= most:
                continue
            uses[word] += 1
            filled[split, label] += 1
            items.append(
                Item(places=((sentence.text, *sentence.words[i]),), label=label, split=split, group=sentence.document)
            )
    bounds = [1, *edges]
    probe = make_probe(
        balance(items, size, num_bins),
        name="frequency_bin",
        seed=pool.seed,
        question="How often does this word occur in the text?",
        label_names=tuple(f"{low}+" for low in bounds),
        source="counts of the text itself",
        note=f"{num_bins} bins of the logarithm; no type in two splits; a sentence's first word isn't asked.",
    )
    return pass_gate(probe, at_chance=("words",), recorded=("length", "characters", "context"), counts=pool.counts)
