"""What leiq says of real pictures: darker, noisier, more tinted is worse, and it says why."""

import math

import numpy as np
import pytest
import torch

import lowlight_iqa
from lowlight_iqa.attributes import WORDS
from lowlight_iqa.functional.resize import SHORT_SIDE, reduce
from lowlight_iqa.metrics.leiq import TASKS, LeiqNetwork
from lowlight_iqa.training.degradations import RAMPS, Degradation, degrade, render

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture(scope="module")
def metric():
    return lowlight_iqa.create_metric("leiq")


@pytest.fixture(scope="module", params=("astronaut", "chelsea", "coffee"))
def photo(request):
    return lowlight_iqa.read_image(f"samples/{request.param}.jpg")


@pytest.mark.parametrize("name", SAMPLES)
def test_the_dark_sample_scores_below_its_bright_original(metric, name):
    assert metric(f"samples/{name}_dark.png") < metric(f"samples/{name}.jpg")


def test_score_and_light_fall_with_exposure(metric, photo):
    ladder = torch.stack([render(photo, Degradation(exposure=math.log2(step))) for step in (1, 0.5, 0.2, 0.1, 0.05)])
    score, attributes = metric.explain_batch(ladder)
    assert (score.diff() < 0).all()
    assert (attributes["light"].diff() < 0).all()


@pytest.mark.parametrize(
    ("ramp", "attribute"),
    [("under", "light"), ("over", "exposure"), ("noise", "noise"), ("warm", "color"), ("smooth", "content_recovery")],
)
def test_an_attribute_falls_with_its_own_degradation_and_the_score_too(metric, photo, ramp, attribute):
    worst = degrade(photo, RAMPS[ramp][-1], np.random.default_rng(0))[0]
    before, after = metric.assess(photo), metric.assess(worst)
    assert after.attributes[attribute] < before.attributes[attribute] - 0.5
    assert after.score < before.score


def test_a_noise_ramp_moves_noise_first(metric, photo):
    ramp = [photo] + [torch.from_numpy(degrade(photo, how, np.random.default_rng(0))[0]) for how in RAMPS["noise"]]
    results = [metric.assess(picture if i == 0 else picture.numpy()).attributes for i, picture in enumerate(ramp)]
    falls = {name: results[0][name] - results[-1][name] for name in TASKS[1:]}
    assert max(falls, key=falls.get) == "noise"


def test_assessment_holds_six_attributes_on_their_scale_and_a_sentence(metric):
    result = metric.assess("samples/chelsea_dark.png")
    assert tuple(result.attributes) == TASKS[1:]
    assert all(1 <= value <= 5 for value in result.attributes.values())
    assert result.description.startswith("The image has ")
    assert result.score == pytest.approx(metric("samples/chelsea_dark.png").item(), abs=1e-5)


@pytest.mark.parametrize(("value", "place"), [(1.0, 0), (2.3, 0), (2.4, 1), (3.6, 1), (3.7, 2), (5.0, 2)])
def test_words_follow_the_thirds_of_the_scale(metric, value, place):
    sentence = metric.describe(5.0, dict.fromkeys(TASKS[1:], value))
    assert all(words[place] in sentence for words in WORDS.values())


def test_large_pictures_are_reduced_and_small_ones_left_alone():
    assert reduce(torch.zeros(1, 3, 400, 600), SHORT_SIDE).shape == (1, 3, 400, 600)
    assert reduce(torch.zeros(1, 3, 1200, 1600), SHORT_SIDE).shape == (1, 3, 512, 683)
    assert reduce(torch.zeros(1, 3, 3000, 600), SHORT_SIDE).shape == (1, 3, 2560, 512)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 500), (1300, 700)])
def test_odd_sizes_are_scored(metric, size):
    assert torch.isfinite(metric(torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))))


def test_heads_are_two_linear_layers_each_on_the_pooled_stages():
    network = LeiqNetwork("lite0", 16)
    width = 2 * sum(network.trunk.widths)
    assert list(network.heads) == list(TASKS)
    for head in network.heads.values():
        assert [type(layer).__name__ for layer in head] == ["Linear", "Linear"]
        assert (head[0].in_features, head[1].out_features) == (width, 1)


def test_an_unknown_trunk_is_named():
    with pytest.raises(ValueError, match="'lite7'"):
        LeiqNetwork("lite7")


def test_the_card_says_in_its_first_line_what_the_weights_are_and_are_not(metric):
    assert "trained by this project" in metric.card.summary
    assert "not the authors' checkpoint" in metric.card.summary
    assert "research use" in metric.card.license
    assert not metric.card.commercial
    assert "BIQ2021" in metric.card.trained_on


def test_bundled_weights_are_small():
    from lowlight_iqa.weights.files import BUNDLED

    assert (BUNDLED / "leiq.safetensors").stat().st_size < 16e6


def test_noise_scores_below_a_photograph_at_a_tenth_of_its_exposure(metric):
    generator = torch.Generator().manual_seed(3)
    noise = [metric(torch.rand(1, 3, side, side, generator=generator)).item() for side in (128, 384)]
    for sample in ("astronaut", "coffee", "rocket"):
        dark = render(lowlight_iqa.read_image(f"samples/{sample}.jpg"), Degradation(exposure=-3.32))
        assert max(noise) < metric(dark[None]).item()
