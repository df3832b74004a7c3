"""Shuffle boundary detection."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import HeadSetting, TextStatistics
from .draws import Draws, happens, mix
from .heads import DetectionHead, Head
from .ordering import (
    WholePassageObjective,
    fair_sentences_of,
    merge,
    permute_within,
    places_within,
    reorder,
    text_keys,
)
from .sequences import Arrangement, Selection, expand_ranges


@dataclass(frozen=True, kw_only=True)
class ShuffleBoundaryDetection(WholePassageObjective):
    """Tell between which sentences a shuffled passage was taken apart.

    The question of Lee et al., 2020, https://arxiv.org/abs/2010.16249, asked of every two neighbours: no published code
    asks it.

    `is_break` is asked at the first token of each sentence but the first: 1 unless this sentence follows, anywhere in
    the passage, one that reads as the one now before it. A passage is cut between sentences at a rate of `cut_rate`,
    once at least, and the blocks are permuted, never into their own order. Blocks may meet again by chance, so somewhat
    fewer than `cut_rate` of the boundaries are breaks; the held-out figures say how many.
    """

    name: ClassVar[str] = "shuffle_boundaries"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_break": ("adjacent", "break")}

    cut_rate: float = 0.5

    def arrange(self, selection: Selection, draws: Draws) -> Arrangement:
        sentences = fair_sentences_of(selection)
        rows, places = sentences.rows, places_within(sentences.rows)
        words = draws.per_token("cut", rows, places)
        nearest = np.lexsort((np.where(places == 0, np.uint64(2**64 - 1), words), rows))
        begins = (places == 0) | happens(words, self.cut_rate)
        begins[nearest[places == 0]] = True  # the boundary most likely to be cut is
        blocks = merge(sentences, begins)
        order = permute_within(blocks.rows, np.ones(len(selection.indices), dtype=bool), draws)

        firsts = np.flatnonzero(begins)
        sizes = np.diff(np.append(firsts, len(rows)))
        pieces = reorder(sentences, expand_ranges(firsts[order], sizes[order]))
        keys = (text_keys(selection, each) for each in (sentences, pieces))
        before, after = (mix(key[:-1] + np.uint64(3) * key[1:]) ^ mix(rows[1:].astype(np.uint64)) for key in keys)
        inside = rows[1:] == rows[:-1]
        is_break = np.append(-1, np.where(inside, ~np.isin(after, before[inside]), -1))
        return Arrangement(pieces=pieces, piece_targets={"is_break": is_break.astype(np.int64)})

    def build_head(self, setting: HeadSetting) -> Head:
        return DetectionHead(setting.config, "is_break")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2)}
