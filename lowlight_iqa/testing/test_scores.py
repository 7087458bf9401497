"""Scores: finite, in range, independent of batch, list, strides and dtype; and true to the claims of the card."""

import math

import pytest
import torch

from .subject import DOUBLE, Subject


def test_the_card_is_complete(subject: Subject) -> None:
    card = subject.card
    assert card.name == subject.name
    for fact in (card.summary, card.source, card.license, card.gradient):
        assert fact.strip(), "summary, source, license and gradient of the card are one line each"
        assert "\n" not in fact
    low, high = card.score_range
    assert -math.inf < low < high < math.inf
    assert card.best == (low if card.lower_better else high)
    assert card.min_size >= 1
    assert card.name in str(card)
    assert type(subject.metric()).__doc__, "the class has a docstring"


def test_one_finite_score_for_each_picture_twice_the_same(subject: Subject) -> None:
    for kind, x in subject.pictures().items():
        batch = torch.stack([x, x])
        scores = subject.score(batch)
        assert scores.shape == (2,), kind
        assert scores.dtype == torch.float32, kind
        assert scores.isfinite().all(), kind
        assert torch.equal(scores, subject.score(batch)), kind  # to the bit


def test_scores_have_the_dtype_of_the_input(subject: Subject) -> None:
    assert subject.score(subject.interior(), DOUBLE).dtype == DOUBLE


def test_scores_stay_in_the_range_of_the_card(subject: Subject) -> None:
    low, high = subject.card.score_range
    draw = torch.Generator().manual_seed(2)
    tries = []
    for turn in range(24):
        x = subject.picture(turn % 4)
        x = x * torch.rand(1, generator=draw)  # exposure
        x = x + torch.randn(x.shape, generator=draw) * 0.2 * torch.rand(1, generator=draw).square()  # noise
        if turn % 3 == 0:
            x = torch.rand(x.shape, generator=draw) * torch.rand(1, generator=draw)
        tries.append(x.clamp(0, 1))
    tries += subject.pictures().values()
    scores = torch.cat([subject.score(x) for x in tries])
    assert scores.min() >= low - 0.05 * subject.span
    assert scores.max() <= high + 0.05 * subject.span
    assert subject.metric().to_loss(scores).isfinite().all()


def test_a_batch_equals_its_pictures(subject: Subject) -> None:
    x = torch.stack([subject.pictures()[key] for key in ("picture", "dim", "clipped", "half black")])
    singles = torch.cat([subject.score(picture) for picture in x])
    torch.testing.assert_close(subject.score(x), singles, rtol=0, atol=1e-5 * subject.span)


def test_a_list_of_unlike_sizes_keeps_its_order(subject: Subject) -> None:
    metric, small, large = subject.metric(), subject.picture(), subject.picture(1, subject.side + 16)
    mixed = [small, large, small * 0.3, large * 0.3, small]
    references = [subject.reference_of(x).get("reference") for x in mixed]
    scores = metric(mixed, references) if metric.card.needs_reference else metric(mixed)
    singles = torch.cat([subject.score(x) for x in mixed])
    assert scores.shape == (5,)
    torch.testing.assert_close(scores, singles, rtol=0, atol=1e-5 * subject.span)


def test_strides_do_not_matter(subject: Subject) -> None:
    x = subject.samples()[:2]
    expected = subject.score(x)
    wide = torch.stack([x, x], -1).flatten(3)[..., ::2]
    for same in (x.to(memory_format=torch.channels_last), wide, x.transpose(2, 3).contiguous().transpose(2, 3)):
        torch.testing.assert_close(subject.score(same), expected, rtol=0, atol=1e-5 * subject.span)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_computed_in_float32(subject: Subject, dtype: torch.dtype) -> None:
    metric, x = subject.metric(), subject.picture()[None]
    reference = subject.reference_of(x)
    narrow = metric(x.to(dtype), **reference)
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, metric(x.to(dtype).float(), **reference))
    assert abs(narrow - metric(x, **reference)) <= 1e-2 * subject.span


def test_autocast_changes_nothing(subject: Subject) -> None:
    x = subject.picture()[None]
    expected = subject.score(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(subject.score(x), expected)


def test_better_exposure_scores_better(subject: Subject) -> None:
    if "exposure" not in subject.card.sees:
        pytest.skip("its card does not list exposure among what it sees")
    x = subject.samples()
    losses = [subject.metric().to_loss(subject.score(x * factor)).mean() for factor in (1, 0.1, 0.02)]
    assert losses[0] < losses[1] < losses[2]


def test_less_noise_scores_better(subject: Subject) -> None:
    if "noise" not in subject.card.sees:
        pytest.skip("its card does not list noise among what it sees")
    x = subject.samples()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    noisy = [(x + noise * sigma).clamp(0, 1) for sigma in (0, 0.04, 0.15)]
    losses = [subject.metric().to_loss(subject.score(each)).mean() for each in noisy]
    assert losses[0] < losses[1] < losses[2]


def test_an_assessment_says_what_the_score_says(subject: Subject) -> None:
    metric, x = subject.metric(), subject.picture()
    if metric.card.needs_reference:
        with pytest.raises(TypeError, match="reference"):
            metric.assess(x)
        return
    found = metric.assess(x)
    assert found.score == pytest.approx(metric(x).item(), abs=1e-5 * subject.span)
    for key, value in found.attributes.items():
        assert isinstance(key, str)
        assert 0.8 <= value <= 5.2, "attributes are from 1, bad, to 5, good"
    assert len(found.description) > 10
    for each in (found.map, *found.maps.values()):
        assert each is None or (each.shape == x.shape[1:] and each.isfinite().all())
    assert metric.assess(x[None]).score == found.score
    with pytest.raises(ValueError, match="one picture"):
        metric.assess(torch.stack([x, x]))
