"""Probes for how sentences hang together: their order, their place, their paragraph."""

from collections import defaultdict

from .gate import pass_gate
from .probe import Probe
from .raw_pool import Item, Pool, Sentence, balance, make_probe, quota, whole

FEWEST_WORDS, MOST_WORDS = 4, 50
WINDOW = 5  # sentences of a sentence_position item


def find_inner_sentences(pool: Pool) -> list[list[Sentence]]:
    """Return each paragraph's sentences after its first, document by document; a document's lead is left out.

    Those openings are known by their words (names in full, "is a"), and would tell first from second without any
    knowledge of order.
    """
    inner = []
    for document in pool.documents:
        for paragraph in document[1:] if len(document) > 1 else document:
            if len(paragraph) > 1:
                inner.append(paragraph[1:])
    return inner


def is_fit(sentence: Sentence) -> bool:
    return sentence.is_new and FEWEST_WORDS <= len(sentence.words) <= MOST_WORDS


def build_sentence_ordering(pool: Pool, size: int) -> Probe:
    """Which of two neighbouring sentences came first (DiscoEval's BSO: Chen et al., 2019, section 3.3).

    https://aclanthology.org/D19-1060/. Other than there neither sentence opens a paragraph, pairs share no sentence,
    and each is asked in one order only: the first two sentences of a paragraph are told apart by a bag of words.
    """
    draws = pool.draw("sentence_ordering")
    filled: dict[int, int] = defaultdict(int)
    pairs = []
    paragraphs = find_inner_sentences(pool)
    for p in draws.permutation(len(paragraphs)):
        paragraph = paragraphs[p]
        start = int(draws.integers(2)) if len(paragraph) > 2 else 0
        pairs += [(paragraph[i], paragraph[i + 1]) for i in range(start, len(paragraph) - 1, 2)]
    items = []
    for i in draws.permutation(len(pairs)):
        first, second = pairs[i]
        split = pool.split_of(first)
        if filled[split] >= quota(size, split) or not (is_fit(first) and is_fit(second)):
            continue
        label = filled[split] % 2
        filled[split] += 1
        shown = (second, first) if label else (first, second)
        places = tuple(whole(sentence.text) for sentence in shown)
        items.append(Item(places=places, label=label, split=split, group=first.document))
    probe = make_probe(
        balance(items, size, 2),
        name="sentence_ordering",
        seed=pool.seed,
        question="Do the two sentences stand in their order?",
        label_names=("in order", "swapped"),
        combine="difference",
        source="Chen et al., 2019, section 3.3 (BSO), controlled",
        note="Neighbours that open no paragraph; no sentence in two pairs; one order of each pair.",
    )
    chance = ("first", "second", "words", "length")
    return pass_gate(probe, at_chance=chance, recorded=("overlap",), counts=pool.counts)


def build_sentence_position(pool: Pool, size: int) -> Probe:
    """Where the sentence that was moved to the front of four others belongs (DiscoEval's SP, section 3.2).

    Chen et al., 2019, https://aclanthology.org/D19-1060/. Other than there the five open and close no paragraph. A
    linear probe of the five vectors can form their differences from the first, which are the features used there.
    """
    draws = pool.draw("sentence_position")
    filled: dict[int, int] = defaultdict(int)
    windows = []
    for inner in find_inner_sentences(pool):
        inside = inner[:-1]
        start = int(draws.integers(max(len(inside) % WINDOW, 0) + 1))
        windows += [inside[i : i + WINDOW] for i in range(start, len(inside) - WINDOW + 1, WINDOW)]
    items = []
    for i in draws.permutation(len(windows)):
        window = windows[i]
        split = pool.split_of(window[0])
        if filled[split] >= quota(size, split) or not all(map(is_fit, window)):
            continue
        label = filled[split] % WINDOW
        filled[split] += 1
        shown = [window[label], *window[:label], *window[label + 1 :]]
        places = tuple(whole(sentence.text) for sentence in shown)
        items.append(Item(places=places, label=label, split=split, group=window[0].document))
    probe = make_probe(
        balance(items, size, WINDOW),
        name="sentence_position",
        seed=pool.seed,
        question=f"Where among the {WINDOW} sentences does the one belong that was moved to the front?",
        label_names=tuple(str(place) for place in range(WINDOW)),
        source="Chen et al., 2019, section 3.2 (SP), controlled",
        note=f"{WINDOW} neighbours of one paragraph, none its first or last; no sentence in two items.",
    )
    return pass_gate(probe, at_chance=("first", "length"), recorded=("words",), counts=pool.counts)


def build_same_paragraph(pool: Pool, size: int) -> Probe:
    """Whether two sentences of one document share a paragraph; strangers are matched to companions in length."""
    draws = pool.draw("same_paragraph")
    by_document: dict[int, list[list[Sentence]]] = defaultdict(list)
    for paragraph in find_inner_sentences(pool):
        fit = [sentence for sentence in paragraph if is_fit(sentence)]
        if fit:
            by_document[fit[0].document].append([fit[i] for i in draws.permutation(len(fit))])
    items: list[Item] = []
    for document in draws.permutation(sorted(by_document)):
        paragraphs = by_document[int(document)]
        used: set[int] = set()
        for p in draws.permutation(len(paragraphs)):
            label = len(items) % 2
            free = [sentence for sentence in paragraphs[p] if id(sentence) not in used]
            while len(free) > 1:
                anchor, companion = free.pop(), free.pop()
                other = companion
                if label:
                    strangers = [s for q, each in enumerate(paragraphs) if q != p for s in each if id(s) not in used]
                    if not strangers:
                        break
                    other = min(strangers, key=lambda s: abs(len(s.words) - len(companion.words)))
                    if abs(len(other.words) - len(companion.words)) > 2:
                        continue
                used |= {id(anchor), id(other)}
                shown = (anchor, other) if draws.random() < 0.5 else (other, anchor)
                places = tuple(whole(sentence.text) for sentence in shown)
                split = pool.split_of(anchor)
                items.append(Item(places=places, label=label, split=split, group=anchor.document))
                label = 1 - label
    items = [items[i] for i in draws.permutation(len(items))]
    probe = make_probe(
        balance(items, size, 2),
        name="same_paragraph",
        seed=pool.seed,
        question="Do the two sentences come from one paragraph?",
        label_names=("same", "other"),
        combine="pair",
        source="after Chen et al., 2019, section 3 (document-level tasks), within one document",
        note="Sentences of one document, none opens a paragraph; lengths matched within two words; none used twice.",
    )
    chance = ("first", "second", "words", "length")
    return pass_gate(probe, at_chance=chance, recorded=("overlap",), counts=pool.counts)
