"""The logistic by hand, the same for arrays and tensors, and its derivatives."""

import math

import numpy as np
import pytest
import torch

from lowlight_iqa.functional.logistic import _slopes, checked_pair, fit_logistic, logistic

PARAMETERS = (9.0, 1.0, 0.3, 0.4)


def test_it_runs_from_the_lower_end_to_the_upper_one_and_is_half_way_at_its_center():
    x = np.array([-1e3, 0.3, 0.7, 1e3])
    assert logistic(x, PARAMETERS) == pytest.approx([1, 5, 1 + 8 / (1 + math.exp(-1)), 9])
    assert logistic(torch.from_numpy(x), PARAMETERS).tolist() == pytest.approx(logistic(x, PARAMETERS))
    assert logistic(0.7, PARAMETERS) == pytest.approx(logistic(x, PARAMETERS)[2])
    assert logistic(x, (9.0, 1.0, 0.3, -0.4)) == pytest.approx(logistic(x, PARAMETERS))  # the width has no sign


@pytest.mark.parametrize("width", [0.4, -0.4])
def test_its_derivatives_are_central_differences(width):
    x, at = np.linspace(-2, 2, 9), np.array([9.0, 1.0, 0.3, width])
    steps = 1e-6 * np.eye(4)
    central = np.stack([(logistic(x, at + step) - logistic(x, at - step)) / 2e-6 for step in steps], 1)
    assert _slopes(x, *at) == pytest.approx(central, rel=1e-5, abs=1e-7)


def test_a_fit_begins_where_it_is_told_and_four_scores_are_enough():
    x = np.linspace(-2, 2, 4)
    labels = logistic(x, PARAMETERS)
    assert logistic(x, fit_logistic(x, labels, start=PARAMETERS)) == pytest.approx(labels)
    with pytest.raises(ValueError, match="3 scores are too few"):
        fit_logistic(x[:3], labels[:3])


def test_only_pairs_of_finite_vectors_are_taken():
    checked_pair([1, 2, 3], [4, 5, 6])
    for scores, labels, words in (
        ([1, 2], [1, 2], "at least 3"),
        ([1, 2, 3], [1, 2, 3, 4], "one length"),
        ([[1, 2, 3]], [[1, 2, 3]], "vectors"),
        ([1, 2, 3], [1, math.inf, 3], r"labels\[1\] is inf"),
    ):
        with pytest.raises(ValueError, match=words):
            checked_pair(scores, labels)
