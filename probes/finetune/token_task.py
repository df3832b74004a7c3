"""Token classification: a label at each word's first piece, entity F1 or accuracy over words."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seqeval.metrics import classification_report
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from corpora.errors import UserError

from .data import TokenData
from .train import IGNORED, Row, Task

_PREFIXES = ("B-", "I-", "E-", "S-", "L-", "U-")
_BATCH = 1000  # sentences a call of the tokenizer


@dataclass(frozen=True, kw_only=True)
class EncodedTokens:
    """Sentences as rows, and what did not fit as it was."""

    rows: tuple[Row, ...]
    cut: int  # sentences that became several rows, at the edges of words
    silent: int  # words that the tokenizer makes nothing of


class TokenTask(Task):
    """A class for every word, asked at its first piece; continuations and special tokens are not asked.

    Entities (tags such as B-PER, I-PER, O) are scored as spans, by seqeval in its default mode, which reads them as
    conlleval does; other tags by accuracy, and by the mean F1 of the classes that occur, over words. A word that the
    tokenizer makes nothing of counts as O, or as wrong.
    """

    auto_class = "AutoModelForTokenClassification"

    def __init__(self, data: TokenData, names: Sequence[str], metric: str = "auto") -> None:
        """`names` are the classes in the order of their ids. UserError where entities are asked of other tags."""
        self.names = tuple(names)
        self.is_entities = is_entities(names)
        self.metric = ("entity_f1" if self.is_entities else "accuracy") if metric == "auto" else metric
        known = ("entity_f1", "accuracy", "macro_f1") if self.is_entities else ("accuracy", "macro_f1")
        if self.metric not in known:
            raise UserError(f"--metric {self.metric} is not one of these labels'; known: {', '.join(known)}")
        self.data = data

    def of(self, data: TokenData) -> "TokenTask":
        """Return the same task on other data."""
        return TokenTask(data, self.names, self.metric)

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        flat = targets.flatten()
        summed = cross_entropy(logits.flatten(0, 1).float(), flat, ignore_index=IGNORED, reduction="sum")
        return summed, int((flat != IGNORED).sum())

    def answer(self, logits: Tensor, targets: Tensor) -> list[list[float]]:
        best = logits.argmax(-1).cpu()
        asked = (targets != IGNORED).cpu()
        return [row[mask].tolist() for row, mask in zip(best, asked, strict=True)]

    def score(self, rows: Sequence[Row], answers: Sequence[Sequence[float]]) -> dict[str, float]:
        found: list[list[str]] = [["O" if self.is_entities else ""] * len(words) for words in self.data.words]
        for row, answer in zip(rows, answers, strict=True):
            for word, number in zip(row.words, answer, strict=True):
                found[row.example][word] = self.names[int(number)]
        return score_tags(self.data.tags, found, self.metric, self.is_entities)


def is_entities(names: Sequence[str]) -> bool:
    """Say whether labels mark spans: each is O, or has a prefix such as B- or I-."""
    return any(name.startswith(_PREFIXES) for name in names) and all(
        name == "O" or name.startswith(_PREFIXES) for name in names
    )


def find_names(data: Sequence[TokenData], given: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the labels in the order of their ids: as given, as the data have them, or O first and then by type.

    The first of `data` is what is trained on. UserError, by file and line, where another has a label that it lacks.
    """
    names = tuple(given) or data[0].names
    if not names:
        met = {tag for tags in data[0].tags for tag in tags}
        by_type = is_entities(tuple(met))
        names = tuple(sorted(met, key=lambda tag: (tag != "O", tag[2:], tag[:2]) if by_type else (False, tag, "")))
    check_tags(data, names)
    return names


def check_tags(data: Sequence[TokenData], names: Sequence[str]) -> None:
    """Raise UserError, by the place of the sentence, where a tag is none of `names`."""
    known = set(names)
    for part in data:
        for tags, words, place in zip(part.tags, part.words, part.places, strict=True):
            for tag, word in zip(tags, words, strict=True):
                if tag not in known:
                    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
                    raise UserError(
                        f"{place}: in the sentence that starts there {word!r} has the label {tag!r}, which the head "
                        f"does not know; it knows {shown} (--labels lists others)"
                    )


def score_tags(
    truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]], metric: str, entities: bool
) -> dict[str, float]:
    """Return the figures of tags against the truth, sentence by sentence, `metric` first."""
    pairs = [pair for one, other in zip(truth, found, strict=True) for pair in zip(one, other, strict=True)]
    figures = {"accuracy": sum(one == other for one, other in pairs) / max(len(pairs), 1)}
    if entities:
        report = _report_entities(truth, found)
        average = report["micro avg"]
        figures |= {"entity_f1": average["f1-score"]}
        figures |= {"entity_precision": average["precision"], "entity_recall": average["recall"]}
        types = sorted(set(report) - {"micro avg", "macro avg", "weighted avg"})
        figures |= {f"f1_{name}": report[name]["f1-score"] for name in types}
    if not entities or metric == "macro_f1":
        figures["macro_f1"] = float(
            f1_score([one for one, _ in pairs], [other for _, other in pairs], average="macro", zero_division=0)
        )
    return {name: float(figures[name]) for name in [metric, *(name for name in figures if name != metric)]}


