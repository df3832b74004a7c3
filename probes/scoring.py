"""How a head scores a text, so that the two of a minimal pair can be compared. Each rule has a name for the record.

`score_pairs(head, pairs, rule)` does it. Texts of one length share a batch: no row is ever padded, and a score depends
on what stands beside it by rounding alone.

N pairs, T ordinary tokens of a text, B rows, L positions, V vocabulary, C classes.
"""

import difflib
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from corpora.errors import UserError

from .heads import INTACT_LABELS, HeadKind, TrainedHead

Reduction = Literal["sum", "mean", "min", "difference"]

_SALAZAR = "Salazar et al., 2020, https://arxiv.org/abs/1910.14659"
_KAUF = "Kauf and Ivanova, 2023, https://arxiv.org/abs/2305.10588"
_ELECTRA = "the optimum of the loss of Clark et al., 2020, section 2, https://arxiv.org/abs/2003.10555"
_ELECTRIC = "Clark et al., 2020 (Electric), section 2, https://aclanthology.org/2020.emnlp-main.20"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A way to score a text: what the head is asked of each token, and how the answers become one number."""

    name: str
    kind: HeadKind
    reduction: Reduction
    meaning: str
    source: str = ""
    within_word: bool = False
    needs_generator: bool = False


_ALL: tuple[tuple[str, HeadKind, Reduction, str, str], ...] = (
    ("pll_sum", "masked_lm", "sum", "sum of log p(token | the rest), each token masked alone", _SALAZAR),
    ("pll_mean", "masked_lm", "mean", "pll_sum divided by the number of tokens", _SALAZAR),
    ("pll_within_word_l2r", "masked_lm", "sum", "pll_sum with the later pieces of the same word masked too", _KAUF),
    ("rtd_sum", "detection", "sum", "sum of log p(token is original), one pass, nothing masked", _ELECTRA),
    ("rtd_mean", "detection", "mean", "rtd_sum divided by the number of tokens", ""),
    ("rtd_max", "detection", "min", "log p(original) of the most suspicious token", ""),
    ("rtd_difference", "detection", "difference", "rtd_sum over the tokens in which the two texts differ", ""),
    ("rtd_with_generator", "detection", "sum", "sum of log-odds(original) + log q(token | the rest)", _ELECTRIC),
    ("energy_sum", "energy", "sum", "minus the sum of the tokens' energies, one pass", _ELECTRIC),
    ("label_sum", "token_label", "sum", "sum of log p(label of the token | the rest), each token masked alone", ""),
    ("sequence_log_p", "sequence", "sum", "log p(the text is as it was written)", ""),
)
RULES = {
    name: Rule(
        name=name,
        kind=kind,
        reduction=reduction,
        meaning=meaning,
        source=source,
        within_word=name == "pll_within_word_l2r",
        needs_generator=name == "rtd_with_generator",
    )
    for name, kind, reduction, meaning, source in _ALL
}
DEFAULT_RULES: dict[HeadKind, str] = {
    "masked_lm": "pll_sum",
    "detection": "rtd_sum",
    "energy": "energy_sum",
    "token_label": "label_sum",
    "sequence": "sequence_log_p",
}


class NamesTokens(Protocol):
    """What a pseudo-log-likelihood is computed with: a masked LM's head, a readout, a tagger of hidden tokens."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    def max_length(self) -> int | None: ...

    @property
    def device(self) -> torch.device: ...

    def masked_logits(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class EncodedText:
    """A text as the model reads it."""

    ids: tuple[int, ...]  # (L,) special tokens included
    places: tuple[int, ...]  # (T,) of the ordinary tokens: only they are scored
    words: tuple[int, ...]  # (T,) number of the word that each belongs to

    @property
    def tokens(self) -> list[int]:
        return [self.ids[place] for place in self.places]


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """The two scores of each pair, higher for what the head finds more natural."""

    good: np.ndarray  # (N,) float64
    bad: np.ndarray  # (N,) float64
    rule: Rule
    num_fallbacks: int = 0  # pairs of "difference" in which a side has no token of its own: scored by the sum


def score_pairs(
    head: TrainedHead,
    pairs: Sequence[tuple[str, str]],
    rule: Rule,
    *,
    generator: TrainedHead | None = None,
    label_ids: np.ndarray | None = None,
    max_tokens: int = 8192,
    progress: bool = False,
) -> PairScores:
    """Score both texts of each pair (good, bad).

    `label_ids` (V,) gives each token's class where the head names labels of tokens and not tokens (-1: not scored);
    without it they are taken from the names of the labels (`first_character_labels`). `max_tokens` bounds a batch.
    UserError where the rule isn't one for this kind of head, a text doesn't fit, or what the rule needs is missing.
    """
    if rule.kind != head.site.kind:
        fitting = [name for name, each in RULES.items() if each.kind == head.site.kind]
        raise UserError(
            f"rule {rule.name} needs a {rule.kind} head, {head.site.name} of {head.site.location} is a "
            f"{head.site.kind} head; rules for it: {', '.join(fitting)}"
        )
    texts = encode_texts(head.tokenizer, [text for pair in pairs for text in pair], head.max_length)
    unique = list(dict.fromkeys(texts))  # equal tokens get one score: ties stay ties
    if rule.kind == "sequence":
        per_token = score_sequences(head, unique, max_tokens=max_tokens, progress=progress)
    elif rule.kind == "energy":
        per_token = [-energies for energies in _ask_tokens(head, unique, max_tokens, progress)]
    elif rule.kind == "detection":
        odds = original_log_odds(head, unique, max_tokens=max_tokens, progress=progress)
        per_token = [-np.logaddexp(0.0, -each) for each in odds]  # log p(original) out of its log-odds
        if rule.needs_generator:
            named = _ask_generator(head, generator, unique, max_tokens, progress)
            per_token = [each + log_q for each, log_q in zip(odds, named, strict=True)]
    else:
        if rule.kind == "token_label" and label_ids is None:
            label_ids = first_character_labels(head.tokenizer, head.site.labels)
        per_token = masked_log_probabilities(
            head,
            unique,
            within_word=rule.within_word,
            label_ids=label_ids,
            max_tokens=max_tokens,
            progress=progress,
        )
    return reduce_pairs(texts, dict(zip(unique, per_token, strict=True)), rule)


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None = None
) -> list[EncodedText]:
    """Encode each text alone, framed as the tokenizer does; UserError for one that is empty or longer than a row."""
    if not tokenizer.is_fast:
        raise UserError(
            f"{tokenizer.name_or_path}: its tokenizer is a slow one, which knows no words; a fast one is needed"
        )
    framed = tokenizer(list(texts), return_special_tokens_mask=True, return_attention_mask=False, verbose=False)
    encoded = []
    for number, text in enumerate(texts):
        ids = framed["input_ids"][number]
        places = [place for place, special in enumerate(framed["special_tokens_mask"][number]) if not special]
        if not places:
            raise UserError(f"text {number + 1} of {len(texts)} has no token: {text!r}")
        if max_length is not None and len(ids) > max_length:
            raise UserError(f"a text of {len(ids)} tokens is longer than the {max_length} that fit: {text[:60]!r} ...")
        words = framed.word_ids(number)
        encoded.append(EncodedText(ids=tuple(ids), places=tuple(places), words=tuple(words[place] for place in places)))
    return encoded


