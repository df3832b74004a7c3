"""The encoder, a head for each objective, and a generator for each that needs one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from corpora.tables import Tables
from generators import GENERATORS, Generator, GeneratorSetting, Proposer
from generators.network import encode, read_layers, table_width, word_table
from objectives.base import HeadSetting, Objective
from objectives.batch import MAIN, Batch, DeviceTarget, Encoded, Filling, Loss, View
from objectives.heads import Head
from objectives.spec import build_plugin, parse_spec

from .embeddings import DisentangledEmbedding


class PretrainingModel(nn.Module):
    """Scores one micro-batch: generators fill in, the encoder reads each view once, heads answer their own targets."""

    def __init__(
        self,
        encoder: PreTrainedModel,
        objectives: Sequence[Objective],
        generator: Generator,
        tables: Tables,
        attention: str,
        rows: int = 0,
    ) -> None:
        super().__init__()
        self.objectives = {objective.name: objective for objective in objectives}
        setting = GeneratorSetting(
            config=encoder.config,
            word_embeddings=cast(nn.Embedding, encoder.get_input_embeddings()),
            vocabulary=tables.vocabulary,
            tables=tables,
            attention=attention,
        )
        chosen = {o.name: choose_generator(o, generator) for o in objectives if o.uses_generator}
        self.generators = nn.ModuleDict({name: each.build(setting) for name, each in chosen.items()})
        if any(each.table_sharing == "gdes" for each in chosen.values()):
            encoder.set_input_embeddings(DisentangledEmbedding(setting.word_embeddings))
        self.encoder = encoder
        head_setting = HeadSetting(
            config=encoder.config,
            table_width=table_width(encoder.config),
            vocabulary=tables.vocabulary,
            tables=tables,
            rows=rows,
        )
        self.heads = nn.ModuleDict({o.name: o.build_head(head_setting) for o in objectives})
        for head in self.heads.values():
            cast(Head, head).attach(encoder, read_layers)
        self.terms = {name: term for objective in objectives for name, term in objective.terms.items()}
        self.owners = {name: objective.name for objective in objectives for name in objective.terms}
        self.weights = {name: term.weight for name, term in self.terms.items()}
        for name, each in chosen.items():
            if each.loss_weight is not None:
                self.weights[generator_loss_name(name)] = each.loss_weight
                self.owners[generator_loss_name(name)] = name

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return each loss of the objectives that this batch is for, and each learning generator's."""
        losses: dict[str, Loss] = {}
        filled, fillings, added = self._fill(batch, losses)
        targets = {
            name: self.objectives[name].judge(asked, filled, fillings.get(name))
            for name, asked in batch.targets.items()
        }
        encoded = self._encode(filled, list(batch.targets), added)
        for name, asked in targets.items():
            head = cast(Head, self.heads[name])
            answer = head(encoded[name], asked)
            if isinstance(answer, Loss):
                answer = {name: answer}
            losses |= answer
            predictions = answer[name].predictions if name in answer else None
            if self.training and name in fillings and predictions is not None:
                about = asked[self.terms[name].targets[0]]
                cast(Proposer, self.generators[name]).observe(fillings[name], about, predictions.detach())
        return self._anchor(losses, batch)

    def _fill(self, batch: Batch, losses: dict[str, Loss]) -> tuple[Batch, dict[str, Filling], Tensor | None]:
        """Let the generators propose, on the text that none has filled yet, and put their tokens in."""
        filled, fillings, added = batch, {}, None
        for name, proposal in batch.proposals.items():
            proposed = self.generators[name](batch, proposal)
            fillings[name] = Filling(proposal, proposed.token_ids, proposed.log_probabilities)
            drawn = proposed.token_ids if proposed.token_ids.dim() == 1 else proposed.token_ids[:, 0]
            shown = filled.input_ids.flatten()[proposal.positions]
            filled = filled.with_ids(proposal.positions, torch.where(proposal.fills, drawn, shown))
            if proposed.loss is not None:
                losses[generator_loss_name(name)] = proposed.loss
            if proposed.carrier is not None:
                table = word_table(self.encoder).detach()
                carried = (proposed.carrier * proposal.fills[:, None]) @ table
                zeros = carried.new_zeros(batch.input_ids.numel(), table.shape[1])
                more = zeros.index_add(0, proposal.positions, carried).view(*batch.input_ids.shape, -1)
                added = more if added is None else added + more
        return filled, fillings, added

    def _encode(self, batch: Batch, names: list[str], added: Tensor | None) -> dict[str, Encoded]:
        """Run the encoder over each view that one of these objectives reads; return what each one's head may see."""
        table = word_table(self.encoder)

        def read(view: View, added: Tensor | None = None) -> Encoded:
            hidden = encode(self.encoder, view, added)
            return Encoded(hidden, view.input_ids, table, view.attention_mask, view.token_type_ids)

        reads_main = any(MAIN in self.objectives[name].reads for name in names)
        main = read(batch.main, added) if reads_main else None
        seen = {}
        for name in names:
            texts = batch.views.get(name, {})
            views = [cast(Encoded, main) if view == MAIN else read(texts[view]) for view in self.objectives[name].reads]
            others = dict(zip(self.objectives[name].reads[1:], views[1:], strict=True))
            seen[name] = replace(views[0], others=others, texts=texts)
        return seen

    def _anchor(self, losses: dict[str, Loss], batch: Batch) -> dict[str, Loss]:
        """Give what this batch has no use for a gradient of zero: data-parallel training waits for every weight."""
        idle: list[nn.Module] = [head for name, head in self.heads.items() if name not in batch.targets]
        idle += [made for name, made in self.generators.items() if name not in batch.proposals]
        parameters = [p for module in idle for p in module.parameters() if p.requires_grad]
        if parameters and torch.is_grad_enabled():
            first = next(iter(losses))
            nothing = torch.stack([p.flatten()[0] for p in parameters]).sum() * 0
            losses[first] = replace(losses[first], total=losses[first].total + nothing)
        return losses

    def count_targets(self, batch: Batch) -> dict[str, int]:
        """Return how many targets each loss has in this batch, before any is computed: what the loop divides by."""
        counts = dict.fromkeys(self.weights, 0)
        for name, term in self.terms.items():
            asked: dict[str, DeviceTarget] = batch.targets.get(self.owners[name], {})
            counts[name] = sum(len(asked[target].positions) for target in term.targets if target in asked)
        for name, proposal in batch.proposals.items():
            if generator_loss_name(name) in counts:
                counts[generator_loss_name(name)] = proposal.num_taught
        return counts

    def summarise(self, name: str, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        """Turn the summed statistics of a loss, an objective's or a generator's, into figures."""
        owner = self.owners[name]
        if name in self.terms:
            return cast(Head, self.heads[owner]).summarise(statistics, count)
        return cast(Proposer, self.generators[owner]).summarise(statistics, count)

    def begin_step(self) -> None:
        """Let every part forget what it gathered for the end of a step that was not taken."""
        for part in self._parts():
            part.begin_step()

    def finish_step(self, progress: float, add_up: Callable[[Tensor], Tensor]) -> None:
        """Let every part do what is due after an optimizer step; `add_up` sums a tensor over all processes."""
        for head in self.heads.values():
            cast(Head, head).finish_step(self.encoder, progress, add_up)
        for proposer in self.generators.values():
            cast(Proposer, proposer).finish_step(progress, add_up)

    def _parts(self) -> Iterable[Head | Proposer]:
        yield from (cast(Head, head) for head in self.heads.values())
        yield from (cast(Proposer, proposer) for proposer in self.generators.values())


def choose_generator(objective: Objective, given: Generator) -> Generator:
    """Return the run's generator, or the one that the objective is defined by.

    Where the run's is of the same kind, its other options hold.
    """
    if objective.generator is None:
        return given
    ((name, options),) = parse_spec(objective.generator).items()
    own = build_plugin("generator", name, options, GENERATORS)
    fixed = {option: getattr(own, option) for option in options}
    return replace(given, **fixed) if type(given) is type(own) else own


def generator_loss_name(objective: str) -> str:
    """Return the name that the loss of an objective's generator goes by."""
    return f"{objective}_generator"
