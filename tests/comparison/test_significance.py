"""The statistics of a comparison: equal to scipy's, calibrated under the null, plain about ties and few pictures."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from lowlight_iqa.comparison.significance import (
    EXACT,
    LEVEL,
    analyze,
    assign_letters,
    holm,
    resample_means,
    signed_rank,
    smallest_p,
)


@pytest.mark.parametrize("count", [1, 2, 5, 15, EXACT])
def test_signed_rank_is_scipys_exact_test(count):
    d = np.random.default_rng(count).normal(0.3, 1, count)
    assert signed_rank(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=1e-9)


def test_signed_rank_of_many_is_scipys_normal_approximation():
    d = np.random.default_rng(0).normal(0.1, 1, 300).round(1)  # with ties and zeros
    expected = stats.wilcoxon(d, zero_method="wilcox", correction=False, method="approx").pvalue
    assert signed_rank(d) == pytest.approx(expected, rel=1e-9)


def test_signed_rank_with_ties_counts_every_pattern_of_signs():
    d = np.array([1, 1, -2, 2, 2, -3, 4, 4, 0, 5.5])
    ranks = stats.rankdata(np.abs(d[d != 0]))
    sums = np.array([ranks @ np.array(signs) for signs in product((0, 1), repeat=len(ranks))])
    observed = ranks[d[d != 0] > 0].sum()
    tail = min((sums <= observed).mean(), (sums >= observed).mean())
    assert signed_rank(d) == pytest.approx(2 * tail)


def test_signed_rank_of_nothing_but_zeros_is_one():
    assert signed_rank(np.zeros(20)) == 1


def test_holm_on_a_worked_example():
    # 4 x 0.005, then 3 x 0.01, then 2 x 0.03, and 0.04 may not come out below it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_letters_are_shared_exactly_by_pairs_that_do_not_differ():
    rng = np.random.default_rng(0)
    for _ in range(100):
        size = rng.integers(1, 7)
        different = np.triu(rng.random((size, size)) < 0.5, 1)
        different |= different.T
        letters = assign_letters(different, rng.permutation(size).tolist())
        for a, b in combinations(range(size), 2):
            assert bool(set(letters[a]) & set(letters[b])) == (not different[a, b])
        assert all(letters)


def test_the_best_method_has_letter_a():
    different = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], bool)  # 0 and 1 differ, 2 from neither
    assert assign_letters(different, [1, 2, 0]) == ["b", "a", "ab"]


def test_ranks_means_and_deviations():
    found = analyze([[1.0, 2, 3], [3, 4, 6]], lower_better=True)
    assert found.mean.tolist() == [2, 3, 4.5]
    assert found.deviation == pytest.approx(np.std([[1, 2, 3], [3, 4, 6]], 0, ddof=1))
    assert found.rank.tolist() == [1, 2, 3]
    assert analyze([[1.0, 2, 3], [3, 4, 6]], lower_better=False).rank.tolist() == [3, 2, 1]


def test_intervals_are_those_of_scipys_percentile_bootstrap():
    scores = np.random.default_rng(1).normal(5, 2, (40, 2))
    found = analyze(scores, False, draws=4000)
    for method in range(2):
        theirs = stats.bootstrap((scores[:, method],), np.mean, method="percentile", n_resamples=4000, rng=0)
        assert found.interval[method] == pytest.approx(tuple(theirs.confidence_interval), abs=0.06)


def test_methods_share_each_resample():
    scores = np.random.default_rng(2).normal(size=(30, 1)) + np.array([0.0, 1.0])
    means = resample_means(scores, 50)
    assert means[:, 1] - means[:, 0] == pytest.approx(np.ones(50))


def test_clear_difference_is_found_and_its_pictures_counted():
    rng = np.random.default_rng(3)
    scene = rng.normal(0, 5, (20, 1))  # scenes differ far more than methods do
    scores = scene + np.array([0.0, 0.5, 0.5]) + rng.normal(0, 0.05, (20, 3))
    found = analyze(scores, lower_better=False)
    assert found.p_value[0, 1] < 0.001
    assert found.share_won[1, 0] == 1
    assert found.share_won[0, 1] == 0
    assert set(found.letters[1]) & set(found.letters[2])
    assert not set(found.letters[0]) & set(found.letters[1])


@pytest.mark.parametrize("lower_better", [False, True])
def test_identical_methods_are_never_told_apart(lower_better):
    scores = np.repeat(np.random.default_rng(4).normal(size=(50, 1)), 4, axis=1)
    scores[:, 2] *= 1 + 1e-7  # the noise of another batch
    found = analyze(scores, lower_better)
    assert (found.p_value == 1).all()
    assert (found.share_won == 0.5).all()
    assert set(found.letters) == {"a"}
    assert set(found.rank.tolist()) == {1}


@pytest.mark.parametrize("count", [8, 15, 60])
@pytest.mark.parametrize("rounded", [False, True])
def test_methods_that_differ_by_chance_alone_are_told_apart_at_most_five_times_in_a_hundred(count, rounded):
    rng = np.random.default_rng(count)
    trials, false = 400, 0
    for _ in range(trials):
        scores = rng.normal(0, 3, (count, 1)) + rng.standard_t(3, (count, 4))
        scores = scores.round() if rounded else scores
        false += len(set(analyze(scores, False, draws=1).letters)) > 1
    # One-sided 99.9 % bound of a binomial of 5 %.
    assert false <= stats.binom.ppf(0.999, trials, LEVEL)
    assert count == 8 or false > 0  # a test that never speaks would pass too


def test_constant_metric_ranks_nobody():
    found = analyze(np.full((10, 3), 7.0), lower_better=True)
    assert found.rank.tolist() == [1, 1, 1]
    assert found.letters == ("a", "a", "a")
    assert (found.interval == 7).all()


def test_one_picture_has_means_and_ranks_and_nothing_else():
    found = analyze([[1.0, 2.0]], lower_better=False)
    assert found.rank.tolist() == [2, 1]
    assert np.isnan(found.deviation).all()
    assert np.isnan(found.interval).all()
    assert found.letters == ("a", "a")


def test_one_method_is_compared_with_nobody():
    found = analyze(np.arange(10.0)[:, None], lower_better=False)
    assert found.letters == ("a",)
    assert found.rank.tolist() == [1]


def test_few_pictures_cannot_tell_methods_apart_and_the_bound_says_so():
    scores = np.arange(5)[:, None] + np.array([0.0, 100.0])
    found = analyze(scores, lower_better=False)
    assert found.p_value[0, 1] == smallest_p(5, 1) == 2 / 32
    assert found.letters == ("a", "a")


def test_a_score_that_is_not_finite_is_an_error_that_names_its_place():
    with pytest.raises(ValueError, match=r"scores\[1, 0\] is nan"):
        analyze([[1.0], [float("nan")]], lower_better=False)
    with pytest.raises(ValueError, match="at least one"):
        analyze(np.zeros((0, 2)), lower_better=False)
