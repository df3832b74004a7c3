"""Probes for text that was tampered with: swapped words and replaced words."""

from collections import defaultdict
from collections.abc import Callable
from itertools import combinations

import numpy as np

from .gate import pass_gate
from .probe import Probe
from .raw_pool import Item, Pool, Sentence, balance, make_probe, quota, whole
from .words import QUOTES, bin_count, name_case

FAR = 4  # words apart, at least, in a long swap
REPLACED_RATE = 0.15  # of the words of a sentence
FREQUENT = 1e-3  # of all words: what is more frequent isn't replaced

Bucket = tuple[str, str, int, int]  # case, ending, frequency bin, part of the vocabulary


def build_bigram_shift(pool: Pool, size: int) -> Probe:
    """Two neighbouring words swapped or not (Conneau et al., 2018, section 3, https://aclanthology.org/P18-1198/).

    Neither is the first or last token, nothing but white space lies between, their case agrees, and no sentence has
    quotes; sentences left as they are pass the same filter. A bigram model still scores: that is the question itself.
    """
    items = swap_words(pool, size, "bigram_shift", find_neighbours)
    probe = make_probe(
        items,
        name="bigram_shift",
        seed=pool.seed,
        question="Were two neighbouring words of the sentence swapped?",
        label_names=("original", "swapped"),
        source="Conneau et al., 2018, section 3 (BShift)",
        note="Swapped words agree in case; neither opens or closes it. Untouched sentences passed the same filter.",
    )
    chance = ("words", "shapes", "length", "frequency")
    return pass_gate(probe, at_chance=chance, recorded=("bigrams",), counts=pool.counts)


def build_long_swap(pool: Pool, size: int) -> Probe:
    """Two words at least four apart swapped or not, of one case and frequency, so that word order is what tells."""
    items = swap_words(pool, size, "long_swap", find_far_twins)
    probe = make_probe(
        items,
        name="long_swap",
        seed=pool.seed,
        question=f"Were two words of the sentence, {FAR} or more apart, swapped?",
        label_names=("original", "swapped"),
        source="after Conneau et al., 2018, section 3 (BShift), at a distance",
        note="Swapped words agree in case and in frequency (a power of two). Untouched sentences passed the filter.",
    )
    chance = ("words", "shapes", "length", "frequency")
    return pass_gate(probe, at_chance=chance, recorded=("bigrams",), counts=pool.counts)


def swap_words(pool: Pool, size: int, name: str, find: Callable[[Sentence, Pool], list[tuple[int, int]]]) -> list[Item]:
    """Return sentences with or without a swap of two words, drawn from those that `find` allows in them."""
    draws = pool.draw(name)
    filled: dict[int, int] = defaultdict(int)
    items = []
    for sentence in pool.sentences():
        split = pool.split_of(sentence)
        if filled[split] >= quota(size, split) or any(character in QUOTES - {"'", "’"} for character in sentence.text):
            continue
        pairs = find(sentence, pool)
        if not pairs:
            continue
        left, right = pairs[draws.integers(len(pairs))]
        label = filled[split] % 2
        filled[split] += 1
        text = swap(sentence, left, right) if label else sentence.text
        items.append(Item(places=(whole(text),), label=label, split=split, group=sentence.document))
    return balance(items, size, 2)


def swap(sentence: Sentence, left: int, right: int) -> str:
    """Return the sentence's text with two of its words, by number, in each other's place."""
    (a, b), (c, d) = sentence.words[left], sentence.words[right]
    text = sentence.text
    return text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:]


def find_inner(sentence: Sentence) -> list[int]:
    """Return the numbers of the words that are neither the sentence's first token nor its last."""
    text = sentence.text
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    return [i for i, (start, end) in enumerate(sentence.words) if start > first and end < last]


def find_neighbours(sentence: Sentence, pool: Pool) -> list[tuple[int, int]]:
    inner = set(find_inner(sentence))
    pairs = []
    for i in range(len(sentence.words) - 1):
        between = sentence.text[sentence.words[i][1] : sentence.words[i + 1][0]]
        first, second = sentence.word(i), sentence.word(i + 1)
        alike = name_case(first) == name_case(second) and first.lower() != second.lower()
        if i in inner and i + 1 in inner and alike and between.isspace():
            pairs.append((i, i + 1))
    return pairs


