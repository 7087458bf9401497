"""IACA: the authors' numbers on stand-in weights, gradients where a picture is flat, what the switches switch."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import GOLDEN, PICTURES, ROOT
from support.standin import fill

from lowlight_iqa import create_metric, read_image
from lowlight_iqa.metrics import iaca
from lowlight_iqa.metrics import iaca_authors as iaca_resnext101
from lowlight_iqa.metrics.iaca import Iaca, IacaNetwork, deviation
from lowlight_iqa.metrics.iaca_authors import IacaResNeXt101
from lowlight_iqa.registry import get_card
from lowlight_iqa.training.iaca import iaca_loss, rotated
from lowlight_iqa.training.losses import norm_in_norm, plcc_loss

SHARED = Path(os.environ.get("LOWLIGHT_IQA_SHARED", ROOT.parent / "shared")) / "data"
AUTHORS = json.loads((GOLDEN / "iaca.json").read_text())
PLACES = {"b_11_A.png": SHARED / "mle", "low00009_MR_0.png": SHARED / "square_lol"}
PLACES["low00011_RetinexNet_0.png"] = PLACES["low00009_MR_0.png"]
DOUBLE = torch.float64


@pytest.fixture(scope="module")
def tensors():
    return {key: torch.from_numpy(value) for key, value in fill(AUTHORS["shapes"]).items()}


@pytest.fixture(scope="module")
def exact(tensors):
    """The authors' network on stand-in weights."""
    return IacaResNeXt101.from_tensors(get_card("iaca-resnext101"), tensors)


@pytest.fixture(scope="module")
def compact():
    """The compact network on weights of no meaning."""
    torch.manual_seed(0)
    network = IacaNetwork("lite0")
    for parameter in network.trunk.parameters():
        parameter.data.mul_(1.3)  # random batch norms fade from stage to stage
    return Iaca(get_card("iaca"), network, (0.9, 0.1, 0.0, 0.5))


