"""What masked language modelling selects: the units, how many of them, and who decides on their fate."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from corpora.tables import Tables

from .collocations import LONGEST, collocation_keys, cut_collocations
from .draws import Draws
from .masking import choose_independently, choose_tokens, count_by_chance, count_exactly, count_upwards
from .sequences import Sequences
from .units import Units, choose_units, cut_runs, cut_words, ngram_rates, span_rates


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One of the papers' ways to select."""

    within: str = "unit"  # where a unit that is too long is cut: see `choose_units`
    longest: int | None = None  # words of a unit
    decided_by: str = "token"  # hidden, random or kept together: the "unit"
    count: Callable[[Sequences, float | np.ndarray], np.ndarray] = count_exactly


STRATEGIES: dict[str, Strategy] = {
    "tokens": Strategy(),  # Devlin et al., 2019
    "words": Strategy(),  # google-research/bert's whole word masking, of any tokenizer
    "ngrams": Strategy(within="word", longest=3),  # Lan et al., 2020, section 4.2, https://arxiv.org/abs/1909.11942
    # Joshi et al., 2020, section 3.1, https://arxiv.org/abs/1907.10529
    "spans": Strategy(within="token", longest=10, decided_by="unit", count=count_upwards),
    # Levine et al., 2021, https://arxiv.org/abs/2010.01825; its authors' list and README for what it leaves open
    "pmi": Strategy(longest=LONGEST, decided_by="unit"),
}
# The strategy's own number (BERT's, or SpanBERT's); each unit for itself (transformers); int(rate x n + U) (fairseq).
COUNTS = ("exact", "bernoulli", "probabilistic")
SPAN_STOP_RATE = 0.2
NUM_COLLOCATIONS = 800_000  # Levine et al., 2021, section 3.3
MIN_COUNT = 11  # occurrences of a collocation: over 10 in the paper


def check_selection(
    strategy: str,
    count: str,
    decided_by: str | None,
    longest: int | None,
    num_collocations: int | None = None,
    min_count: int | None = None,
) -> None:
    """Raise ValueError, in one line, where an option is unknown or does not go with the strategy."""
    for option, value, known in (
        ("strategy", strategy, tuple(STRATEGIES)),
        ("count", count, COUNTS),
        ("decided_by", decided_by or "unit", ("token", "unit")),
    ):
        if value not in known:
            raise ValueError(f"{option} is '{value}'; it must be {', '.join(known[:-1])} or {known[-1]}")
    if longest is not None and (longest < 1 or STRATEGIES[strategy].longest is None):
        raise ValueError("longest is for strategies ngrams, spans and pmi, and at least 1")
    if strategy == "pmi" and longest is not None and longest > LONGEST:
        raise ValueError(f"longest is {longest}; collocations are counted up to {LONGEST} words")
    for option, number in (("num_collocations", num_collocations), ("min_count", min_count)):
        if number is not None and (number < 1 or strategy != "pmi"):
            raise ValueError(f"{option} is for strategy pmi, and at least 1")


def find_collocations(
    strategy: str, tables: Tables, num_collocations: int | None, min_count: int | None
) -> np.ndarray | None:
    """Return the keys (K,) of the training text's collocations for strategy pmi, None for others."""
    if strategy != "pmi":
        return None
    return collocation_keys(tables, num_collocations or NUM_COLLOCATIONS, min_count or MIN_COUNT)


def choose_by(
    strategy: str,
    count: str,
    sequences: Sequences,
    rate: float | np.ndarray,
    draws: Draws,
    longest: int | None = None,
    collocations: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Select free tokens at `rate`, one for all or each example's (B,); `collocations` are for strategy pmi.

    Return their positions (N,), ascending, and the position of the first token of each one's unit (N,).
    """
    chosen = STRATEGIES[strategy]
    units = None if strategy == "tokens" else cut_units(strategy, sequences, draws, longest, collocations)
    if count == "bernoulli":
        is_chosen = choose_independently(sequences, rate, draws)
        if units is None:
            positions = np.flatnonzero(is_chosen & sequences.is_free)
            return positions, positions
        is_chosen = is_chosen[units.firsts]
    else:
        counts = count_by_chance(sequences, rate, draws) if count == "probabilistic" else chosen.count(sequences, rate)
        if units is None:
            positions = choose_tokens(sequences, counts, draws)
            return positions, positions
        is_chosen = choose_units(sequences, units, counts, draws, chosen.within)
    return units.positions[is_chosen], units.firsts[is_chosen]


def cut_units(
    strategy: str,
    sequences: Sequences,
    draws: Draws,
    longest: int | None = None,
    collocations: np.ndarray | None = None,
) -> Units:
    """Return what a strategy chooses among."""
    longest = longest or STRATEGIES[strategy].longest
    if longest is None:
        return cut_words(sequences)
    if collocations is not None:
        return cut_collocations(sequences, collocations, longest, draws)
    rates = ngram_rates(longest) if strategy == "ngrams" else span_rates(SPAN_STOP_RATE, longest)
    return cut_runs(sequences, rates, draws)
