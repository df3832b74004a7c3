"""Which class of `transformers` each of our heads is, and what its tensors are called there."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig

from objectives.heads import DetectionHead, Head, MaskedLMHead, SequenceHead

NEXT_SENTENCE_TARGET = "is_random_next"  # the polarity of BertForNextSentencePrediction: 0 follows, 1 is random

# The sequence classifiers whose transform of [CLS] is what these encoders' own pooler is: dense and tanh.
POOLED = ("bert", "roberta")


@dataclass(frozen=True, kw_only=True)
class StockHead:
    """A class with a head: the encoder's tensors stand under its `base_model_prefix`, the head's under `names`."""

    class_name: str
    auto_class: str
    names: Mapping[str, str]  # module or parameter of our head -> of theirs
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the configuration: they decide what it computes
    two_logits: bool = False  # ours has the one logit z of "yes", theirs two: (0, z) has the same probabilities

    @property
    def prefix(self) -> str:
        """Return what the encoder's tensors begin with, dot included."""
        return getattr(transformers, self.class_name).base_model_prefix + "."


def _masked_lm(class_name: str, names: Mapping[str, str], **settings: object) -> StockHead:
    tied = {"tie_word_embeddings": True, **settings}
    return StockHead(class_name=class_name, auto_class="AutoModelForMaskedLM", names=names, settings=tied)


def _sequence(class_name: str, names: Mapping[str, str], **settings: object) -> StockHead:
    auto_class = "AutoModelForSequenceClassification"
    return StockHead(class_name=class_name, auto_class=auto_class, names=names, settings=settings)


_OUT_PROJ = {"transform.dense": "classifier.dense", "classifier": "classifier.out_proj"}
_MODERN = {"transform.dense": "head.dense", "transform.norm": "head.norm", "classifier": "classifier"}
_DISCRIMINATOR = StockHead(
    class_name="ElectraForPreTraining",
    auto_class="AutoModelForPreTraining",
    names={
        "transform.dense": "discriminator_predictions.dense",
        "classifier": "discriminator_predictions.dense_prediction",
    },
)

_STOCK: dict[tuple[type[Head], str], StockHead] = {
    (MaskedLMHead, "bert"): _masked_lm(
        "BertForMaskedLM",
        {
            "transform.dense": "cls.predictions.transform.dense",
            "transform.norm": "cls.predictions.transform.LayerNorm",
            "bias": "cls.predictions.bias",
        },
    ),
    (MaskedLMHead, "electra"): _masked_lm(
        "ElectraForMaskedLM",
        {
            "transform.dense": "generator_predictions.dense",
            "transform.norm": "generator_predictions.LayerNorm",
            "bias": "generator_lm_head.bias",
        },
    ),
    (MaskedLMHead, "roberta"): _masked_lm(
        "RobertaForMaskedLM",
        {"transform.dense": "lm_head.dense", "transform.norm": "lm_head.layer_norm", "bias": "lm_head.bias"},
    ),
    (MaskedLMHead, "modernbert"): _masked_lm(
        "ModernBertForMaskedLM",
        {"transform.dense": "head.dense", "transform.norm": "head.norm", "bias": "decoder.bias"},
        decoder_bias=True,
    ),
    (MaskedLMHead, "deberta-v2"): _masked_lm(
        "DebertaV2ForMaskedLM",
        {
            "transform.dense": "lm_predictions.lm_head.dense",
            "transform.norm": "lm_predictions.lm_head.LayerNorm",
            "bias": "lm_predictions.lm_head.bias",
        },
        legacy=False,
    ),
    # BERT's encoder and ELECTRA's are the same where the embeddings are as wide as the layers.
    (DetectionHead, "bert"): _DISCRIMINATOR,
    (DetectionHead, "electra"): _DISCRIMINATOR,
    (DetectionHead, "modernbert"): StockHead(
        class_name="ModernBertForTokenClassification",
        auto_class="AutoModelForTokenClassification",
        names=_MODERN,
        two_logits=True,
    ),
    (SequenceHead, "bert"): _sequence(
        "BertForSequenceClassification", {"transform.dense": "bert.pooler.dense", "classifier": "classifier"}
    ),
    (SequenceHead, "electra"): _sequence("ElectraForSequenceClassification", _OUT_PROJ),
    (SequenceHead, "roberta"): _sequence("RobertaForSequenceClassification", _OUT_PROJ),
    (SequenceHead, "modernbert"): _sequence("ModernBertForSequenceClassification", _MODERN, classifier_pooling="cls"),
    (SequenceHead, "deberta-v2"): _sequence(
        "DebertaV2ForSequenceClassification",
        {"transform.dense": "pooler.dense", "classifier": "classifier"},
        pooler_hidden_act="gelu",
    ),
}
_BERT_NEXT_SENTENCE = StockHead(
    class_name="BertForNextSentencePrediction",
    auto_class="AutoModelForNextSentencePrediction",
    names={"transform.dense": "bert.pooler.dense", "classifier": "cls.seq_relationship"},
)
# DeBERTa's other masked LM head, the only one that projects to embeddings of another width.
_DEBERTA_PROJECTED = _masked_lm(
    "DebertaV2ForMaskedLM",
    {
        "transform.dense": "cls.predictions.transform.dense",
        "transform.norm": "cls.predictions.transform.LayerNorm",
        "bias": "cls.predictions.bias",
    },
    legacy=True,
)


def find_stock_head(head: nn.Module, config: PreTrainedConfig) -> StockHead | None:
    """Return the class that `head` on an encoder of this configuration is, or None where `transformers` has none."""
    stock = _STOCK.get((type(head), config.model_type))  # type: ignore[arg-type]  # any other module is no key
    if isinstance(head, SequenceHead) and config.model_type == "bert" and head.target == NEXT_SENTENCE_TARGET:
        return _BERT_NEXT_SENTENCE
    if isinstance(head, MaskedLMHead) and head.target != "original_ids":
        return None  # it names the next token, which a masked LM's class would give as the token itself
    if isinstance(head, MaskedLMHead) and config.model_type == "deberta-v2":
        return stock if head.transform.dense.out_features == config.hidden_size else _DEBERTA_PROJECTED
    return stock


def make_stock_config(stock: StockHead, config: PreTrainedConfig, labels: tuple[str, ...]) -> PreTrainedConfig:
    """Return the configuration of `stock` for an encoder of this configuration; `labels` name its classes 0, 1, ..."""
    wanted = getattr(transformers, stock.class_name).config_class
    if isinstance(config, wanted):
        made = copy.deepcopy(config)
    else:
        known = wanted().to_dict()
        shared = {name: value for name, value in config.to_dict().items() if name in known and name != "model_type"}
        made = wanted(**shared, embedding_size=config.hidden_size)
    for name, value in stock.settings.items():
        setattr(made, name, value)
    if labels:
        made.id2label = dict(enumerate(labels))
        made.label2id = {label: number for number, label in enumerate(labels)}
    made.architectures = [stock.class_name]
    return made


def rename_head(stock: StockHead, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of our head under their names there."""
    renamed = {}
    for ours, theirs in stock.names.items():
        for name, tensor in tensors.items():
            if name == ours or name.startswith(ours + "."):
                if stock.two_logits and ours == "classifier":
                    tensor = torch.cat([torch.zeros_like(tensor), tensor])
                renamed[theirs + name[len(ours) :]] = tensor
    return renamed
