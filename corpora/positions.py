"""How long a row an encoder can read, from its configuration alone."""

from typing import Any

# Their positions start after the padding id (Liu et al., 2019, RoBERTa: fairseq's numbering, which its heirs keep), so
# that a table of 514 serves rows of 512.
_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}


def max_positions(config: Any) -> int | None:
    """Return the most tokens in a row, special ones included, or None where a configuration sets no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 0:  # XLNet's is -1
        return None
    return positions - config.pad_token_id - 1 if config.model_type in _AFTER_PADDING else positions
