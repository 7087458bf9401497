"""What somebody types who comes from pyiqa works, or is answered with what to type instead."""

import pytest
import torch

import lowlight_iqa
from lowlight_iqa.registry import FROM_PYIQA, ONLY_PYIQA

X = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["niqe", "brisque-dark", "loe"])
def test_direction_and_range_are_read_on_the_metric_and_on_the_loss(name):
    metric = lowlight_iqa.create_metric(name)
    assert metric.lower_better is metric.card.lower_better
    assert metric.score_range == metric.card.score_range
    assert all(isinstance(end, float) for end in metric.score_range)


def test_as_loss_is_a_module_to_be_minimized():
    criterion = lowlight_iqa.create_metric("brisque-dark", as_loss=True)  # whose higher scores are better
    metric = lowlight_iqa.create_metric("brisque-dark")
    assert isinstance(criterion, torch.nn.Module)
    assert torch.equal(criterion(X), metric.loss(X))
    assert (criterion(X) < criterion(X * 0.1)) == (metric(X) > metric(X * 0.1))


@pytest.mark.parametrize("option", FROM_PYIQA)
def test_an_argument_of_pyiqa_is_answered_with_what_takes_its_place(option):
    with pytest.raises(TypeError, match=f"takes no '{option}'; instead: .{{5,}}; see docs/from-pyiqa.md"):
        lowlight_iqa.create_metric("niqe", as_loss=True, **{option: "NR"})


def test_a_reference_by_position_is_answered():
    metric = lowlight_iqa.create_metric("niqe")
    with pytest.raises(TypeError, match=r"niqe is a no-reference metric: call metric\(img\), without reference"):
        metric(X, X)
    with pytest.raises(TypeError, match="no-reference"):
        metric.loss(X, X)
    loe = lowlight_iqa.create_metric("loe")
    with pytest.raises(TypeError, match=r"call metric\(enhanced, reference=dark\)"):
        loe(X)
    assert torch.equal(loe(X, 0.2 * X), loe(X, reference=0.2 * X))


@pytest.mark.parametrize("name", [*ONLY_PYIQA, "MUSIQ"])
def test_a_metric_that_pyiqa_alone_has_is_answered_with_the_nearest(name):
    with pytest.raises(ValueError, match=r"is pyiqa's: .*(leiq|niqe|brisque|compare --reference)"):
        lowlight_iqa.create_metric(name)


@pytest.mark.parametrize(("name", "nearest"), [("NIQE", "niqe"), ("Brisque", "brisque"), ("piqe_", "piqe")])
def test_another_spelling_is_answered_with_ours(name, nearest):
    with pytest.raises(ValueError, match=f"did you mean '{nearest}'"):
        lowlight_iqa.create_metric(name)
