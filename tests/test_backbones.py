"""The compact trunk computes what timm's does."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from lowlight_iqa import backbones


@pytest.mark.parametrize("name", backbones.COMPACT)
@pytest.mark.parametrize("size", [(64, 96), (67, 95), (32, 33)])
def test_the_folded_trunk_equals_timms(size, name):
    torch.manual_seed(0)
    net = backbones.import_timm().create_model(f"tf_efficientnet_{name}", pretrained=False, num_classes=0).eval()
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):  # an untrained one does nothing
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        wanted = net.blocks(net.bn1(net.conv_stem(x * 2 - 1)))
        source = nn.Module()
        source.stem, source.stages = nn.Sequential(net.conv_stem, net.bn1), net.blocks
        backbones._fold_batch_norms(source)
        trunk = backbones.CompactTrunk(name)
        trunk.load_state_dict(source.state_dict())
        assert torch.allclose(trunk(x)[-1], wanted, atol=1e-5 * wanted.abs().max().item())
        if name != "lite0":
            return  # deeper ones gather more of bfloat16's rounding
        for options in ({"half": True}, {"frozen": 3}, {"frozen": 7}):
            found = trunk(x, **options)[-1].float()
            assert torch.allclose(found, wanted, atol=0.05 * wanted.abs().max().item())


def drawn(name="lite0"):
    """A trunk whose maps are neither all zero nor all cut at 6."""
    torch.manual_seed(0)
    trunk = backbones.CompactTrunk(name)
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5)
    return trunk


@pytest.mark.parametrize("size", [(64, 64), (67, 95), (160, 33), (33, 160)])
def test_strips_of_any_height_give_the_maps(size, monkeypatch):
    trunk = drawn()
    x = torch.rand(2, 3, *size)
    plain = trunk(x)  # its weights require a gradient
    assert plain[-1].requires_grad
    with torch.inference_mode():
        for strip in (1, 2**14, 2**40):
            monkeypatch.setattr(backbones, "STRIP", strip)
            together, single = trunk(x), trunk(x[1:])
            for a, b, c in zip(plain, together, single, strict=True):
                assert b.shape == a.shape
                assert b.is_contiguous(memory_format=torch.channels_last)
                assert torch.allclose(b, a, atol=1e-5 * a.abs().max().item())
                assert torch.equal(b[1:], c)  # however many pictures are scored together


def test_what_wants_more_than_the_maps_goes_the_plain_way():
    trunk = drawn().requires_grad_(False)
    x = torch.rand(1, 3, 48, 48)
    assert trunk._maps_suffice(x)
    assert not trunk._maps_suffice(x.double())
    assert not trunk._maps_suffice(x.clone().requires_grad_())
    assert not trunk.requires_grad_(True)._maps_suffice(x)
    trunk.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert not trunk._maps_suffice(x)

    _, slope = torch.func.jvp(lambda x: trunk(x)[-1], (x,), (torch.ones_like(x),))
    assert slope.abs().sum() > 0
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(trunk(dual)[-1]).tangent
    assert torch.allclose(tangent, slope, rtol=1e-4, atol=1e-4)


def test_a_bundled_metric_scores_without_timm():
    code = (
        "import sys, torch, lowlight_iqa; lowlight_iqa.create_metric('leiq')(torch.rand(1, 3, 64, 64)); "
        "print([name for name in ('timm', 'torchvision', 'scipy', 'torch._dynamo') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_frozen_stages_get_no_gradient():
    trunk = backbones.CompactTrunk("lite0")
    for half in (False, True):
        maps = trunk(torch.rand(1, 3, 64, 64), frozen=3, half=half)
        assert [stage.requires_grad for stage in maps] == [False] * 3 + [True] * 4
        trunk.zero_grad()
        maps[-1].float().sum().backward()
        assert trunk.stem[0].weight.grad is None
        assert trunk.stages[3][0].conv_pw.weight.grad is not None
