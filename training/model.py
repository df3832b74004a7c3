"""The encoder, a head for each objective, and a generator for each that needs one."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from corpora import Vocabulary
from generators import Generator, GeneratorSetting, Proposer
from generators.network import encode, table_width, word_table
from objectives.base import Objective
from objectives.batch import Batch, Encoded, Loss
from objectives.heads import Head

from .embeddings import DisentangledEmbedding


class PretrainingModel(nn.Module):
    """Scores one micro-batch: generators fill in, the encoder reads once, each head answers its own targets."""

    def __init__(
        self,
        encoder: PreTrainedModel,
        objectives: Sequence[Objective],
        generator: Generator,
        vocabulary: Vocabulary,
        unigram_counts: np.ndarray,
        attention: str,
    ) -> None:
        super().__init__()
        self.objectives = {objective.name: objective for objective in objectives}
        setting = GeneratorSetting(
            config=encoder.config,
            word_embeddings=cast(nn.Embedding, encoder.get_input_embeddings()),
            vocabulary=vocabulary,
            unigram_counts=unigram_counts,
            attention=attention,
        )
        needing = [objective.name for objective in objectives if objective.uses_generator]
        self.generators = nn.ModuleDict({name: generator.build(setting) for name in needing})
        if needing and generator.table_sharing == "gdes":
            encoder.set_input_embeddings(DisentangledEmbedding(setting.word_embeddings))
        self.encoder = encoder
        width = table_width(encoder.config)
        self.heads = nn.ModuleDict({o.name: o.build_head(encoder.config, width, vocabulary) for o in objectives})
        self.weights = {objective.name: objective.weight for objective in objectives}
        if generator.loss_weight is not None:
            self.weights |= {generator_loss_name(name): generator.loss_weight for name in needing}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return each objective's loss, and each learning generator's under its own name."""
        losses: dict[str, Loss] = {}
        targets = dict(batch.targets)
        filled = batch
        for name, proposer in self.generators.items():
            proposal = batch.proposals[name]
            proposed = proposer(batch, proposal)
            filled = filled.with_ids(proposal.positions, proposed.token_ids)
            if proposed.loss is not None:
                losses[generator_loss_name(name)] = proposed.loss
        for name, objective in self.objectives.items():
            targets[name] = objective.judge(batch.targets[name], filled.input_ids)
        hidden = encode(self.encoder, filled)
        encoded = Encoded(hidden, filled.input_ids, word_table(self.encoder))
        for name, head in self.heads.items():
            losses[name] = head(encoded, targets[name])
        return losses

    def count_targets(self, batch: Batch) -> dict[str, int]:
        """Return how many targets each loss of this batch has, before any is computed: what the loop divides by."""
        counts = {name: sum(len(t.positions) for t in targets.values()) for name, targets in batch.targets.items()}
        counts |= {generator_loss_name(name): len(p.positions) for name, p in batch.proposals.items()}
        return {name: counts[name] for name in self.weights}

    def summarise(self, name: str, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        """Turn the summed statistics of a loss, an objective's or a generator's, into figures."""
        if name in self.heads:
            return cast(Head, self.heads[name]).summarise(statistics, count)
        owners = {generator_loss_name(objective): proposer for objective, proposer in self.generators.items()}
        return cast(Proposer, owners[name]).summarise(statistics, count)


def generator_loss_name(objective: str) -> str:
    """Return the name that the loss of an objective's generator goes by."""
    return f"{objective}_generator"
