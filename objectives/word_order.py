"""Word order: shuffled trigrams, put right."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .attributes import opens_text
from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws, to_integers
from .heads import Head, MaskedLMHead
from .masking import count_exactly
from .sequences import Context, Sequences, Target

_ORDERS = np.array([[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])  # of three, without the identity


@dataclass(frozen=True, kw_only=True)
class WordOrder(Objective):
    """Name what belongs at each place of shuffled trigrams (Wang et al., 2020, section 2.2, https://arxiv.org/abs/1908.04577).

    StructBERT's word structural objective. `shuffle_rate` of the tokens are in trigrams of whole one-token words, none
    hidden by what it is composed with (`mlm+word_order`), none overlapping; each is put in another of the five other
    orders, so that a trigram of three different words always changes.
    """

    name: ClassVar[str] = "word_order"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"original_ids": ()}

    shuffle_rate: float = 0.05

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        firsts = self._choose(sequences, draws)
        drawn = draws.per_token("order", sequences.rows[firsts], sequences.places[firsts])
        order = _ORDERS[to_integers(drawn, len(_ORDERS))]  # (N, 3)
        positions = (firsts[:, None] + np.arange(3)).ravel()
        shown = sequences.token_ids[(firsts[:, None] + order).ravel()]
        target = Target(positions=positions, values=sequences.token_ids[positions])
        return Corruption(sequences=sequences.with_tokens(positions, shown), targets={"original_ids": target})

    def _choose(self, sequences: Sequences, draws: Draws) -> np.ndarray:
        """Return where the chosen trigrams start, ascending."""
        starts = sequences.is_word_start | opens_text(sequences)
        starts_next = np.append(starts[1:] | sequences.is_special[1:], True)
        whole = sequences.is_free & starts & starts_next  # a word of one token
        candidates = np.flatnonzero(whole[:-2] & whole[1:-1] & whole[2:])
        words = draws.per_token("choose", sequences.rows[candidates], sequences.places[candidates])
        wanted = count_exactly(sequences, self.shuffle_rate / 3)
        taken, chosen, rows = np.zeros(len(starts), dtype=bool), [], sequences.rows
        for place in candidates[np.argsort(words, kind="stable")]:
            if wanted[rows[place]] and not taken[place : place + 3].any():
                taken[place : place + 3] = True
                wanted[rows[place]] -= 1
                chosen.append(place)
        return np.sort(np.array(chosen, dtype=np.int64))

    def build_head(self, setting: HeadSetting) -> Head:
        return MaskedLMHead(setting.config, setting.table_width, setting.vocabulary.mask_id)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln V": log(statistics.num_ordinary), "unigram": statistics.unigram_entropy, "ln 3": log(3)}
