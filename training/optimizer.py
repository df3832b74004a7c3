"""The optimizer over the model's weights, in groups."""

from typing import Any

import torch
from torch import nn
from transformers.optimization import Adafactor

from .config import Config
from .model import PretrainingModel
from .muon import MuonWithAdam


def default_rate(width: int) -> float:
    """Return the peak learning rate of an encoder of this hidden width where none is given: .384 / width."""
    return 0.384 / width


def make_optimizer(model: PretrainingModel, config: Config, peak: float) -> torch.optim.Optimizer:
    """Make AdamW, Muon with AdamW, or Adafactor; vectors (biases and norms) do not decay.

    A generator's weights have groups of their own, with its learning rate. Those that it shares with the encoder are
    the encoder's, but where the encoder's gradient does not reach them. Muon takes the matrices of linear layers but
    those with a row for every token. Adafactor takes the learning rate as it is, and no momentum.
    """
    generator = config.build_generator()
    encoders = {id(p) for module in (model.encoder, model.heads) for p in module.parameters()}
    own = {id(p) for p in model.generators.parameters() if id(p) not in encoders or generator.table_sharing == "gdes"}
    layers = _find_layers(model) if config.optimizer == "muon" else set()
    groups: list[dict[str, Any]] = []
    for is_generator in (False, True):
        parameters = [p for p in model.parameters() if p.requires_grad and (id(p) in own) == is_generator]
        factor, apart = (generator.rate_factor, generator.apart) if is_generator else (1.0, False)
        muon_factor = factor * config.muon_learning_rate / peak
        for chosen, own_factor, decay, by_muon in (
            ([p for p in parameters if id(p) in layers], muon_factor, config.weight_decay, True),
            ([p for p in parameters if p.ndim >= 2 and id(p) not in layers], factor, config.weight_decay, False),
            ([p for p in parameters if p.ndim < 2], factor, 0.0, False),
        ):
            if chosen:
                settings = {"weight_decay": decay, "rate_factor": own_factor, "apart": apart, "muon": by_muon}
                groups.append({"params": chosen, **settings})
    betas = (config.adam_beta1, config.adam_beta2)
    adam: dict[str, Any] = {"betas": betas, "eps": config.adam_epsilon, "fused": True}
    if config.optimizer == "adafactor":
        return Adafactor(groups, lr=peak, scale_parameter=False, relative_step=False)
    return MuonWithAdam(groups, lr=peak, adam=adam) if layers else torch.optim.AdamW(groups, lr=peak, **adam)


def _find_layers(model: PretrainingModel) -> set[int]:
    """Return the identities of the matrices inside the encoder's and the generators' layers."""
    vocabulary = model.encoder.config.vocab_size
    linear = [module for part in (model.encoder, model.generators) for module in part.modules()]
    weights = [module.weight for module in linear if isinstance(module, nn.Linear)]
    return {id(weight) for weight in weights if vocabulary not in weight.shape}