def _report_entities(truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> dict[str, Any]:
    if not any(tag != "O" for tags in [*truth, *found] for tag in tags):
        return {"micro avg": {"f1-score": 0.0, "precision": 0.0, "recall": 0.0}}  # seqeval has no answer there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of types that were never found: their F1 is 0, as asked
        return classification_report(list(map(list, truth)), list(map(list, found)), output_dict=True, zero_division=0)


def guess_by_word(train: TokenData, data: TokenData) -> list[list[str]]:
    """Return what needs no encoder: each word's commonest tag in training, the commonest of all for other words."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    for words, tags in zip(train.words, train.tags, strict=True):
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
            overall[tag] += 1
    best = {word: counter.most_common(1)[0][0] for word, counter in counts.items()}
    other = overall.most_common(1)[0][0]
    return [[best.get(word, other) for word in words] for words in data.words]


def encode_tokens(
    data: TokenData,
    names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    segments: bool,
) -> EncodedTokens:
    """Return rows of at most `max_length` tokens. A longer sentence becomes several, so that no word is lost."""
    ids = {name: number for number, name in enumerate(names)}
    space = word_prefix(tokenizer)
    rows: list[Row] = []
    cut = silent = 0
    for start in range(0, len(data), _BATCH):
        batch = [[space + word for word in words] for words in data.words[start : start + _BATCH]]
        encoded = tokenizer(batch, is_split_into_words=True, verbose=False)
        for offset, words in enumerate(batch):
            example = start + offset
            input_ids, owners = encoded["input_ids"][offset], encoded.word_ids(offset)
            silent += len(words) - len({owner for owner in owners if owner is not None})
            parts = [(input_ids, owners)]
            if len(input_ids) > max_length:
                parts = list(_cut(words, tokenizer, max_length))
                cut += 1
            for part_ids, part_owners in parts:
                rows.append(_make_row(part_ids, part_owners, example, data.tags[example], ids, segments))
    return EncodedTokens(rows=tuple(rows), cut=cut, silent=silent)


def _make_row(
    input_ids: list[int],
    owners: list[int | None],
    example: int,
    tags: Sequence[str],
    ids: dict[str, int],
    segments: bool,
) -> Row:
    targets: list[float] = [IGNORED] * len(owners)
    words = []
    before = None
    for position, owner in enumerate(owners):
        if owner is not None and owner != before:
            targets[position] = ids[tags[owner]]
            words.append(owner)
        before = owner
    types = [0] * len(input_ids) if segments else None
    return Row(
        input_ids=input_ids, token_types=types, targets=targets, per_token=True, example=example, words=tuple(words)
    )


def _cut(
    words: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Iterator[tuple[list[int], list[int | None]]]:
    """Yield rows of whole words, as many as fit; the pieces of a word that alone is too long are cut off."""
    start = 0
    while start < len(words):
        encoded = tokenizer(
            words[start:], is_split_into_words=True, truncation=True, max_length=max_length, verbose=False
        )
        owners = encoded.word_ids()
        present = [owner for owner in owners if owner is not None]
        last = present[-1] if present else len(words) - start - 1
        whole = tokenizer(words[start : start + last + 1], is_split_into_words=True, verbose=False)
        if len(whole["input_ids"]) > max_length and last > 0:  # the last word is not whole
            last -= 1
            encoded = tokenizer(words[start : start + last + 1], is_split_into_words=True, verbose=False)
            owners = encoded.word_ids()
        yield encoded["input_ids"], [None if owner is None else owner + start for owner in owners]
        start += last + 1


def word_prefix(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what must stand before a word so that its pieces are those that it has within a text: "" or a space.

    A byte-level tokenizer that adds no space of its own would otherwise read the words as if they were glued together.
    """
    text = tokenizer("a b", add_special_tokens=False, return_offsets_mapping=True)
    within = [piece for piece, (_, end) in zip(text["input_ids"], text["offset_mapping"], strict=True) if end > 1]

    def second_of(words: list[str]) -> list[int]:
        encoded = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
        return [piece for piece, owner in zip(encoded["input_ids"], encoded.word_ids(), strict=True) if owner == 1]

    return " " if second_of(["a", "b"]) != within and second_of([" a", " b"]) == within else ""
