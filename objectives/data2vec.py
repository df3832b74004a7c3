"""data2vec: what a slow copy of the encoder makes of the whole text."""

from dataclasses import dataclass
from math import erf, exp, pi, sqrt
from typing import ClassVar

import numpy as np

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head
from .heads_latent import LatentHead, TeacherSettings
from .masking import choose_tokens, count_exactly
from .sequences import Context, Sequences, Target, TextView


@dataclass(frozen=True, kw_only=True)
class Data2Vec(Objective):
    """Predict a teacher's states at hidden tokens (Baevski et al., 2022, sections 3 and 4.3, https://arxiv.org/abs/2202.03555).

    The teacher is a moving average of the encoder, reads the whole text, and gives the mean of its last `num_layers`
    layers' outputs, each normed (the authors take those of the feed-forward parts). All of the selected tokens are
    hidden. Its decay rises over the whole run, in the paper over 300,000 steps.
    """

    name: ClassVar[str] = "data2vec"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"states": ()}

    mask_rate: float = 0.35
    num_layers: int = 10
    first_decay: float = 0.999
    last_decay: float = 0.9999
    beta: float = 4.0

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        positions = choose_tokens(sequences, count_exactly(sequences, self.mask_rate), draws)
        hidden = np.full(len(positions), context.vocabulary.mask_id)
        place = {"place": sequences.places[positions]}  # in the whole text, wherever later objectives move the token
        target = Target(positions=positions, values=sequences.original_ids[positions], extras=place)
        return Corruption(
            sequences=sequences.with_tokens(positions, hidden),
            targets={"states": target},
            views={"text": TextView(sequences=sequences.restored())},
        )

    def build_head(self, setting: HeadSetting) -> Head:
        settings = TeacherSettings(
            num_layers=self.num_layers, first_decay=self.first_decay, last_decay=self.last_decay, beta=self.beta
        )
        return LatentHead(setting.config, "states", settings)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        """Return the smooth L1 loss of answering 0 to normed states, whose numbers are taken as normal."""
        b = self.beta
        tail = 1 - erf(b / sqrt(2))
        density = exp(-b * b / 2) / sqrt(2 * pi)
        squared = (1 - tail) - 2 * b * density  # E[x^2; |x| < b]
        linear = 2 * density - b / 2 * tail  # E[|x| - b/2; |x| > b]
        return {"zero": squared / (2 * b) + linear}
