"""The masked readout: what a linear head can say of hidden tokens from a frozen body, however it was pretrained.

masked_readout(encoder, texts, held_out, settings, *, with_twin=True) -> ReadoutResult    the probe, with its controls
train_readout(encoder, texts, settings) -> Readout; evaluate_readout(readout, held_out, settings) -> ReadoutFigures
A Readout names tokens, so `scoring.masked_log_probabilities` computes pseudo-log-likelihoods with it too.

B rows, L positions, K hidden tokens, V vocabulary, D hidden, E embedding.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from corpora.errors import UserError

from .encoder import FrozenEncoder, random_twin
from .readout_rows import build_batch, choose_hidden, count_tokens, cut_rows, cut_texts, endless_batches, split_rows
from .scoring import bar_style
from .statistics import Interval, interval, resample_scores

BINS = (10, 100, 1000)  # a token's bin is its rank by frequency in the texts that the head was trained on


@dataclass(frozen=True, kw_only=True)
class ReadoutSettings:
    """The budget, which is the same for every body that is compared."""

    steps: int = 100
    tokens_per_step: int = 2048
    mask_rate: float = 0.15
    max_length: int = 64  # tokens of a row: longer texts are cut into several
    learning_rate: float = 0.01
    learn_mask: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ReadoutFigures:
    """Held-out figures of one body."""

    name: str
    accuracy: Interval  # top-1, interval over texts
    loss: float  # nats a hidden token
    bins: dict[str, tuple[float, int]]  # by frequency of the hidden token: accuracy and number
    num_hidden: int


@dataclass(frozen=True, kw_only=True)
class HiddenAnswers:
    """What a readout says of each of K hidden tokens."""

    wanted: np.ndarray  # (K,) the tokens that were hidden
    answers: np.ndarray  # (K,) the most probable ones
    losses: np.ndarray  # (K,) nats
    owners: np.ndarray  # (K,) which text each is of


@dataclass(frozen=True, kw_only=True)
class ReadoutResult:
    """A body beside its untrained twin and beside the commonest token."""

    settings: ReadoutSettings
    figures: ReadoutFigures
    twin: ReadoutFigures | None
    unigram_accuracy: float  # of always naming the commonest token
    unigram_loss: float  # nats, add-one counts of the training texts
    passes: float  # how often the head saw each training token, with other tokens hidden each time
    readouts: tuple["Readout", ...]  # the body's, and its twin's

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as plain values, without the readouts themselves."""
        plain = asdict(replace(self, readouts=()))
        del plain["readouts"]
        return plain


