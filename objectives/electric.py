"""Electric: energies of tokens, learned by telling them from noise."""

from dataclasses import dataclass, replace
from math import exp, log, log1p
from typing import ClassVar

import numpy as np
import torch

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .batch import Batch, DeviceTarget, Filling
from .draws import Draws, to_uniforms
from .heads import Head
from .heads_detection import EnergyHead, entropy_of
from .masking import choose_tokens, count_exactly
from .sequences import Context, Proposal, Sequences, Target

_RAREST = -30.0  # ln q of what the noise never draws, such as [UNK]: with -inf the loss would be a nan


@dataclass(frozen=True, kw_only=True)
class Electric(Objective):
    """Learn an energy for each token in its context by noise-contrastive estimation (Clark et al., 2020b, section 2, https://arxiv.org/abs/2012.08561).

    k of an example's n ordinary tokens are replaced by draws of a noise distribution q(x | context), and each of the n
    is asked. `is_noise` is 1 at the k, even where the draw gave the original again, unlike rtd's `is_replaced`: the
    answer is a matter of probability, energy + ln q(x) + ln(k / (n - k)). The generator is asked for q at every token,
    so it must not see the token that it names: a two-tower network. The authors' code takes the rate for k / n.
    """

    name: ClassVar[str] = "electric"
    uses_generator: ClassVar[bool] = True
    generator: ClassVar[str | None] = "masked_lm:towers=two"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"is_noise": ("data", "noise")}

    weight: float = 50.0
    noise_rate: float = 0.15

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        asked = np.flatnonzero(sequences.is_free)
        rows, originals = sequences.rows[asked], sequences.token_ids[asked]
        noise = np.isin(asked, choose_tokens(sequences, count_exactly(sequences, self.noise_rate), draws))
        proposal = Proposal(
            positions=asked,
            original_ids=originals,
            uniforms=to_uniforms(draws.per_token("propose", rows, sequences.places[asked])),
            fills=noise,
        )
        noisy = np.bincount(rows, noise, sequences.num_examples)
        data = np.bincount(rows, ~noise, sequences.num_examples)
        log_odds = np.log(np.maximum(noisy, 1) / np.maximum(data, 1)).astype(np.float32)
        target = Target(positions=asked, values=noise.astype(np.int64), extras={"log_odds": log_odds[rows]})
        return Corruption(
            sequences=sequences.with_tokens(asked, originals), targets={"is_noise": target}, proposal=proposal
        )

    def judge(self, targets: dict[str, DeviceTarget], batch: Batch, filling: Filling | None) -> dict[str, DeviceTarget]:
        assert filling is not None and filling.log_probabilities is not None
        target = targets["is_noise"]
        shown = batch.input_ids.flatten()[target.positions]
        log_noise = filling.log_probabilities.gather(1, shown[:, None]).squeeze(1)
        offset = torch.clamp(log_noise, min=_RAREST) + target.extras["log_odds"]
        return {"is_noise": replace(target, extras=target.extras | {"offset": offset})}

    def build_head(self, setting: HeadSetting) -> Head:
        return EnergyHead(setting.config, "is_noise")

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        """Return the loss of energies 0 with uniform noise, and of energies -ln q, which are blind to the data."""
        rate = min(max(self.noise_rate, 1e-9), 1 - 1e-9)
        margin = log(statistics.num_ordinary) + log((1 - rate) / rate)
        surprise = log1p(exp(-margin))  # of data, which is taken for data
        return {"uniform": rate * (margin + surprise) + (1 - rate) * surprise, "noise": entropy_of(self.noise_rate)}
