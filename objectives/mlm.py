"""Masked language modelling."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

from .base import Corruption, HeadSetting, Objective, TextStatistics
from .draws import Draws
from .heads import Head, MaskedLMHead
from .masking import hide_tokens, rate_now
from .sequences import Context, Sequences, Target
from .strategies import STRATEGIES, check_selection, choose_by, find_collocations


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageModeling(Objective):
    """Name the tokens that were hidden (Devlin et al., 2019, section 3.1 and appendix A.1, https://arxiv.org/abs/1810.04805).

    `original_ids` are the ids before hiding, at every selected token, the kept ones too. Random tokens come from
    ordinary ones only, where BERT's code draws from the whole vocabulary. With `mask_token_rate=1` nothing is random or
    kept (Wettig et al., 2023, section 5, find it no worse). What is selected, and how much of it: see `strategies`.
    `strategy=pmi` takes collocations of the training text for words (Levine et al., 2021,
    https://arxiv.org/abs/2010.01825): up to 5 words, each length ranked by itself, by the paper's PMI and not the
    square that the authors' list has, and only with a PMI above 0. They are counted over the corpus at hand, once.
    """

    name: ClassVar[str] = "mlm"
    labels: ClassVar[dict[str, tuple[str, ...]]] = {"original_ids": ()}

    mask_rate: float = 0.15
    mask_token_rate: float = 0.8
    random_token_rate: float = 0.1
    final_mask_rate: float | None = None  # at the end of the run, and in evaluations; .3 to .15 in GPT-BERT
    strategy: str = "tokens"
    count: str = "exact"
    longest: int | None = None  # words of an n-gram, a span or a collocation; None: 3, 10 and 5, as in the papers
    num_collocations: int | None = None  # of strategy pmi, the most of them; None: 800,000, as in the paper
    min_count: int | None = None  # occurrences of a collocation in the training text; None: 11, as in the paper
    decided_by: str | None = None  # hidden, random or kept for each "token" or "unit"; None: as in the papers

    def __post_init__(self) -> None:
        check_selection(self.strategy, self.count, self.decided_by, self.longest, self.num_collocations, self.min_count)

    def corrupt(self, sequences: Sequences, draws: Draws, context: Context) -> Corruption:
        rate = rate_now(self.mask_rate, self.final_mask_rate, context.progress)
        known = find_collocations(self.strategy, context.tables, self.num_collocations, self.min_count)
        positions, firsts = choose_by(self.strategy, self.count, sequences, rate, draws, self.longest, known)
        by_unit = (self.decided_by or STRATEGIES[self.strategy].decided_by) == "unit"
        shown = hide_tokens(
            sequences,
            positions,
            draws,
            context.vocabulary,
            mask_token_rate=self.mask_token_rate,
            random_token_rate=self.random_token_rate,
            deciding=firsts if by_unit else None,
        )
        original = Target(positions=positions, values=sequences.token_ids[positions])
        return Corruption(sequences=sequences.with_tokens(positions, shown), targets={"original_ids": original})

    def build_head(self, setting: HeadSetting) -> Head:
        return MaskedLMHead(setting.config, setting.table_width, setting.vocabulary.mask_id)

    def chance(self, statistics: TextStatistics) -> dict[str, float]:
        return {"ln V": log(statistics.num_ordinary), "unigram": statistics.unigram_entropy}
