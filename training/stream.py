"""The endless stream of examples, and the micro-batches cut from it: the border between numpy and torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from corpora import Corpus, Vocabulary
from corpora.errors import CorpusError
from corpora.passages import Passages, cut_passages
from objectives.base import Objective
from objectives.batch import Batch, DeviceProposal, DeviceTarget
from objectives.draws import Draws, hash_fields, mix
from objectives.sequences import Proposal, Selection, Sequences, Target, expand_ranges, frame, in_order


@dataclass(frozen=True, kw_only=True)
class Flat:
    """A micro-batch before the border: flat sequences, and targets and proposals by objective."""

    sequences: Sequences
    targets: dict[str, dict[str, Target]]
    proposals: dict[str, Proposal]


@dataclass(kw_only=True)
class Stream:
    """Example n, for any n, as a pure function of (seed, n): which passage, how arranged, what corrupted.

    An epoch is one pass through the passages that the arranging objective can use, in an order of its own; its end is
    not special.
    """

    corpus: Corpus
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
    ) -> "Stream":
        """Cut the split into passages and keep those that every objective can use; CorpusError where none is left."""
        separators = corpus.vocabulary.num_separators * (max(o.num_segments for o in objectives) - 1)
        max_tokens = max_length - 2 - separators
        if max_tokens < 1:
            raise CorpusError(f"max_length {max_length} leaves no room for text beside the special tokens")
        every = cut_passages(corpus, max_tokens, held_out=held_out)
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

    def build(self, examples: np.ndarray) -> Flat:
        """Arrange, frame and corrupt the examples (B,)."""
        draws = Draws(seed=self.seed, examples=examples)
        selection = Selection(
            corpus=self.corpus,
            pool=self.passages,
            indices=self.passage_indices(examples),
            max_tokens=self.max_tokens,
        )
        arranging = next((objective for objective in self.objectives if objective.arranges()), None)
        targets: dict[str, dict[str, Target]] = {objective.name: {} for objective in self.objectives}
        pieces = in_order(selection)
        asked: dict[str, np.ndarray] = {}
        if arranging is not None:
            arrangement = arranging.arrange(selection, draws.within(arranging.name))
            pieces, asked = arrangement.pieces, arrangement.targets
        sequences = frame(self.corpus, pieces, len(examples), self.corpus.vocabulary)
        if arranging is not None:
            firsts = sequences.offsets[:-1]
            targets[arranging.name] |= {name: Target(positions=firsts, values=v) for name, v in asked.items()}
        proposals = {}
        for objective in self.objectives:
            corruption = objective.corrupt(sequences, draws.within(objective.name), self.corpus.vocabulary)
            sequences = corruption.sequences
            targets[objective.name] |= corruption.targets
            if corruption.proposal is not None:
                proposals[objective.name] = corruption.proposal
        return Flat(sequences=sequences, targets=targets, proposals=proposals)


def to_batch(flat: Flat, vocabulary: Vocabulary) -> Batch:
    """Lay the sequences out as padded rows of torch tensors, one example a row, as long as the longest."""
    sequences = flat.sequences
    num_rows, length = sequences.num_examples, int(sequences.lengths.max())
    place = expand_ranges(
        np.arange(num_rows) * length, sequences.lengths
    )  # (T,) where each token goes in the flattened rows

    def lay_out(values: np.ndarray, padding: int) -> torch.Tensor:
        rows = np.full(num_rows * length, padding, dtype=np.int64)
        rows[place] = values
        return torch.from_numpy(rows.reshape(num_rows, length))

    return Batch(
        input_ids=lay_out(sequences.token_ids, vocabulary.pad_id),
        attention_mask=lay_out(np.ones_like(place), 0),
        token_type_ids=lay_out(sequences.segments, 0),
        targets={
            name: {
                key: DeviceTarget(torch.from_numpy(place[target.positions]), torch.from_numpy(target.values))
                for key, target in targets.items()
            }
            for name, targets in flat.targets.items()
        },
        proposals={
            name: DeviceProposal(
                torch.from_numpy(place[proposal.positions]),
                torch.from_numpy(proposal.original_ids),
                torch.from_numpy(proposal.uniforms),
            )
            for name, proposal in flat.proposals.items()
        },
    )


def micro_batch_examples(step: int, micro_batch: int, *, batch_size: int, micro_batch_size: int) -> np.ndarray:
    """Return the examples of micro-batch m of a step: the stream's [step x batch + m x micro-batch, ...)."""
    start = step * batch_size + micro_batch * micro_batch_size
    return np.arange(start, min(start + micro_batch_size, (step + 1) * batch_size), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class MicroBatches(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Micro-batch number i of the run, so that a worker builds whole ones and any can be asked for."""

    stream: Stream
    batch_size: int
    micro_batch_size: int

    @property
    def per_step(self) -> int:
        return -(-self.batch_size // self.micro_batch_size)

    def __getitem__(self, number: int) -> Batch:
        step, micro_batch = divmod(number, self.per_step)
        examples = micro_batch_examples(
            step, micro_batch, batch_size=self.batch_size, micro_batch_size=self.micro_batch_size
        )
        return to_batch(self.stream.build(examples), self.stream.corpus.vocabulary)


def numbers_of(rank: int, world: int, per_step: int, first_step: int, last_step: int) -> Iterator[int]:
    """Yield the numbers of the micro-batches that fall to this rank, step by step: m = rank, rank + world, ..."""
    for step in range(first_step, last_step):
        yield from range(step * per_step + rank, (step + 1) * per_step, world)