@pytest.fixture(scope="module", params=["exact", "compact"])
def metric(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def wide(metric):
    """The same in float64."""
    if isinstance(metric, Iaca):
        return Iaca(metric.card, copy.deepcopy(metric.network).double(), metric.mapping)
    return IacaResNeXt101.from_tensors(metric.card, metric.state_dict()).double()


def photo():
    return read_image(PICTURES / "chelsea.png")[:, 60:124, 100:164].contiguous()


def flat_pictures():
    """Half black, half white, black, constant, nearly constant: (5, 3, 64, 64)."""
    x = photo()
    left = torch.arange(64) < 32
    return torch.stack(
        [x.where(~left, torch.zeros(())), x.where(~left, torch.ones(())), 0 * x, 0 * x + 0.3, 0.3 + 1e-6 * x]
    )


@pytest.mark.parametrize("name", AUTHORS["expected"])
def test_the_authors_numbers_on_whole_pictures(exact, name):
    path = next(PLACES[name].rglob(name), None) if name in PLACES else PICTURES / name
    if path is None:
        pytest.skip(f"{name} is not under {PLACES[name]}; set LOWLIGHT_IQA_SHARED")
    with torch.inference_mode():
        found = exact.outputs(read_image(path)[None])[0]
    expected = AUTHORS["expected"][name]
    assert found.tolist() == pytest.approx([expected["q6"], expected["q7"], expected["q"]], abs=1e-5)
    assert exact.slope * found[2].item() + exact.intercept == pytest.approx(expected["score"], abs=1e-6)


def test_keys_are_the_authors_and_nothing_else_is_taken(exact, tensors):
    assert exact.state_dict().keys() == AUTHORS["shapes"].keys()
    card = exact.card
    for wrong, word in (
        ({**tensors, "getw7.0.bias": torch.zeros(64)}, r"unexpected getw7\.0\.bias"),
        ({key: value for key, value in tensors.items() if key != "att6.2.bias"}, r"missing att6\.2\.bias"),
        ({**tensors, "getw5.0.weight": tensors["getw5.2.weight"]}, r"getw5\.0\.weight is \(1, 64, 3, 3\)"),
    ):
        with pytest.raises(ValueError, match=word):
            IacaResNeXt101.from_tensors(card, wrong)


def test_the_affine_map_is_saved_with_the_weights(tensors, tmp_path):
    made = IacaResNeXt101.from_tensors(get_card("iaca-resnext101"), tensors, slope=0.5, intercept=0.25)
    again = create_metric("iaca-resnext101", weights=made.save_pretrained(tmp_path))
    assert (again.slope, again.intercept) == (0.5, 0.25)
    x = photo()
    assert torch.equal(again(x), 0.5 * made.outputs(x[None])[:, 2] + 0.25)
    assert load_file(tmp_path / "model.safetensors").keys() == AUTHORS["shapes"].keys()


def test_the_gradient_on_flat_pictures_is_finite_and_not_made_of_rounding(metric, wide):
    x = flat_pictures().requires_grad_()
    (found,) = torch.autograd.grad(metric(x).sum(), x)
    (true,) = torch.autograd.grad(wide(x.double()).sum(), x)
    assert found.isfinite().all()
    assert ((found - true).flatten(1).norm(dim=1) < 0.2 * true.flatten(1).norm(dim=1)).all()


def test_the_finite_slope_leaves_scores_where_they_were(wide, monkeypatch):
    def plain(x):  # as the authors write it
        return (x.square().mean((2, 3)) - x.mean((2, 3)).square()).relu().sqrt()

    x = torch.cat([flat_pictures(), photo()[None]]).double()
    scores = wide(x)
    for module in (iaca, iaca_resnext101):
        monkeypatch.setattr(module, "deviation", plain)
    torch.testing.assert_close(wide(x), scores, rtol=0, atol=1e-5)


def test_the_gradient_equals_central_differences(wide):
    draw = torch.Generator().manual_seed(1)
    x = 0.1 + 0.8 * photo().double()[None]
    x = (x + 0.02 * torch.rand(x.shape, generator=draw, dtype=DOUBLE)).requires_grad_()
    (found,) = torch.autograd.grad(wide(x).sum(), x)
    assert found.count_nonzero() > 0
    for direction in (torch.randn(x.shape, generator=draw, dtype=DOUBLE), found / found.abs().max()):
        with torch.no_grad():
            central = [(wide(x + h * direction) - wide(x - h * direction)) / (2 * h) for h in (1e-6, 1e-8)]
        expected = (found * direction).sum().item()  # one of the steps meets neither a kink nor rounding
        assert min(abs(value.item() / expected - 1) for value in central) < 1e-3


@pytest.mark.parametrize("size", [0, 1e-6, 1e-4, 1.0])
def test_the_slope_of_the_deviation_is_finite_and_true_where_a_map_is_nearly_flat(size):
    """The mean of squares less the square of the mean loses it to rounding; the root alone is NaN where it is flat."""
    noise = torch.randn(1, 64, 7, 7, generator=torch.Generator().manual_seed(0))
    x = (0.3 + size * noise).requires_grad_()
    (found,) = torch.autograd.grad(deviation(x).sum(), x)
    (true,) = torch.autograd.grad(deviation(x.double()).sum(), x)
    assert found.isfinite().all()
    assert (found - true).norm() < 0.05 * true.norm() + 1e-6
    assert found.abs().max() < 1.1 / 7  # of 49 places one moves it by at most 1 / sqrt(49)


def test_deviation_is_that_of_the_population():
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    torch.testing.assert_close(deviation(x), x.flatten(2).std(2, correction=0), rtol=0, atol=1e-6)
    assert deviation(torch.full((1, 4, 3, 3), 0.7)).max() < 1e-7
    assert (deviation(torch.rand(1, 4, 1, 1)) == 0).all()


# The compact network


def test_widths_come_from_the_trunk_and_each_tap_has_an_output():
    network = IacaNetwork("lite2", taps=(2, 4, 6))
    assert [tap.reduce[0].in_features for tap in network.taps.values()] == [48, 120, 352]
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 4)


