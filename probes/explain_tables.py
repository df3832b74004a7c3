"""What each kind of head says of one text, as a table: tokens, texts, or hidden tokens.

explain_head(folder, text, second=..., labels=..., kind=..., top=...) -> Explanation
explain(head, text, ...) -> Explanation, of a head that is open

Dimensions: B rows, L tokens, C classes, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import PreTrainedTokenizerBase

from corpora.errors import UserError

from .explain_heads import Head, open_head
from .finetune.loading import find_max_length, reads_segments
from .finetune.token_task import word_prefix

_COPIES = 16  # of the text at a time, each with another token hidden
_BAR = 10


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of the table; `strength` in [0, 1] is what a page may shade, None where nothing was asked."""

    cells: tuple[str, ...]
    strength: float | None = None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a head says, ready to be shown; `warnings` come before any figure."""

    title: str
    warnings: tuple[str, ...]
    classes: tuple[str, ...]  # "0 = original", ...
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    summary: tuple[str, ...]
    shade: str = ""  # what `strength` is
    mean_loss: float | None = None  # nats, over what was asked; the model's own


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """The L tokens of a text as the encoder gets them."""

    inputs: dict[str, Tensor]  # (1, L) each
    surfaces: tuple[str, ...]  # what stands in the text there
    owners: tuple[int | None, ...]  # the word of each token; None for special ones
    truncated: int  # words that did not fit

    @property
    def starts(self) -> tuple[bool, ...]:
        """Whether each token is its word's first."""
        before = (None, *self.owners[:-1])
        return tuple(now is not None and now != then for now, then in zip(self.owners, before, strict=True))


def explain_head(
    folder: str, text: str, *, second: str = "", labels: Sequence[str] = (), kind: str = "", top: int = 3
) -> Explanation:
    """Return what the head in `folder` says of a text, or of a pair.

    `labels` are the right answers: one for each word between spaces where the head labels tokens, one where it labels
    texts. Raises UserError where they are no labels of the head's, or not as many as there are words.
    """
    head = open_head(folder, kind)
    return explain(head, text, second=second, labels=labels, top=top)


@torch.no_grad()
def explain(head: Head, text: str, *, second: str = "", labels: Sequence[str] = (), top: int = 3) -> Explanation:
    """Return what a head that is open says; see `explain_head`."""
    if not text.strip():
        raise UserError("the text is empty")
    if head.kind in ("token", "detection"):
        return _explain_tokens(head, text, second, labels)
    if head.kind == "masked_lm":
        if labels:
            raise UserError("--labels: the right answers of a masked LM are the text's own tokens; leave them out")
        return _explain_hidden(head, text, second, top)
    if head.kind == "next_sentence" and not second:
        raise UserError("a next-sentence head judges two texts; give the other one with --second")
    return _explain_texts(head, text, second, labels)


def _read(head: Head, text: str, second: str, words: Sequence[str] = ()) -> _Reading:
    """Encode a text, or words that are given apart."""
    tokenizer = head.tokenizer
    limit = find_max_length(head.model.config, tokenizer)
    space = word_prefix(tokenizer) if words else ""
    texts: list[Any] = [[space + word for word in words] if words else text]
    if second:
        texts.append(second)
    encoded = tokenizer(
        *texts,
        is_split_into_words=bool(words),
        return_offsets_mapping=True,
        truncation=limit is not None,
        max_length=limit,
        return_token_type_ids=reads_segments(head.model),
        verbose=False,
    )
    if not any(owner is not None for owner in encoded.word_ids()):
        raise UserError(f"the tokenizer makes nothing of {text!r}")
    pieces = encoded.encodings[0]
    surfaces = []
    owners: list[int | None] = []
    for number, (start, end) in enumerate(encoded["offset_mapping"]):
        sequence, owner = pieces.sequence_ids[number], pieces.word_ids[number]
        source = (space + words[owner] if words and owner is not None else text) if sequence == 0 else second
        surface = source[start:end].strip() if sequence is not None else ""
        surfaces.append(surface or pieces.tokens[number])
        # Words of the second text are numbered on, so that no two share a number.
        owners.append(None if owner is None else owner + (1_000_000 if sequence == 1 else 0))
    kept = len({owner for owner in owners if owner is not None})
    whole = len(words) if words else kept + sum(len(set(part.word_ids) - {None}) for part in pieces.overflowing)
    inputs = {key: torch.tensor([encoded[key]]) for key in encoded if key != "offset_mapping"}
    return _Reading(
        inputs=inputs, surfaces=tuple(surfaces), owners=tuple(owners), truncated=whole - kept if not second else 0
    )


