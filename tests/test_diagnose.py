"""A diagnosis shows before training what keeps an encoder from learning, and changes nothing."""

import io
import math

import pytest
import torch
from rich.console import Console
from transformers import AlbertConfig, AlbertModel

import pretrain
from corpora.errors import UserError
from generators.network import run_network
from objectives.batch import View
from objectives.draws import hash_fields
from tests.small_runs import make_config, make_run
from training import diagnose as module
from training.diagnose import BlockStart, GeneratorStart, LossStart, diagnose, look_at, parts_of
from training.diagnose_table import judge_block, judge_generator, judge_loss, print_diagnosis
from training.encoders import FAMILIES
from training.watching import BranchWatch, find_blocks, measure_blocks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("diagnose")


def make_small(folder, **changes):
    """Return a run whose attention shows its weights."""
    return make_run(make_config(folder, attention="eager", **changes))


def read_with_branches(encoder, view):
    watch = BranchWatch(find_blocks(encoder))
    encoder.eval()
    with torch.no_grad():
        out = run_network(encoder, view, every_layer=True)
    for hook in watch.hooks:
        hook.remove()
    states = out.hidden_states
    return states, [watch.branches(place, states[0].shape) for place in range(len(watch.outputs))]


def test_what_blocks_add_is_what_a_pre_norm_stream_grows_by(folder):
    run = make_small(folder, encoder="tiny")
    states, branches = read_with_branches(run.model.encoder, run.train[0].main)
    for place, (attention, feed_forward) in enumerate(branches[:-1]):  # the last layer's state is normed once more
        grown = states[place] + attention + feed_forward
        torch.testing.assert_close(grown, states[place + 1], rtol=1e-5, atol=1e-5)