def test_the_switches_remove_their_parts():
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for illumination in (True, False):
        for gating in (True, False):
            network = IacaNetwork("lite0", illumination=illumination, gating=gating)
            keys = network.state_dict()
            assert any(".weigh." in key for key in keys) == illumination
            assert any(".gate." in key for key in keys) == gating
            stage = network.trunk(x)[6]
            dim, lit = (network.taps["6"](stage, torch.full((1, 1, 64, 64), level))[1] for level in (0.1, 0.9))
            assert torch.equal(dim, lit) != illumination


def test_illumination_weighs_nothing_at_the_start():
    """A weight of 0 everywhere could not be unlearned."""
    torch.manual_seed(0)
    tap = IacaNetwork("lite0").taps["4"]
    weight = tap.weigh(torch.rand(1, 1, 16, 16))
    assert (weight - 1).abs().max() < 0.5


def test_large_pictures_are_reduced(compact):
    x = torch.rand(1, 3, 600, 640, generator=torch.Generator().manual_seed(0))
    assert torch.equal(compact(x), compact(iaca.reduce(x, 512)))


def test_unusable_taps_are_named():
    for taps in ((), (4, 7)):
        with pytest.raises(ValueError, match="stages of the trunk, 0 to 6"):
            IacaNetwork("lite0", taps)


# The loss


@pytest.mark.parametrize("count", AUTHORS["losses"])
def test_the_authors_losses(count):
    golden = AUTHORS["losses"][count]
    outputs = torch.tensor(golden["predictions"], dtype=DOUBLE).T  # q6, q7, q
    mos = torch.tensor(golden["mos"], dtype=DOUBLE)
    assert iaca_loss(outputs, mos).item() == pytest.approx(golden["norm_in_norm_total"], abs=1e-6)
    linearity = sum(weight * plcc_loss(outputs[:, k], mos) for k, weight in enumerate((0.1, 0.1, 1)))
    assert linearity.item() == pytest.approx(golden["linearity_total_alpha_1_1"], abs=1e-6)


def test_norm_in_norm_is_blind_to_scale_and_offset_and_stays_below_one():
    target = torch.linspace(0, 1, 8, dtype=DOUBLE)
    assert norm_in_norm(3 * target - 7, target).item() == pytest.approx(0, abs=1e-6)
    for seed in range(20):
        other = torch.randn(8, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
        assert 0 < norm_in_norm(other, target).item() <= 1
    extremes = torch.tensor([1.0, -1.0], dtype=DOUBLE)
    assert norm_in_norm(-extremes, extremes).item() == pytest.approx(1, abs=1e-6)


def test_norm_in_norm_of_one_or_of_equal_predictions_is_finite():
    assert norm_in_norm(torch.ones(1), torch.ones(1)).item() == 0
    equal = torch.full((8,), 0.3, requires_grad=True)
    norm_in_norm(equal, torch.rand(8)).backward()
    assert equal.grad.isfinite().all()
    with pytest.raises(ValueError, match="two vectors of one length"):
        norm_in_norm(torch.rand(3), torch.rand(4))


def test_the_gradient_of_norm_in_norm_is_true():
    draw = torch.Generator().manual_seed(0)
    prediction, target = (torch.randn(6, generator=draw, dtype=DOUBLE) for _ in range(2))
    assert torch.autograd.gradcheck(lambda p: norm_in_norm(p, target), prediction.requires_grad_())


def test_a_rotated_picture_has_black_corners():
    white = (photo() * 0 + 255).byte().permute(1, 2, 0).numpy()
    assert rotated(white, 0.0) is white
    turned = rotated(white, 2.0)
    assert turned.shape == white.shape
    assert turned[0, 0].max() == 0 or turned[0, -1].max() == 0
    assert turned[32, 32].min() == 255
