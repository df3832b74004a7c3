"""Tables that are counted from a corpus's training documents, for objectives and generators that need them.

Each is computed when it is first asked for and kept beside the store, written whole or not at all, so that every
process and every later run reads the same numbers.
"""

import hashlib
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import sparse

from .errors import StorageError
from .store import Corpus

WINDOW = 5  # tokens on each side that count as context
MOST_TOKENS = 20_000_000  # counted for co-occurrences: what more would change is far below the sampling error
SMOOTHING = 0.75  # of context frequencies (Levy et al., 2015, section 3.1, https://aclanthology.org/Q15-1016)
_CHUNK = 1_000_000  # tokens counted at once
_CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]  # tables of another version are not ours


class Tables:
    """What can be counted over the T training tokens of a corpus with a vocabulary of V. Arrays are read-only."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.vocabulary = corpus.vocabulary
        self._kept: dict[str, np.ndarray] = {}

    @property
    def unigram_counts(self) -> np.ndarray:  # (V,) int64
        return np.asarray(self.corpus.unigram_counts)

    @cached_property
    def token_texts(self) -> list[str]:
        """The text of each id (V): no mark of a word's start or of its continuation, empty for special ids."""
        tokenizer = self.corpus.load_tokenizer()
        special = set(self.vocabulary.special_ids)
        tokens = tokenizer.convert_ids_to_tokens(list(range(self.vocabulary.size)))
        texts = []
        for token_id, token in enumerate(tokens):
            if token is None or token_id in special:
                texts.append("")
                continue
            text = tokenizer.convert_tokens_to_string([token]).strip()
            texts.append(text[2:] if len(text) > 2 and text.startswith("##") else text)
        return texts

    def document_frequency(self) -> np.ndarray:
        """Return in how many training documents each token occurs (V,) int64."""
        return self.keep("document_frequency", self._count_documents)

    def embeddings(self, width: int) -> np.ndarray:
        """Return a vector of unit length for each token (V, width) float32; zeros for one that was never seen.

        The truncated singular value decomposition of positive pointwise mutual information, singular values to the
        power of one half (Levy et al., 2015, sections 2.2 and 3.3, https://aclanthology.org/Q15-1016).
        """
        return self.keep(f"embeddings-{width}", lambda: self._factorise(width))

    def neighbours(self, count: int, width: int = 64) -> np.ndarray:
        """Return the `count` distributionally nearest other ordinary tokens of each token (V, count) int64."""
        return self.keep(f"neighbours-{count}-{width}", lambda: self._find_neighbours(count, width))

    def clusters(self, count: int, width: int = 64) -> np.ndarray:
        """Return the distributional cluster of each token (V,) int64 in [0, count); -1 for special ids.

        By k-means over `embeddings`; no cluster is empty where there are as many ordinary tokens as clusters.
        """
        return self.keep(f"clusters-{count}-{width}", lambda: self._cluster(count, width))

    def next_counts(self) -> sparse.csr_array:
        """Return how often each token follows each within a sentence: (V, V) sparse, row: the token before."""
        data = self.keep("next_counts", self._count_next)  # (3, entries): before, after, how often
        size = self.vocabulary.size
        return sparse.csr_array((data[2], (data[0], data[1])), shape=(size, size))

    def training_documents(self) -> np.ndarray:
        """Return the token range of each training document (D, 2)."""
        corpus = self.corpus
        offsets = np.asarray(corpus.sentence_offsets)[np.asarray(corpus.document_offsets)]
        ranges = np.stack([offsets[:-1], offsets[1:]], 1)
        return ranges[~np.asarray(corpus.is_held_out)]

    def keep(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the table of this name, computed where there is none yet; StorageError where it can't be written."""
        if name in self._kept:
            return self._kept[name]
        folder = self.corpus.folder / "tables"
        path = folder / f"{name}-{_CODE}.npy"
        try:
            table = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):  # the last: an empty file
            table = compute()
            try:
                folder.mkdir(exist_ok=True)
                temporary = folder / f".{path.name}.{os.getpid()}"
                with temporary.open("wb") as file:
                    np.save(file, table, allow_pickle=False)
                os.replace(temporary, path)
            except OSError as error:
                raise StorageError(f"{path} can't be written: {error.strerror}") from error
        table = np.asarray(table)
        table.flags.writeable = False
        self._kept[name] = table
        return table

    def _tokens(self) -> np.ndarray:
        """Return the training tokens, at most MOST_TOKENS; -1 between documents, so many that no window spans two."""
        parts, total = [], 0
        for start, end in self.training_documents():
            parts += [self.corpus.token_ids[start:end].astype(np.int64), np.full(WINDOW, -1)]
            total += int(end - start)
            if total >= MOST_TOKENS:
                break
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _count_documents(self) -> np.ndarray:
        counts = np.zeros(self.vocabulary.size, dtype=np.int64)
        for start, end in self.training_documents():
            counts[np.unique(self.corpus.token_ids[start:end])] += 1
        return counts

    def _count_pairs(self, tokens: np.ndarray, distance: int) -> sparse.csr_array:
        """Count the ordered pairs (token, token `distance` later) of ordinary tokens."""
        size = self.vocabulary.size
        ordinary = np.zeros(size + 1, dtype=bool)  # the last stands for -1
        ordinary[self.vocabulary.ordinary_ids] = True
        counts = sparse.csr_array((size, size), dtype=np.int64)
        for start in range(0, len(tokens) - distance, _CHUNK):
            before = tokens[start : min(start + _CHUNK, len(tokens) - distance)]
            after = tokens[start + distance : start + distance + len(before)]
            kept = ordinary[before] & ordinary[after]
            ones = np.ones(int(kept.sum()), dtype=np.int64)
            counts = counts + sparse.csr_array((ones, (before[kept], after[kept])), shape=(size, size))
        return counts

    def _count_next(self) -> np.ndarray:
        corpus = self.corpus
        offsets = np.asarray(corpus.sentence_offsets)
        tokens = corpus.token_ids.astype(np.int64)
        tokens = np.insert(tokens, offsets[1:-1], -1)  # no pair spans two sentences
        held_out = np.repeat(np.asarray(corpus.is_held_out), np.diff(np.asarray(corpus.document_offsets)))
        tokens[np.repeat(held_out, np.diff(offsets) + np.append(np.ones(len(offsets) - 2, dtype=np.int64), 0))] = -1
        pairs = self._count_pairs(tokens, 1).tocoo()
        return np.stack([pairs.row, pairs.col, pairs.data]).astype(np.int64)

    def _factorise(self, width: int) -> np.ndarray:
        from sklearn.utils.extmath import randomized_svd  # takes a second to import

        tokens, size = self._tokens(), self.vocabulary.size
        counts = sparse.csr_array((size, size), dtype=np.int64)
        for distance in range(1, WINDOW + 1):
            counts = counts + self._count_pairs(tokens, distance)
        counts = (counts + counts.T).tocoo().astype(np.float64)
        totals = np.asarray(counts.sum(0)).ravel()
        smoothed = totals**SMOOTHING
        expected = totals[counts.row] * smoothed[counts.col] / max(smoothed.sum(), 1.0)
        information = np.log(counts.data / expected)
        kept = information > 0
        matrix = sparse.csr_array(
            (information[kept].astype(np.float32), (counts.row[kept], counts.col[kept])), shape=(size, size)
        )
        rank = min(width, size - 1)
        left, values, _ = randomized_svd(matrix, rank, n_iter=4, random_state=0)
        vectors = np.zeros((size, width), dtype=np.float32)
        vectors[:, :rank] = left * np.sqrt(values)
        vectors[np.asarray(matrix.sum(1)).ravel() == 0] = 0
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _find_neighbours(self, count: int, width: int) -> np.ndarray:
        vectors, ordinary = self.embeddings(width), self.vocabulary.ordinary_ids
        count = min(count, len(ordinary) - 1)
        nearest = np.zeros((self.vocabulary.size, count), dtype=np.int64)
        candidates = vectors[ordinary].T
        for start in range(0, self.vocabulary.size, 2048):
            ids = np.arange(start, min(start + 2048, self.vocabulary.size))
            likeness = vectors[ids] @ candidates
            likeness[ids[:, None] == ordinary[None]] = -np.inf
            best = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
            order = np.take_along_axis(likeness, best, 1).argsort(axis=1, kind="stable")[:, ::-1]
            nearest[ids] = ordinary[np.take_along_axis(best, order, 1)]
        return nearest

    def _cluster(self, count: int, width: int) -> np.ndarray:
        from sklearn.cluster import KMeans

        ordinary = self.vocabulary.ordinary_ids
        count = min(count, len(ordinary))
        clusters = np.full(self.vocabulary.size, -1, dtype=np.int64)
        fitted = KMeans(count, n_init=1, max_iter=50, random_state=0).fit_predict(self.embeddings(width)[ordinary])
        missing = np.setdiff1d(np.arange(count), fitted)
        for cluster in missing:  # equal vectors can leave one empty: it takes a token of the largest
            fitted[np.flatnonzero(fitted == np.bincount(fitted).argmax())[0]] = cluster
        clusters[ordinary] = fitted
        return clusters
