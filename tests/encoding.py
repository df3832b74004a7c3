"""What a tokenizer makes of a few sentences."""

import numpy as np
from transformers import PreTrainedTokenizerBase

from corpora.tokenizer import SentenceEncoder


def encode_sentences(
    tokenizer: PreTrainedTokenizerBase, sentences: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids, lengths and word starts, as `SentenceEncoder.encode` does for a corpus."""
    return SentenceEncoder(tokenizer.backend_tokenizer.to_str()).encode(sentences)
