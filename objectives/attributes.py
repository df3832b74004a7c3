"""What objectives on a hidden token's attributes share: which tokens are hidden, and of which text the attribute is."""

from abc import abstractmethod
from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from corpora.tables import Tables

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head
from .heads_detection import TokenClassHead
from .masking import choose_tokens, count_exactly
from .sequences import Context, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class AttributeObjective(Objective):
    """Tell an attribute of each hidden token, or of the word that it is a piece of.

    All selected tokens become [MASK], as in the authors' code, so that the attribute must come from the context. Labels
    are of the text before hiding. With `whole_word=false` a piece is labelled by its own text.
    """

    mask_rate: float = 0.15
    whole_word: bool = True

    labels: ClassVar[dict[str, tuple[str, ...]]]

    @abstractmethod
    def classify(self, texts: list[str], token_ids: np.ndarray, tables: Tables) -> np.ndarray:
        """Return the class of each word or piece (N,) int64, given its text and its first token's id (N,)."""

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        positions = choose_tokens(sequences, count_exactly(sequences, self.mask_rate), draws)
        if self.whole_word:
            texts, firsts = words_at(sequences, positions, context.tables)
        else:
            texts, firsts = [context.tables.token_texts[i] for i in sequences.original_ids[positions]], positions
        values = self.classify(texts, sequences.original_ids[firsts], context.tables)
        hidden = np.full(len(positions), context.vocabulary.mask_id)
        (name,) = self.labels
        target = Target(positions=positions, values=values.astype(np.int64))
        return Corruption(sequences=sequences.with_tokens(positions, hidden), targets={name: target})

    def build_head(self, setting: HeadSetting) -> Head:
        ((name, classes),) = self.labels.items()
        return TokenClassHead(setting.config, name, num_classes=len(classes))

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        """Return ln K, and where the corpus is known the entropy of the classes of its tokens, each by its own text."""
        ((_, classes),) = self.labels.items()
        levels = {f"ln {len(classes)}": log(len(classes))}
        tables = statistics.tables
        if tables is not None:
            ids = np.flatnonzero(tables.unigram_counts)
            values = self.classify([tables.token_texts[i] for i in ids], ids, tables)
            rates = np.bincount(values, tables.unigram_counts[ids], len(classes)) / tables.unigram_counts[ids].sum()
            levels["label frequencies"] = float(-(rates[rates > 0] * np.log(rates[rates > 0])).sum())
        return levels


def words_at(sequences: Sequences, positions: np.ndarray, tables: Tables) -> tuple[list[str], np.ndarray]:
    """Return the text of the word that each position (N,) belongs to, and where that word starts (N,).

    A word is a run of pieces from one that starts a word to the next that does, or to a special token.
    """
    boundaries = np.flatnonzero(sequences.is_word_start | sequences.is_special | opens_text(sequences))
    edges = np.append(boundaries, len(sequences.token_ids))
    word = np.searchsorted(boundaries, positions, side="right") - 1
    texts = tables.token_texts
    ids = sequences.original_ids
    ranges = zip(edges[word], edges[word + 1], strict=True)
    found = ["".join([texts[i] for i in ids[a:b] if i >= 0]) for a, b in ranges]  # -1: inserted, not of the text
    return found, boundaries[word]


def opens_text(sequences: Sequences) -> np.ndarray:
    """Say of each token whether it is the first after a special one (T,): a piece of a word cut there starts anew."""
    return ~sequences.is_special & np.append(True, sequences.is_special[:-1])
