"""SpanBERT's span boundary objective."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head
from .heads_spans import BoundaryHead
from .masking import hide_tokens
from .sequences import Context, Sequences, Target
from .strategies import choose_by


@dataclass(frozen=True, kw_only=True)
class SpanBoundaryObjective(Objective):
    """Name each token of a hidden span from the two tokens beside it (Joshi et al., 2020, section 3.2, https://arxiv.org/abs/1907.10529).

    After an objective that hides spans, as in "mlm:strategy=spans+sbo", it asks about all that has been taken, spans
    that touch as one; in an example where nothing has been, it hides spans itself, with [MASK]. `original_ids` are the
    ids as framed; pointers `left` and `right` lead to the neighbours, `offset` counts from the first token of the span,
    0. As in the authors' code a span at the edge of the text, with a special token for a neighbour, is not asked about,
    nor what is past the 20th token of a span.
    """

    name: ClassVar[str] = "sbo"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"original_ids": ()}

    mask_rate: float = 0.15  # in examples where nothing has been taken
    num_offsets: int = 20  # places within a span that are told apart; later ones are not asked

    def __post_init__(self) -> None:
        if self.num_offsets < 1:
            raise ValueError(f"num_offsets is {self.num_offsets}; it must be at least 1")

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        is_taken = ~sequences.is_free & ~sequences.is_special & (sequences.original_ids >= 0)
        begun = np.bincount(sequences.rows[is_taken], minlength=sequences.num_examples) > 0
        own, _ = choose_by("spans", "exact", sequences, np.where(begun, 0.0, self.mask_rate), draws)
        masks = hide_tokens(sequences, own, draws, context.vocabulary, mask_token_rate=1, random_token_rate=0)
        sequences = sequences.with_tokens(own, masks)
        is_taken[own] = True

        taken = np.flatnonzero(is_taken)
        opens = np.diff(taken, prepend=-2) != 1
        left = (taken[opens] - 1)[np.cumsum(opens) - 1]
        right = (taken[np.roll(opens, -1)] + 1)[np.cumsum(opens) - 1]  # the last opens another round
        offsets = taken - left - 1
        asked = ~sequences.is_special[left] & ~sequences.is_special[right] & (offsets < self.num_offsets)
        target = Target(
            positions=taken[asked],
            values=sequences.original_ids[taken[asked]],
            pointers={"left": left[asked], "right": right[asked]},
            extras={"offset": offsets[asked]},
        )
        return Corruption(sequences=sequences, targets={"original_ids": target})

    def build_head(self, setting: HeadSetting) -> Head:
        return BoundaryHead(setting.config, setting.table_width, self.num_offsets)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln V": log(statistics.num_ordinary), "unigram": statistics.unigram_entropy}