def masked_log_probabilities(
    model: NamesTokens,
    texts: Sequence[EncodedText],
    *,
    within_word: bool = False,
    label_ids: np.ndarray | None = None,
    max_tokens: int = 8192,
    progress: bool = False,
) -> list[np.ndarray]:
    """Return log p of each ordinary token, masked alone (Salazar et al., 2020): one array (T,) float64 for each text.

    `within_word` masks the later pieces of its word too (Kauf and Ivanova, 2023). With `label_ids` (V,) what counts is
    the token's class; tokens whose class is -1 get 0.
    """
    mask_id = model.tokenizer.mask_token_id
    if mask_id is None:
        raise UserError(f"{model.tokenizer.name_or_path} has no mask token, and a pseudo-log-likelihood needs one")
    jobs = [(number, at) for number, text in enumerate(texts) for at in range(len(text.places))]
    scores = [np.zeros(len(text.places)) for text in texts]
    for chosen in _batches([len(texts[number].ids) for number, _ in jobs], max_tokens, "masking", progress):
        batch = [jobs[each] for each in chosen]
        rows = np.array([texts[number].ids for number, _ in batch])  # (B, L)
        places = np.array([texts[number].places[at] for number, at in batch])  # (B,)
        wanted = rows[np.arange(len(batch)), places]
        if label_ids is not None:
            wanted = label_ids[wanted]
        for row, (number, at) in zip(rows, batch, strict=True):
            row[_hidden_places(texts[number], at, within_word)] = mask_id
        ids = torch.from_numpy(rows).to(model.device)
        logits = model.masked_logits(ids, torch.ones_like(ids), torch.from_numpy(places).to(model.device)).float()
        targets = torch.from_numpy(wanted).to(model.device)
        found = logits.gather(1, targets.clamp(min=0)[:, None]).squeeze(1) - logits.logsumexp(-1)
        for (number, at), value in zip(batch, torch.where(targets >= 0, found, 0.0).tolist(), strict=True):
            scores[number][at] = value
    return scores


def original_log_odds(
    head: TrainedHead, texts: Sequence[EncodedText], *, max_tokens: int = 8192, progress: bool = False
) -> list[np.ndarray]:
    """Return log p(original) - log p(not original) of each ordinary token: one array (T,) float64 for each text.

    One logit (B, L) is that of "replaced", as in ElectraForPreTraining; of several (B, L, C) class 0 is "original".
    """
    answers = _ask_tokens(head, texts, max_tokens, progress)
    return [-each if each.ndim == 1 else each[:, 0] - np.logaddexp.reduce(each[:, 1:], axis=1) for each in answers]