def find_far_twins(sentence: Sentence, pool: Pool) -> list[tuple[int, int]]:
    kinds: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i in find_inner(sentence):
        word = sentence.word(i)
        kinds[name_case(word), bin_count(pool.counts.get(word.lower(), 0)) // 2].append(i)
    return [
        (a, b)
        for members in kinds.values()
        for a, b in combinations(members, 2)
        if b - a >= FAR and sentence.word(a).lower() != sentence.word(b).lower()
    ]


class Lexicon:
    """Words that may be replaced, and by what: those of the same case, ending, frequency and part of the vocabulary.

    The part is that of the split, for both, so that no word is a sign of being in or out of place: what is replaced or
    a replacement in training is neither in test.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        limit = FREQUENT * max(sum(pool.counts.values()), 1)
        self._limit = max(limit, 20)
        forms: dict[str, int] = defaultdict(int)
        for sentence in pool.order:
            for i in find_inner(sentence):
                forms[sentence.word(i)] += 1
        members: dict[Bucket, list[tuple[str, int]]] = defaultdict(list)
        for form, count in sorted(forms.items()):
            bucket = self.find_bucket(form)
            if bucket is not None:
                members[bucket].append((form, count))
        self._members = {bucket: found for bucket, found in members.items() if len(found) > 1}

    def find_bucket(self, word: str) -> Bucket | None:
        """Return what a word may be replaced within; None for a word that is short, rare, frequent or no word."""
        lower = word.lower()
        count = self._pool.counts.get(lower, 0)
        if len(word) < 3 or not word.isalpha() or not 2 <= count <= self._limit:
            return None
        return name_case(word), lower[-2:], bin_count(count), self._pool.part_of(lower)

    def find_replaceable(self, sentence: Sentence, split: int) -> list[int]:
        """Return the numbers of the words that have a substitute in the part of the vocabulary of `split`."""
        buckets = [(i, self.find_bucket(sentence.word(i))) for i in find_inner(sentence)]
        return [i for i, bucket in buckets if bucket in self._members and bucket is not None and bucket[3] == split]

    def substitute(self, word: str, draws: np.random.Generator) -> str:
        """Return another word of the same bucket, drawn by frequency."""
        bucket = self.find_bucket(word)
        assert bucket is not None
        others = [(form, count) for form, count in self._members[bucket] if form.lower() != word.lower()]
        if not others:
            return word
        weights = np.cumsum([count for _, count in others])
        return others[int(np.searchsorted(weights, draws.random() * weights[-1], side="right"))][0]


def replace_words(
    sentence: Sentence, chosen: list[int], lexicon: Lexicon, draws: np.random.Generator
) -> tuple[str, dict[int, tuple[int, int]], set[int]]:
    """Return the text with words replaced, the spans of all its words, and the numbers of those that changed."""
    parts = []
    spans = {}
    changed = set()
    end = length = 0
    for i, (start, stop) in enumerate(sentence.words):
        gap = sentence.text[end:start]
        word = sentence.text[start:stop]
        if i in chosen:
            new = lexicon.substitute(word, draws)
            if new.lower() != word.lower():
                changed.add(i)
            word = new
        parts += [gap, word]
        spans[i] = (length + len(gap), length + len(gap) + len(word))
        length += len(gap) + len(word)
        end = stop
    return "".join([*parts, sentence.text[end:]]), spans, changed


def build_replacement_sentence(pool: Pool, size: int) -> Probe:
    """One word of the sentence replaced by another of the same case, ending and frequency, or none (after SOMO).

    Conneau et al., 2018, section 3 (SOMO), https://aclanthology.org/P18-1198/; without their tagger the ending stands
    for the part of speech.
    """
    lexicon, draws = Lexicon(pool), pool.draw("replacement_sentence")
    filled: dict[int, int] = defaultdict(int)
    items = []
    for sentence in pool.sentences():
        split = pool.split_of(sentence)
        if filled[split] >= quota(size, split):
            continue
        replaceable = lexicon.find_replaceable(sentence, split)
        if not replaceable:
            continue
        label = filled[split] % 2
        text = sentence.text
        if label:
            text, _, changed = replace_words(sentence, [int(draws.choice(replaceable))], lexicon, draws)
            if not changed:
                continue
        filled[split] += 1
        items.append(Item(places=(whole(text),), label=label, split=split, group=sentence.document))
    probe = make_probe(
        balance(items, size, 2),
        name="replacement_sentence",
        seed=pool.seed,
        question="Was a word of the sentence replaced by another one?",
        label_names=("original", "replaced"),
        source="after Conneau et al., 2018, section 3 (SOMO)",
        note="Both words share case, last two letters and frequency (half a power of two); no type is in two splits.",
    )
    return pass_gate(probe, at_chance=("words", "bigrams", "shapes", "length", "frequency"), counts=pool.counts)


def build_replacement_token(pool: Pool, size: int) -> Probe:
    """Which words were replaced, by a corruptor that no encoder was trained against (after Clark et al., 2020).

    ELECTRA's question (https://arxiv.org/abs/2003.10555), with substitutes matched in case, ending and frequency in
    place of a generator's. Replaced and kept words come from the same part of the vocabulary and the same frequency
    bins in equal numbers.
    """
    lexicon, draws = Lexicon(pool), pool.draw("replacement_token")
    filled: dict[int, int] = defaultdict(int)
    items: list[Item] = []
    bins = []
    for sentence in pool.sentences():
        split = pool.split_of(sentence)
        if filled[split] >= 1.5 * quota(size, split):
            continue
        replaceable = lexicon.find_replaceable(sentence, split)
        if len(replaceable) < 2:
            continue
        count = min(max(round(REPLACED_RATE * len(sentence.words)), 1), len(replaceable) // 2)
        chosen = [int(i) for i in draws.choice(replaceable, count, replace=False)]
        text, spans, changed = replace_words(sentence, chosen, lexicon, draws)
        kept = [i for i in replaceable if i not in chosen]
        asked = [*sorted(changed), *(int(i) for i in draws.choice(kept, min(len(kept), len(changed)), replace=False))]
        for i in asked:
            place = (text, *spans[i])
            items.append(Item(places=(place,), label=int(i in changed), split=split, group=sentence.document))
            bins.append(bin_count(pool.counts.get(text[slice(*spans[i])].lower(), 0)))
        filled[split] += len(asked)
    probe = make_probe(
        balance(items, size, 2, stratum=bins),
        name="replacement_token",
        seed=pool.seed,
        question="Was this word put in the place of another one?",
        label_names=("original", "replaced"),
        metric="auroc",
        source="after Clark et al., 2020, section 2 (replaced token detection)",
        note=f"{REPLACED_RATE:.0%} of the words replaced by words of the same case, last two letters and frequency.",
    )
    chance = ("words", "characters", "context", "frequency", "length", "position")
    return pass_gate(probe, at_chance=chance, counts=pool.counts)
