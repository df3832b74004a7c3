"""The endless stream of examples, and the micro-batches cut from it: the border between numpy and torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch

from corpora import Corpus, Vocabulary
from corpora.errors import CorpusError
from corpora.passages import Passages, cut_passages
from corpora.tables import Tables
from objectives.base import Corruption, Objective
from objectives.batch import MAIN, Batch, DeviceProposal, DeviceTarget, View
from objectives.draws import Draws, hash_fields, mix
from objectives.loops import compiled_loops
from objectives.sequences import (
    Arrangement,
    Context,
    Proposal,
    Selection,
    Sequences,
    Target,
    TextView,
    frame,
    in_order,
)

from .mixture import Arm, choose_arm

Asked = TypeVar("Asked", Target, Proposal)
Place = Callable[[np.ndarray], np.ndarray]


@dataclass(kw_only=True)
class Flat:
    """A micro-batch before the border: flat sequences, and targets, proposals and views by objective."""

    sequences: Sequences
    targets: dict[str, dict[str, Target]]
    proposals: dict[str, Proposal] = field(default_factory=dict)
    views: dict[str, dict[str, TextView]] = field(default_factory=dict)

    def take(self, objective: Objective, corruption: Corruption) -> None:
        """Add what an objective has done; where it changed lengths, earlier questions move with their tokens."""
        if corruption.source is not None:
            self._follow(corruption.source)
        self.sequences = corruption.sequences
        self.targets[objective.name] |= corruption.targets
        if corruption.proposal is not None:
            self.proposals[objective.name] = corruption.proposal
        self.views.setdefault(objective.name, {}).update(corruption.views)

    def _follow(self, source: np.ndarray) -> None:
        now = np.full(len(self.sequences.token_ids), -1, dtype=np.int64)  # where each token has gone
        now[source[source >= 0]] = np.flatnonzero(source >= 0)
        for targets in self.targets.values():
            for name, target in targets.items():
                if target.view == MAIN:
                    targets[name] = _move_questions(target, now)
        self.proposals = {name: _move_questions(proposal, now) for name, proposal in self.proposals.items()}


def _move_questions(asked: Asked, now: np.ndarray) -> Asked:
    """Return the questions at tokens that are still there, at their new positions."""
    kept = now[asked.positions] >= 0
    changes: dict[str, Any] = {"positions": now[asked.positions[kept]]}
    for each in fields(asked):
        value = getattr(asked, each.name)
        if isinstance(value, np.ndarray) and each.name != "positions":
            changes[each.name] = value[kept]
        elif isinstance(value, dict):
            changes[each.name] = {key: array[kept] for key, array in value.items()}
    if changes.get("pointers"):
        changes["pointers"] = {name: np.where(p < 0, -1, now[p]) for name, p in changes["pointers"].items()}
    return replace(asked, **changes)


@dataclass(kw_only=True)
class Stream:
    """Example n, for any n, as a pure function of (seed, n): which passage, how arranged, what corrupted.

    An epoch is one pass through the passages that the arranging objective can use, in an order of its own; its end is
    not special.
    """

    corpus: Corpus
    tables: Tables
    passages: Passages
    num_skipped: int  # passages of the split that the composition can't use
    objectives: tuple[Objective, ...]
    seed: int
    max_tokens: int
    shuffle: bool = True
    _orders: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        corpus: Corpus,
        objectives: Sequence[Objective],
        *,
        seed: int,
        max_length: int,
        held_out: bool = False,
        shuffle: bool = True,
        tables: Tables | None = None,
    ) -> "Stream":
        """Cut the split into passages and keep those that every objective can use; CorpusError where none is left."""
        separators = corpus.vocabulary.num_separators * (max(o.num_segments for o in objectives) - 1)
        max_tokens = max_length - 2 - separators
        max_tokens -= max(objective.reserve(max_tokens) for objective in objectives)
        if max_tokens < 1:
            raise CorpusError(f"max_length {max_length} leaves no room for text beside the special tokens")
        unit = "paragraph" if any(objective.unit == "paragraph" for objective in objectives) else "document"
        every = cut_passages(corpus, max_tokens, held_out=held_out, unit=unit)
        usable = np.ones(len(every), dtype=bool)
        for objective in objectives:
            usable &= objective.can_carry(every)
        if not usable.any():
            names = "+".join(objective.name for objective in objectives)
            split = "held-out" if held_out else "training"
            needs = "; ".join(f"{o.name} needs {o.needs}" for o in objectives if o.needs)
            raise CorpusError(
                f"none of the {len(every):,} {split} passages can carry {names} ({needs}); "
                "--documents says how documents are told apart, "
                "and `python -m corpora` on the same text how many each objective can use"
            )
        return cls(
            corpus=corpus,
            tables=tables or Tables(corpus),
            passages=every.select(usable),
            num_skipped=int((~usable).sum()),
            objectives=tuple(objectives),
            seed=seed,
            max_tokens=max_tokens,
            shuffle=shuffle,
        )

    def passage_indices(self, examples: np.ndarray) -> np.ndarray:
        """Return which passage each example (B,) of the stream is made from."""
        epochs, places = np.divmod(examples, len(self.passages))
        indices = np.empty_like(examples)
        for epoch in np.unique(epochs):
            at = epochs == epoch
            indices[at] = self._order(int(epoch))[places[at]]
        return indices

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            order = np.arange(len(self.passages))
            if self.shuffle:
                # By a hash of where the passage stands in the text: objectives that use other passages see these in
                # the same order.
                key = np.uint64(hash_fields(self.seed, "order", epoch))
                order = np.argsort(mix(key + mix(self.passages.starts.astype(np.uint64))), kind="stable")
            self._orders = {kept: self._orders[kept] for kept in list(self._orders)[-1:]} | {epoch: order}
        return self._orders[epoch]

    def build(self, examples: np.ndarray, progress: float = 1.0) -> Flat:
        """Arrange, frame and corrupt the examples (B,); `progress` says how far the run is, from 0 to 1."""
        draws = Draws(seed=self.seed, examples=examples)
        context = Context(
            vocabulary=self.corpus.vocabulary, tables=self.tables, progress=np.full(len(examples), progress)
        )
        selection = Selection(
            corpus=self.corpus,
            pool=self.passages,
            indices=self.passage_indices(examples),
            max_tokens=self.max_tokens,
            context=context,
        )
        flat = self._arrange(selection, draws)
        for objective in self.objectives:
            flat.take(objective, objective.corrupt(flat.sequences, draws.within(objective.name), context))
        return flat

    def _arrange(self, selection: Selection, draws: Draws) -> Flat:
        count = len(selection.indices)
        arranging = next((objective for objective in self.objectives if objective.arranges()), None)
        arrangement = Arrangement(pieces=in_order(selection))
        if arranging is not None:
            arrangement = arranging.arrange(selection, draws.within(arranging.name))
        sequences = frame(self.corpus, arrangement.pieces, count, self.corpus.vocabulary)
        flat = Flat(sequences=sequences, targets={o.name: {} for o in self.objectives})
        if arranging is None:
            return flat
        asked = flat.targets[arranging.name]
        for name, values in arrangement.targets.items():
            asked[name] = Target(positions=sequences.offsets[:-1], values=values)
        if arrangement.piece_targets:
            first_tokens = np.flatnonzero(np.diff(sequences.pieces, prepend=-1) != 0)
            first_tokens = first_tokens[sequences.pieces[first_tokens] >= 0]
        for name, values in arrangement.piece_targets.items():
            asked[name] = Target(positions=first_tokens[values >= 0], values=values[values >= 0])
        flat.views[arranging.name] = {
            name: TextView(sequences=frame(self.corpus, pieces, count, self.corpus.vocabulary))
            for name, pieces in arrangement.views.items()
        }
        return flat


def to_batch(flat: Flat, vocabulary: Vocabulary) -> Batch:
    """Lay the sequences out as padded rows of torch tensors, one example a row, as long as the longest."""
    main, main_place = _lay_out(TextView(sequences=flat.sequences), vocabulary)
    views: dict[str, dict[str, View]] = {}
    places = {}
    for owner, texts in flat.views.items():
        views[owner] = {}
        for name, text in texts.items():
            views[owner][name], places[owner, name] = _lay_out(text, vocabulary)

    def lay_target(owner: str, target: Target) -> DeviceTarget:
        place = main_place if target.view == MAIN else places[owner, target.view]
        pointers = {name: np.where(p < 0, -1, place(np.maximum(p, 0))) for name, p in target.pointers.items()}
        return DeviceTarget(
            torch.from_numpy(place(target.positions)),
            torch.from_numpy(target.values),
            {name: torch.from_numpy(pointer) for name, pointer in pointers.items()},
            {name: torch.from_numpy(extra) for name, extra in target.extras.items()},
            target.view,
        )

    def lay_proposal(proposal: Proposal) -> DeviceProposal:
        fills = np.ones(len(proposal.positions), dtype=bool) if proposal.fills is None else proposal.fills
        return DeviceProposal(
            torch.from_numpy(main_place(proposal.positions)),
            torch.from_numpy(proposal.original_ids),
            torch.from_numpy(proposal.uniforms),
            torch.from_numpy(fills),
            proposal.excludes_original,
            None if proposal.learns is None else torch.from_numpy(proposal.learns),
        )

    return Batch(
        main=main,
        targets={
            owner: {key: lay_target(owner, target) for key, target in targets.items()}
            for owner, targets in flat.targets.items()
        },
        proposals={name: lay_proposal(proposal) for name, proposal in flat.proposals.items()},
        views=views,
    )


def _lay_out(text: TextView, vocabulary: Vocabulary) -> tuple[View, Place]:
    """Return the padded rows, and what says of tokens where they stand in the flattened rows."""
    layout = text.sequences.layout
    length = int(layout.lengths.max())
    if (loops := compiled_loops()) is not None:
        input_ids, attention_mask = loops.pad(text.sequences.token_ids, layout.offsets, length, vocabulary.pad_id)
    else:
        input_ids = np.full(layout.is_inside.shape, vocabulary.pad_id, dtype=np.int64)
        input_ids[layout.is_inside] = text.sequences.token_ids
        attention_mask = layout.is_inside.astype(np.int64)
    segments = np.zeros(input_ids.shape, dtype=np.int64)
    if layout.segments.any():
        segments[layout.is_inside] = layout.segments
    view = View(
        torch.from_numpy(input_ids), torch.from_numpy(attention_mask), torch.from_numpy(segments), text.attention
    )
    if loops is not None:
        return view, lambda positions: loops.locate(positions, layout.offsets, length)
    shifts = np.arange(len(input_ids)) * length - layout.offsets[:-1]
    return view, lambda positions: positions + shifts[layout.rows[positions]]


def micro_batch_examples(step: int, micro_batch: int, *, batch_size: int, micro_batch_size: int) -> np.ndarray:
    """Return the examples of micro-batch m of a step: the stream's [step x batch + m x micro-batch, ...)."""
    start = step * batch_size + micro_batch * micro_batch_size
    return np.arange(start, min(start + micro_batch_size, (step + 1) * batch_size), dtype=np.int64)


