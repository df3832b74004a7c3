"""Counts, rates and label shares of the corruptions of BERT, ALBERT, ELECTRA and SpanBERT, ours beside the published.

    python benchmarks/corruption_rates.py --corpus wiki.txt.gz [--passages 10000] [--max_length 128]

The same passages go through our objectives and through the procedures of published.py, written from the papers and the
released code. Each figure is a ratio of sums over passages, and the difference of the two is given in standard errors,
passages being the sample. A difference of more than three is marked; docs/corruption.md says which are intended, and
why. `formula` is what paper and code imply without any run. Prints Markdown.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.published import Text, mask_as_albert, mask_as_bert, mask_as_electra, mask_as_spanbert  # noqa: E402
from corpora import Corpus, prepare_corpus  # noqa: E402
from corpora.tables import Tables  # noqa: E402
from generators import GENERATORS, GeneratorSetting  # noqa: E402
from objectives import build_objectives  # noqa: E402
from objectives.batch import Filling  # noqa: E402
from objectives.draws import Draws  # noqa: E402
from objectives.sequences import Sequences  # noqa: E402
from objectives.strategies import cut_units  # noqa: E402
from training.config import Config  # noqa: E402
from training.stream import Stream, to_batch  # noqa: E402

SEED = 0
RATE = 0.15
CHUNK = 500  # passages at a time


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The N selected tokens of P passages, [CLS] and [SEP] counted in the places."""

    rows: np.ndarray  # (N,) which passage, ascending
    places: np.ndarray  # (N,) in the passage
    shown_ids: np.ndarray  # (N,) what stands there
    units: np.ndarray  # (N,) the place of the first token of its n-gram or span
    proposed_ids: np.ndarray | None = None  # (N,) what the generator drew, where there is one
    labels: np.ndarray | None = None  # (P,) how many tokens of a passage are labelled replaced


class Figure(NamedTuple):
    """One line: a ratio of two sums over passages, and what it must be by formula, if there is one."""

    name: str
    above: Callable[[Outcome], np.ndarray]  # (P,)
    below: Callable[[Outcome], np.ndarray]  # (P,)
    formula: float | None = None  # what it must be