@dataclass(frozen=True, kw_only=True)
class Readout:
    """A frozen body with a linear head of its own, tied to nothing, and with a vector that stands for hidden tokens."""

    encoder: FrozenEncoder
    head: nn.Linear  # (D) -> (V)
    mask_vector: Tensor  # (E,)
    mean: Tensor  # (D,) of the body's hidden states where a token is hidden, and their deviation
    deviation: Tensor  # (D,)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.encoder.tokenizer

    @property
    def max_length(self) -> int:
        return self.encoder.max_length

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    def masked_logits(self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor:
        """Return the logits of every token at one position of each row: (B, L), (B, L), (B,) -> (B, V)."""
        with torch.no_grad():
            places = torch.arange(len(positions), device=positions.device) * input_ids.shape[1] + positions
            return self.name_tokens(input_ids, attention_mask, places)

    def name_tokens(self, input_ids: Tensor, attention_mask: Tensor, places: Tensor) -> Tensor:
        """Return logits (K, V) at places of the flattened rows; where a row holds [MASK], the body reads our vector."""
        hidden = read_hidden(self.encoder, input_ids, attention_mask, places, self.mask_vector)
        return self.head((hidden - self.mean) / self.deviation)


def masked_readout(
    encoder: FrozenEncoder,
    texts: Sequence[str],
    held_out: Sequence[str],
    settings: ReadoutSettings,
    *,
    with_twin: bool = True,
    progress: bool = False,
) -> ReadoutResult:
    """Train a readout on `texts` and judge it on `held_out`, with an untrained twin of the body on the same budget.

    Answers what is decodable by a linear map, not what the model says. In an encoder trained to detect replaced tokens
    [MASK] was never part of the input, so its embedding says nothing: the vector that stands for a hidden token is
    learned with the head, for every body alike, from where the body's own [MASK] is. UserError where there is no text.
    """
    rows = cut_rows(encoder, texts, settings.max_length)
    frequencies = count_tokens(encoder, rows)
    bodies = [encoder, *([random_twin(encoder, settings.seed)] if with_twin else [])]
    readouts = tuple(train_readout(body, texts, settings, progress=progress) for body in bodies)
    judged = [
        evaluate_readout(each, held_out, settings, frequencies=frequencies, progress=progress) for each in readouts
    ]
    hidden_ids = _hidden_tokens(encoder, held_out, settings)
    log_p = np.log((frequencies + 1) / (frequencies.sum() + len(frequencies)))
    return ReadoutResult(
        settings=settings,
        figures=judged[0],
        twin=judged[1] if with_twin else None,
        unigram_accuracy=float((hidden_ids == frequencies.argmax()).mean()),
        unigram_loss=float(-log_p[hidden_ids].mean()),
        passes=settings.steps * settings.tokens_per_step / sum(map(len, rows)),
        readouts=readouts,
    )


def train_readout(
    encoder: FrozenEncoder, texts: Sequence[str], settings: ReadoutSettings, *, progress: bool = False
) -> Readout:
    """Train the head, and the hidden token's vector, by Adam with a rate that falls to 0; the body stays as it is.

    The head starts at the unigram distribution of `texts`, on hidden states that are standardised by their mean and
    deviation over the first batches, so that one learning rate does for bodies of any scale.
    """
    if encoder.tokenizer.mask_token_id is None:
        raise UserError(f"the tokenizer of '{encoder.name}' has no mask token, so nothing can be hidden from it")
    rows = cut_rows(encoder, texts, settings.max_length)
    table = _word_table(encoder).weight
    vocab_size = encoder.network.config.vocab_size
    start, scale = table[encoder.tokenizer.mask_token_id].clone(), table.std()
    offset = nn.Parameter(torch.zeros_like(start), requires_grad=settings.learn_mask)
    head = nn.Linear(encoder.hidden_size, vocab_size, device=encoder.device)
    frequencies = torch.from_numpy(count_tokens(encoder, rows)).to(encoder.device)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.log((frequencies + 1) / (frequencies.sum() + vocab_size)))
    batches = endless_batches(encoder, rows, settings)
    mean, deviation = _measure_scale(encoder, [next(batches) for _ in range(8)], start)
    optimizer = torch.optim.Adam(
        [p for p in (head.weight, head.bias, offset) if p.requires_grad], lr=settings.learning_rate
    )
    for step in tqdm(range(settings.steps), desc="readout", **bar_style(progress)):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 - step / settings.steps)
        readout = Readout(
            encoder=encoder, head=head, mask_vector=start + scale * offset, mean=mean, deviation=deviation
        )
        ids, mask, places, originals = next(batches)
        loss = F.cross_entropy(readout.name_tokens(ids, mask, places), originals)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    vector = (start + scale * offset).detach()
    return Readout(encoder=encoder, head=head.requires_grad_(False), mask_vector=vector, mean=mean, deviation=deviation)


def evaluate_readout(
    readout: Readout,
    held_out: Sequence[str],
    settings: ReadoutSettings,
    *,
    frequencies: np.ndarray,
    progress: bool = False,
) -> ReadoutFigures:
    """Judge a readout on texts it hasn't seen, with the same tokens hidden for every body of this tokenizer."""
    found = answer_hidden(readout, held_out, settings, progress=progress)
    return ReadoutFigures(
        name=readout.encoder.name,
        accuracy=interval(resample_scores(found.wanted, found.answers, found.owners), method="percentile"),
        loss=float(found.losses.mean()),
        bins=_bin_accuracies(found.answers == found.wanted, found.wanted, frequencies),
        num_hidden=len(found.wanted),
    )