@dataclass(kw_only=True)
class MicroBatches(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Micro-batch number i of the run, so that a worker builds whole ones and any can be asked for.

    Each belongs to one arm of a mixture, and is cut from that arm's stream.
    """

    streams: tuple[Stream, ...]
    arms: tuple[Arm, ...]
    batch_size: int
    micro_batch_size: int
    seed: int
    max_steps: int | None = None  # None: an evaluation, at the end of the run

    @property
    def stream(self) -> Stream:
        """The first arm's stream, which for most runs is the only one."""
        return self.streams[0]

    @property
    def per_step(self) -> int:
        return -(-self.batch_size // self.micro_batch_size)

    def progress_at(self, step: int) -> float:
        return 1.0 if self.max_steps is None else min(step / self.max_steps, 1.0)

    def arm_of(self, number: int) -> int:
        """Return which arm a micro-batch belongs to."""
        return choose_arm(self.arms, number, self.progress_at(number // self.per_step), self.seed)

    def examples_of(self, number: int) -> np.ndarray:
        """Return the examples of a micro-batch: the stream's [step x batch + m x micro-batch, ...)."""
        step, micro_batch = divmod(number, self.per_step)
        return micro_batch_examples(
            step, micro_batch, batch_size=self.batch_size, micro_batch_size=self.micro_batch_size
        )

    def shares_at(self, step: int) -> dict[str, float]:
        """Return for each objective the share of the step's examples that are for its arm."""
        counts = np.zeros(len(self.arms))
        for number in range(step * self.per_step, (step + 1) * self.per_step):
            counts[self.arm_of(number)] += len(self.examples_of(number))
        shares = counts / counts.sum()
        return {o.name: float(share) for arm, share in zip(self.arms, shares, strict=True) for o in arm.objectives}

    def build(self, number: int) -> Flat:
        """Return a micro-batch before it is laid out in rows."""
        progress = self.progress_at(number // self.per_step)
        return self.streams[self.arm_of(number)].build(self.examples_of(number), progress)

    def __getitem__(self, number: int) -> Batch:
        return to_batch(self.build(number), self.stream.corpus.vocabulary)


def numbers_of(rank: int, world: int, per_step: int, first_step: int, last_step: int) -> Iterator[int]:
    """Yield the numbers of the micro-batches that fall to this rank, step by step: m = rank, rank + world, ..."""
    for step in range(first_step, last_step):
        yield from range(step * per_step + rank, (step + 1) * per_step, world)