class Passages:
    """P passages, framed, and what is counted of them and of outcomes."""

    def __init__(self, sequences: list[Sequences], corpus: Corpus) -> None:
        self.vocabulary = corpus.vocabulary
        counts = np.asarray(corpus.unigram_counts, dtype=np.float64).copy()
        counts[list(self.vocabulary.special_ids)] = 0
        self.unigram = counts / counts.sum()  # (V,)
        self.texts = [
            Text(
                token_ids=each.original_ids[start:end].tolist(),
                is_word_start=each.is_word_start[start:end].tolist(),
                vocab_size=self.vocabulary.size,
                mask_id=self.vocabulary.mask_id,
                cumulative=self.cumulative,
            )
            for each in sequences
            for start, end in zip(each.offsets[:-1], each.offsets[1:], strict=True)
        ]
        self.lengths = np.concatenate([each.lengths for each in sequences])  # (P,)
        self.token_ids = np.concatenate([each.original_ids for each in sequences])  # (T,)
        self.is_word_start = np.concatenate([each.is_word_start for each in sequences])
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])

    @property
    def cumulative(self) -> np.ndarray:
        return np.cumsum(self.unigram)

    @property
    def guess_rate(self) -> float:
        """How often two tokens drawn by frequency are the same."""
        return float((self.unigram**2).sum())

    def each(self, _: Outcome) -> np.ndarray:
        return np.ones(len(self.lengths))

    def selected(self, outcome: Outcome) -> np.ndarray:
        return self.per_passage(outcome.rows)

    def where(self, test: Callable[[Outcome], np.ndarray]) -> Callable[[Outcome], np.ndarray]:
        """Return what counts the selected tokens of each passage that pass a test (N,)."""
        return lambda outcome: self.per_passage(outcome.rows, test(outcome))

    def per_passage(self, rows: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(rows, weights, minlength=len(self.lengths)).astype(np.float64)

    def originals(self, outcome: Outcome) -> np.ndarray:
        return self.token_ids[self.offsets[outcome.rows] + outcome.places]

    def words_of_units(self, outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
        """Return the passage and the number of words, in whole or in part, of each selected unit (U,)."""
        words = np.cumsum(self.is_word_start)[self.offsets[outcome.rows] + outcome.places]
        pairs = np.unique(np.stack([outcome.rows, outcome.units, words]), axis=1)
        units, counts = np.unique(pairs[:2], axis=1, return_counts=True)
        return units[0], counts


Count = Callable[[Outcome], np.ndarray]  # of something in each passage (P,)


def figures_of(name: str, passages: Passages) -> list[Figure]:
    """Return the lines of a procedure's table."""
    lines = count_figures(name, passages)
    if name == "ELECTRA":
        return lines + generator_figures(passages)
    lines += shown_figures(name, passages)
    return lines if name == "BERT" else lines + unit_figures(name, passages)


def count_figures(name: str, passages: Passages) -> list[Figure]:
    """Return the lines about how many tokens are selected, and at either end of a passage."""
    lengths, each = passages.lengths, passages.each
    rule = np.ceil(np.round((lengths - 2) * RATE, 9)) if name == "SpanBERT" else np.maximum(1, np.rint(lengths * RATE))
    exact = name != "ALBERT"  # whose words need not fit into the number

    def keeps_rule(outcome: Outcome) -> np.ndarray:
        return (passages.selected(outcome) == rule).astype(float)

    return [
        Figure("tokens selected of a passage", passages.selected, each, rule.mean() if exact else None),
        Figure("passages with the rule's number", keeps_rule, each, 1.0 if exact else None),
        Figure("ordinary tokens selected", passages.selected, lambda _: lengths - 2),
        Figure("first ordinary token selected", passages.where(lambda o: o.places == 1), each),
        Figure("last ordinary token selected", passages.where(lambda o: o.places == lengths[o.rows] - 2), each),
    ]


def shown_figures(name: str, passages: Passages) -> list[Figure]:
    """Return the lines about what stands in the place of selected tokens."""
    size, mask_id, originals = passages.vocabulary.size, passages.vocabulary.mask_id, passages.originals
    others = [each for each in passages.vocabulary.special_ids if each != mask_id]
    alike, special = (passages.guess_rate, 0.0) if name == "SpanBERT" else (1 / size, len(others) / size)
    tests: tuple[tuple[str, Count, float], ...] = (
        ("[MASK]", lambda o: o.shown_ids == mask_id, 0.8),
        ("another token", lambda o: (o.shown_ids != mask_id) & (o.shown_ids != originals(o)), 0.1 * (1 - alike)),
        ("the token itself", lambda o: o.shown_ids == originals(o), 0.1 + 0.1 * alike),
        (
            "a special token but [MASK] put in",
            lambda o: np.isin(o.shown_ids, others) & (o.shown_ids != originals(o)),
            0.1 * special,
        ),
    )
    return [
        Figure(f"{what}, of the selected", passages.where(test), passages.selected, rate) for what, test, rate in tests
    ]


def generator_figures(passages: Passages) -> list[Figure]:
    """Return the lines about what a generator sees and proposes, and how it is labelled."""
    mask_id, guess, lengths = passages.vocabulary.mask_id, passages.guess_rate, passages.lengths
    replaced = np.maximum(1, np.rint(lengths * RATE)).sum() / lengths.sum() * (1 - guess)
    hidden = passages.where(lambda o: o.shown_ids == mask_id)
    guessed = passages.where(lambda o: o.proposed_ids == passages.originals(o))
    return [
        Figure("[MASK] for the generator, of the selected", hidden, passages.selected, 1.0),
        Figure("guessed right by a unigram generator, of the selected", guessed, passages.selected, guess),
        Figure("labelled replaced, of all tokens", lambda o: o.labels, lambda _: lengths, replaced),
    ]


def unit_figures(name: str, passages: Passages) -> list[Figure]:
    """Return the lines about the lengths of n-grams and spans, in words, whole ones and parts."""
    rates = 1 / np.arange(1, 4) if name == "ALBERT" else 0.2 * 0.8 ** np.arange(10)
    rates = rates / rates.sum()
    unit = "n-gram" if name == "ALBERT" else "span"

    def add_up(measure: Count) -> Count:
        def count(outcome: Outcome) -> np.ndarray:
            rows, lengths = passages.words_of_units(outcome)
            return passages.per_passage(rows, measure(lengths))

        return count

    every = add_up(np.ones_like)
    lines = [
        Figure(f"{unit}s of {n} word{'s' * (n > 1)}", add_up(lambda lengths, n=n: lengths == n), every, rates[n - 1])
        for n in ((1, 2, 3) if name == "ALBERT" else (1, 2, 3, 5, 10))
    ]
    mean = float(rates @ np.arange(1, len(rates) + 1))
    return [
        *lines,
        Figure(f"words of each {unit}", add_up(lambda lengths: lengths), every, mean),
        Figure(f"{unit}s of a passage", every, passages.each),
    ]


def run_ours(spec: str, corpus: Corpus, options: argparse.Namespace) -> tuple[Passages, Outcome]:
    """Send the passages through an objective; a unigram generator fills in where it asks for one."""
    (objective,) = build_objectives(spec)
    tables = Tables(corpus)
    stream = Stream.open(corpus, (objective,), seed=SEED, max_length=options.max_length, tables=tables)
    setting = GeneratorSetting(
        config=PreTrainedConfig(),
        word_embeddings=nn.Embedding(1, 1),
        vocabulary=corpus.vocabulary,
        tables=tables,
        attention="eager",
    )
    proposer = GENERATORS["unigram"]().build(setting)
    texts, parts = [], []
    for start in range(0, options.passages, CHUNK):
        examples = np.arange(start, min(start + CHUNK, options.passages))
        flat = stream.build(examples)
        sequences = flat.sequences
        texts.append(sequences)
        taken = np.flatnonzero(~sequences.is_free & ~sequences.is_special)
        units = taken
        if "strategy" in spec:
            draws = Draws(seed=SEED, examples=examples).within(objective.name)
            cut = cut_units(spec.partition("strategy=")[2], sequences.restored(), draws)
            units = cut.firsts[np.searchsorted(cut.positions, taken)]
        rows, places = sequences.rows[taken], sequences.places[taken]
        part = {"rows": rows + start, "places": places, "shown_ids": sequences.token_ids[taken]}
        part["units"] = places - (taken - units)
        if objective.uses_generator:
            batch = to_batch(flat, corpus.vocabulary)
            proposal = batch.proposals[objective.name]
            proposed = proposer(batch, proposal)
            filled = batch.with_ids(proposal.positions, proposed.token_ids)
            filling = Filling(proposal, proposed.token_ids, proposed.log_probabilities)
            (answer,) = objective.judge(batch.targets[objective.name], filled, filling).values()
            part["proposed_ids"] = proposed.token_ids.numpy()
            width = batch.input_ids.shape[1]
            part["labels"] = np.bincount(answer.positions.numpy() // width, answer.values.numpy(), len(examples))
        parts.append(part)
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return Passages(texts, corpus), Outcome(**joined)


def run_published(mask: Callable, passages: Passages) -> Outcome:
    """Send the passages through a published procedure."""
    rng = np.random.default_rng(SEED)
    chosen = [mask(text, RATE, rng) for text in passages.texts]
    counts = [len(each.places) for each in chosen]
    proposed = None
    labels = None
    if chosen[0].proposed_ids is not None:
        proposed = np.concatenate([each.proposed_ids for each in chosen]).astype(np.int64)
        labels = np.array([each.num_replaced for each in chosen])
    return Outcome(
        rows=np.repeat(np.arange(len(chosen)), counts),
        places=np.concatenate([each.places for each in chosen]).astype(np.int64),
        shown_ids=np.concatenate([each.shown_ids for each in chosen]).astype(np.int64),
        units=np.concatenate([each.units for each in chosen]).astype(np.int64),
        proposed_ids=proposed,
        labels=labels,
    )


def compare(figure: Figure, ours: Outcome, published: Outcome) -> tuple[float, float, float]:
    """Return both ratios and their difference in standard errors, over passages, by linearisation."""
    ratios, residuals = [], []
    for outcome in (ours, published):
        above, below = figure.above(outcome), figure.below(outcome)
        ratios.append(above.sum() / below.sum())
        residuals.append((above - ratios[-1] * below) / below.mean())
    error = (residuals[0] - residuals[1]).std(ddof=1) / np.sqrt(len(residuals[0]))
    gap = ratios[0] - ratios[1]
    return ratios[0], ratios[1], gap / error if error > 0 else np.inf * gap if gap else 0.0


def main() -> None:
    """Print a table for each of the four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--cache", default=None)
    parser.add_argument("--passages", type=int, default=10_000)
    parser.add_argument("--max_length", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = Config(corpus=options.corpus, cache=options.cache).corpus_settings()
    corpus = prepare_corpus(settings, cache=Path(options.cache) if options.cache else None)
    for name, spec, mask in (
        ("BERT", "mlm", mask_as_bert),
        ("ALBERT", "mlm:strategy=ngrams", mask_as_albert),
        ("ELECTRA", "rtd", mask_as_electra),
        ("SpanBERT", "mlm:strategy=spans", mask_as_spanbert),
    ):
        passages, ours = run_ours(spec, corpus, options)
        published = run_published(mask, passages)
        print(f"\n## {name}: `--objective {spec}`\n")
        print("| | formula | published procedure | ours | difference, standard errors |\n|---|---|---|---|---|")
        for figure in figures_of(name, passages):
            one, other, errors = compare(figure, ours, published)
            formula = "" if figure.formula is None else f"{figure.formula:.5f}"
            mark = "" if abs(errors) <= 3 else " *"
            print(f"| {figure.name} | {formula} | {other:.5f} | {one:.5f} | {errors:+.1f}{mark} |", flush=True)


if __name__ == "__main__":
    main()
