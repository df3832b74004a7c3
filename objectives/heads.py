"""Heads: modules from hidden states at the targets to a loss.

They are shaped like the heads of `transformers`' own classes, so that they can be exported as those.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from .batch import DeviceTarget, Encoded, Loss, View
from .cross_entropy import spend_logits
from .metrics import count_logits, summarise_classes, summarise_detection

# Of the last layer of a classifier: its first loss is that of chance, whatever the width, and all of it gets gradient.
HEAD_STD = 0.002


@dataclass(frozen=True, kw_only=True)
class TransformStyle:
    """The layer between the encoder and the classifier: dense, activation, layer norm or none."""

    activation: str
    norm: bool
    dense_bias: bool = True
    norm_bias: bool = True
    epsilon: float = 1e-12


def lm_style(config: PreTrainedConfig) -> TransformStyle:
    """Return the masked LM transform of this architecture in `transformers`.

    See BertPredictionHeadTransform and its siblings.
    """
    if config.model_type == "modernbert":
        return _modernbert_style(config)
    activation = "gelu" if config.model_type in ("electra", "roberta") else _activation(config)
    return TransformStyle(activation=activation, norm=True, epsilon=getattr(config, "layer_norm_eps", 1e-12))


def detection_style(config: PreTrainedConfig) -> TransformStyle:
    """Return ELECTRA's discriminator transform, dense and activation, or ModernBERT's prediction head.

    ELECTRA's is in ElectraDiscriminatorPredictions.
    """
    if config.model_type == "modernbert":
        return _modernbert_style(config)
    return TransformStyle(activation=_activation(config), norm=False)


def sequence_style(config: PreTrainedConfig) -> TransformStyle:
    """Return the transform of [CLS] of this architecture's sequence classifier.

    It is BERT's tanh pooler, ELECTRA's and DeBERTa's gelu, ...
    """
    if config.model_type == "modernbert":
        return _modernbert_style(config)
    return TransformStyle(activation="gelu" if config.model_type in ("electra", "deberta-v2") else "tanh", norm=False)


def _activation(config: PreTrainedConfig) -> str:
    """Return the encoder's own activation, by any of the names that architectures give it."""
    names = ("hidden_act", "activation", "activation_function")
    return next((getattr(config, name) for name in names if hasattr(config, name)), "gelu")


def _modernbert_style(config: PreTrainedConfig) -> TransformStyle:
    return TransformStyle(
        activation=config.classifier_activation,
        norm=True,
        dense_bias=config.classifier_bias,
        norm_bias=config.norm_bias,
        epsilon=config.norm_eps,
    )


