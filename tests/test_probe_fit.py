"""Fits against scikit-learn's, and controls that must come out even."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from corpora.errors import UserError
from probes import logistic
from probes.descent import fit_mlp, fit_scalar_mix
from probes.fit import L2_GRID, fit_linear
from probes.logistic import solve_logistic, standardise
from probes.metrics import score
from probes.statistics import control_labels_by_type


def make_task(seed, count, width, num_classes, noise, decay=2):
    """Classes around points in a space whose directions differ in scale by 10 ** decay; a 60 / 20 / 20 split."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, count)
    centres = rng.normal(size=(num_classes, width)) * (np.arange(width) < width // 4)
    mixing = rng.normal(size=(width, width)) * np.logspace(0, -decay, width)
    items = (centres[labels] + noise * rng.normal(size=(count, width))) @ mixing
    split = np.repeat([0, 1, 2], [count * 6 // 10, count * 2 // 10, count - count * 8 // 10]).astype(np.int8)
    return items.astype(np.float32), labels, split


TASKS = [(0, 5000, 32, 2, 3.0), (1, 5000, 48, 5, 2.0), (2, 5000, 64, 17, 1.5)]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task[3]}_classes")
def test_the_linear_probe_is_scikit_learns(task):
    items, labels, split = make_task(*task)
    mean, deviation = items[split == 0].mean(axis=0), items[split == 0].std(axis=0)
    standard = (items - mean) / deviation
    halves = 2 if task[3] == 2 else 1  # of two classes scikit-learn has one vector, the difference of ours
    for l2 in (1e-4, 1e-1):
        ours = fit_linear(items[None], labels, split, l2_grid=[l2])
        theirs = LogisticRegression(C=halves / (l2 * (split == 0).sum()), tol=1e-6, max_iter=2000)
        theirs.fit(standard[split == 0].astype(np.float64), labels[split == 0])
        expected = theirs.predict(standard)
        assert ours.test[0] == pytest.approx((expected == labels)[split == 2].mean(), abs=0.003)
        assert (ours.predictions[0] == expected).mean() > 0.99
        assert 0.3 < ours.test[0] < 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", [(20, 20_000, 32, 2, 4.0, 1), (21, 20_000, 48, 5, 2.0, 1), (22, 20_000, 64, 17, 1.5, 1)]
)
def test_many_items_give_scikit_learns_score_at_the_strength_that_it_would_choose(task):
    items, labels, split = make_task(*task)
    train, dev, test = (split == part for part in range(3))
    standard = ((items - items[train].mean(axis=0)) / items[train].std(axis=0)).astype(np.float64)
    halves, judged = 2 if task[3] == 2 else 1, {}
    for l2 in L2_GRID:
        theirs = LogisticRegression(C=halves / (l2 * train.sum()), max_iter=2000).fit(standard[train], labels[train])
        judged[l2] = theirs.score(standard[dev], labels[dev]), theirs.score(standard[test], labels[test])
    ours, (best, expected) = fit_linear(items[None], labels, split), max(judged.values())
    assert judged[ours.l2[0]][0] == pytest.approx(best, abs=0.002)
    assert ours.test[0] == pytest.approx(expected, abs=0.003)
    assert ours.test[0] == pytest.approx(judged[ours.l2[0]][1], abs=0.002)


@pytest.mark.parametrize("shape", ["sorted", "wild"])
def test_many_items_end_where_no_slope_is_left(shape):
    items, labels, _ = make_task(12, 12_000, 16, 4, 2.0)
    if shape == "sorted":  # batches that were runs of items would each hold one class
        order = np.argsort(labels, kind="stable")
        items, labels = items[order], labels[order]
    else:
        items = items * np.abs(np.random.default_rng(0).standard_cauchy((len(items), 1))).astype(np.float32)
    x, y = standardise(torch.from_numpy(items), torch.from_numpy(items)), torch.from_numpy(labels)
    weights, biases = solve_logistic(x, y[None], torch.tensor([1e-4, 1e-1]), 4)
    for number, l2 in enumerate([1e-4, 1e-1]):
        w, b = (each[0, number].double().requires_grad_() for each in (weights, biases))
        loss = torch.nn.functional.cross_entropy(x.double() @ w + b, y) + l2 / 2 * w.square().sum()
        assert max(float(slope.abs().max()) for slope in torch.autograd.grad(loss, [w, b])) < 1.1e-4


def test_features_far_from_zero_are_standardised_as_exactly():
    rng = np.random.default_rng(13)
    items = rng.normal(size=(5000, 3)) * [1, 0.1, 0] + [1e3, -7, 3]
    made = standardise(torch.from_numpy(items).float(), torch.from_numpy(items[:3000]).float()).double().numpy()
    reference = items[:3000].astype(np.float32).astype(np.float64)
    deviation = np.where(reference.std(axis=0) > 0, reference.std(axis=0), np.inf)
    assert made == pytest.approx((items.astype(np.float32) - reference.mean(axis=0)) / deviation, abs=2e-3)


def test_the_minimum_is_a_minimum():
    items, labels, _ = make_task(3, 600, 20, 4, 1.0)
    x = standardise(torch.from_numpy(items), torch.from_numpy(items))
    y = torch.from_numpy(labels)
    weights, biases = solve_logistic(x, y[None], torch.tensor([1e-3, 1e-1]), 4)
    for number, l2 in enumerate([1e-3, 1e-1]):
        w, b = (each[0, number].double().requires_grad_() for each in (weights, biases))
        loss = torch.nn.functional.cross_entropy(x.double() @ w + b, y) + l2 / 2 * w.square().sum()
        slopes = torch.autograd.grad(loss, [w, b])
        assert max(float(slope.abs().max()) for slope in slopes) < 2e-3
        exact = LogisticRegression(C=1 / (l2 * 600), tol=1e-8, max_iter=5000).fit(x.double().numpy(), labels)
        chances = log_softmax(x.numpy() @ exact.coef_.T + exact.intercept_, axis=1)
        lowest = -chances[np.arange(600), labels].mean() + l2 / 2 * (exact.coef_**2).sum()
        assert float(loss.detach()) == pytest.approx(lowest, rel=3e-4)


def test_more_features_than_items_are_solved_in_the_space_of_the_items():
    rng = np.random.default_rng(4)
    x = torch.from_numpy(rng.normal(size=(40, 300)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, 3, 40))
    weights, biases = solve_logistic(x, y[None], torch.tensor([1e-2]), 3)
    assert (x @ weights[0, 0] + biases[0, 0]).argmax(dim=1).equal(y)
    exact = LogisticRegression(C=1 / (1e-2 * 40), tol=1e-8, max_iter=5000).fit(x.double().numpy(), y.numpy())
    assert weights[0, 0].numpy().T == pytest.approx(exact.coef_, abs=3e-3)


def test_the_strength_and_the_layer_are_chosen_on_dev_and_never_on_test():
    items, labels, split = make_task(5, 2000, 24, 3, 2.0)
    noise = np.random.default_rng(0).normal(size=items.shape).astype(np.float32)
    leaking = noise.copy()
    leaking[split == 2, 0] = 100 * labels[split == 2]  # perfect on test, nothing on dev
    fit = fit_linear([noise, items, leaking], labels, split)
    assert fit.best_layer == 1
    shuffled = labels.copy()
    shuffled[split == 2] = np.random.default_rng(1).permutation(shuffled[split == 2])
    other = fit_linear([noise, items, leaking], shuffled, split)
    assert (other.predictions == fit.predictions).all()
    assert (other.l2 == fit.l2).all() and set(fit.l2) <= set(L2_GRID)
    assert other.best_layer == 1


def test_items_outside_of_the_split_change_nothing():
    items, labels, split = make_task(6, 1500, 16, 3, 1.0)
    split[::5] = -1
    kept = split >= 0
    wild, changed = items.copy(), labels.copy()
    wild[~kept], changed[~kept] = 1e6, 0
    found, expected = (
        fit_linear(wild[None], changed, split),
        fit_linear(items[None][:, kept], labels[kept], split[kept]),
    )
    assert found.test[0] == expected.test[0]
    assert (found.predictions[0, kept] == expected.predictions[0]).all()


def test_the_metrics_are_scikit_learns():
    items, labels, split = make_task(7, 1500, 16, 2, 3.0)
    test = split == 2
    for metric in ("accuracy", "macro_f1", "auroc"):
        fit = fit_linear(items[None], labels, split, metric=metric)
        expected = {
            "accuracy": (fit.predictions[0, test] == labels[test]).mean(),
            "macro_f1": f1_score(labels[test], fit.predictions[0, test], average="macro"),
            "auroc": roc_auc_score(labels[test], fit.scores[0, test]),
        }
        assert fit.test[0] == pytest.approx(expected[metric], abs=1e-12)
        assert fit.test_score(0, np.ones(1500, dtype=bool)) == fit.test[0]
    assert score("auroc", np.array([0, 0, 1, 1]), np.zeros(4, int), np.array([0.1, 0.4, 0.4, 0.8])) == 0.875
    assert np.isnan(score("auroc", np.ones(3, int), np.zeros(3, int), np.ones(3)))


@pytest.mark.slow
def test_random_word_vectors_have_no_selectivity():
    """Vectors that say which word it is, and nothing of its class, serve both tasks alike."""
    rng = np.random.default_rng(8)
    kinds = rng.choice(2000, size=12_000, p=(1 / np.arange(1, 2001)) / (1 / np.arange(1, 2001)).sum())
    tags = rng.choice(8, size=2000, p=[0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
    words = [f"w{kind}" for kind in kinds]
    labels = tags[kinds]
    control = control_labels_by_type(words, 8, 0, counts=np.bincount(tags))
    vectors = rng.normal(size=(2000, 64)).astype(np.float32)[kinds]
    split = np.repeat([0, 1, 2], [8000, 2000, 2000]).astype(np.int8)
    fit = fit_linear(vectors[None], labels, split, control_labels=control)
    assert abs(fit.selectivity[0]) < 0.04
    assert fit.test[0] > 0.45
    meaningful = vectors + 2 * rng.normal(size=(8, 64)).astype(np.float32)[labels]
    assert fit_linear(meaningful[None], labels, split, control_labels=control).selectivity[0] > 0.1


@pytest.mark.slow
def test_a_hidden_layer_learns_what_a_line_cannot():
    rng = np.random.default_rng(9)
    items = rng.normal(size=(3000, 2)).astype(np.float32)
    labels = (items[:, 0] * items[:, 1] > 0).astype(np.int64)
    split = np.repeat([0, 1, 2], 1000).astype(np.int8)
    control = rng.integers(0, 2, 3000)
    curved = fit_mlp(items[None], labels, split, control_labels=control, max_epochs=10, learning_rate=1e-2)
    assert curved.test[0] > 0.95
    assert fit_linear(items[None], labels, split).test[0] < 0.6
    assert abs(curved.control.test[0] - 0.5) < 0.06
    again = fit_mlp(items[None], labels, split, control_labels=control, max_epochs=10, learning_rate=1e-2)
    assert (again.predictions == curved.predictions).all()


def test_the_mix_finds_the_layer_that_holds_the_label():
    items, labels, split = make_task(10, 2000, 16, 3, 1.0, decay=0)
    noise = np.random.default_rng(1).normal(size=(3, *items.shape)).astype(np.float32)
    fit = fit_scalar_mix(np.stack([noise[0], items, noise[1], noise[2]]), labels, split, max_epochs=8)
    assert fit.mix.sum() == pytest.approx(1, abs=1e-6)
    assert fit.mix.argmax() == 1 and fit.mix[1] > 0.5
    assert fit.test[0] == pytest.approx(fit_linear(items[None], labels, split).test[0], abs=0.03)
    assert fit.predictions.shape == (1, 2000)


def test_what_cannot_be_fitted_is_said():
    items, labels, split = make_task(11, 100, 4, 2, 1.0)
    with pytest.raises(UserError, match="no dev items"):
        fit_linear(items[None], labels, np.where(split == 1, 0, split))
    items[3, 2] = np.nan
    with pytest.raises(UserError, match="NaN"):
        fit_linear(items[None], labels, split)


def test_the_inverse_by_class_is_that_of_the_hessians_blocks(monkeypatch):
    """Against autograd, with no part of the diagonal mixed in; the penalty falls on biases too, which only guides."""
    monkeypatch.setattr(logistic, "_DIAGONAL", 0.0)
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(300, 4, generator=generator)
    targets = torch.randint(3, (1, 300), generator=generator)
    l2 = torch.tensor([0.01])
    axes, spread = logistic._principal_axes(items)
    problems = logistic._Problems(
        items=items, axes=axes, spread=spread, targets=targets, sets=torch.zeros(1, dtype=torch.long), l2=l2
    )
    made = torch.randn(1, 3, 5, generator=generator)
    along = torch.cat([items @ axes, torch.ones(300, 1)], 1)

    def loss(parameters):  # (3, 5)
        return torch.nn.functional.cross_entropy(along @ parameters.T, targets[0]) + 0.005 * parameters.square().sum()

    hessian = torch.autograd.functional.hessian(loss, made[0])  # (3, 5, 3, 5)
    (inverses,) = problems.invert_by_class(made)
    for number in range(3):
        product = inverses[number] @ hessian[number, :, number]
        torch.testing.assert_close(product, torch.eye(5), atol=2e-4, rtol=0)
