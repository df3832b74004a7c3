"""The table of objectives, by family. A new one is a file of its own and a line here."""

from .base import Objective
from .mlm import MaskedLanguageModeling
from .nsp import NextSentencePrediction
from .rtd import ReplacedTokenDetection
from .sentence_shuffle import SentenceShuffleDetection

FAMILIES: dict[str, dict[str, type[Objective]]] = {
    "masked language modelling": {
        "mlm": MaskedLanguageModeling,
    },
    "token detection": {
        "rtd": ReplacedTokenDetection,
    },
    "token recovery": {},
    "token attributes": {},
    "sentence pairs": {
        "nsp": NextSentencePrediction,
    },
    "sentence order": {
        "sentence_shuffle": SentenceShuffleDetection,
    },
    "sequence contrast": {},
    "latent and hybrid": {},
}

OBJECTIVES: dict[str, type[Objective]] = {
    name: objective for family in FAMILIES.values() for name, objective in family.items()
}
