"""Examples for people: a text as it stands, as an encoder sees it, and what it is asked, in words."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from corpora import prepare_corpus
from corpora.errors import CheckpointError
from objectives.base import Objective
from objectives.batch import MAIN, Batch, DeviceTarget, Filling
from objectives.catalogue import names_tokens
from objectives.draws import Draws, hash_fields
from objectives.sequences import Arrangement, Context, Selection, Sequences, frame, in_order

from .checkpoint import load_newest
from .config import Config
from .example_text import Token, Words, phrase
from .model import PretrainingModel
from .setup import build_model, choose_tokenizer
from .stream import Flat, Stream, to_batch


@dataclass(frozen=True, kw_only=True)
class ShownText:
    """A text under a title."""

    title: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A target of an objective in one example, and the right answers."""

    title: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """All of one example."""

    title: str
    texts: tuple[ShownText, ...]
    questions: tuple[Question, ...]


def make_examples(config: Config, *, first: int, count: int) -> list[Example]:
    """Return examples `first`, `first` + 1, ... of a run with this configuration; of a mixture, of each arm."""
    settings = replace(config.corpus_settings(), tokenizer=choose_tokenizer(config))
    corpus = prepare_corpus(settings, cache=Path(config.cache) if config.cache else None)
    arms = config.build_arms()
    progress = min(first / (config.batch_size * config.max_steps), 1.0)
    shown = []
    for arm in arms:
        stream = Stream.open(corpus, arm.objectives, seed=config.seed, max_length=config.max_length)
        flat = stream.build(np.arange(first, first + count), progress)
        batch = to_batch(flat, corpus.vocabulary)
        model = make_model(config, stream) if batch.proposals else None
        name = "+".join(objective.name for objective in arm.objectives)
        shown += Writer(stream, flat, batch, model, first, f"{name}, " if len(arms) > 1 else "").write()
    return shown


def make_model(config: Config, stream: Stream) -> PretrainingModel:
    """Return the model of a run, as it starts, or as its newest checkpoint has it."""
    torch.manual_seed(hash_fields(config.seed, "weights") & 0xFFFFFFFF)
    objectives = tuple(objective for arm in config.build_arms() for objective in arm.objectives)
    model = build_model(config, stream.tables, objectives).eval()
    if config.resume is None:
        return model
    checkpoint = load_newest(Path(config.resume) / "checkpoints")
    if checkpoint is None:
        raise CheckpointError(f"{config.resume} has no checkpoint; leave --run out to see untrained generators")
    if model.load_state_dict(checkpoint.tensors["model"], strict=False).unexpected_keys:
        raise CheckpointError(f"{checkpoint.path} holds the weights of another model than its run.json describes")
    return model


