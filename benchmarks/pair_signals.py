"""What simple signals tell about sentence pairs and sentence order: how much of an answer needs no encoder.

    python benchmarks/pair_signals.py --corpus wiki.txt.gz [--max_length 128] [--pairs 6000] [--steps 1500]

Of `nsp`: a threshold on the rarity of the words that both texts share; a threshold on the cosine of the two texts'
co-occurrence vectors, weighted towards rare words (Arora et al., 2017, section 3,
https://openreview.net/forum?id=SyK00v5xx); and a bag of learned vectors for each text, with the comparison built in,
[a, b, |a - b|, a * b] (Conneau et al., 2017, section 3.2, https://arxiv.org/abs/1705.02364). Of `sentence_shuffle`: the
length of the first sentence, with and without `fair_lengths`; and a linear classifier of each word times its
sentence's place, which knows which words open a text and nothing of what a sentence means, for passages of documents
and of paragraphs. Thresholds are chosen on half of the training pairs and scored on the other; the bag model and the
linear one are scored on held-out documents.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corpora import Corpus, prepare_corpus  # noqa: E402
from corpora.tables import Tables  # noqa: E402
from objectives import build_objectives  # noqa: E402
from objectives.sequences import Sequences  # noqa: E402
from training.config import Config  # noqa: E402
from training.stream import Flat, Stream  # noqa: E402

COMMON = 5.0  # nats of surprise: words below it are in most texts, and sharing them says nothing
SMOOTHING = 1e-3  # Arora et al.: a word of probability p weighs SMOOTHING / (SMOOTHING + p)


class PairBag(nn.Module):
    """Compares two texts by the sums of their tokens' vectors (V, E), which it learns."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(vectors.clone(), freeze=False)
        width = vectors.shape[1]
        self.classifier = nn.Sequential(nn.Linear(4 * width, 256), nn.GELU(), nn.Linear(256, 2))

    def forward(self, token_ids: Tensor, places: Tensor, count: int) -> Tensor:  # (T,), (T,) text of each -> (B, 2)
        sums = torch.zeros(2 * count, self.table.embedding_dim).index_add(0, places, self.table(token_ids))
        texts = F.normalize(sums, dim=1).view(count, 2, -1) * math.sqrt(self.table.embedding_dim)
        first, second = texts[:, 0], texts[:, 1]
        return self.classifier(torch.cat([first, second, (first - second).abs(), first * second], dim=1))


def answers_of(flat: Flat) -> np.ndarray:
    """Return the answers (B,) of the only question that each example asks."""
    ((_, targets),) = flat.targets.items()
    ((_, target),) = targets.items()
    return np.asarray(target.values)


