import numpy as np
import pytest
from scipy import stats

from lowlight_iqa.evaluation.correlation import (
    bootstrap,
    interval,
    krcc,
    pairs_in_order,
    plcc,
    scene_srcc,
    srcc,
)
from lowlight_iqa.functional.logistic import fit_logistic, logistic

rng = np.random.default_rng(0)
SCORES = rng.normal(size=200).round(1)  # with ties
LABELS = 0.7 * SCORES + rng.normal(size=200)


def test_figures_agree_with_scipy_and_keep_their_sign():
    assert srcc(SCORES, LABELS) == pytest.approx(stats.spearmanr(SCORES, LABELS).statistic, abs=1e-12)
    assert krcc(SCORES, LABELS) == pytest.approx(stats.kendalltau(SCORES, LABELS).statistic, abs=1e-12)
    assert plcc(SCORES, LABELS) == pytest.approx(stats.pearsonr(SCORES, LABELS).statistic, abs=1e-12)
    assert srcc(-SCORES, LABELS) == pytest.approx(-srcc(SCORES, LABELS))


def test_a_constant_score_agrees_with_nobody():
    assert srcc(np.ones(10), np.arange(10)) == plcc(np.ones(10), np.arange(10)) == krcc(np.ones(10), np.arange(10)) == 0


def test_a_nan_score_is_an_error_that_names_its_place():
    with pytest.raises(ValueError, match=r"scores\[3\] is nan"):
        srcc([1, 2, 3, float("nan")], [1, 2, 3, 4])


def test_logistic_fit_recovers_its_parameters():
    x = np.linspace(-2, 2, 100)
    found = fit_logistic(x, logistic(x, (9.0, 1.0, 0.3, 0.4)))
    assert found == pytest.approx((9.0, 1.0, 0.3, 0.4), rel=1e-4)


def test_logistic_limits_hold():
    x = np.linspace(-2, 2, 100)
    high, low, _, _ = fit_logistic(x, 12 / (1 + np.exp(-x)), limits=(0, 10))
    assert 0 <= low < high <= 10


def test_logistic_raises_plcc_of_a_bent_relation():
    bent = 1 / (1 + np.exp(-3 * SCORES))
    mapped = logistic(SCORES, fit_logistic(SCORES, bent))
    assert plcc(mapped, bent) > max(0.999, plcc(SCORES, bent))


def test_interval_holds_the_figure_and_is_repeatable():
    low, high = interval(srcc, SCORES, LABELS, draws=200)
    assert low < srcc(SCORES, LABELS) < high
    assert (low, high) == interval(srcc, SCORES, LABELS, draws=200)


def test_an_interval_holds_the_middle_95_percent():
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap(lambda chosen: values[chosen].mean(), len(values), draws=4000)
    error = values.std() / len(values) ** 0.5
    assert (low - values.mean()) / error == pytest.approx(-1.96, abs=0.1)  # of 90 % it would be 1.64
    assert (high - values.mean()) / error == pytest.approx(1.96, abs=0.1)


def test_draws_are_1_to_100000_and_differ_with_the_seed():
    def mean(chosen):
        return chosen.mean()

    assert bootstrap(mean, 50, draws=1) == (bootstrap(mean, 50, draws=1)[0],) * 2
    assert bootstrap(mean, 50, draws=9, seed=1) != bootstrap(mean, 50, draws=9)
    for draws in (0, 100_001):
        with pytest.raises(ValueError, match=f"the number of draws is {draws};"):
            bootstrap(mean, 50, draws=draws)


def test_three_scenes_are_enough_to_resample():
    scenes = np.arange(200) % 3
    low, high = interval(srcc, SCORES, LABELS, groups=scenes, draws=50)
    assert low < high
    with pytest.raises(ValueError, match="2 scenes are too few"):
        interval(srcc, SCORES, LABELS, groups=np.arange(200) % 2, draws=50)


def test_figures_do_not_depend_on_the_scales():
    small = 1e-6 * SCORES, 1e-6 * LABELS
    for of in (srcc, krcc, plcc):
        assert of(*small) == pytest.approx(of(SCORES, LABELS))


def test_a_thousand_resamples_unless_told_otherwise():
    calls = []
    bootstrap(lambda chosen: float(len(calls.append(chosen) or chosen)), 5)
    assert len(calls) == 1000
    assert all(len(chosen) == 5 and chosen.min() >= 0 and chosen.max() < 5 for chosen in calls)
    assert np.concatenate(calls).max() == 4
    calls.clear()
    interval(lambda s, y: float(len(calls.append(s) or s)), SCORES, LABELS)
    assert len(calls) == 1000


def test_scenes_of_two_pictures_or_of_like_labels_have_no_figure():
    scores, labels = np.array([1, 2, 3, 5, 4, 1, 2, 3.0]), np.array([1, 2, 3, 1, 2, 4, 4, 4.0])
    assert scene_srcc(scores, labels, [*"aaabbccc"]) == pytest.approx([1.0])
    # Of b's one pair the order is turned; c's three have no order to keep.
    assert pairs_in_order(scores, labels, [*"aaabbccc"]).tolist() == [[3, 3], [0, 1], [0, 0]]
    assert pairs_in_order(scores, labels, [*"aaaaaaaa"])[0, 1] == 23  # of 28, five pairs have like labels
