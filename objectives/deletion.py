"""Detection of the gaps that deleted tokens left."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import DetectionHead, Head
from .heads_detection import entropy_of
from .masking import choose_tokens
from .sequences import Context, Sequences, Target


@dataclass(frozen=True, kw_only=True)
class DeletionDetection(Objective):
    """Tell where tokens were deleted.

    The noise is BART's token deletion (Lewis et al., 2020, section 2.2, https://arxiv.org/abs/1910.13461); its decoder
    must find out where inputs are missing, an encoder is asked directly. `precedes_deleted` is 1 at a token between
    which and the next one at least one was deleted: at [CLS] where the first one was. All tokens that are left are
    asked but the last [SEP], behind which nothing was. One token of each example stays.
    """

    name: ClassVar[str] = "deletion"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"precedes_deleted": ("no_gap", "gap")}

    delete_rate: float = 0.15  # of the ordinary tokens

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        ordinary = np.bincount(sequences.rows, ~sequences.is_special)
        counts = np.maximum(np.rint(ordinary * self.delete_rate), self.delete_rate > 0)
        deleted = choose_tokens(sequences, np.minimum(counts, ordinary - 1), draws)
        source = np.setdiff1d(np.arange(len(sequences.token_ids)), deleted)
        lengths = sequences.lengths - np.bincount(sequences.rows[deleted], minlength=sequences.num_examples)
        shorter = sequences.rearranged(source, lengths)
        precedes_deleted = np.diff(source, append=len(sequences.token_ids)) > 1
        is_asked = shorter.is_free | shorter.is_special
        is_asked[shorter.offsets[1:] - 1] = False
        asked = np.flatnonzero(is_asked)
        target = Target(positions=asked, values=precedes_deleted[asked].astype(np.int64))
        return Corruption(sequences=shorter, targets={"precedes_deleted": target}, source=source)

    def build_head(self, setting: HeadSetting) -> Head:
        return DetectionHead(setting.config, "precedes_deleted")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln 2": log(2), "gap rate": entropy_of(self.delete_rate)}
