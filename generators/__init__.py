"""Generators: what stands in the place of a hidden token."""

from .base import Generator as Generator
from .base import GeneratorSetting as GeneratorSetting
from .base import Proposer as Proposer
from .cluster import Cluster
from .curriculum import Curriculum
from .frozen import Frozen
from .masked_lm import MaskedLM
from .mixture import Mixture
from .ngram import NGram
from .similar import Similar
from .uniform import Uniform
from .unigram import Unigram

GENERATORS: dict[str, type[Generator]] = {
    "masked_lm": MaskedLM,
    "uniform": Uniform,
    "unigram": Unigram,
    "ngram": NGram,
    "similar": Similar,
    "cluster": Cluster,
    "mixture": Mixture,
    "curriculum": Curriculum,
    "frozen": Frozen,
}
