"""The contract for an objective of one's own: `check_objective(Capitalisation())`, or as a command

    python -m tests.contract mylab.tasks.Capitalisation:rate=0.2

It makes a small corpus of its own, and says in one line each what does not hold.
"""

import pickle
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from corpora import Vocabulary
from corpora.errors import UserError
from corpora.tables import Tables
from generators import GENERATORS
from objectives import Objective, build_objectives
from objectives.base import TextStatistics, levels_of
from tests.conftest import SPECIALS, WrittenCorpus
from training.encoders import EncoderSpec, build_encoder
from training.model import PretrainingModel
from training.stream import Flat, Stream, to_batch


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


class Bench:
    """One objective on one corpus, and what the checks need of both."""

    def __init__(self, objective: Objective, corpus: WrittenCorpus) -> None:
        self.objective = objective
        self.corpus = corpus
        self.tables = Tables(corpus)

    def stream(self, seed: int = 0) -> Stream:
        return Stream.open(
            self.corpus,
            (self.objective,),
            seed=seed,
            max_length=64,
            tables=self.tables,
        )

    def model(self, rows: int = 8, dropout: float = 0.0) -> PretrainingModel:
        torch.manual_seed(0)
        spec = EncoderSpec(
            name="tiny", vocabulary=self.corpus.vocabulary, max_length=64, dropout=dropout, attention="eager"
        )
        generator = GENERATORS["masked_lm"]()
        return PretrainingModel(build_encoder(spec), (self.objective,), generator, self.tables, "eager", rows=rows)

    def batch(self, count: int):
        return to_batch(self.stream().build(np.arange(count)), self.corpus.vocabulary)


def is_same(one: Flat, other: Flat) -> bool:
    """Say whether two micro-batches show and ask the same."""
    pairs = [(one.sequences.token_ids, other.sequences.token_ids), (one.sequences.offsets, other.sequences.offsets)]
    for name, targets in one.targets.items():
        for key, target in targets.items():
            twin = other.targets[name][key]
            pairs += [(target.positions, twin.positions), (target.values, twin.values)]
    return all(np.array_equal(a, b) for a, b in pairs)


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


def check_is_alone(bench: Bench) -> None:
    """An example does not depend on the examples beside it."""
    stream = bench.stream()
    together = stream.build(np.arange(40, 48))
    for row in range(8):
        alone = stream.build(np.array([40 + row]))
        start, end = together.sequences.offsets[row : row + 2]
        if not np.array_equal(alone.sequences.token_ids, together.sequences.token_ids[start:end]):
            raise Broken(f"the text of example {40 + row} depends on the examples beside it")
        for targets, twins in zip(together.targets.values(), alone.targets.values(), strict=True):
            for key, target in targets.items():
                if target.view != "main":
                    continue
                here = (target.positions >= start) & (target.positions < end)
                if not np.array_equal(target.positions[here] - start, twins[key].positions):
                    raise Broken(f"where '{key}' is asked in example {40 + row} depends on the examples beside it")
                if not np.array_equal(target.values[here], twins[key].values):
                    raise Broken(f"the answers of '{key}' in example {40 + row} depend on the examples beside it")


def check_special_tokens(bench: Bench) -> None:
    """Special tokens stay, none appears but [MASK], and rows keep to their length."""
    vocabulary, sequences = bench.corpus.vocabulary, bench.stream().build(np.arange(400)).sequences
    if not (sequences.token_ids[sequences.offsets[:-1]] == vocabulary.cls_id).all():
        raise Broken("an example does not begin with [CLS]; change free tokens only (`sequences.is_free`)")
    if not (sequences.token_ids[sequences.offsets[1:] - 1] == vocabulary.sep_id).all():
        raise Broken("an example does not end with [SEP]; change free tokens only (`sequences.is_free`)")
    ordinary = sequences.token_ids[~sequences.is_special]
    odd = set(ordinary[np.isin(ordinary, list(vocabulary.special_ids))].tolist()) - {vocabulary.mask_id}
    if odd:
        raise Broken(f"ordinary tokens were replaced by special ids {sorted(odd)}; draw from `vocabulary.ordinary_ids`")
    if sequences.lengths.max() > 64:
        raise Broken(f"a row has {sequences.lengths.max()} tokens of 64; `reserve` room for what is put in")


def check_targets(bench: Bench) -> None:
    """The targets are those that `labels` names, in order, in place, with values that have a name."""
    objective = bench.objective
    flat = bench.stream().build(np.arange(64))
    targets = flat.targets[objective.name]
    if targets.keys() != objective.labels.keys():
        raise Broken(f"`labels` names {sorted(objective.labels)}, and asked is {sorted(targets)}")
    for key, target in targets.items():
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
    if bench.objective.compares_rows:
        return
    model, stream = bench.model().eval(), bench.stream()
    with torch.no_grad():
        together = model(to_batch(stream.build(np.arange(8)), bench.corpus.vocabulary))
        alone = [model(to_batch(stream.build(np.array([n])), bench.corpus.vocabulary)) for n in range(8)]
    for name, loss in together.items():
        total, summed = float(loss.total), sum(float(one[name].total) for one in alone)
        if sum(one[name].count for one in alone) != loss.count or abs(total - summed) > 1e-5 * abs(total):
            raise Broken(f"padding changes the loss {name}: {summed:.5f} of eight rows alone, {total:.5f} together")


def check_chance(bench: Bench) -> None:
    """The first loss is within a tenth of the first level of `chance`."""
    corpus = bench.corpus
    statistics = TextStatistics(num_ordinary=195, unigram_entropy=corpus.unigram_entropy, tables=bench.tables, rows=64)
    levels = levels_of(bench.objective, statistics)
    for name, loss in bench.model(rows=64)(bench.batch(64)).items():
        expected = next(iter(levels.get(name, {"ln V": float(np.log(195))}).values()))
        found = float(loss.total.detach()) / loss.count
        if abs(found - expected) > 0.1 * expected:
            raise Broken(f"the first loss {name} is {found:.3f}, and chance {expected:.3f}; start the head near zero")


def check_gradients(bench: Bench) -> None:
    """Every parameter has a gradient: data-parallel training waits for each."""
    model = bench.model(rows=16)
    losses = model(bench.batch(16))
    torch.stack([loss.total for loss in losses.values()]).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.abs().sum() > 0):
            raise Broken(f"{name} has no gradient; leave out what the loss does not use")


def check_counts(bench: Bench) -> None:
    """The numbers of targets that the loop divides by are those that the heads return."""
    model, batch = bench.model(rows=16), bench.batch(16)
    expected, found = model.count_targets(batch), {name: loss.count for name, loss in model(batch).items()}
    if expected != found:
        raise Broken(f"the batch has {expected} targets, and the losses count {found}")


def check_learns(bench: Bench) -> None:
    """One batch can be learned by heart: the loss halves in 60 steps."""
    model, batch = bench.model(), bench.batch(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    means = []
    for _ in range(60):
        losses = [loss.total / loss.count for name, loss in model(batch).items() if name in bench.objective.terms]
        loss = torch.stack(losses).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        means.append(float(loss.detach()))
    if not means[-1] < 0.5 * means[0]:
        raise Broken(f"eight examples can't be learned by heart: a loss of {means[0]:.3f}, then {means[-1]:.3f}")


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
            about = (check.__doc__ or "").rstrip(".")
            breach = breaches.get(check.__name__)
            print(f"{objective.name}: {'FAILS' if breach else 'holds'}  {breach or about}")
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
