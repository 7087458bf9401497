"""The compact trunk computes what timm's does."""

import pytest
import torch
from torch import nn

from lowlight_iqa import backbones


@pytest.mark.parametrize("size", [(64, 96), (67, 95), (32, 33)])
def test_the_folded_trunk_equals_timms(size):
    torch.manual_seed(0)
    net = backbones.import_timm().create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
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
        trunk = backbones.CompactTrunk("lite0")
        trunk.load_state_dict(source.state_dict())
        assert torch.allclose(trunk(x)[-1], wanted, atol=1e-4)
        assert torch.allclose(trunk(x, half=True)[-1].float(), wanted, atol=0.05 * wanted.abs().max().item())
