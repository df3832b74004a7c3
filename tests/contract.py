"""The contract: what holds for every objective of the table, for compositions, and for an objective of one's own.

`check_objective(Capitalisation())` in a test, or as a command

    python -m tests.contract mylab.tasks.Capitalisation:rate=0.2

It makes a small corpus of its own, and says in one line each what does not hold.
"""

import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import torch

from corpora import Vocabulary
from corpora.errors import UserError
from corpora.tables import Tables
from generators import GENERATORS
from objectives import Objective, build_objectives
from objectives.base import TextStatistics, levels_of
from objectives.batch import MAIN, Batch, Loss
from objectives.sequences import Sequences, Target
from tests.conftest import SPECIALS, WrittenCorpus
from training.encoders import SIZES, EncoderSpec, build_encoder
from training.model import PretrainingModel
from training.stream import Flat, Stream, to_batch

LENGTH = 64  # of a row, at most
SMALL = (1, 128, 2)  # layers, width and heads of the encoder that the checks stand on
ROWS = 16  # of the batch whose first losses are looked at


class Broken(AssertionError):
    """A line of the contract that does not hold: what was found, and what would hold."""


def write_corpus(folder: Path) -> WrittenCorpus:
    """Return 60 documents of 1 to 12 sentences of 1 to 14 of 195 ordinary tokens; the last ten are held out."""
    rng = np.random.default_rng(0)
    documents = [
        [rng.integers(5, 200, size=rng.integers(1, 15)).tolist() for _ in range(rng.integers(1, 13))] for _ in range(60)
    ]
    vocabulary = Vocabulary(
        size=200, pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4, special_ids=SPECIALS, num_separators=1
    )
    return WrittenCorpus(documents=documents, vocabulary=vocabulary, folder=folder, held_out=tuple(range(50, 60)))


Part = TypeVar("Part")
Spec = str | Objective | Sequence[Objective]  # a composition: as for --objective, or the objectives themselves


def objectives_of(spec: Spec) -> tuple[Objective, ...]:
    if isinstance(spec, str):
        return build_objectives(spec)
    return (spec,) if isinstance(spec, Objective) else tuple(spec)


def open_stream(corpus: WrittenCorpus, spec: Spec, **options: Any) -> Stream:
    """Return the examples of a composition."""
    return Stream.open(corpus, objectives_of(spec), **{"seed": 0, "max_length": LENGTH, **options})


def make_model(
    corpus: WrittenCorpus,
    spec: Spec,
    encoder: str = "tiny",
    size: tuple[int, int, int] = SIZES["tiny"],
    rows: int = 8,
    tables: Tables | None = None,
    **generator: Any,
) -> PretrainingModel:
    """Return encoder, heads and the masked LM generator without dropout, always from the same start.

    A `tiny` encoder has the `size` given: layers, width and heads.
    """
    torch.manual_seed(0)
    with patch.dict(SIZES, tiny=size):
        network = build_encoder(
            EncoderSpec(name=encoder, vocabulary=corpus.vocabulary, max_length=LENGTH, dropout=0.0, attention="eager")
        )
    setting = GENERATORS["masked_lm"](**generator)
    return PretrainingModel(network, objectives_of(spec), setting, tables or Tables(corpus), "eager", rows=rows)


class Bench:
    """One objective, or a composition, on one corpus, and what the checks need of both."""

    def __init__(self, spec: Spec, corpus: WrittenCorpus, tables: Tables | None = None) -> None:
        self.objectives = objectives_of(spec)
        self.corpus = corpus
        self.tables = tables or Tables(corpus)

    @property
    def compares_rows(self) -> bool:
        return any(objective.compares_rows for objective in self.objectives)

    def stream(self, seed: int = 0) -> Stream:
        return open_stream(self.corpus, self.objectives, seed=seed, tables=self.tables)

    def model(self, rows: int = 8) -> PretrainingModel:
        return make_model(self.corpus, self.objectives, size=SMALL, rows=rows, tables=self.tables)

    def batch(self, *examples: int) -> Batch:
        return to_batch(self.stream().build(np.array(examples)), self.corpus.vocabulary)

    @cached_property
    def first(self) -> tuple[PretrainingModel, Batch, dict[str, Loss]]:
        """A new model, a batch of 16 examples, and its losses with their graph."""
        model, batch = self.model(rows=ROWS), self.batch(*range(ROWS))
        return model, batch, model(batch)


def parts_of(thing: object, kind: type[Part]) -> Iterator[Part]:
    """Yield every array, or tensor, of a micro-batch, whatever it is nested in."""
    if isinstance(thing, kind):
        yield thing
    elif isinstance(thing, dict):
        for each in thing.values():
            yield from parts_of(each, kind)
    elif is_dataclass(thing):
        for field in fields(thing):
            yield from parts_of(getattr(thing, field.name), kind)