class Transform(nn.Module):
    """Dense, activation, layer norm where the style has one: (N, D) -> (N, E)."""

    def __init__(self, style: TransformStyle, in_width: int, out_width: int, initializer_range: float) -> None:
        super().__init__()
        self.dense = nn.Linear(in_width, out_width, bias=style.dense_bias)
        self.activation = ACT2FN[style.activation]
        self.norm = nn.LayerNorm(out_width, eps=style.epsilon, bias=style.norm_bias) if style.norm else nn.Identity()
        nn.init.normal_(self.dense.weight, std=initializer_range)
        if self.dense.bias is not None:
            nn.init.zeros_(self.dense.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.norm(self.activation(self.dense(hidden)))


ReadLayers = Callable[[PreTrainedModel, View], tuple[Tensor, ...]]


class Head(nn.Module, ABC):
    """Undoes a corruption: sees the encoded batch, answers the targets."""

    @abstractmethod
    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss | dict[str, Loss]:
        """Return the summed loss over the targets; of an objective with several terms, each by its name."""

    @abstractmethod
    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        """Turn the summed statistics of many batches of `count` targets into held-out figures beside the loss."""

    def attach(self, encoder: PreTrainedModel, read: ReadLayers) -> None:
        """Take what is needed of the encoder that the head will stand on, before training.

        `read` runs any such network over a view, and gives all its layers (B, L, D), the embeddings first.
        """

    def begin_step(self) -> None:
        """Forget what was gathered for the end of a step that was not taken."""

    def finish_step(self, encoder: PreTrainedModel, progress: float, add_up: Callable[[Tensor], Tensor]) -> None:
        """Do what is due after an optimizer step; `add_up` sums a tensor over all processes."""


class MaskedLMHead(Head):
    """Names the original token at each target, tied to the word table: logits only where something is asked."""

    def __init__(self, config: PreTrainedConfig, table_width: int, mask_id: int, target: str = "original_ids") -> None:
        super().__init__()
        self.target = target
        self.mask_id = mask_id
        self.transform = Transform(lm_style(config), config.hidden_size, table_width, config.initializer_range)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def logits(self, hidden: Tensor, word_table: Tensor) -> Tensor:  # (N, V)
        return F.linear(self.transform(hidden), word_table, self.bias)

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        target = targets[self.target]
        logits = self.logits(encoded.at(target.positions), encoded.word_table).float()
        named = target.pointers.get("named", target.positions)  # where the named token stands, if not where it is asked
        return self.score(encoded, named, target.values, logits, last_use=self.training)

    def score(
        self, encoded: Encoded, positions: Tensor, values: Tensor, logits: Tensor, last_use: bool = False
    ) -> Loss:
        """Return the loss of logits (N, V), with sums over all targets and over those whose token can't be seen.

        The tokens stand at `positions` (N,). Kept ones are easy, and hide a plateau. `last_use`: nobody needs the
        logits afterwards, so that they may be overwritten.
        """
        if last_use:
            losses = spend_logits(logits, values)  # (N,)
        else:
            losses = F.cross_entropy(logits, values, reduction="none")
        hidden = encoded.input_ids.flatten()[positions] == self.mask_id
        measured = losses.detach().double()
        statistics = {"hidden_loss": (measured * hidden).sum(), "hidden_count": hidden.sum().double()}
        if not self.training:
            correct = (logits.argmax(-1) == values).double()
            statistics |= {"correct": correct.sum(), "hidden_correct": (correct * hidden).sum()}
        return Loss(losses.sum(), len(values), statistics)

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        figures = {"accuracy": float(statistics["correct"]) / max(count, 1)}
        hidden = float(statistics["hidden_count"])
        if hidden:
            figures["hidden_loss"] = float(statistics["hidden_loss"]) / hidden
            figures["hidden_accuracy"] = float(statistics["hidden_correct"]) / hidden
        return figures


class DetectionHead(Head):
    """Says yes or no at each target, with one logit (binary cross-entropy)."""

    def __init__(self, config: PreTrainedConfig, target: str) -> None:
        super().__init__()
        self.target = target
        self.transform = Transform(
            detection_style(config), config.hidden_size, config.hidden_size, config.initializer_range
        )
        self.classifier = nn.Linear(config.hidden_size, 1)
        nn.init.normal_(self.classifier.weight, std=HEAD_STD)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        positions, values = targets[self.target].positions, targets[self.target].values
        logits = self.classifier(self.transform(encoded.at(positions))).squeeze(-1).float()  # (N,)
        total = F.binary_cross_entropy_with_logits(logits, values.float(), reduction="sum")
        statistics = {} if self.training else {"logits": count_logits(logits.detach(), values)}
        return Loss(total, len(values), statistics, predictions=(logits.detach() > 0).long())

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return summarise_detection(statistics["logits"])


def score_classes(logits: Tensor, values: Tensor) -> Loss:
    """Return the cross-entropy of logits (N, C), with how often each class was taken for which."""
    classes = logits.shape[1]
    cells = values * classes + logits.detach().argmax(-1)
    confusion = torch.bincount(cells, minlength=classes**2).view(classes, -1).double()
    return Loss(F.cross_entropy(logits, values, reduction="sum"), len(values), {"confusion": confusion})


class SequenceHead(Head):
    """Names the class of each example from its [CLS] (softmax cross-entropy)."""

    def __init__(self, config: PreTrainedConfig, target: str, num_classes: int) -> None:
        super().__init__()
        self.target = target
        self.num_classes = num_classes
        self.transform = Transform(
            sequence_style(config), config.hidden_size, config.hidden_size, config.initializer_range
        )
        self.classifier = nn.Linear(config.hidden_size, num_classes)
        nn.init.normal_(self.classifier.weight, std=HEAD_STD)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, encoded: Encoded, targets: dict[str, DeviceTarget]) -> Loss:
        positions, values = targets[self.target].positions, targets[self.target].values
        return score_classes(self.classifier(self.transform(encoded.at(positions))).float(), values)

    def summarise(self, statistics: dict[str, np.ndarray], count: int) -> dict[str, float]:
        return summarise_classes(statistics["confusion"])
