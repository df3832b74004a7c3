"""Minimal pairs: which of two texts that differ in one property a model finds more natural.

read_paradigms(location, limit=None) -> list[Paradigm]                        files of BLiMP's format
judge_head(head, paradigms, rule, ...) -> PairsResult                         by the head's own score, nothing trained
judge_readout(readout, paradigms) -> PairsResult                              by a readout's pseudo-log-likelihood
judge_left_out(encoder, paradigms) -> LeftOut                                 by a probe that never saw the phenomenon
shorter_is_better(paradigms), commoner_is_better(paradigms, counts) -> PairsResult      what a surface score gets

BLiMP: Warstadt et al., 2020, https://aclanthology.org/2020.tacl-1.25. Accuracy is the share of pairs in which the good
text scores higher, a tie counting half; a phenomenon's is the mean of its paradigms, the whole that of all paradigms.

N pairs.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from corpora.errors import UserError
from corpora.lines import Notes, read_records

from .encoder import FrozenEncoder
from .features import extract
from .fit import fit_linear
from .heads import TrainedHead
from .probe import DEV, TEST, TRAIN
from .readout import Readout
from .scoring import RULES, Rule, encode_texts, masked_log_probabilities, reduce_pairs, score_pairs

TIE = 1e-5  # of the scores' size: rounding in float32 must not decide a pair
CLUSTERS = 5  # fewer paradigms than that say nothing of other paradigms
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


@dataclass(frozen=True, kw_only=True)
class Paradigm:
    """Pairs made by one template."""

    name: str  # BLiMP's UID
    phenomenon: str  # its linguistics_term
    pairs: tuple[tuple[str, str], ...]  # (good, bad)


@dataclass(frozen=True, kw_only=True)
class Share:
    """An accuracy with a 95 % interval, and what the interval is about."""

    name: str
    accuracy: float
    low: float
    high: float
    num_pairs: int
    num_ties: int
    num_paradigms: int
    about: str  # "pairs": other pairs of these paradigms; "paradigms": other paradigms too


@dataclass(frozen=True, kw_only=True)
class PairsResult:
    """Accuracies, and all that one must know to compare them."""

    model: str
    head: str
    class_name: str
    rule: str
    meaning: str
    reduction: str
    overall: Share
    phenomena: tuple[Share, ...]
    paradigms: tuple[Share, ...]
    untied_accuracy: float | None  # of the pairs that aren't ties; None where all are
    remarks: tuple[str, ...] = ()
    outcomes: dict[str, np.ndarray] = field(repr=False)  # paradigm -> (N,): 1, 0.5 or 0


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What a linear probe finds on phenomena that it wasn't trained on: supervised, and the same for any encoder."""

    chosen: PairsResult  # for each phenomenon the layer that was best on the phenomenon kept for that choice
    layers: tuple[PairsResult, ...]  # the embeddings' first
    chosen_layers: dict[str, int]  # phenomenon -> layer


def read_paradigms(location: Path, limit: int | None = None) -> list[Paradigm]:
    """Read a file, or every .jsonl, .jsonl.gz and .jsonl.zst of a folder; of each paradigm the first `limit` pairs.

    A line is an object with sentence_good and sentence_bad; UID names its paradigm (else the file does), and
    linguistics_term its phenomenon (else the paradigm does). UserError with file and line for what isn't so.
    """
    files = [location] if location.is_file() else sorted(location.glob("*.jsonl*"))
    if not files:
        raise UserError(f"{location} has no minimal pairs; give a .jsonl file of BLiMP's format, or a folder of them")
    pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    phenomena: dict[str, str] = {}
    for path in files:
        for number, line in enumerate(read_records(path, "strict", Notes()), 1):
            if line.strip():
                record = _parse(line, f"{path}, line {number}")
                name = str(record.get("UID") or path.name.partition(".")[0])
                phenomena.setdefault(name, str(record.get("linguistics_term") or name))
                if limit is None or len(pairs[name]) < limit:
                    pairs[name].append((record["sentence_good"], record["sentence_bad"]))
    if not pairs:
        raise UserError(f"{location} holds no pair: its files are empty")
    return [Paradigm(name=name, phenomenon=phenomena[name], pairs=tuple(each)) for name, each in pairs.items()]