class Writer:
    """Puts a micro-batch into words."""

    def __init__(
        self, stream: Stream, flat: Flat, batch: Batch, model: PretrainingModel | None, first: int, prefix: str
    ) -> None:
        self.stream = stream
        self.flat = flat
        self.first = first
        self.prefix = prefix
        self.words = Words(stream)
        self.objectives = {objective.name: objective for objective in stream.objectives}
        self.batch, self.targets = judge(batch, self.objectives, model)
        examples = np.arange(first, first + flat.sequences.num_examples)
        self.passages = stream.passages.select(stream.passage_indices(examples))
        self.arrangement = arrange_again(stream, examples)
        self.framed = frame(
            stream.corpus, self.arrangement.pieces, len(examples), stream.corpus.vocabulary
        )  # before any token changed

    def write(self) -> list[Example]:
        """Return the examples."""
        return [
            Example(
                title=f"{self.prefix}example {self.first + row}",
                texts=(self._text(row), *self._seen(row), *self._views(row)),
                questions=tuple(self._questions(row)),
            )
            for row in range(self.flat.sequences.num_examples)
        ]

    def _text(self, row: int) -> ShownText:
        """Return the passage as it stands in the corpus, with numbers where it was taken apart."""
        start, end = int(self.passages.starts[row]), int(self.passages.ends[row])
        numbers = self._piece_numbers(row)
        tokens = []
        for place in range(start, end):
            if place in numbers:
                tokens.append(Token(text=numbers[place], kind="piece"))
            tokens.append(self.words.of_store(place))
        return ShownText(title="text", tokens=tuple(tokens))

    def _piece_numbers(self, row: int) -> dict[int, str]:
        """Return {first token in the store: (1)} of an example's pieces, by their order in the text; none of one."""
        pieces = self.arrangement.pieces
        starts = np.sort(pieces.starts[pieces.rows == row])
        if len(starts) < 2:
            return {}
        inside = (starts >= self.passages.starts[row]) & (starts < self.passages.ends[row])
        numbers = {int(start): f"({number})" for number, start in enumerate(starts[inside], 1)}
        return numbers | {int(start): "(else)" for start in starts[~inside]}

    def _seen(self, row: int) -> list[ShownText]:
        if not any(MAIN in objective.reads for objective in self.objectives.values()):
            return []
        ids = self.batch.input_ids[row].numpy()
        pieces = self.arrangement.pieces
        starts = pieces.starts[pieces.rows == row]
        numbers = self._piece_numbers(row)
        names = [numbers.get(int(start), "") for start in starts]
        before = slice(*self.framed.offsets[row : row + 2])
        tokens = self.words.of_example(self.flat.sequences, row, ids, self.framed.token_ids[before], names)
        return [ShownText(title="seen", tokens=tokens)]

    def _views(self, row: int) -> list[ShownText]:
        shown = []
        for owner, views in self.flat.views.items():
            for name, view in views.items():
                how = "" if view.attention == "full" else f", read {view.attention}"
                span = slice(*view.sequences.offsets[row : row + 2])
                tokens = self.words.of_example(view.sequences, row, view.sequences.token_ids[span])
                shown.append(ShownText(title=f"{name} ({owner}{how})", tokens=tokens))
        return shown

    def _questions(self, row: int) -> list[Question]:
        asked = []
        for owner, targets in self.targets.items():
            for name, target in targets.items():
                sequences, length, ids = self._view_of(owner, target)
                here = torch.nonzero(target.positions // length == row).flatten()
                places = (target.positions[here] % length).numpy()
                shown = [self.words.name(int(token_id)) for token_id in ids[row][places]]
                is_whole = len(places) == 1 and places[0] == 0
                where = [""] if is_whole else shown
                objective = self.objectives[owner]
                if objective.labels[name] or target.values.is_floating_point() or names_tokens(type(objective)):
                    answer = phrase(where, self._answers(objective, name, target, here, length, ids[row]))
                else:
                    answer = f"at {len(places)} tokens; the answers are not of the text"
                asked.append(Question(title=f"{owner}, {name}", answer=answer))
        return asked

    def _view_of(self, owner: str, target: DeviceTarget) -> tuple[Sequences, int, np.ndarray]:
        """Return the text that a target asks about: flat, its row length, and its rows of ids (B, L)."""
        if target.view == MAIN:
            return self.flat.sequences, self.batch.input_ids.shape[1], self.batch.input_ids.numpy()
        view = self.batch.views[owner][target.view]
        return self.flat.views[owner][target.view].sequences, view.input_ids.shape[1], view.input_ids.numpy()

    def _answers(
        self, objective: Objective, name: str, target: DeviceTarget, here: torch.Tensor, length: int, ids: np.ndarray
    ) -> list[str]:
        """Return the right answers in words; beside each what else the question points at."""
        labels = objective.labels[name]
        answers = []
        for question in here.tolist():
            value = target.values[question].item()
            if isinstance(value, float):
                answer = f"{value:.3g}"
            elif labels:
                answer = labels[value]
            else:
                answer = self.words.name(value)
            for pointer, places in target.pointers.items():
                place = int(places[question])
                if place >= 0:
                    answer += f" ({pointer}: {self.words.name(int(ids[place % length]))})"
            if "candidates" in target.extras:
                candidates = [self.words.name(i) for i in target.extras["candidates"][question].tolist() if i >= 0]
                answer += f" (candidates: {', '.join(candidates)})"
            answers.append(answer)
        return answers


def judge(
    batch: Batch, objectives: dict[str, Objective], model: PretrainingModel | None
) -> tuple[Batch, dict[str, dict[str, DeviceTarget]]]:
    """Let the generators fill in, and the objectives complete their targets."""
    filled, fillings = batch, {}
    with torch.no_grad():
        for name, proposal in batch.proposals.items():
            assert model is not None
            proposed = model.generators[name](batch, proposal)
            fillings[name] = Filling(proposal, proposed.token_ids, proposed.log_probabilities)
            drawn = proposed.token_ids if proposed.token_ids.dim() == 1 else proposed.token_ids[:, 0]
            shown = filled.input_ids.flatten()[proposal.positions]
            filled = filled.with_ids(proposal.positions, torch.where(proposal.fills, drawn, shown))
        targets = {
            name: objectives[name].judge(asked, filled, fillings.get(name)) for name, asked in batch.targets.items()
        }
    return filled, targets


def arrange_again(stream: Stream, examples: np.ndarray) -> Arrangement:
    """Return which pieces of text the examples (B,) of a stream are made of."""
    context = Context(
        vocabulary=stream.corpus.vocabulary, tables=stream.tables, progress=np.ones(len(examples), dtype=np.float64)
    )
    selection = Selection(
        corpus=stream.corpus,
        pool=stream.passages,
        indices=stream.passage_indices(examples),
        max_tokens=stream.max_tokens,
        context=context,
    )
    for objective in stream.objectives:
        if objective.arranges():
            draws = Draws(seed=stream.seed, examples=examples)
            return objective.arrange(selection, draws.within(objective.name))
    return Arrangement(pieces=in_order(selection))
