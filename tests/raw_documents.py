"""Invented prose with what raw-text probes live on: Zipfian words, names, paragraphs and their openings."""

import numpy as np

SYLLABLES = ("ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "za")


def invent_words(count: int, rng: np.random.Generator) -> list[str]:
    words: dict[str, None] = {}
    while len(words) < count:
        words.setdefault("".join(rng.choice(SYLLABLES, size=rng.integers(2, 5))))
    return list(words)


def invent_documents(
    count: int = 50, paragraphs: int = 6, sentences: int = 9, seed: int = 0, exponent: float = 1.0
) -> list[list[str]]:
    """Documents of paragraphs of sentences; the first of a paragraph begins "The <name> is", unlike the others.

    Words are as frequent as (rank + 19) ** -exponent.

    Of the rarer words every second is a name, and of the names every third is a common word as often.
    """
    rng = np.random.default_rng(seed)
    words = invent_words(2500, rng)
    capital_rates = {word: 0.5 if i % 6 == 1 else 0.98 for i, word in enumerate(words) if i > 40 and i % 2}
    names = [word.capitalize() for word in words[41:141:2]]
    edges = np.cumsum(np.arange(20.0, 2520.0) ** -exponent)

    def write_sentence(opens: bool) -> str:
        drawn = [words[i] for i in np.searchsorted(edges, edges[-1] * rng.random(rng.integers(5, 29)))]
        shown = [word.capitalize() if rng.random() < capital_rates.get(word, 0) else word for word in drawn]
        if opens:
            shown = ["The", names[rng.integers(len(names))], "is", *shown]
        shown[0] = shown[0].capitalize()
        if rng.random() < 0.3:
            shown[3] += ","
        return " ".join(shown) + "."

    return [
        [" ".join(write_sentence(i == 0) for i in range(sentences)) for _ in range(paragraphs)] for _ in range(count)
    ]