def score_sequences(
    head: TrainedHead, texts: Sequence[EncodedText], *, max_tokens: int = 8192, progress: bool = False
) -> list[np.ndarray]:
    """Return the log-probability of the class that says a text is intact: one array (1,) for each text."""
    intact = next(number for number, label in enumerate(head.site.labels) if label in INTACT_LABELS)
    read = _read_rows(head, texts, max_tokens, progress)
    return [F.log_softmax(logits.double(), -1)[intact : intact + 1].numpy() for _, logits in read]


def first_character_labels(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> np.ndarray:
    """Return each token's class (V,) where the classes are first characters, and one of several letters is the rest's.

    As in masked first character prediction (Yamaguchi et al., 2021, https://arxiv.org/abs/2109.01819). -1 where none
    fits.
    """
    numbers = {label: number for number, label in enumerate(labels) if len(label) == 1}
    rest = next((number for number, label in enumerate(labels) if len(label) > 1), -1)
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    first = [piece.removeprefix("##").lstrip("\u0120\u2581")[:1] for piece in pieces]
    return np.array([numbers.get(letter, numbers.get(letter.lower(), rest)) for letter in first])


def _hidden_places(text: EncodedText, at: int, within_word: bool) -> list[int]:
    if not within_word:
        return [text.places[at]]
    return [place for place, word in zip(text.places[at:], text.words[at:], strict=True) if word == text.words[at]]


def _ask_generator(
    head: TrainedHead,
    generator: TrainedHead | None,
    texts: Sequence[EncodedText],
    max_tokens: int,
    progress: bool,
) -> list[np.ndarray]:
    if generator is None:
        raise UserError(f"rtd_with_generator needs the generator of {head.site.location}, which isn't there")
    if generator.tokenizer.get_vocab() != head.tokenizer.get_vocab():
        raise UserError(f"{generator.site.place} and {head.site.place} have different vocabularies")
    return masked_log_probabilities(generator, texts, max_tokens=max_tokens, progress=progress)


def reduce_pairs(texts: list[EncodedText], per_token: dict[EncodedText, np.ndarray], rule: Rule) -> PairScores:
    """Make the two scores of each pair out of what its tokens got; `texts` are good, bad, good, bad, ..."""
    scores = np.empty((len(texts) // 2, 2))
    num_fallbacks = 0
    for number in range(len(scores)):
        pair = texts[2 * number], texts[2 * number + 1]
        values = [per_token[text] for text in pair]
        if rule.reduction == "difference":
            sides = differing_tokens(pair[0].tokens, pair[1].tokens)
            if all(sides):
                values = [each[side] for each, side in zip(values, sides, strict=True)]
            else:
                num_fallbacks += 1
        scores[number] = [_reduce(each, rule.reduction) for each in values]
    return PairScores(good=scores[:, 0], bad=scores[:, 1], rule=rule, num_fallbacks=num_fallbacks)


def _reduce(values: np.ndarray, reduction: Reduction) -> float:
    if reduction == "mean":
        return float(values.mean())
    return float(values.min() if reduction == "min" else values.sum())


def differing_tokens(first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
    """Return the positions on either side that a longest common alignment leaves over."""
    sides: tuple[list[int], list[int]] = [], []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if kind != "equal":
            sides[0].extend(range(a, b))
            sides[1].extend(range(c, d))
    return sides


def _ask_tokens(head: TrainedHead, texts: Sequence[EncodedText], max_tokens: int, progress: bool) -> list[np.ndarray]:
    """Return the logits of the ordinary tokens of each text: (T,) or (T, C) float64."""
    read = _read_rows(head, texts, max_tokens, progress)
    return [logits[list(text.places)].double().numpy() for text, logits in read]


def _read_rows(
    head: TrainedHead, texts: Sequence[EncodedText], max_tokens: int, progress: bool
) -> list[tuple[EncodedText, Tensor]]:
    """Return each text with the head's logits of it, on the CPU, in the order of the texts."""
    answers: dict[int, Tensor] = {}
    for chosen in _batches([len(text.ids) for text in texts], max_tokens, "reading", progress):
        ids = torch.tensor([texts[number].ids for number in chosen], device=head.device)
        answers |= dict(zip(chosen, head.logits(ids, torch.ones_like(ids)).float().cpu(), strict=True))
    return [(text, answers[number]) for number, text in enumerate(texts)]


def bar_style(progress: bool) -> dict[str, Any]:
    """Return how a bar of `tqdm` is shown: not at all for what takes less than 2 seconds, and rarely in a log file."""
    interval = 0.2 if sys.stderr.isatty() else 30
    return {"disable": not progress, "delay": 2, "mininterval": interval, "maxinterval": 60, "leave": False}


def _batches(lengths: Sequence[int], max_tokens: int, what: str, progress: bool) -> Iterator[list[int]]:
    """Yield the numbers of rows that share a length, the longest first, at most `max_tokens` tokens together."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, length in enumerate(lengths):
        by_length[length].append(number)
    with tqdm(total=sum(lengths), desc=what, unit=" tokens", unit_scale=True, **bar_style(progress)) as bar:
        for length in sorted(by_length, reverse=True):
            size = max(1, max_tokens // length)
            for start in range(0, len(by_length[length]), size):
                chosen = by_length[length][start : start + size]
                yield chosen
                bar.update(length * len(chosen))
