"""Scores: finite, in range, the same for a batch, a list, any strides and any dtype."""

import pytest
import torch
from support.contract import (
    DOUBLE,
    PICTURES,
    SAMPLES,
    every_metric,
    interior,
    make,
    photo,
    pictures,
    reference_of,
    score,
    side,
    span,
)

from lowlight_iqa.registry import get_card


@every_metric
@pytest.mark.parametrize("picture", PICTURES)
def test_one_finite_score_for_each_picture(name, picture):
    x = pictures(side(name))[picture]
    scores = score(name, torch.stack([x, x]))
    assert scores.shape == (2,)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()
    assert torch.equal(scores, score(name, torch.stack([x, x])))  # to the bit


@every_metric
def test_scores_have_the_dtype_of_the_input(name):
    assert score(name, interior(name)).dtype == DOUBLE


@every_metric
def test_scores_stay_in_their_range(name):
    metric, (low, high) = make(name), get_card(name).score_range
    draw = torch.Generator().manual_seed(2)
    tries = []
    for turn in range(24):
        x = photo(side(name), SAMPLES[turn % 4])
        x = x * torch.rand(1, generator=draw)  # exposure
        x = x + torch.randn(x.shape, generator=draw) * 0.2 * torch.rand(1, generator=draw).square()  # noise
        if turn % 3 == 0:
            x = torch.rand(x.shape, generator=draw) * torch.rand(1, generator=draw)
        tries.append(x.clamp(0, 1))
    tries += pictures(side(name)).values()
    scores = torch.cat([score(name, x) for x in tries])
    slack = 0.05 * (high - low)
    assert scores.min() >= low - slack
    assert scores.max() <= high + slack
    assert metric.to_loss(scores).isfinite().all()


@every_metric
def test_a_batch_equals_its_pictures(name):
    x = torch.stack([pictures(side(name))[key] for key in ("photo", "dim", "clipped", "half_black")])
    singles = torch.cat([score(name, picture) for picture in x])
    assert torch.allclose(score(name, x), singles, rtol=0, atol=1e-5 * span(name))


@every_metric
def test_a_list_of_unlike_sizes_keeps_its_order(name):
    metric, small, large = make(name), photo(side(name)), photo(side(name) + 16, "chelsea")
    mixed = [small, large, small * 0.3, large * 0.3, small]
    references = [reference_of(name, x).get("reference") for x in mixed]
    scores = metric(mixed, references) if metric.card.needs_reference else metric(mixed)
    singles = torch.cat([score(name, x) for x in mixed])
    assert scores.shape == (5,)
    assert torch.allclose(scores, singles, rtol=0, atol=1e-5 * span(name))


@every_metric
def test_strides_do_not_matter(name):
    x = torch.stack([photo(side(name)), photo(side(name), "coffee")])
    expected = score(name, x)
    wide = torch.stack([x, x], -1).flatten(3)[..., ::2]
    for same in (
        x.to(memory_format=torch.channels_last),
        wide,
        x.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        assert torch.allclose(score(name, same), expected, rtol=0, atol=1e-5 * span(name))


@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_computed_in_float32(name, dtype):
    x = photo(side(name))[None]
    reference = reference_of(name, x)
    metric = make(name)
    narrow = metric(x.to(dtype), **reference)
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, metric(x.to(dtype).float(), **reference))
    assert abs(narrow - metric(x, **reference)) <= 1e-2 * span(name)


@every_metric
def test_autocast_changes_nothing(name):
    x = photo(side(name))[None]
    expected = score(name, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(score(name, x), expected)


@every_metric
def test_better_exposure_scores_better(name):
    if "exposure" not in get_card(name).sees:
        pytest.skip("its card does not list exposure among what it sees")
    x = torch.stack([photo(side(name), sample) for sample in SAMPLES])
    losses = [make(name).to_loss(score(name, x * factor)).mean() for factor in (1, 0.1, 0.02)]
    assert losses[0] < losses[1] < losses[2]


@every_metric
def test_less_noise_scores_better(name):
    if "noise" not in get_card(name).sees:
        pytest.skip("its card does not list noise among what it sees")
    x = torch.stack([photo(side(name), sample) for sample in SAMPLES])
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    losses = [make(name).to_loss(score(name, (x + noise * sigma).clamp(0, 1))).mean() for sigma in (0, 0.04, 0.15)]
    assert losses[0] < losses[1] < losses[2]