def answer_hidden(
    readout: Readout, held_out: Sequence[str], settings: ReadoutSettings, *, progress: bool = False
) -> HiddenAnswers:
    """Hide tokens of the texts, the same for every body of this tokenizer, and have the readout name them."""
    encoder = readout.encoder
    rows, owners = cut_texts(encoder, held_out, settings.max_length)
    chosen = choose_hidden(encoder, rows, settings.mask_rate, np.random.default_rng(settings.seed))
    losses, answers, wanted = [], [], []
    numbers_of: list[int] = []
    batches = list(split_rows(rows, settings.tokens_per_step, np.arange(len(rows))))
    for numbers in tqdm(batches, desc="judging", **bar_style(progress)):
        ids, mask, places, originals = build_batch(encoder, [rows[n] for n in numbers], [chosen[n] for n in numbers])
        with torch.no_grad():
            logits = readout.name_tokens(ids, mask, places)
        losses.append(F.cross_entropy(logits, originals, reduction="none").double().cpu().numpy())
        answers.append(logits.argmax(-1).cpu().numpy())
        wanted.append(originals.cpu().numpy())
        numbers_of.extend(np.repeat([owners[n] for n in numbers], [len(chosen[n]) for n in numbers]))
    return HiddenAnswers(
        wanted=np.concatenate(wanted),
        answers=np.concatenate(answers),
        losses=np.concatenate(losses),
        owners=np.array(numbers_of),
    )


def read_hidden(
    encoder: FrozenEncoder, input_ids: Tensor, attention_mask: Tensor, places: Tensor, mask_vector: Tensor
) -> Tensor:
    """Return the body's last hidden states (K, D) at places of the flattened rows, with `mask_vector` for [MASK]."""
    is_hidden = (input_ids == encoder.tokenizer.mask_token_id)[..., None]  # (B, L, 1)
    embeddings = torch.where(is_hidden, mask_vector, _word_table(encoder)(input_ids))
    output = encoder.network(inputs_embeds=embeddings, attention_mask=attention_mask)
    return output.last_hidden_state.flatten(0, 1)[places]


def _word_table(encoder: FrozenEncoder) -> nn.Embedding:
    table = encoder.network.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    return table


def _hidden_tokens(encoder: FrozenEncoder, texts: Sequence[str], settings: ReadoutSettings) -> np.ndarray:
    rows = cut_rows(encoder, texts, settings.max_length)
    chosen = choose_hidden(encoder, rows, settings.mask_rate, np.random.default_rng(settings.seed))
    return np.concatenate([np.array(row)[places] for row, places in zip(rows, chosen, strict=True)])


def _measure_scale(
    encoder: FrozenEncoder, batches: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], mask_vector: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        found = torch.cat([read_hidden(encoder, ids, mask, places, mask_vector) for ids, mask, places, _ in batches])
    return found.mean(0), found.std(0).clamp(min=1e-6)


def _bin_accuracies(is_right: np.ndarray, wanted: np.ndarray, frequencies: np.ndarray) -> dict[str, tuple[float, int]]:
    ranks = np.empty(len(frequencies), dtype=np.int64)
    ranks[np.argsort(-frequencies, kind="stable")] = np.arange(len(frequencies))
    edges = (0, *BINS, len(frequencies))
    bins = {}
    for low, high in zip(edges, edges[1:], strict=False):
        inside = (ranks[wanted] >= low) & (ranks[wanted] < high) & (frequencies[wanted] > 0)
        bins[f"rank {low + 1:,} to {high:,}"] = inside
    bins["unseen in training"] = frequencies[wanted] == 0
    return {name: (float(is_right[at].mean()), int(at.sum())) for name, at in bins.items() if at.any()}
