import numpy as np
import pytest
from scipy import stats

from lowlight_iqa.evaluation.correlation import interval, krcc, plcc, plcc_logistic, srcc
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
    assert plcc_logistic(SCORES, bent) > max(0.999, plcc(SCORES, bent))


def test_interval_holds_the_figure_and_is_repeatable():
    low, high = interval(srcc, SCORES, LABELS, draws=200)
    assert low < srcc(SCORES, LABELS) < high
    assert (low, high) == interval(srcc, SCORES, LABELS, draws=200)