def _classes(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{number} = {name}" for number, name in enumerate(names))


def _explain_tokens(head: Head, text: str, second: str, labels: Sequence[str]) -> Explanation:
    words = text.split() if labels else []
    if labels and len(labels) != len(words):
        raise UserError(f"{len(labels)} labels for {len(words)} words: --labels wants one for each word between spaces")
    reading = _read(head, text, second, words)
    log_probabilities = _read_classes(head, reading)  # (L, C)
    numbers = _number_labels(labels, head.names)
    asked = [head.asks_all or is_start for is_start in reading.starts]
    targets = [
        _target_of(owner, numbers, head) if ask else None for owner, ask in zip(reading.owners, asked, strict=True)
    ]
    lines, losses = [], []
    for place, target in enumerate(targets):
        line = _describe_token(head, reading, place, log_probabilities[place] if asked[place] else None)
        if numbers and target is not None:
            losses.append(-float(log_probabilities[place, target].double()))
            line = replace(line, cells=(*line.cells, head.names[target], f"{losses[-1]:.4f}"))
        elif numbers:
            line = replace(line, cells=(*line.cells, "-", "-"))
        lines.append(line)
    columns = ["Token", "", "Label", "Prob."] + ([f"p({head.names[-1]})"] if head.asks_all else [])
    mean = sum(losses) / len(losses) if losses else None
    summary = [f"Asked: {'every token' if head.asks_all else 'each word, at its first piece'}."]
    if head.asks_all:
        found = [line.cells[0] for line in lines if line.strength is not None and line.strength > 0.5]
        summary.append(f"Above .5 for {head.names[-1]}: {', '.join(found) if found else 'no token'}.")
    if mean is not None:
        summary.append(f"Mean loss over {len(losses)} labelled tokens: {mean:.6f} nats.")
    return Explanation(
        title=head.title,
        warnings=head.warnings + _warn_of(reading),
        classes=_classes(head.names),
        columns=tuple(columns + (["True", "Loss"] if numbers else [])),
        lines=tuple(lines),
        summary=tuple(summary),
        shade=f"p({head.names[-1]})" if head.asks_all else "the label's probability",
        mean_loss=mean,
    )


def _read_classes(head: Head, reading: _Reading) -> Tensor:
    """Return the log-probability of each class at each token, (L, C)."""
    logits = head.model(**reading.inputs).logits[0].float()
    if logits.dim() == 1:  # one logit of "yes": ELECTRA's
        return torch.stack([logsigmoid(-logits), logsigmoid(logits)], -1)
    return logits.log_softmax(-1)


def _describe_token(head: Head, reading: _Reading, place: int, log_probabilities: Tensor | None) -> Line:
    """Return a token with its likeliest class of the (C,); with None it was not asked."""
    shown, role = _shown(reading, place), _role(reading, place)
    if log_probabilities is None:
        return Line(cells=(shown, role, "-", "-"))
    best = int(log_probabilities.argmax())
    probability = float(log_probabilities[best].exp())
    cells = (shown, role, head.names[best], f"{probability:.3f}")
    if not head.asks_all:
        return Line(cells=cells, strength=probability)
    last = float(log_probabilities[-1].exp())
    return Line(cells=(*cells, _bar(last)), strength=last)


def _target_of(owner: int | None, numbers: Sequence[int], head: Head) -> int | None:
    """Return the right class of a token: its word's; of a special one class 0 (original) where it is asked."""
    if owner is None:
        return 0 if head.asks_all else None
    return numbers[owner] if owner < len(numbers) else None


def _number_labels(labels: Sequence[str], names: Sequence[str]) -> list[int]:
    numbers = []
    for label in labels:
        if label in names:
            numbers.append(names.index(label))
        else:
            raise UserError(f"--labels: {label!r} is none of the head's classes: {', '.join(names[:20])}")
    return numbers


def _explain_hidden(head: Head, text: str, second: str, top: int) -> Explanation:
    """Hide each ordinary token in turn and ask for it (pseudo-log-likelihood: Salazar et al., 2020, section 2).

    Where the text has mask tokens of its own, only those are asked.
    """
    tokenizer, mask_id = head.tokenizer, head.tokenizer.mask_token_id
    if mask_id is None:
        raise UserError("the tokenizer has no mask token, so nothing can be hidden")
    reading = _read(head, text, second)
    ids = reading.inputs["input_ids"][0]  # (L,)
    given = (ids == mask_id).nonzero().flatten().tolist()
    places = given or [place for place, owner in enumerate(reading.owners) if owner is not None]
    # A piece says less than its word: the others of the word are seen, which makes long words look easy.
    lines: dict[int, Line] = {}
    losses: dict[int, float] = {}
    for place, row in zip(places, _guess_hidden(head, reading, places), strict=True):
        values, best = row.topk(min(top, len(row)))
        guesses = "  ".join(
            f"{_piece(tokenizer, number)} {value:.2f}"
            for number, value in zip(best.tolist(), values.exp().tolist(), strict=True)
        )
        if given:
            lines[place] = Line(cells=(tokenizer.mask_token, "hidden", "-", "-", guesses))
            continue
        loss = -float(row[ids[place]].double())
        losses[place] = loss
        cells = (_shown(reading, place), _role(reading, place), f"{math.exp(-loss):.3f}", f"{loss:.3f}", guesses)
        lines[place] = Line(cells=cells, strength=1 - math.exp(-loss))
    for place in set(range(len(ids))) - set(lines):
        role = _role(reading, place)
        lines[place] = Line(cells=(_shown(reading, place), role if role == "special token" else "shown", "-", "-", ""))
    mean = sum(losses.values()) / len(losses) if losses else None
    summary = ["Each token was hidden in turn, with all others shown." if losses else "Asked: the hidden tokens."]
    if mean is not None:
        total = sum(losses.values())
        summary.append(f"Mean pseudo-loss over {len(losses)} tokens: {mean:.6f} nats; their sum: {total:.3f} nats.")
    return Explanation(
        title=head.title,
        warnings=head.warnings + _warn_of(reading),
        classes=("a class is a token of the vocabulary",),
        columns=("Token", "", "Prob.", "Loss", f"Likeliest {top}"),
        lines=tuple(lines[place] for place in sorted(lines)),
        summary=tuple(summary),
        shade="how surprised the head is: 1 - the token's probability",
        mean_loss=mean,
    )


def _guess_hidden(head: Head, reading: _Reading, places: Sequence[int]) -> Iterator[Tensor]:
    """Yield for each place the log-probabilities (V,) of the token there, with that token alone hidden."""
    for start in range(0, len(places), _COPIES):
        chosen = places[start : start + _COPIES]
        inputs = {key: value.repeat(len(chosen), 1) for key, value in reading.inputs.items()}
        rows = torch.arange(len(chosen))
        inputs["input_ids"][rows, chosen] = head.tokenizer.mask_token_id
        yield from head.model(**inputs).logits[rows, chosen].float().log_softmax(-1)  # (B, V)


def _explain_texts(head: Head, text: str, second: str, labels: Sequence[str]) -> Explanation:
    if len(labels) > 1:
        raise UserError(f"--labels: a text has one label, {len(labels)} were given")
    reading = _read(head, text, second)
    logits = head.model(**reading.inputs).logits[0].float()  # (C,)
    if len(logits) == 1:
        return Explanation(
            title=head.title,
            warnings=head.warnings + _warn_of(reading),
            classes=("a number, not a class",),
            columns=("Value",),
            lines=(Line(cells=(f"{float(logits[0]):.4f}",)),),
            summary=(),
        )
    log_probabilities = logits.log_softmax(-1)
    probabilities = log_probabilities.exp().tolist()
    lines = [
        Line(cells=(str(number), name, f"{probability:.4f}", _bar(probability)), strength=probability)
        for number, (name, probability) in enumerate(zip(head.names, probabilities, strict=True))
    ]
    mean = None
    summary = [f"It says: {head.names[int(logits.argmax())]}."]
    for number in _number_labels(labels, head.names):
        mean = float(cross_entropy(logits[None].double(), torch.tensor([number])))
        summary.append(f"Loss if {head.names[number]} is right: {mean:.6f} nats.")
    return Explanation(
        title=head.title,
        warnings=head.warnings + _warn_of(reading),
        classes=_classes(head.names),
        columns=("Class", "Label", "Prob.", ""),
        lines=tuple(lines),
        summary=tuple(summary),
        shade="the class's probability",
        mean_loss=mean,
    )


def _shown(reading: _Reading, place: int) -> str:
    continues = reading.owners[place] is not None and not reading.starts[place]
    return ("##" if continues else "") + reading.surfaces[place]


def _role(reading: _Reading, place: int) -> str:
    if reading.owners[place] is None:
        return "special token"
    return "" if reading.starts[place] else "continues"


def _piece(tokenizer: PreTrainedTokenizerBase, number: int) -> str:
    text = str(tokenizer.decode([number])).strip()
    return text or str(tokenizer.convert_ids_to_tokens(number))


def _bar(strength: float) -> str:
    return "#" * round(strength * _BAR) + "." * (_BAR - round(strength * _BAR))


def _warn_of(reading: _Reading) -> tuple[str, ...]:
    if reading.truncated <= 0:
        return ()
    return (f"The text is longer than the encoder's positions: its last {reading.truncated} words were left out.",)
