"""Assessments."""

import pytest
import torch
from support.contract import every_metric, make, photo, side, span

from lowlight_iqa import Assessment


@every_metric
def test_an_assessment(name):
    metric, x = make(name), photo(side(name))
    if metric.card.needs_reference:
        with pytest.raises(TypeError, match="reference"):
            metric.assess(x)
        return
    found = metric.assess(x)
    assert isinstance(found, Assessment)
    assert found.score == pytest.approx(metric(x).item(), abs=1e-5 * span(name))
    for key, value in found.attributes.items():
        assert isinstance(key, str)
        assert 0.8 <= value <= 5.2
    assert len(found.description) > 10
    if found.map is not None:
        assert found.map.shape == x.shape[1:]
        assert found.map.isfinite().all()
    assert metric.assess(x[None]).score == found.score
    with pytest.raises(ValueError, match="one picture"):
        metric.assess(torch.stack([x, x]))
