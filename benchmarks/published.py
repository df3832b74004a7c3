"""How BERT, ALBERT, ELECTRA and SpanBERT choose and hide tokens, one passage at a time, as their papers and code say.

Written from the papers and the released code for benchmarks/corruption_rates.py; slow and plain, and nothing of ours is
used. Passages are whole sentences between one [CLS] and one [SEP].
"""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Text:
    """A passage of L tokens, the first [CLS] and the last [SEP]."""

    token_ids: list[int]
    is_word_start: list[bool]
    vocab_size: int
    mask_id: int
    cumulative: np.ndarray  # (V,) of the frequencies of ordinary tokens

    def draw_frequent(self, rng: np.random.Generator) -> int:
        """Draw a token as often as the corpus has it."""
        return int(np.searchsorted(self.cumulative, rng.random(), side="right"))

    @property
    def words(self) -> list[list[int]]:
        """The places of the tokens of each word, special tokens left out."""
        words: list[list[int]] = []
        for place in range(1, len(self.token_ids) - 1):
            if self.is_word_start[place] or not words:
                words.append([])
            words[-1].append(place)
        return words


@dataclass(kw_only=True)
class Chosen:
    """The selected places in the order in which they were selected, what is shown there, and whose unit each is in."""

    places: list[int] = field(default_factory=list)
    shown_ids: list[int] = field(default_factory=list)
    units: list[int] = field(default_factory=list)  # the first place of the n-gram or span
    proposed_ids: list[int] | None = None
    num_replaced: int = 0

    def add(self, place: int, shown_id: int, unit: int) -> None:
        self.places.append(place)
        self.shown_ids.append(shown_id)
        self.units.append(unit)


def count_as_bert(text: Text, rate: float) -> int:
    """Return max(1, round(rate x length)), special tokens counted; Python rounds half to even."""
    return max(1, round(len(text.token_ids) * rate))


def show_as_bert(text: Text, place: int, rng: np.random.Generator) -> int:
    """Return [MASK] in 8 of 10 cases, the token itself in one, and in one any of the vocabulary, special ones too."""
    if rng.random() < 0.8:
        return text.mask_id
    if rng.random() < 0.5:
        return text.token_ids[place]
    return int(rng.integers(text.vocab_size))


def mask_as_bert(text: Text, rate: float, rng: np.random.Generator) -> Chosen:
    """Devlin et al., 2019, section 3.1 and appendix A.1; google-research/bert, create_pretraining_data.py."""
    chosen = Chosen()
    for place in rng.permutation(np.arange(1, len(text.token_ids) - 1))[: count_as_bert(text, rate)].tolist():
        chosen.add(place, show_as_bert(text, place, rng), place)
    return chosen


def mask_as_albert(text: Text, rate: float, rng: np.random.Generator) -> Chosen:
    """Lan et al., 2020, section 4.2; google-research/albert, create_pretraining_data.py.

    Words in random order each begin an n-gram of 1 to 3 words, p(n) proportional to 1/n. One that does not fit into
    what is left is shortened word by word, or left out; one that meets a selected token is left out.
    """
    words, budget, chosen, covered = text.words, count_as_bert(text, rate), Chosen(), set[int]()
    for first in rng.permutation(len(words)).tolist():
        if len(covered) >= budget:
            break
        longest = min(3, len(words) - first)
        rates = 1 / np.arange(1, longest + 1)
        length = int(np.searchsorted(np.cumsum(rates / rates.sum()), rng.random(), side="right")) + 1
        ngram = sum(words[first : first + length], [])
        while length > 1 and len(covered) + len(ngram) > budget:
            length -= 1
            ngram = sum(words[first : first + length], [])
        if len(covered) + len(ngram) > budget or covered & set(ngram):
            continue
        covered |= set(ngram)
        for place in ngram:
            chosen.add(place, show_as_bert(text, place, rng), ngram[0])
    return chosen


def mask_as_electra(text: Text, rate: float, rng: np.random.Generator) -> Chosen:
    """Clark et al., 2020, section 2: all selected are hidden; replaced is where the generator guessed wrong.

    The count is that of google-research/electra, pretrain/pretrain_helpers.py, which selects with replacement and
    leaves 15 % of the selected as they are; neither is in the paper, nor here. The generator is the unigram of section
    3.3.
    """
    chosen = Chosen(proposed_ids=[])
    places = rng.choice(np.arange(1, len(text.token_ids) - 1), count_as_bert(text, rate), replace=False)
    for place in sorted(places.tolist()):
        chosen.add(place, text.mask_id, place)
        chosen.proposed_ids.append(text.draw_frequent(rng))
        chosen.num_replaced += chosen.proposed_ids[-1] != text.token_ids[place]
    return chosen


def mask_as_spanbert(text: Text, rate: float, rng: np.random.Generator) -> Chosen:
    """Joshi et al., 2020, section 3.1; facebookresearch/SpanBERT, pretraining/fairseq/data/masking.py.

    Spans of 1 to 10 words, geometric with p = .2, begin at the word of a random token that is not yet selected, until
    ceil(rate x ordinary tokens) are selected: the last one is cut there. Spans that touch are one, and all of a span is
    hidden, random (drawn by frequency) or kept.
    """
    words, length = text.words, len(text.token_ids) - 2
    word_of = [number for number, word in enumerate(words) for _ in word]
    rates = 0.2 * 0.8 ** np.arange(10)
    cumulative = np.cumsum(rates / rates.sum())
    budget, covered, spans = math.ceil(round(length * rate, 9)), set[int](), []
    while len(covered) < budget:
        num_words = int(np.searchsorted(cumulative, rng.random(), side="right")) + 1
        anchor = int(rng.integers(length))
        if anchor + 1 in covered:
            continue
        span = []
        for place in sum(words[word_of[anchor] : word_of[anchor] + num_words], []):
            if len(covered) >= budget:
                break
            covered.add(place)
            span.append(place)
        spans.append(span)
    return show_spans(text, spans, rng)


def show_spans(text: Text, spans: list[list[int]], rng: np.random.Generator) -> Chosen:
    """Decide on whole runs of selected tokens; the units stay the spans as drawn, for their lengths."""
    unit_of: dict[int, int] = {}
    for span in spans:
        for place in span:
            unit_of.setdefault(place, span[0])
    chosen, fate, last = Chosen(), 0.0, -1
    for place in sorted(unit_of):
        if place != last + 1:
            fate = rng.random()
        last = place
        shown = text.mask_id if fate < 0.8 else text.draw_frequent(rng) if fate < 0.9 else text.token_ids[place]
        chosen.add(place, shown, unit_of[place])
    return chosen
