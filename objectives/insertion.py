"""Detection of inserted tokens."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws, to_uniforms
from .heads import DetectionHead, Head
from .heads_detection import entropy_of
from .masking import choose_tokens
from .sequences import Context, Sequences, Target

_TRIES = 4


@dataclass(frozen=True, kw_only=True)
class InsertionDetection(Objective):
    """Tell for every token whether it was inserted.

    The noise is that of fairseq's denoising task, which BART was trained with (Lewis et al., 2020,
    https://arxiv.org/abs/1910.13461); the question is ours. `is_inserted` is 1 at tokens that were put in, each behind
    another ordinary token, drawn from all ordinary ones alike (`drawn=uniform`) or by their frequency in the training
    text (`unigram`), and unlike both neighbours, so that the label is certain. [CLS] and [SEP] are asked too.
    """

    name: ClassVar[str] = "insertion"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_inserted": ("original", "inserted")}

    insert_rate: float = 0.15  # of the tokens that were there
    drawn: str = "unigram"

    def __post_init__(self) -> None:
        if self.drawn not in ("uniform", "unigram"):
            raise ValueError(f"drawn is '{self.drawn}'; it must be uniform or unigram")

    def reserve(self, max_tokens: int) -> int:
        return next(room for room in range(max_tokens + 1) if self._count(np.array(max_tokens - room)) <= room)

    def _count(self, tokens: np.ndarray) -> np.ndarray:
        return np.maximum(np.rint(tokens * self.insert_rate), self.insert_rate > 0).astype(np.int64)

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        counts = self._count(np.bincount(sequences.rows, ~sequences.is_special))
        behind = choose_tokens(sequences, counts, draws)
        inserted = behind + 1 + np.arange(len(behind))  # where they will stand
        lengths = sequences.lengths + np.bincount(sequences.rows[behind], minlength=sequences.num_examples)
        source = np.full(lengths.sum(), -1)
        source[np.setdiff1d(np.arange(len(source)), inserted)] = np.arange(len(sequences.token_ids))
        tokens = self._draw(sequences, behind, draws, context)
        longer = sequences.rearranged(source, lengths).with_tokens(inserted, tokens)
        is_inserted = source < 0
        asked = np.flatnonzero(longer.is_free | longer.is_special | is_inserted)
        target = Target(positions=asked, values=is_inserted[asked].astype(np.int64))
        return Corruption(sequences=longer, targets={"is_inserted": target}, source=source)

    def _draw(self, sequences: Sequences, behind: np.ndarray, draws: Draws, context: Context) -> np.ndarray:
        weights = np.zeros(context.vocabulary.size)
        ordinary = context.vocabulary.ordinary_ids
        weights[ordinary] = context.tables.unigram_counts[ordinary] if self.drawn == "unigram" else 1
        cumulative = np.cumsum(weights) / weights.sum()
        rows, places = sequences.rows[behind], sequences.places[behind]
        tries = [to_uniforms(draws.per_token(f"insert{number}", rows, places)) for number in range(_TRIES)]
        drawn = np.searchsorted(cumulative, np.stack(tries, axis=1), side="right")  # (N, tries)
        beside = np.stack([sequences.token_ids[behind], sequences.token_ids[behind + 1]], axis=1)
        differs = (drawn[:, :, None] != beside[:, None]).all(-1)
        return drawn[np.arange(len(drawn)), differs.argmax(1)]  # the first that differs; if there is none, the first

    def build_head(self, setting: HeadSetting) -> Head:
        return DetectionHead(setting.config, "is_inserted")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2), "inserted rate": entropy_of(self.insert_rate / (1 + self.insert_rate))}
