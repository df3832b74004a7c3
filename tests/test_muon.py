"""Muon: what a step is, and that two optimizers are one to a run."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.small_runs import make_config
from training.loop import pretrain
from training.muon import Muon, MuonWithAdam, orthogonalise
from training.optimizer import make_optimizer
from training.setup import build_run, make_accelerator


@pytest.mark.parametrize("shape", [(64, 64), (96, 32), (32, 96)])
def test_an_orthogonalised_matrix_keeps_its_singular_vectors_and_has_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = left.T @ orthogonalise(matrix) @ right.T
    inside = torch.diagonal(kept)[values > values.max() / 100]
    assert 0.65 < inside.min() and inside.max() < 1.2
    assert (kept - torch.diag(torch.diagonal(kept))).abs().max() < 1e-3


def test_a_step_of_muon_is_that_of_torch_up_to_bfloat16() -> None:
    start = torch.randn(48, 16, generator=torch.Generator().manual_seed(2))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = Muon([{"params": [ours], "weight_decay": 0.1}], lr=0.02)
    stock = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95)
    for seed in range(3):
        gradient = torch.randn(48, 16, generator=torch.Generator().manual_seed(10 + seed))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        stock.step()
    assert (ours - theirs).norm() < 0.02 * (ours - start).norm()


def test_adam_inside_is_adam_alone() -> None:
    start = torch.randn(5, 7, generator=torch.Generator().manual_seed(3))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    layer = torch.nn.Parameter(start.clone())
    adam = {"betas": (0.9, 0.98), "eps": 1e-6}
    groups = [{"params": [layer], "muon": True}, {"params": [ours], "muon": False, "weight_decay": 0.01}]
    both = MuonWithAdam(groups, lr=0.01, adam=adam)
    alone = torch.optim.AdamW([{"params": [theirs], "weight_decay": 0.01}], lr=0.01, **adam)
    for seed in range(3):
        gradient = torch.randn(5, 7, generator=torch.Generator().manual_seed(20 + seed))
        for parameter in (ours, theirs, layer):
            parameter.grad = gradient.clone()
        for group in both.param_groups:
            group["lr"] = 0.003  # as the schedule sets it
        alone.param_groups[0]["lr"] = 0.003
        both.step()
        alone.step()
    assert torch.equal(ours, theirs)
    assert set(both.state) == {ours, layer}
    assert set(both.state[layer]) == {"momentum"}


def test_muon_takes_the_layers_and_neither_tables_nor_vectors(tmp_path: Path) -> None:
    config = make_config(tmp_path, objective="rtd", optimizer="muon")
    run = build_run(config, make_accelerator(config), tmp_path / "run")
    optimizer = make_optimizer(run.model, config, run.peak)
    names = {id(parameter): name for name, parameter in run.model.named_parameters()}
    chosen = [names[id(p)] for group in optimizer.param_groups if group["muon"] for p in group["params"]]
    others = [names[id(p)] for group in optimizer.param_groups if not group["muon"] for p in group["params"]]
    assert any("encoder.layers.0.attn.Wqkv" in name for name in chosen)
    assert any("generators" in name for name in chosen)
    assert any("embeddings" in name for name in others)
    assert sorted(chosen + others) == sorted(names.values())
    assert all(dict(run.model.named_parameters())[name].ndim == 2 for name in chosen)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["muon", "adafactor"])
def test_a_run_with_another_optimizer_goes_on_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    config = make_config(tmp_path, optimizer=optimizer, max_steps=6)
    pretrain(config)
    halved = dataclasses.replace(config, out=str(tmp_path / "halved"))
    pretrain(halved)
    last = tmp_path / "halved" / "checkpoints"
    newest = sorted(last.iterdir())[-1]
    for file in sorted(newest.iterdir()):
        file.unlink()
    newest.rmdir()
    pretrain(dataclasses.replace(halved, resume=str(tmp_path / "halved")))
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "halved"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_adafactor_keeps_a_row_and_a_column_and_takes_the_rate_as_it_is(tmp_path: Path) -> None:
    config = make_config(tmp_path, optimizer="adafactor", max_steps=2, weight_decay=0.0, warmup_rate=0.0)
    run = build_run(config, make_accelerator(config), tmp_path / "run")
    matrix = run.model.encoder.get_input_embeddings().weight
    before = matrix.detach().clone()
    for group in run.optimizer.param_groups:
        group["lr"] = 0.01
    matrix.grad = torch.randn_like(matrix)
    run.optimizer.step()
    assert ((matrix - before).square().mean().sqrt() - 0.01).abs() < 2e-3  # its updates have a size of 1, or are cut
    kept = sum(value.numel() for value in run.optimizer.state[matrix].values() if isinstance(value, torch.Tensor))
    assert kept == sum(matrix.shape) + 1  # a row, a column, and the size of the matrix


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["tiny", "bert-tiny", "electra-tiny", "roberta-tiny", "deberta-v2-tiny"])
def test_layers_that_are_computed_again_learn_the_same_and_keep_less(encoder: str, tmp_path: Path) -> None:
    weights, kept = [], []
    for number, recompute in enumerate((False, True)):
        config = make_config(
            tmp_path, encoder=encoder, recompute=recompute, dropout=0.1, max_steps=2, out=str(tmp_path / str(number))
        )
        run = build_run(config, make_accelerator(config), Path(config.out))
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: (s.append(x.numel()), x)[1], lambda x: x):
            run.model(run.train[0])
        kept.append(sum(sizes))
        pretrain(config)
        weights.append(load_file(Path(config.out) / "model.safetensors"))
    assert kept[1] < kept[0] / 2
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
