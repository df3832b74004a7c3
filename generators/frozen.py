"""A masked language model that has learned already, and learns no more."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel

from corpora.errors import UserError
from objectives.batch import Batch, DeviceProposal

from .base import Generator, GeneratorSetting, Proposed, Proposer
from .learned import draw_from_logits
from .network import attention_mask, reads_segments
from .unpadded import choose_padded


@dataclass(frozen=True, kw_only=True)
class Frozen(Generator):
    """Draw from a masked LM of `transformers` as it is, such as the generator/ of an earlier run.

    Meng et al., 2021 (COCO-LM, https://arxiv.org/abs/2102.08473), find a converged generator worse than one that
    learns beside the encoder: its replacements are hard from the start. For two-stage training, or to hold the
    replacements fixed while something else is compared.
    """

    name: ClassVar[str] = "frozen"

    path: str = ""  # a folder with a masked LM and its tokenizer, which must be the run's
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path is empty; give the folder of a masked LM, as in frozen:path=runs/rtd/generator")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0")

    def build(self, setting: GeneratorSetting) -> Proposer:
        network = load_masked_lm(self.path, setting)
        return FrozenProposer(network, self.temperature, torch.tensor(setting.vocabulary.special_ids))


def load_masked_lm(path: str, setting: GeneratorSetting) -> PreTrainedModel:
    """Load a masked LM; UserError where it can't be, or where its tokens are not those of the run."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        network = AutoModelForMaskedLM.from_pretrained(
            path, attn_implementation=choose_padded(setting.attention), dtype="float32", trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError) as error:  # the last: weights of another shape
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"generator 'frozen': '{path}' can't be loaded as a masked LM: {reason}") from error
    size = setting.vocabulary.size
    known = tokenizer.get_vocab() == setting.tables.corpus.load_tokenizer().get_vocab()
    if not known or network.config.vocab_size != size:
        raise UserError(
            f"generator 'frozen': the tokens of '{path}' ({len(tokenizer):,}, {network.config.vocab_size:,} logits) "
            f"are not those of this run ({size:,}); give --tokenizer {path}"
        )
    return network


class FrozenProposer(Proposer):
    """Runs the network without gradient, and without dropout in training too; checkpoints hold a copy of it."""

    special_ids: Tensor

    def __init__(self, network: PreTrainedModel, temperature: float, special_ids: Tensor) -> None:
        super().__init__()
        self.temperature = temperature
        self.network = network.requires_grad_(False)
        self.register_buffer("special_ids", special_ids, persistent=False)
        self.train(False)

    def train(self, mode: bool = True) -> "FrozenProposer":
        return super().train(False)

    def forward(self, batch: Batch, proposal: DeviceProposal) -> Proposed:
        inputs = {"input_ids": batch.input_ids, "attention_mask": attention_mask(self.network, batch.main)}
        if reads_segments(self.network):
            inputs["token_type_ids"] = batch.token_type_ids
        with torch.no_grad():
            logits = self.network(**inputs).logits.flatten(0, 1)[proposal.positions].float()  # (N, V)
        token_ids, log_probabilities = draw_from_logits(logits, proposal, self.special_ids, self.temperature)
        return Proposed(token_ids, None, log_probabilities)
