"""The words of shown examples: tokens with marks that need no colour, and answers in a line."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from objectives.sequences import Sequences

from .stream import Stream

_MOST = 12  # answers that are written out for one question
_FEW = 4  # so many are all written out


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token of a shown text."""

    text: str
    kind: str = "plain"  # or special, changed, hidden, inserted, removed, piece
    was: str = ""  # what stood there, of a changed or hidden one
    space: bool = True  # before it

    @property
    def marked(self) -> str:
        """The text with marks that need no colour."""
        if self.kind in ("changed", "hidden"):
            return f"[{self.text.strip('[]')}<-{self.was}]"
        return {"inserted": f"+{self.text}+", "removed": f"-{self.text}-"}.get(self.kind, self.text)


class Words:
    """The texts of tokens, as a screen can show them."""

    def __init__(self, stream: Stream) -> None:
        self.corpus = stream.corpus
        self.vocabulary = stream.corpus.vocabulary
        self.texts = [legible(text) for text in stream.tables.token_texts]
        tokenizer = self.corpus.load_tokenizer()
        for token_id in self.vocabulary.special_ids:
            self.texts[token_id] = str(tokenizer.convert_ids_to_tokens(int(token_id)))

    def name(self, token_id: int) -> str:
        """Return the text of an id, or the number where it is none of the vocabulary."""
        return self.texts[token_id] or "?" if 0 <= token_id < len(self.texts) else str(token_id)

    def of_store(self, place: int) -> Token:
        starts_word = bool(self.corpus.gather_word_starts(np.array([place]))[0])
        return Token(text=self.name(int(self.corpus.token_ids[place])), space=starts_word)

    def of_example(
        self,
        sequences: Sequences,
        row: int,
        ids: np.ndarray,
        before: np.ndarray | None = None,
        pieces: Sequence[str] = (),
    ) -> tuple[Token, ...]:
        """Return the tokens of an example, as `ids` show them; `before` are the ids that it was framed with."""
        first, end = sequences.offsets[row : row + 2]
        originals = sequences.original_ids[first:end]
        removed = find_removed(before, originals) if before is not None else {}
        tokens: list[Token] = []
        piece = -1
        for place in range(end - first):
            tokens += [Token(text=self.name(int(gone)), kind="removed") for gone in removed.get(place, [])]
            now = int(sequences.pieces[first + place])
            if now != piece and 0 <= now < len(pieces) and pieces[now]:
                tokens.append(Token(text=pieces[now], kind="piece"))
            piece = now
            tokens.append(self._of_place(sequences, int(first) + place, int(ids[place]), int(originals[place])))
        return tuple(tokens)

    def _of_place(self, sequences: Sequences, position: int, shown: int, original: int) -> Token:
        text, was = self.name(shown), self.name(original) if original >= 0 else ""
        space = bool(sequences.is_word_start[position] | sequences.is_special[position])
        if sequences.is_special[position]:
            return Token(text=text, kind="special")
        if original < 0:
            return Token(text=text, kind="inserted")
        if shown == original:
            return Token(text=text, space=space)
        kind = "hidden" if shown == self.vocabulary.mask_id else "changed"
        return Token(text=text, kind=kind, was=was, space=space)


def find_removed(before: np.ndarray, after: np.ndarray) -> dict[int, list[int]]:
    """Return {place in `after`: ids of `before` that stood in front of it and are gone}; -1 in `after` was put in."""
    if len(after) - (after < 0).sum() == len(before):
        return {}
    removed: dict[int, list[int]] = {}
    at = 0
    for place, token_id in enumerate(after):
        if token_id < 0:
            continue
        while at < len(before) and before[at] != token_id:
            removed.setdefault(place, []).append(int(before[at]))
            at += 1
        at += 1
    return removed


def legible(text: str) -> str:
    """Return a text with controls and marks of direction spelled out."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


def phrase(where: Sequence[str], answers: Sequence[str]) -> str:
    """Return the answers of one question in a line: of many alike their number, of the others which token has which."""
    if not answers:
        return "nothing is asked"
    if list(where) == [""]:
        return answers[0]
    common: str | None = max(set(answers), key=answers.count)
    if len(answers) <= _FEW or answers.count(common) <= len(answers) // 2:
        common = None
    pairs = [f"{token} -> {answer}" for token, answer in zip(where, answers, strict=True) if answer != common]
    more = f", and {len(pairs) - _MOST} more" if len(pairs) > _MOST else ""
    rest = f"; the other {answers.count(common)} -> {common}" if common is not None else ""
    return ", ".join(pairs[:_MOST]) + more + rest if pairs else f"all {len(answers)} -> {common}"
