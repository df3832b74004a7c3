"""The table of objectives, by family. A new one is a file of its own and a line here."""

from .adjacent_sentence import AdjacentSentencePrediction
from .all_tokens_mlm import AllTokensMLM
from .ascii import AsciiPrediction
from .base import Objective
from .casing import CasingPrediction
from .causal_lm import CausalLanguageModeling
from .cluster_rts import ClusterRandomTokenSubstitution
from .corrective_lm import CorrectiveLM
from .data2vec import Data2Vec
from .deletion import DeletionDetection
from .electric import Electric
from .first_char import FirstCharPrediction
from .frequency import FrequencyPrediction
from .insertion import InsertionDetection
from .length import LengthPrediction
from .mac import MLMAsCorrection
from .mlm import MaskedLanguageModeling
from .mntp import MaskedNextTokenPrediction
from .multi_choice_cloze import MultiChoiceCloze
from .nsp import NextSentencePrediction
from .permutation import TokenPermutation
from .quick_thoughts import QuickThoughts
from .random_class import RandomClassPrediction
from .replace_mlm import ReplaceMLM
from .retromae import RetroMAE
from .rotation import Rotation
from .rtd import ReplacedTokenDetection
from .rts import RandomTokenSubstitution
from .same_paragraph import SameParagraph
from .same_sentence import SameSentence
from .sbo import SpanBoundaryObjective
from .scl import SequenceContrast
from .sentence_distance import SentenceDistance
from .sentence_position import SentencePosition
from .sentence_shuffle import SentenceShuffleDetection
from .sentence_structure import SentenceStructure
from .sentence_unshuffle import SentenceUnshuffling
from .shuffle_boundaries import ShuffleBoundaryDetection
from .shuffle_random import ShuffleRandomDetection
from .simcse import SimCSE
from .sop import SentenceOrderPrediction
from .token_shuffle import TokenShuffleDetection
from .token_type import TokenTypeClassification
from .tsdae import DenoisingAutoencoder
from .word_order import WordOrder

FAMILIES: dict[str, dict[str, type[Objective]]] = {
    "masked language modelling": {
        "mlm": MaskedLanguageModeling,
        "sbo": SpanBoundaryObjective,
        "replace_mlm": ReplaceMLM,
        "mac": MLMAsCorrection,
    },
    "token detection": {
        "rtd": ReplacedTokenDetection,
        "electric": Electric,
        "multi_choice_cloze": MultiChoiceCloze,
        "rts": RandomTokenSubstitution,
        "cluster_rts": ClusterRandomTokenSubstitution,
        "token_shuffle": TokenShuffleDetection,
        "shuffle_random": ShuffleRandomDetection,
        "insertion": InsertionDetection,
        "deletion": DeletionDetection,
    },
    "token recovery": {
        "all_tokens_mlm": AllTokensMLM,
        "corrective_lm": CorrectiveLM,
        "word_order": WordOrder,
        "permutation": TokenPermutation,
    },
    "token attributes": {
        "token_type": TokenTypeClassification,
        "first_char": FirstCharPrediction,
        "casing": CasingPrediction,
        "frequency": FrequencyPrediction,
        "length": LengthPrediction,
        "ascii": AsciiPrediction,
        "random_class": RandomClassPrediction,
    },
    "sentence pairs": {
        "nsp": NextSentencePrediction,
        "sop": SentenceOrderPrediction,
        "sentence_structure": SentenceStructure,
        "sentence_distance": SentenceDistance,
        "adjacent_sentence": AdjacentSentencePrediction,
        "same_sentence": SameSentence,
        "same_paragraph": SameParagraph,
    },
    "sentence order": {
        "sentence_shuffle": SentenceShuffleDetection,
        "shuffle_boundaries": ShuffleBoundaryDetection,
        "sentence_unshuffle": SentenceUnshuffling,
        "sentence_position": SentencePosition,
        "rotation": Rotation,
    },
    "sequence contrast": {
        "simcse": SimCSE,
        "scl": SequenceContrast,
        "quick_thoughts": QuickThoughts,
    },
    "latent and hybrid": {
        "data2vec": Data2Vec,
        "causal_lm": CausalLanguageModeling,
        "mntp": MaskedNextTokenPrediction,
        "tsdae": DenoisingAutoencoder,
        "retromae": RetroMAE,
    },
}

OBJECTIVES: dict[str, type[Objective]] = {
    name: objective for family in FAMILIES.values() for name, objective in family.items()
}
