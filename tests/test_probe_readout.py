"""The masked readout on tiny encoders: what it trains, what it leaves alone, and its figures against counting."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel, ElectraConfig, ElectraModel, ModernBertConfig, ModernBertModel

from corpora.errors import UserError
from corpora.tokenizer import train_tokenizer
from probes.encoder import load_encoder
from probes.readout import (
    ReadoutSettings,
    evaluate_readout,
    masked_readout,
    read_hidden,
    train_readout,
)
from probes.readout_rows import count_tokens, cut_rows
from probes.scoring import encode_texts, masked_log_probabilities

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SETTINGS = ReadoutSettings(steps=60, tokens_per_step=512, max_length=16)
LETTERS = "abcdefgh"


def write_texts(count, seed):
    """Texts that repeat one letter of eight: who reads the neighbours knows what is hidden, who doesn't guesses."""
    chance = np.random.default_rng(seed)
    return [" ".join([LETTERS[chance.integers(len(LETTERS))]] * chance.integers(6, 12)) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(["a b c d e f g h"] * 9), vocab_size=64)


def load(config, cls, tokenizer, folder):
    torch.manual_seed(0)
    cls(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_encoder(str(folder), device="cpu")


@pytest.fixture(scope="module")
def encoder(tokenizer, tmp_path_factory):
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.2, **SHAPE)
    return load(config, BertModel, tokenizer, tmp_path_factory.mktemp("encoder"))


@pytest.mark.slow
def test_the_readout_finds_what_the_body_carries_and_leaves_the_body_alone(encoder):
    before = {name: tensor.clone() for name, tensor in encoder.network.state_dict().items()}
    result = masked_readout(encoder, write_texts(400, 0), write_texts(60, 1), SETTINGS, with_twin=False)
    assert result.figures.accuracy.value > 0.9
    assert result.figures.loss < result.unigram_loss / 2
    assert result.unigram_accuracy < 0.3
    assert result.unigram_loss == pytest.approx(math.log(8), abs=0.15)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.network.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.network.parameters())


def test_without_training_it_names_the_commonest_token_at_the_unigram_s_loss(encoder):
    texts, held_out = [*write_texts(200, 0), *["c c c c c c"] * 50], write_texts(60, 1)
    settings = ReadoutSettings(steps=0, tokens_per_step=512, max_length=16)
    result = masked_readout(encoder, texts, held_out, settings, with_twin=False)
    assert result.figures.accuracy.value == result.unigram_accuracy
    vocab_size, num_special = encoder.network.config.vocab_size, len(encoder.tokenizer.all_special_ids)
    assert vocab_size > num_special
    assert result.figures.loss == pytest.approx(result.unigram_loss, abs=1e-5)


def test_the_same_tokens_are_hidden_for_every_body(encoder):
    result = masked_readout(encoder, write_texts(60, 0), write_texts(30, 1), ReadoutSettings(steps=1, max_length=16))
    assert result.twin.num_hidden == result.figures.num_hidden
    assert [count for _, count in result.twin.bins.values()] == [count for _, count in result.figures.bins.values()]
    assert result.twin.name != result.figures.name
    plain = result.as_dict()
    assert "readouts" not in plain
    assert plain["settings"]["steps"] == 1


def test_accuracy_and_loss_are_those_counted_one_text_at_a_time(encoder):
    held_out = write_texts(12, 1)
    readout = train_readout(encoder, write_texts(100, 0), ReadoutSettings(steps=5, tokens_per_step=128, max_length=16))
    settings = ReadoutSettings(mask_rate=0.01, max_length=16, tokens_per_step=64)  # one token of each text
    frequencies = count_tokens(encoder, cut_rows(encoder, write_texts(100, 0), 16))
    figures = evaluate_readout(readout, held_out, settings, frequencies=frequencies)
    chance = np.random.default_rng(settings.seed)
    right, losses = 0, []
    for row in cut_rows(encoder, held_out, 16):
        place = int(chance.choice(np.arange(1, len(row) - 1), 1, replace=False)[0])
        hidden = torch.tensor([row])
        hidden[0, place] = encoder.tokenizer.mask_token_id
        logits = readout.masked_logits(hidden, torch.ones_like(hidden), torch.tensor([place]))[0]
        right += int(logits.argmax()) == row[place]
        losses.append(float(F.cross_entropy(logits.double(), torch.tensor(row[place]))))
    assert figures.num_hidden == 12
    assert figures.accuracy.value == right / 12
    assert figures.loss == pytest.approx(np.mean(losses), abs=1e-5)
    assert sum(count for _, count in figures.bins.values()) == 12
    assert sum(share * count for share, count in figures.bins.values()) == pytest.approx(right)


def test_the_vector_that_stands_for_a_hidden_token_is_learned_unless_asked_not_to(encoder):
    mask = encoder.network.get_input_embeddings().weight[encoder.tokenizer.mask_token_id]
    for learn_mask in (True, False):
        settings = ReadoutSettings(steps=5, tokens_per_step=128, max_length=16, learn_mask=learn_mask)
        vector = train_readout(encoder, write_texts(50, 0), settings).mask_vector
        assert torch.equal(vector, mask) != learn_mask


@pytest.mark.parametrize(
    ("cls", "config"),
    [
        (BertModel, BertConfig),
        (ElectraModel, ElectraConfig),
        (ModernBertModel, ModernBertConfig),
    ],
)
def test_the_body_s_own_vector_gives_the_body_s_own_hidden_states(cls, config, tokenizer, tmp_path):
    more = {"embedding_size": 16} if cls is ElectraModel else {}
    if cls is ModernBertModel:
        more = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    body = load(config(vocab_size=len(tokenizer), **SHAPE, **more), cls, tokenizer, tmp_path)
    rows = body.tokenizer(["a [MASK] c d", "b b"], padding=True, return_tensors="pt")
    ids, attention = rows["input_ids"], rows["attention_mask"]
    vector = body.network.get_input_embeddings().weight[body.tokenizer.mask_token_id]
    places = torch.tensor([2, 0, ids.shape[1] + 1])
    with torch.no_grad():
        found = read_hidden(body, ids, attention, places, vector)
        expected = body.network(input_ids=ids, attention_mask=attention).last_hidden_state.flatten(0, 1)[places]
    torch.testing.assert_close(found, expected)


def test_the_same_seed_gives_the_same_readout_and_another_one_another(encoder):
    texts = write_texts(60, 0)
    weights = [
        train_readout(
            encoder, texts, ReadoutSettings(steps=3, tokens_per_step=128, max_length=16, seed=seed)
        ).head.weight
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_readout_scores_texts_by_pseudo_log_likelihood(encoder):
    readout = train_readout(encoder, write_texts(400, 0), SETTINGS)
    same, other = encode_texts(readout.tokenizer, ["d d d d d d d", "d d d d d d g"], readout.max_length)
    scores = masked_log_probabilities(readout, [same, other])
    assert scores[0].sum() > scores[1].sum()
    assert scores[1][-1] == scores[1].min()


def test_frames_are_never_counted_and_long_texts_become_several_rows(encoder):
    rows = cut_rows(encoder, ["a b c d e f g h a b", "c"], 7)
    assert [len(row) for row in rows] == [7, 7]  # 5 + 2 letters with frames; a row of one letter has no context
    counts = count_tokens(encoder, rows)
    assert counts.sum() == 10
    assert counts[encoder.tokenizer.all_special_ids].sum() == 0


def test_texts_without_tokens_are_refused(encoder):
    with pytest.raises(UserError, match="texts of two tokens"):
        cut_rows(encoder, ["", "a"], 16)