def judge_head(
    head: TrainedHead,
    paradigms: Sequence[Paradigm],
    rule: Rule,
    *,
    generator: TrainedHead | None = None,
    label_ids: np.ndarray | None = None,
    max_tokens: int = 8192,
    progress: bool = False,
) -> PairsResult:
    """Score every pair by the head's own answers; UserError as `score_pairs`."""
    pairs = [pair for paradigm in paradigms for pair in paradigm.pairs]  # (N, 2)
    scores = score_pairs(
        head, pairs, rule, generator=generator, label_ids=label_ids, max_tokens=max_tokens, progress=progress
    )
    fallbacks = f"{scores.num_fallbacks:,} pairs without tokens of their own on a side: scored by the sum"
    return summarise(
        paradigms,
        compare(scores.good, scores.bad),
        model=head.site.location,
        head=head.site.name,
        class_name=head.site.class_name,
        rule=rule.name,
        meaning=rule.meaning,
        reduction=rule.reduction,
        remarks=(fallbacks,) if scores.num_fallbacks else (),
    )


def judge_readout(
    readout: Readout, paradigms: Sequence[Paradigm], *, max_tokens: int = 8192, progress: bool = False
) -> PairsResult:
    """Score every pair by the pseudo-log-likelihood (sum) of a linear readout of the frozen body."""
    texts = encode_texts(readout.tokenizer, _all_texts(paradigms), readout.max_length)
    unique = list(dict.fromkeys(texts))
    values = masked_log_probabilities(readout, unique, max_tokens=max_tokens, progress=progress)
    scores = reduce_pairs(texts, dict(zip(unique, values, strict=True)), RULES["pll_sum"])
    return summarise(
        paradigms,
        compare(scores.good, scores.bad),
        model=readout.encoder.name,
        head="readout",
        class_name="Linear",
        rule="readout_pll_sum",
        meaning="pll_sum of a linear head trained on the frozen body (supervised: what is decodable)",
        reduction="sum",
    )


