"""Corpora: raw text in, token ids in memory maps out. Knows nothing of objectives or of torch."""

from .sources import TextSource
from .store import Corpus, CorpusSettings, open_corpus, prepare_corpus
from .tokenizer import Vocabulary

__all__ = ["Corpus", "CorpusSettings", "TextSource", "Vocabulary", "open_corpus", "prepare_corpus"]