def texts_of(sequences: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Return the ordinary tokens (T,) of pairs, and which text each is in: 2 x row + 0 or 1."""
    kept = ~sequences.is_special
    return sequences.token_ids[kept], (2 * sequences.rows + sequences.segments)[kept]


def threshold_accuracy(scores: np.ndarray, answers: np.ndarray) -> float:
    """Return the accuracy of one threshold, chosen on the first half and scored on the second: low scores say 1."""
    half = len(scores) // 2
    cuts = np.quantile(scores[:half], np.linspace(0, 1, 201))
    right = [((scores[:half] < cut) == answers[:half]).mean() for cut in cuts]
    return float(((scores[half:] < cuts[int(np.argmax(right))]) == answers[half:]).mean())


def shared_rarity(token_ids: np.ndarray, places: np.ndarray, count: int, surprise: np.ndarray) -> np.ndarray:
    """Return for each pair (B,) the surprise, above COMMON, of the tokens that both texts hold, each once."""
    keys = np.unique(places.astype(np.int64) * len(surprise) + token_ids)  # (text, token), once
    texts, tokens = np.divmod(keys, len(surprise))
    both, counts = np.unique((texts // 2) * len(surprise) + tokens, return_counts=True)
    rows, shared = np.divmod(both[counts == 2], len(surprise))
    return np.bincount(rows, np.maximum(surprise[shared] - COMMON, 0), minlength=count)


def cosines(
    token_ids: np.ndarray, places: np.ndarray, count: int, vectors: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return for each pair (B,) the cosine of its texts' weighted sums of vectors (V, E)."""
    sums = np.zeros((2 * count, vectors.shape[1]))
    np.add.at(sums, places, vectors[token_ids] * weights[token_ids, None])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return (sums[0::2] * sums[1::2]).sum(1)


def train_bag(train: Stream, held_out: Stream, vectors: Tensor, steps: int, batch: int = 32) -> None:
    """Print the accuracy on 1,024 held-out pairs after each third of `steps` steps, and how many tokens were read."""
    torch.manual_seed(0)
    model, tokens, asked = PairBag(vectors), 0, held_out.build(np.arange(1024))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        flat = train.build(np.arange(step * batch, (step + 1) * batch))
        tokens += len(flat.sequences.token_ids)
        loss = F.cross_entropy(_logits(model, flat), torch.from_numpy(answers_of(flat)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % max(steps // 3, 1) == 0:
            with torch.no_grad():
                right = _logits(model, asked).argmax(1).numpy() == answers_of(asked)
            print(f"    after {tokens / 1e6:.2f} M tokens {right.mean():25.3f}  held out", flush=True)


def _logits(model: PairBag, flat: Flat) -> Tensor:
    token_ids, places = texts_of(flat.sequences)
    return model(torch.from_numpy(token_ids.astype(np.int64)), torch.from_numpy(places), flat.sequences.num_examples)


def first_lengths(sequences: Sequences) -> np.ndarray:
    """Return how many tokens the first sentence of each example has (B,)."""
    kept = sequences.pieces == 0
    return np.bincount(sequences.rows[kept], minlength=sequences.num_examples)


def words_by_place(sequences: Sequences, size: int) -> sparse.csr_array:
    """Return for each example each word times the place of its sentence, counted from the middle (B, 2 V).

    The second half of the columns holds first words of sentences alone.
    """
    text = np.flatnonzero(~sequences.is_special)
    rows, sentences = sequences.rows[text], sequences.pieces[text]
    last = np.zeros(sequences.num_examples)
    np.maximum.at(last, rows, sentences)
    places = sentences - last[rows] / 2
    opens = np.diff(sentences + rows * (sentences.max() + 1), prepend=-1) != 0
    columns = np.append(sequences.token_ids[text], size + sequences.token_ids[text[opens]])
    values = np.append(places, places[opens])
    return sparse.csr_array((values, (np.append(rows, rows[opens]), columns)), shape=(sequences.num_examples, 2 * size))


def score_words_by_place(corpus: Corpus, objective: str, options: argparse.Namespace) -> tuple[int, float]:
    """Return how many training examples there are, and the accuracy of the best of three strengths, held out."""
    train = open_stream(corpus, objective, options.max_length)
    held_out = open_stream(corpus, objective, options.max_length, held_out=True)
    learned, asked = (s.build(np.arange(len(s.passages))) for s in (train, held_out))
    items, test = (words_by_place(flat.sequences, corpus.vocabulary.size) for flat in (learned, asked))
    scores = [
        LogisticRegression(C=strength, max_iter=200).fit(items, answers_of(learned)).score(test, answers_of(asked))
        for strength in (0.001, 0.01, 0.1)
    ]
    return len(train.passages), max(scores)


def open_stream(corpus: Corpus, objective: str, max_length: int, *, held_out: bool = False) -> Stream:
    """Return the stream of one objective, as training with seed 1 would read it."""
    return Stream.open(corpus, build_objectives(objective), seed=1, max_length=max_length, held_out=held_out)


def main() -> None:
    """Print each signal's score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="builtin")
    parser.add_argument("--cache", default=None)
    for name, default in (("max_length", 128), ("pairs", 6000), ("steps", 1500), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.process_time()
    config = Config(corpus=options.corpus, cache=options.cache)
    corpus = prepare_corpus(
        config.corpus_settings(), cache=Path(options.cache) if options.cache else None, progress=True
    )
    counts = np.asarray(corpus.unigram_counts).astype(float)
    rates = counts / counts.sum()
    vectors = np.array(Tables(corpus).embeddings(128))
    vectors -= np.average(vectors, axis=0, weights=counts)

    train = open_stream(corpus, "nsp", options.max_length)
    flat = train.build(np.arange(options.pairs))
    (token_ids, places), answers = texts_of(flat.sequences), answers_of(flat)
    overlap = shared_rarity(token_ids, places, options.pairs, -np.log(rates + 1e-9))
    cosine = cosines(token_ids, places, options.pairs, vectors, SMOOTHING / (SMOOTHING + rates))
    print(f"nsp, {options.pairs:,} training pairs of {options.max_length} tokens, accuracy (chance .500)")
    print(f"  rarity of the shared tokens, one threshold   {threshold_accuracy(overlap, answers):.3f}")
    print(f"  cosine of weighted co-occurrence vectors     {threshold_accuracy(cosine, answers):.3f}")
    held_out = open_stream(corpus, "nsp", options.max_length, held_out=True)
    starts = {"at random": torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0)) / math.sqrt(128)}
    starts["from co-occurrences"] = F.normalize(torch.from_numpy(vectors).float(), dim=1)
    for name, start in starts.items():
        print(f"  bag model, its vectors started {name}")
        train_bag(train, held_out, start, options.steps)
    for fair in ("false", "true"):
        stream = open_stream(corpus, f"sentence_shuffle:fair_lengths={fair}", options.max_length)
        flat = stream.build(np.arange(options.pairs))
        score = roc_auc_score(1 - answers_of(flat), first_lengths(flat.sequences))
        print(f"sentence_shuffle:fair_lengths={fair}: AUROC of the first sentence's length {score:.3f} (chance .500)")
    for spec in (
        "sentence_shuffle",
        "sentence_shuffle:within=paragraph",
        "sentence_shuffle:within=paragraph,min_sentences=2",
        "sop",
        "sop:within=paragraph",
    ):
        count, score = score_words_by_place(corpus, spec, options)
        print(f"{spec}: words by place, learned from {count:,} examples: accuracy {score:.3f} (chance .500)")
    print(f"{time.process_time() - began:.0f} s of processor time")


if __name__ == "__main__":
    main()