def judge_left_out(
    encoder: FrozenEncoder, paradigms: Sequence[Paradigm], *, cache: Path | None = None, progress: bool = False
) -> LeftOut:
    """Tell good from bad texts by logistic regression on their mean vectors, each phenomenon by one that never saw it.

    The regression learns from all phenomena but two: one is judged, the next one chooses strength and layer. A pair is
    judged by which text has the higher log-odds. UserError where there are fewer than three phenomena.
    """
    names = sorted({paradigm.phenomenon for paradigm in paradigms})
    if len(names) < 3:
        raise UserError(
            f"leaving a phenomenon out needs three: one to judge, one to choose by, one to learn from; found {names}"
        )
    texts = _all_texts(paradigms)
    vectors = extract(encoder, texts, cache=cache, progress=progress).text_vectors  # (layers, 2 N, D)
    phenomenon = np.repeat([names.index(p.phenomenon) for p in paradigms], [2 * len(p.pairs) for p in paradigms])
    is_good = 1 - np.arange(len(texts)) % 2
    outcomes = np.full((len(vectors), len(texts) // 2), np.nan)
    chosen = np.full(len(texts) // 2, np.nan)
    chosen_layers = {}
    for number, name in enumerate(names):
        split = np.full(len(texts), TRAIN)
        split[phenomenon == (number + 1) % len(names)] = DEV
        split[phenomenon == number] = TEST
        fit = fit_linear(vectors, is_good, split)
        assert fit.scores is not None  # there are two classes
        judged = (phenomenon == number)[::2]
        for layer, odds in enumerate(fit.scores.astype(np.float64)):
            outcomes[layer, judged] = compare(odds[::2][judged], odds[1::2][judged])
        chosen[judged] = outcomes[fit.best_layer, judged]
        chosen_layers[name] = fit.best_layer

    def result(values: np.ndarray, which: str) -> PairsResult:
        return summarise(
            paradigms,
            values,
            model=encoder.name,
            head="linear probe",
            class_name="LogisticRegression",
            rule="left_out_probe",
            meaning=f"log-odds of a probe trained on the other phenomena, {which} (supervised: what is decodable)",
            reduction="mean vector",
        )

    layers = tuple(result(values, f"layer {layer}") for layer, values in enumerate(outcomes))
    return LeftOut(chosen=result(chosen, "layer chosen on another one"), layers=layers, chosen_layers=chosen_layers)


def compare(good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Return 1 where good scores higher, 0 where bad does, 0.5 where they don't differ by more than rounding: (N,)."""
    is_tie = np.abs(good - bad) <= TIE * (np.abs(good) + np.abs(bad)) / 2
    return np.where(is_tie, 0.5, (good > bad).astype(float))


def summarise(
    paradigms: Sequence[Paradigm],
    outcomes: np.ndarray,
    *,
    model: str,
    head: str,
    class_name: str,
    rule: str,
    meaning: str,
    reduction: str,
    remarks: tuple[str, ...] = (),
) -> PairsResult:
    """Average outcomes (N,), in the order of the paradigms' pairs, by paradigm, by phenomenon and overall."""
    ends = np.cumsum([len(paradigm.pairs) for paradigm in paradigms])
    by_paradigm = dict(zip((p.name for p in paradigms), np.split(outcomes, ends[:-1]), strict=True))
    phenomena = sorted({paradigm.phenomenon for paradigm in paradigms})
    members = {name: [by_paradigm[p.name] for p in paradigms if p.phenomenon == name] for name in phenomena}
    untied = outcomes[outcomes != 0.5]
    return PairsResult(
        model=model,
        head=head,
        class_name=class_name,
        rule=rule,
        meaning=meaning,
        reduction=reduction,
        overall=average("overall", list(by_paradigm.values())),
        phenomena=tuple(average(name, each) for name, each in members.items()),
        paradigms=tuple(average(name, [each]) for name, each in by_paradigm.items()),
        untied_accuracy=float(untied.mean()) if len(untied) else None,
        remarks=remarks,
        outcomes=by_paradigm,
    )


def average(name: str, outcomes: Sequence[np.ndarray]) -> Share:
    """Return the mean of the paradigms' accuracies with its interval.

    Of CLUSTERS paradigms and more it is a t interval over them: paradigms are templates, and a thousand pairs of one
    say little about the next. Of fewer it is Wilson's, over the pairs of these paradigms alone.
    """
    accuracies = np.array([each.mean() for each in outcomes])
    mean = float(accuracies.mean())
    if len(outcomes) >= CLUSTERS:
        margin = student.ppf(0.975, len(outcomes) - 1) * accuracies.std(ddof=1) / math.sqrt(len(outcomes))
        low, high, about = max(0.0, mean - margin), min(1.0, mean + margin), "paradigms"
    else:
        effective = len(outcomes) ** 2 / sum(1 / len(each) for each in outcomes)
        (low, high), about = wilson(mean, effective), "pairs"
    return Share(
        name=name,
        accuracy=mean,
        low=float(low),
        high=float(high),
        num_pairs=sum(map(len, outcomes)),
        num_ties=int(sum((each == 0.5).sum() for each in outcomes)),
        num_paradigms=len(outcomes),
        about=about,
    )


def wilson(share: float, count: float, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion (Wilson, 1927, https://doi.org/10.1080/01621459.1927.10502953)."""
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    margin = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - margin), min(1.0, centre + margin)


def shorter_is_better(paradigms: Sequence[Paradigm]) -> PairsResult:
    """Return what the shorter text in words gets: 51.0 % on BLiMP's 67 paradigms, most of whose pairs are ties."""
    lengths = np.array([[-len(text.split()) for text in pair] for p in paradigms for pair in p.pairs], dtype=float)
    return _summarise_surface(paradigms, lengths, "shorter", "minus the number of words", "sum")


def commoner_is_better(paradigms: Sequence[Paradigm], counts: Mapping[str, int]) -> PairsResult:
    """Return what the sum of unigram log-probabilities gets, add-one, from counts of `split_words` of some text."""
    total = math.log(sum(counts.values()) + len(counts) + 1)

    def score(text: str) -> float:
        return math.fsum(sorted(math.log(counts.get(word, 0) + 1) - total for word in split_words(text)))

    scores = np.array([[score(text) for text in pair] for p in paradigms for pair in p.pairs])
    return _summarise_surface(paradigms, scores, "unigram", "sum of log p(word), add-one counts", "sum")


def count_words(texts: Iterable[str]) -> Counter[str]:
    """Count the words of texts as `commoner_is_better` asks for them."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split_words(text))
    return counts


def split_words(text: str) -> list[str]:
    """Return the words and punctuation marks of a text in lower case."""
    return _WORD.findall(text.lower())


def _all_texts(paradigms: Sequence[Paradigm]) -> list[str]:
    """Return good, bad, good, bad, ... (2 N)."""
    return [text for paradigm in paradigms for pair in paradigm.pairs for text in pair]


def _summarise_surface(
    paradigms: Sequence[Paradigm], scores: np.ndarray, rule: str, meaning: str, reduction: str
) -> PairsResult:
    return summarise(
        paradigms,
        compare(scores[:, 0], scores[:, 1]),
        model="",
        head="none",
        class_name="",
        rule=rule,
        meaning=meaning,
        reduction=reduction,
    )


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error}); one object a line is wanted") from error
    for key in ("sentence_good", "sentence_bad"):
        if not isinstance(record, dict) or not isinstance(record.get(key), str):
            raise UserError(f"{where}: no text under '{key}'; BLiMP's format has sentence_good and sentence_bad")
    return record