def is_same(one: Flat, other: Flat) -> bool:
    """Say whether two micro-batches show, ask and propose the same."""
    return all(
        np.array_equal(a, b) for a, b in zip(parts_of(one, np.ndarray), parts_of(other, np.ndarray), strict=True)
    )


def texts_of(flat: Flat) -> dict[tuple[str, str], Sequences]:
    """Return every text of a micro-batch by objective and view; the main one is each objective's."""
    main = {(name, MAIN): flat.sequences for name in flat.targets}
    return main | {(name, view): text.sequences for name, views in flat.views.items() for view, text in views.items()}


def check_is_pure(bench: Bench) -> None:
    """An example is a function of the seed and its number."""
    examples = np.arange(100, 116)
    flat = bench.stream().build(examples)
    if not is_same(flat, bench.stream().build(examples)):
        raise Broken("the same examples come out differently the second time; take chance from `draws` alone")
    if not is_same(flat, pickle.loads(pickle.dumps(bench.stream())).build(examples)):
        raise Broken("examples come out differently in another process; the objective must hold options alone")
    if is_same(flat, bench.stream(seed=1).build(examples)):
        raise Broken("examples 100 to 115 are the same with another seed; take chance from `draws`")
    if is_same(flat, bench.stream().build(examples + 1)):
        raise Broken("examples 100 to 115 are those of 101 to 116; make them of `selection.passages`")


def check_is_alone(bench: Bench) -> None:
    """An example does not depend on the examples beside it."""
    stream = bench.stream()
    together = stream.build(np.arange(40, 48))
    for row, example in enumerate(range(40, 48)):
        alone = stream.build(np.array([example]))
        spans = {}
        for place, text in texts_of(together).items():
            spans[place] = start, end = text.offsets[row : row + 2]
            if not np.array_equal(texts_of(alone)[place].token_ids, text.token_ids[start:end]):
                raise Broken(f"the text of example {example} depends on the examples beside it")
        for owner, targets in together.targets.items():
            for key, target in targets.items():
                (start, end), twin = spans[owner, target.view], alone.targets[owner][key]
                here = (target.positions >= start) & (target.positions < end)
                if not np.array_equal(target.positions[here] - start, twin.positions):
                    raise Broken(f"where '{key}' is asked in example {example} depends on the examples beside it")
                if not np.array_equal(target.values[here], twin.values):
                    raise Broken(f"the answers of '{key}' in example {example} depend on the examples beside it")


def check_special_tokens(bench: Bench) -> None:
    """Special tokens stay, none appears but [MASK], and rows keep to their length."""
    vocabulary, sequences = bench.corpus.vocabulary, bench.stream().build(np.arange(400)).sequences
    framing = np.isin(sequences.token_ids, [vocabulary.cls_id, vocabulary.sep_id])
    if not (sequences.token_ids[sequences.offsets[:-1]] == vocabulary.cls_id).all():
        raise Broken("an example does not begin with [CLS]; change free tokens only (`sequences.is_free`)")
    if not (sequences.token_ids[sequences.offsets[1:] - 1] == vocabulary.sep_id).all():
        raise Broken("an example does not end with [SEP]; change free tokens only (`sequences.is_free`)")
    if not framing[sequences.is_special].all():
        raise Broken("a [SEP] was written over; change free tokens only (`sequences.is_free`)")
    ordinary = sequences.token_ids[~sequences.is_special]
    odd = set(ordinary[np.isin(ordinary, list(vocabulary.special_ids))].tolist()) - {vocabulary.mask_id}
    if odd:
        raise Broken(f"ordinary tokens were replaced by special ids {sorted(odd)}; draw from `vocabulary.ordinary_ids`")
    if sequences.lengths.max() > LENGTH:
        raise Broken(f"a row has {sequences.lengths.max()} tokens of {LENGTH}; `reserve` room for what is put in")


def check_targets(bench: Bench) -> None:
    """The targets are those that `labels` names, in order, in place, with values that have a name."""
    asked = bench.stream().build(np.arange(64)).targets
    for objective in bench.objectives:
        targets = asked[objective.name]
        if targets.keys() != objective.labels.keys():
            raise Broken(f"`labels` names {sorted(objective.labels)}, and asked is {sorted(targets)}")
        for key, target in targets.items():
            check_target(objective, key, target)


def check_target(objective: Objective, key: str, target: Target) -> None:
    """Check one target of 64 examples."""
    if len(target.positions) == 0:
        raise Broken(f"'{key}' is asked nowhere in 64 examples")
    if (np.diff(target.positions) <= 0).any():
        raise Broken(f"the positions of '{key}' do not ascend, or one is asked twice")
    if len(target.values) != len(target.positions):
        raise Broken(f"'{key}' has {len(target.positions)} positions and {len(target.values)} values")
    if target.values.dtype not in (np.int64, np.float32):
        raise Broken(f"the values of '{key}' are {target.values.dtype}; let them be int64 or float32")
    names = objective.labels[key]
    if names and not objective.uses_generator and not 0 <= target.values.min() <= target.values.max() < len(names):
        raise Broken(f"'{key}' has {len(names)} labels and values {target.values.min()} to {target.values.max()}")


