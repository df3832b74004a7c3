"""Intervals and tests on simulated data whose truth is known."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from corpora.errors import UserError
from probes.metrics import score
from probes.statistics import (
    Interval,
    Resampled,
    claim_level,
    control_labels_by_type,
    extreme,
    holm,
    interval,
    mean_over_seeds,
    minimum_detectable_difference,
    multi_bootstrap,
    resample_scores,
    welch,
)


@pytest.fixture
def items():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    scores = np.round(labels + rng.normal(size=300), 1)  # with ties
    return labels, (scores > 0.5).astype(np.int64), scores, rng.integers(0, 40, 300)


def test_values_equal_those_of_scikit_learn(items):
    labels, predictions, scores, groups = items
    found = {
        metric: resample_scores(labels, predictions, groups, metric=metric, scores=scores, samples=10).value
        for metric in ("accuracy", "macro_f1", "auroc")
    }
    assert found["accuracy"] == pytest.approx((labels == predictions).mean(), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predictions, average="macro"), abs=1e-12)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    for metric, value in found.items():
        assert score(metric, labels, predictions, scores) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "auroc"])
def test_a_draw_is_the_score_of_the_drawn_documents(items, metric):
    labels, predictions, scores, groups = items
    found = resample_scores(labels, predictions, groups, metric=metric, scores=scores, samples=3, seed=5)
    counts = np.random.default_rng(5).multinomial(40, np.full(40, 1 / 40), size=3)
    for draw, value in zip(counts, found.draws, strict=True):
        chosen = np.repeat(np.arange(300), draw[groups])
        assert value == pytest.approx(score(metric, labels[chosen], predictions[chosen], scores[chosen]), abs=1e-12)
    left = groups != 7
    assert found.jackknife[7] == pytest.approx(score(metric, labels[left], predictions[left], scores[left]), abs=1e-12)


def test_documents_of_equal_items_widen_the_interval_by_the_root_of_their_size():
    rng = np.random.default_rng(1)
    right = rng.integers(0, 2, 100)
    once = resample_scores(np.ones(100, dtype=int), right, np.arange(100))
    repeated = np.repeat(right, 25), np.repeat(np.arange(100), 25)
    as_documents = resample_scores(np.ones(2500, dtype=int), repeated[0], repeated[1])
    as_items = resample_scores(np.ones(2500, dtype=int), repeated[0], np.arange(2500))
    assert as_documents.draws.std() == pytest.approx(once.draws.std(), abs=1e-12)
    assert as_documents.draws.std() / as_items.draws.std() == pytest.approx(5, rel=0.1)


def test_bca_equals_scipys():
    rng = np.random.default_rng(2)
    right = (rng.random(60) < 0.9).astype(int)
    found = interval(resample_scores(np.ones(60, dtype=int), right, np.arange(60), samples=20_000))
    theirs = stats.bootstrap((right,), np.mean, n_resamples=20_000, method="BCa", rng=3).confidence_interval
    assert found.low == pytest.approx(theirs.low, abs=0.017)  # one item
    assert found.high == pytest.approx(theirs.high, abs=0.017)
    plain = interval(resample_scores(np.ones(60, dtype=int), right, np.arange(60), samples=20_000), method="percentile")
    assert found.low < plain.low  # skewed towards the middle


def test_the_difference_of_a_system_to_itself_is_nothing(items):
    labels, predictions, _, groups = items
    one = resample_scores(labels, predictions, groups)
    assert interval(one - one) == Interval(value=0.0, low=0.0, high=0.0)


def test_a_paired_difference_is_narrower_than_its_parts():
    rng = np.random.default_rng(3)
    right = rng.random(400) < 0.7
    better = right | (rng.random(400) < 0.1)
    first, second = (
        resample_scores(np.ones(400, dtype=int), each.astype(int), np.arange(400)) for each in (better, right)
    )
    found = interval(first - second)
    assert found.value == pytest.approx((better.sum() - right.sum()) / 400)
    assert 0 < found.low < found.high < 0.07
    assert (first - second).draws.std() < first.draws.std() / 1.5


def test_one_document_has_no_interval():
    with pytest.raises(UserError, match="1 document"):
        resample_scores(np.ones(9, dtype=int), np.ones(9, dtype=int), np.zeros(9))


def test_welch_is_scipys():
    first, second = [0.81, 0.80, 0.84, 0.79, 0.83], [0.78, 0.80, 0.75]
    found, theirs = welch(first, second), stats.ttest_ind(first, second, equal_var=False)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    low, high = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)


DRAWS = np.random.default_rng(0).multinomial(100, np.full(100, 0.01), size=400)


def simulated_arms(rng, seed_deviation, num_items=100, num_seeds=5, shift=0.0):
    """Resampled scores of seeds on the same items, by the arithmetic of means instead of labels."""
    difficulty = rng.normal(size=num_items) * 0.4

    def arm(shift):
        made = []
        for _ in range(num_seeds):
            values = shift + rng.normal() * seed_deviation + difficulty + rng.normal(size=num_items) * 0.4
            draws = DRAWS @ values / num_items
            made.append(Resampled(value=values.mean(), draws=draws, jackknife=np.zeros(num_items)))
        return made

    return arm(shift), arm(0.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed_deviation", [0.0, 0.03, 0.3])
def test_false_claims_stay_at_their_level_with_five_seeds(seed_deviation):
    rng = np.random.default_rng(4)
    rejections = {"multi": 0, "welch": 0, "paired": 0}
    for _ in range(400):
        first, second = simulated_arms(rng, seed_deviation)
        rejections["multi"] += multi_bootstrap(first, second).p_value < 0.05
        rejections["paired"] += multi_bootstrap(first, second, paired=True).p_value < 0.05
        rejections["welch"] += welch([x.value for x in first], [x.value for x in second]).p_value < 0.05
    assert max(rejections.values()) <= 0.07 * 400, rejections


def test_a_large_difference_is_found():
    rng = np.random.default_rng(5)
    found = [multi_bootstrap(*simulated_arms(rng, 0.05, shift=0.2)) for _ in range(50)]
    assert np.mean([each.p_value < 0.05 for each in found]) > 0.85
    assert np.mean([each.low <= 0.2 <= each.high for each in found]) >= 0.9


def test_without_noise_of_documents_the_multi_bootstrap_is_welch():
    first, second = [0.81, 0.80, 0.84, 0.79, 0.83], [0.78, 0.80, 0.75, 0.79, 0.81]
    arms = [
        [Resampled(value=value, draws=np.full(20_000, value), jackknife=np.zeros(2)) for value in arm]
        for arm in (first, second)
    ]
    found, expected = multi_bootstrap(*arms), welch(first, second)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=6e-4)
    alone = mean_over_seeds(arms[0])
    reach = stats.t.ppf(0.975, 4) * np.std(first, ddof=1) / np.sqrt(5)
    assert alone.high - alone.value == pytest.approx(reach, rel=0.02)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_the_detectable_difference_is_two_deviations_for_five_seeds():
    assert minimum_detectable_difference(1.0, 5) == pytest.approx(2.024, abs=1e-3)  # G*Power's table
    assert minimum_detectable_difference(0.5, 10) == pytest.approx(0.5 * 1.325, abs=1e-3)
    assert minimum_detectable_difference(1.0, 1) == np.inf


def test_five_seeds_speak_about_an_objective():
    assert [claim_level(n) for n in (1, 4, 5, 9)] == ["checkpoints", "checkpoints", "objective", "objective"]


def test_scores_at_the_floor_and_at_the_ceiling_are_named():
    assert extreme(Interval(value=0.55, low=0.50, high=0.60), floors=[0.4, 0.52]) == "floor"
    assert extreme(Interval(value=0.99, low=0.98, high=0.997), floors=[0.5]) == "ceiling"
    assert extreme(Interval(value=0.7, low=0.6, high=0.8), floors=[0.5]) is None


def test_a_form_keeps_its_control_label_and_labels_follow_the_counts():
    words = [f"w{number % 5000}" for number in range(20_000)]
    labels = control_labels_by_type(words, 3, 0, counts=[60, 30, 10])
    assert (labels[:5000] == labels[5000:10_000]).all()
    assert np.bincount(labels) / 20_000 == pytest.approx([0.6, 0.3, 0.1], abs=0.02)
    assert (control_labels_by_type(words, 3, 1) != control_labels_by_type(words, 3, 0)).mean() == pytest.approx(
        2 / 3, abs=0.03
    )
    assert (control_labels_by_type(words[::-1], 3, 0, counts=[60, 30, 10]) == labels[::-1]).all()