def test_what_blocks_add_is_what_a_post_norm_block_norms(folder):
    run = make_small(folder, encoder="electra-tiny")
    states, branches = read_with_branches(run.model.encoder, run.train[0].main)
    for place, block in enumerate(find_blocks(run.model.encoder)):
        attention, feed_forward = branches[place]
        inside = block.attention.output.LayerNorm(states[place] + attention)
        after = block.output.LayerNorm(inside + feed_forward)
        torch.testing.assert_close(after, states[place + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_weights_leave_attention_even_in_every_architecture(folder, family):
    found = {}
    for start in ("stock", "width"):
        run = make_small(folder, encoder=f"{family}-tiny", init_range=start)
        blocks, _ = measure_blocks(run.model.encoder, run.train[0].main)
        found[start] = [BlockStart(entropy=e, attention=a, feed_forward=f) for e, a, f in blocks]
        assert len(blocks) == 4
    assert all("attention is even" in judge_block(block) for block in found["stock"])
    for stock, wide in zip(found["stock"], found["width"], strict=True):
        assert judge_block(wide) == "ok"
        assert wide.attention > 4 * stock.attention and wide.feed_forward > 10 * stock.feed_forward


def test_entropy_is_one_where_attention_is_even(folder):
    run = make_small(folder, encoder="bert-tiny")
    for block in find_blocks(run.model.encoder):
        torch.nn.init.zeros_(block.attention.self.query.weight)
    blocks, _ = measure_blocks(run.model.encoder, run.train[0].main)
    assert [entropy for entropy, _, _ in blocks] == pytest.approx([1.0] * 4, abs=1e-6)


def test_padding_does_not_count(folder):
    run = make_small(folder, encoder="bert-tiny")
    view = run.train[0].main
    lengths = view.attention_mask.sum(1).tolist()
    assert min(lengths) < max(lengths)
    run.model.eval()
    whole, _ = measure_blocks(run.model.encoder, view)
    rows = [
        measure_blocks(run.model.encoder, View(*(each[row : row + 1, :length] for each in tensors)))[0]
        for tensors in [(view.input_ids, view.attention_mask, view.token_type_ids)]
        for row, length in enumerate(lengths)
    ]
    for place, (entropy, _, _) in enumerate(whole):
        mean = sum(row[place][0] * length for row, length in zip(rows, lengths, strict=True)) / sum(lengths)
        assert entropy == pytest.approx(mean, rel=1e-5)


def test_an_architecture_that_shares_its_blocks_shows_its_attention_alone(folder):
    run = make_small(folder, encoder="tiny")
    config = AlbertConfig(
        vocab_size=200, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    config._attn_implementation = "eager"
    torch.manual_seed(hash_fields(0, "weights") & 0xFFFF)
    encoder = AlbertModel(config, add_pooling_layer=False).eval()
    blocks, _ = measure_blocks(encoder, run.train[0].main)
    assert len(blocks) == 3 and all(0.99 < entropy <= 1.0 for entropy, _, _ in blocks)
    assert all(math.isnan(attention) and math.isnan(rest) for _, attention, rest in blocks)
    assert judge_block(BlockStart(entropy=0.9, attention=math.nan, feed_forward=math.nan)) == "ok"


def test_the_parts_hold_every_parameter_once_and_their_norms_make_the_whole(folder):
    run = make_small(folder, objective="rtd", generator="masked_lm:sharing=gdes")
    parts = parts_of(run)
    names = [name for each in parts.values() for name in each]
    assert sorted(names) == sorted(dict(run.model.named_parameters()))
    assert list(parts)[:3] == ["word table", "rest of encoder", "block 1"] and "generators" in parts
    assert len(parts["word table"]) == 2  # the generator's, and what is added
    found = look_at(run)
    run.model.zero_grad()
    run.model.eval()
    batches = [run.train[0], run.train[1]]
    counts = [run.model.count_targets(batch)["rtd"] for batch in batches]
    for batch in batches:
        (run.model(batch)["rtd"].total / sum(counts) * 50).backward()
    whole = sum(float(p.grad.double().square().sum()) for p in run.model.parameters() if p.grad is not None)
    norms = found.losses["rtd"].gradients
    assert sum(norm**2 for norm in norms.values()) == pytest.approx(whole, rel=1e-4)
    assert found.generators["rtd"].learns == "rtd_generator" and not found.generators["rtd"].shares_table
    assert norms["generators"] == 0 and found.losses["rtd_generator"].gradients["block 1"] == 0


def test_losses_and_the_spread_of_their_logits_are_those_of_the_model(folder):
    run = make_small(folder, objective="mlm+nsp")
    found = look_at(run)
    run.model.eval()
    with torch.no_grad():
        losses = [run.model(run.train[number]) for number in range(2)]
    for name in ("mlm", "nsp"):
        mean = sum(float(each[name].total) for each in losses) / sum(each[name].count for each in losses)
        assert found.losses[name].loss == pytest.approx(mean, rel=1e-5)
    with torch.no_grad():
        run.model.heads["mlm"].bias[:100] = 30.0
        run.model.heads["mlm"].bias[100:] = -30.0
    assert look_at(run).losses["mlm"].logits == pytest.approx(30, rel=0.02)
    assert judge_loss(look_at(run).losses["mlm"]) == "far from ln V"


def test_the_expected_share_of_new_tokens_is_that_of_the_generators_probabilities(folder):
    run = make_small(folder, objective="rtd:mask_rate=0.2", generator="unigram")
    found = look_at(run).generators["rtd"]
    counts = run.train.stream.tables.unigram_counts.astype(float)
    rates = counts / counts[run.corpus.vocabulary.ordinary_ids].sum()
    batches = [run.train[0], run.train[1]]
    originals = torch.cat([batch.proposals["rtd"].original_ids for batch in batches]).numpy()
    assert found.replaced == pytest.approx(1 - rates[originals].mean(), rel=1e-3)
    assert found.filled == pytest.approx(len(originals) / sum(int(b.attention_mask.sum()) for b in batches))


def test_every_arm_of_a_mixture_is_looked_at(folder):
    run = make_small(folder, mix="30*mlm; 1*nsp")
    assert list(look_at(run).losses) == ["mlm", "nsp"]


def count_hooks(model):
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())


def test_looking_changes_neither_weights_nor_gradients_nor_the_mode(folder):
    run = make_small(folder, objective="rtd+sentence_shuffle", encoder="bert-tiny", dropout=0.1)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    first = look_at(run)
    assert run.model.training
    assert all(p.grad is None for p in run.model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in run.model.state_dict().items())
    watched = count_hooks(run.model)  # those of transformers, which it leaves where attention was asked for
    assert look_at(run) == first and count_hooks(run.model) == watched


def test_of_two_gradients_on_one_table_a_leader_is_named(folder):
    found = look_at(make_small(folder, objective="rtd:weight=0.001"))
    assert found.generators["rtd"].shares_table
    assert "rtd_generator leads" in print_text(found) and "sharing=gdes" in print_text(found)
    even = look_at(make_small(folder, objective="rtd"))
    assert "leads" not in print_text(even)


def print_text(found):
    console = Console(width=80, file=io.StringIO())
    print_diagnosis(found, console)
    return console.file.getvalue()


def test_verdicts():
    assert judge_block(BlockStart(entropy=0.9998, attention=0.0023, feed_forward=0.3)) == (
        "attention is even, attention adds nothing"
    )
    assert judge_block(BlockStart(entropy=0.94, attention=0.06, feed_forward=0.2)) == "ok"
    loss = {"chance": {"ln V": 9.0, "unigram": 7.0}, "logits": 1.0, "gradients": {}}
    assert judge_loss(LossStart(loss=9.5, **loss)) == "ok: ln V"
    assert judge_loss(LossStart(loss=12.0, **loss)) == "far from ln V"
    assert judge_loss(LossStart(loss=7.1, **loss)) == "ok: between its levels of chance"
    assert judge_loss(LossStart(loss=5.0, **loss)) == "below chance: it has learned"
    assert judge_generator(GeneratorStart(filled=0.15, replaced=0.7)) == "ok"
    assert judge_generator(GeneratorStart(filled=0.15, replaced=0.01)) == "hardly anything is new"


def test_the_command_prints_eighty_columns_and_leaves_no_folder(tmp_path, capsys):
    config = make_config(tmp_path, objective="rtd", encoder="electra-tiny", init_range="stock")
    argv = [f"--{name}={value}" for name, value in config.as_dict().items() if type(value) in (str, int, float)]
    assert pretrain.main([*argv, "--diagnose"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("attention is even") == 4 and "--init_range width" in shown and "rtd_generator" in shown
    assert not (tmp_path / "run").exists()


def test_the_preset_has_nothing_to_complain_about(folder):
    assert print_text(look_at(make_small(folder, objective="mlm"))).endswith("nothing looks wrong\n")


def test_several_processes_are_refused(folder, monkeypatch):
    class Two:
        num_processes = 2

    monkeypatch.setattr(module, "make_accelerator", lambda config: Two())
    with pytest.raises(UserError, match="without torchrun"):
        diagnose(make_config(folder))