def check_padding(bench: Bench) -> None:
    """The loss of a batch is the sum of those of its examples, whatever they are padded to."""
    if bench.compares_rows:
        return
    model = bench.model().eval()
    with torch.no_grad():
        together, alone = model(bench.batch(*range(5))), [model(bench.batch(n)) for n in range(5)]
    for name, loss in together.items():
        total, summed = float(loss.total), sum(float(one[name].total) for one in alone)
        if sum(one[name].count for one in alone) != loss.count or abs(total - summed) > 1e-5 * abs(total):
            raise Broken(f"padding changes the loss {name}: {summed:.5f} of five rows alone, {total:.5f} together")


def check_chance(bench: Bench) -> None:
    """The first loss is within a tenth of the first level of `chance`."""
    passages = bench.stream().passages
    statistics = TextStatistics(
        num_ordinary=len(bench.corpus.vocabulary.ordinary_ids),
        unigram_entropy=bench.corpus.unigram_entropy,
        tables=bench.tables,
        rows=ROWS,
        lengths=passages.ends - passages.starts + 2,
    )
    levels = {}
    for objective in bench.objectives:
        levels |= levels_of(objective, statistics)
    for name, loss in bench.first[2].items():
        expected = next(iter(levels.get(name, {"ln V": float(np.log(statistics.num_ordinary))}).values()))
        found = float(loss.total.detach()) / loss.count
        if not abs(found - expected) <= 0.1 * expected:
            raise Broken(f"the first loss {name} is {found:.3f}, and chance {expected:.3f}; start the head near zero")


def check_gradients(bench: Bench) -> None:
    """Every parameter has a gradient: data-parallel training waits for each."""
    model, _, losses = bench.first
    model.zero_grad()
    torch.stack([loss.total for loss in losses.values()]).sum().backward(retain_graph=True)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.abs().sum() > 0):
            raise Broken(f"{name} has no gradient; leave out what the loss does not use")


def check_counts(bench: Bench) -> None:
    """The numbers of targets that the loop divides by are those that the heads return."""
    model, batch, losses = bench.first
    expected, found = model.count_targets(batch), {name: loss.count for name, loss in losses.items()}
    if expected != found:
        raise Broken(f"the batch has {expected} targets, and the losses count {found}")


def check_learns(bench: Bench) -> None:
    """One batch can be learned by heart: the loss halves in at most 80 steps.

    Where rows are set against each other it falls by a seventh: a cosine over a temperature bounds it from below.
    """
    model, batch = bench.model(rows=4), bench.batch(*range(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    wanted = 0.85 if bench.compares_rows else 0.5
    means = []
    for _ in range(80):
        loss = torch.stack([loss.total / loss.count for loss in model(batch).values()]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        means.append(float(loss.detach()))
        if means[-1] < wanted * means[0]:
            return
    raise Broken(f"four examples can't be learned by heart: a loss of {means[0]:.3f}, then {means[-1]:.3f}")


CHECKS: tuple[Callable[[Bench], None], ...] = (
    check_is_pure,
    check_is_alone,
    check_special_tokens,
    check_targets,
    check_padding,
    check_chance,
    check_gradients,
    check_counts,
    check_learns,
)


def find_breaches(objective: Objective) -> dict[str, str]:
    """Return for each check that fails what it found, in one line."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(objective, write_corpus(Path(folder)))
        for check in CHECKS:
            try:
                check(bench)
            except Broken as error:
                found[check.__name__] = str(error)
    return found


def check_objective(objective: Objective | type[Objective] | str) -> None:
    """Check an objective, its class with the defaults, or its name as for --objective; AssertionError says what fails.

    A mistake that makes an objective fail altogether keeps its own traceback.
    """
    if isinstance(objective, str):
        (objective,) = build_objectives(objective)
    if isinstance(objective, type):
        objective = objective()
    breaches = find_breaches(objective)
    if breaches:
        raise AssertionError("\n".join(f"{objective.name}: {line}" for line in breaches.values()))


def main(argv: Sequence[str]) -> int:
    """Check the objectives that are named, print a line for each check, and return how many checks failed."""
    failed = 0
    for spec in argv:
        try:
            (objective,) = build_objectives(spec)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        breaches = find_breaches(objective)
        failed += len(breaches)
        for check in CHECKS:
            about = (check.__doc__ or "").splitlines()[0].rstrip(".")
            breach = breaches.get(check.__name__)
            print(f"{objective.name}: {'FAILS' if breach else 'holds'}  {breach or about}")
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
