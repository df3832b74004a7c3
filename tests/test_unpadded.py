"""Rows without their padding give what padded rows give, token by token, for every architecture that is run so."""

import copy
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedModel

from corpora.errors import UserError
from generators import unpadded
from generators.network import build_network, run_network
from generators.unpadded import FIRST_POSITIONS, UNPADDED, choose_attention
from objectives.batch import View
from tests import small_runs

LENGTHS = (12, 5, 1, 9)
LONGEST = max(LENGTHS)
PADDING = 3


def make_config(kind: str, **settings: Any) -> Any:
    shape = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    shape |= {"intermediate_size": 32, "max_position_embeddings": 32, "pad_token_id": PADDING, "initializer_range": 0.3}
    if kind != "modernbert":
        shape |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    else:
        shape |= {f"{each}_token_id": 2 for each in ("bos", "eos", "cls", "sep")}
    return CONFIG_MAPPING[kind](**(shape | settings))


def make_view(attention: str = "full", lengths: tuple[int, ...] = LENGTHS) -> View:
    chance = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 40, (len(lengths), LONGEST), generator=chance)
    mask = (torch.arange(LONGEST) < torch.tensor(lengths)[:, None]).long()
    return View(torch.where(mask.bool(), ids, PADDING), mask, (torch.arange(LONGEST) > 3).long() * mask, attention)


def make_both(config: Any, plain: str = "eager") -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return the network with its padded attention, and the same weights unpadded."""
    torch.manual_seed(0)
    padded = AutoModel.from_config(copy.deepcopy(config), attn_implementation=plain)  # it would share a config
    without = build_network(copy.deepcopy(config), UNPADDED)
    without.load_state_dict({k: v for k, v in padded.state_dict().items() if k in without.state_dict()})
    assert (padded.config._attn_implementation, without.config._attn_implementation) == (plain, UNPADDED)
    return padded.double(), without.double()


def compare(padded: PreTrainedModel, without: PreTrainedModel, view: View, added: torch.Tensor | None = None) -> None:
    """Assert equal states of every layer at all tokens, and equal gradients of every weight."""
    expected, found = (run_network(each, view, added, every_layer=True) for each in (padded, without))
    real = view.attention_mask.bool()
    assert len(expected.hidden_states) == len(found.hidden_states) == 4
    for theirs, ours in zip(expected.hidden_states, found.hidden_states, strict=True):
        torch.testing.assert_close(ours[real], theirs[real], atol=1e-5, rtol=1e-5)  # ModernBERT's softmax is in float32
        assert not ours[~real].any()
    for out in (expected, found):
        (out.last_hidden_state[real] * torch.arange(16)).sin().sum().backward()
    theirs = dict(padded.named_parameters())
    for name, ours in without.named_parameters():
        assert (ours.grad is None) == (theirs[name].grad is None), name
        if ours.grad is not None:
            torch.testing.assert_close(
                ours.grad, theirs[name].grad, atol=2e-3, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("kind", FIRST_POSITIONS)
@pytest.mark.parametrize("attention", ["full", "causal", "reverse"])
def test_unpadded_rows_give_what_padded_rows_give(kind, attention):
    layers = {"layer_types": ["full_attention"] * 3} if kind == "modernbert" else {}
    compare(*make_both(make_config(kind, **layers)), make_view(attention))


@pytest.mark.parametrize("kind", FIRST_POSITIONS)
def test_rows_without_any_padding_are_the_same_too(kind):
    compare(*make_both(make_config(kind)), make_view(lengths=(LONGEST,) * 3))


@pytest.mark.parametrize("lengths", [LENGTHS, (LONGEST,) * 2])
def test_local_attention_keeps_to_its_window(lengths):
    local = {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"], "local_attention": 6}
    padded, without = make_both(make_config("modernbert", **local))  # in double the stock mask is -inf in its softmax
    compare(padded.float(), without.float(), make_view(lengths=lengths))


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
@pytest.mark.parametrize("attention", ["full", "causal"])
def test_long_rows_by_the_fused_kernel_are_the_same(kind, attention, monkeypatch):
    monkeypatch.setattr(unpadded, "SHORT", 0)
    layers = {"layer_types": ["full_attention"] * 3} if kind == "modernbert" else {}
    compare(*make_both(make_config(kind, **layers), "sdpa"), make_view(attention))


@pytest.mark.parametrize("kind", FIRST_POSITIONS)
def test_what_is_added_to_the_word_embeddings_is_added_at_the_tokens(kind):
    added = torch.randn(len(LENGTHS), LONGEST, 128 if kind == "electra" else 16, dtype=torch.float64)
    compare(*make_both(make_config(kind)), make_view(), added)


@pytest.mark.parametrize("kind", FIRST_POSITIONS)
def test_no_token_sees_another_row(kind):
    """The rows' states do not depend on what stands in other rows, nor on their number."""
    _, network = make_both(make_config(kind))
    view, changed = make_view(), make_view()
    changed.input_ids[0] = (changed.input_ids[0] + 7).clamp(max=39)
    alone = View(*(each[1:] for each in (view.input_ids, view.attention_mask, view.token_type_ids)))
    with torch.no_grad():
        before, after, by_itself = (run_network(network, each).last_hidden_state for each in (view, changed, alone))
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(after[1:], before[1:], atol=0, rtol=0)
    torch.testing.assert_close(by_itself, before[1:], atol=1e-6, rtol=1e-5)


def test_dropout_of_attention_is_applied_in_training_only():
    _, network = make_both(make_config("bert", attention_probs_dropout_prob=0.5))
    network.eval()
    once, again = (run_network(network, make_view()).last_hidden_state for _ in range(2))
    assert torch.equal(once, again)
    network.train()
    once, again = (run_network(network, make_view()).last_hidden_state for _ in range(2))
    assert not torch.allclose(once, again)


@pytest.mark.parametrize("kind", ["deberta-v2", "distilbert"])
def test_an_architecture_that_cannot_be_unpadded_gets_padded_rows(kind):
    config = CONFIG_MAPPING[kind](vocab_size=40)
    assert choose_attention(config, UNPADDED) in ("eager", "sdpa")
    assert choose_attention(config, "sdpa") == "sdpa"


def test_who_asks_for_no_padding_gets_none_or_an_error(tmp_path):
    with pytest.raises(UserError, match="deberta-v2-tiny.*--attention auto"):
        small_runs.make_run(small_runs.make_config(tmp_path, encoder="deberta-v2-tiny", attention=UNPADDED))
    run = small_runs.make_run(small_runs.make_config(tmp_path, attention=UNPADDED))
    assert run.model.encoder.config._attn_implementation == UNPADDED
