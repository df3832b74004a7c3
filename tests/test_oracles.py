"""Our losses against `transformers`' own, on the same logits and labels, to 1e-6 (oracles O1 to O3)."""

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
)

from generators.network import encode
from objectives.batch import DeviceTarget, Encoded, View
from objectives.heads import DetectionHead, MaskedLMHead, SequenceHead
from objectives.metrics import LOGIT_BINS, count_logits, summarise_classes, summarise_detection

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture
def batch():
    """Four rows of uneven lengths, 15 tokens wide."""
    torch.manual_seed(0)
    mask = (torch.arange(15)[None, :] < torch.tensor([15, 9, 12, 4])[:, None]).long()
    return View(torch.randint(5, 60, (4, 15)) * mask, mask, torch.zeros_like(mask))


def inputs_of(batch):
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "token_type_ids": batch.token_type_ids,
    }


def hidden_of(model, batch):
    return encode(model.base_model, batch)


def test_detection_is_electras(batch):
    model = ElectraForPreTraining(ElectraConfig(**SHAPE, embedding_size=16)).eval()
    labels = torch.randint(0, 2, (4, 15))
    head = DetectionHead(model.config, "is_replaced").eval()
    stock = model.discriminator_predictions
    head.transform.dense.load_state_dict(stock.dense.state_dict())
    head.classifier.load_state_dict(stock.dense_prediction.state_dict())
    positions = batch.attention_mask.flatten().nonzero().squeeze(1)
    encoded = Encoded(hidden_of(model, batch), batch.input_ids, torch.empty(0))
    loss = head(encoded, {"is_replaced": DeviceTarget(positions, labels.flatten()[positions])})
    expected = model(**inputs_of(batch), labels=labels).loss
    assert loss.count == int(batch.attention_mask.sum())
    assert float(loss.total.detach() / loss.count) == pytest.approx(float(expected.detach()), abs=1e-6)


def masked_lm_parts(kind):
    if kind == "bert":
        model = BertForMaskedLM(BertConfig(**SHAPE)).eval()
        transform, bias = model.cls.predictions.transform, model.cls.predictions.bias
        return model, transform.dense, transform.LayerNorm, bias
    model = ElectraForMaskedLM(ElectraConfig(**SHAPE, embedding_size=16)).eval()
    return model, model.generator_predictions.dense, model.generator_predictions.LayerNorm, model.generator_lm_head.bias


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_masked_lm_is_berts_and_electras(batch, kind):
    model, dense, norm, bias = masked_lm_parts(kind)
    torch.nn.init.normal_(bias)
    head = MaskedLMHead(model.config, 16, mask_id=4).eval()
    head.transform.dense.load_state_dict(dense.state_dict())
    head.transform.norm.load_state_dict(norm.state_dict())
    head.bias.data.copy_(bias.data)
    positions = torch.tensor([1, 4, 16, 31, 46])
    values = torch.tensor([7, 8, 9, 10, 11])
    labels = torch.full((60,), -100)
    labels[positions] = values
    table = model.get_input_embeddings().weight
    loss = head(
        Encoded(hidden_of(model, batch), batch.input_ids, table), {"original_ids": DeviceTarget(positions, values)}
    )
    expected = model(**inputs_of(batch), labels=labels.view(4, 15)).loss
    assert float(loss.total.detach() / loss.count) == pytest.approx(float(expected.detach()), abs=1e-6)


def test_next_sentence_prediction_is_berts(batch):
    model = BertForNextSentencePrediction(BertConfig(**SHAPE)).eval()
    head = SequenceHead(model.config, "is_random_next", 2).eval()
    head.transform.dense.load_state_dict(model.bert.pooler.dense.state_dict())
    head.classifier.load_state_dict(model.cls.seq_relationship.state_dict())
    labels = torch.tensor([0, 1, 1, 0])
    encoded = Encoded(hidden_of(model, batch), batch.input_ids, torch.empty(0))
    loss = head(encoded, {"is_random_next": DeviceTarget(torch.arange(4) * 15, labels)})
    expected = model(**inputs_of(batch), labels=labels).loss
    assert float(loss.total.detach() / loss.count) == pytest.approx(float(expected.detach()), abs=1e-6)


def test_detection_figures_are_those_of_the_definitions():
    """Against all pairs (AUROC) and all ranks (average precision), written out; F1 at probability .5."""
    rng = np.random.default_rng(0)
    positive = rng.random(3000) < 0.1
    logits = rng.normal(size=3000) + 1.5 * positive
    figures = summarise_detection(count_logits(torch.tensor(logits), torch.tensor(positive)).numpy())
    pairs = logits[positive][:, None] - logits[~positive][None, :]
    assert figures["auroc"] == pytest.approx((pairs > 0).mean(), abs=1e-3)
    ranked = positive[np.argsort(-logits)]
    precision = np.cumsum(ranked) / np.arange(1, 3001)
    assert figures["average_precision"] == pytest.approx(precision[ranked].mean(), abs=5e-3)
    called = logits >= 0
    hits = (called & positive).sum()
    assert figures["f1"] == pytest.approx(2 * hits / (called.sum() + positive.sum()), abs=1e-2)
    assert figures["positive_rate"] == positive.mean()


def test_figures_add_up_over_batches_and_are_undefined_for_one_class():
    logits, positive = torch.tensor([-1.0, 2.0, 0.5, -3.0]), torch.tensor([0, 1, 0, 0])
    whole = count_logits(logits, positive)
    parts = count_logits(logits[:1], positive[:1]) + count_logits(logits[1:], positive[1:])
    assert torch.equal(whole, parts)
    assert "auroc" not in summarise_detection(count_logits(logits[:1], positive[:1]).numpy())
    assert whole.sum() == 4 and whole.shape == (2, LOGIT_BINS)


def test_accuracy_stands_beside_the_majority():
    assert summarise_classes(np.array([[30, 10], [5, 15]])) == {"accuracy": 0.75, "majority": pytest.approx(2 / 3)}
