"""Natural scene statistics: normalized luminance and generalized Gaussian fits, with exact gradients.

Mittal, Moorthy, Bovik, "No-reference image quality assessment in the spatial domain", IEEE TIP 2012 (BRISQUE);
Mittal, Soundararajan, Bovik, "Making a completely blind image quality analyzer", IEEE SPL 2013 (NIQE);
Lasmar, Stitou, Berthoumieu, "Multiscale skewed heavy-tailed model for texture analysis", ICIP 2009 (AGGD moments).

No library has these fits with a gradient: others look the shape parameter up in a table, here it is solved for and
differentiated. Everything is computed in float64 (float32 on devices without float64). Gray levels run from 0 to 255.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from .color import luma, working
from .exportable import exporting, lgamma
from .once import once_differentiable
from .rows import budget, in_rows

Padding = Literal["replicate", "zero"]

ALPHA_MIN, ALPHA_MAX = 0.2, 10.0  # the range of the official codes' table
LATTICE = 0.1  # largest distance, in 8-bit steps, of a sample from the step that it is taken to be stored at
MIN_POWER = 1e-30  # a patch with a smaller sum of squares counts as constant; float32 cannot hold smaller squares
FLAT = 1e-4  # a neighborhood with a smaller variance, in gray levels squared, counts as flat
RAMP_FLAT, RAMP = 1e-3, 0.02  # half width over which a value's sign changes: next to flat regions, in texture
RAMP_SLOPE = 3e-4  # growth of the half width between the two with the variance


def gray_levels(x: Tensor) -> Tensor:
    """Return gray levels from 0 to 255, on 8-bit pictures equal to MATLAB's ``rgb2gray`` of uint8, with a gradient.

    MATLAB rounds, and the scores of smooth pictures depend on it. So the rounding's offset is added where the three
    samples of a pixel are 8-bit values, and fades to zero at a distance of ``LATTICE`` steps from them: a continuously
    differentiable function, whose slope on an 8-bit picture is that of the unrounded luminance.

    Args:
        x: (N, 3, H, W), RGB in [0, 1].

    Returns:
        (N, H, W), float64 if the device has it.

    Example:
        >>> x = torch.tensor([100.0, 150.0, 200.0]).view(1, 3, 1, 1) / 255
        >>> gray_levels(x)  # 140.7518, rounded
        tensor([[[141.]]], dtype=torch.float64)
    """
    return in_rows(_gray_levels, x)[0]


def _gray_levels(x: Tensor) -> tuple[Tensor]:
    level = x * 255
    stored = level.detach().round()
    away = level - stored
    near = (1 - away.square().sum(1) / LATTICE**2).clamp_min(0)
    near = near * near * (3 - 2 * near)
    exact = luma(working(stored))
    return (exact + luma(away) + (torch.floor(exact + 0.5) - exact) * near,)


def _gaussian() -> tuple[float, ...]:
    """Return ``fspecial('gaussian', 7, 7/6)`` along one side; the two-dimensional window is its outer product."""
    x = torch.arange(-3, 4, dtype=torch.float64)
    weights = torch.exp(-x * x / (2 * (7 / 6) ** 2))
    return tuple((weights / weights.sum()).tolist())


WINDOW = _gaussian()


def _correlate(padded: Tensor, dim: int) -> Tensor:
    """Correlate (N, H, W) with ``WINDOW`` along one side, valid part only: the side becomes 6 shorter."""
    size = padded.shape[dim] - 6
    out = padded.narrow(dim, 3, size) * WINDOW[3]
    for k in range(3):
        out.add_(padded.narrow(dim, k, size) + padded.narrow(dim, 6 - k, size), alpha=WINDOW[k])
    return out


def pad(x: Tensor, padding: Padding) -> Tensor:
    """Pad (N, H, W) by 3 on every side, as the window needs."""
    if padding == "replicate":
        return torch.nn.functional.pad(x[:, None], (3, 3, 3, 3), mode="replicate")[:, 0]
    return torch.nn.functional.pad(x, (3, 3, 3, 3))


class _Filter(torch.autograd.Function):
    """The window's mean of (N, H + 6, W + 6), valid part; the backward pass applies the same filter."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor) -> Tensor:
        return _correlate(_correlate(padded, 1), 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _correlate(_correlate(torch.nn.functional.pad(grad, (6, 6, 6, 6)), 1), 2)


def local_mean(padded: Tensor) -> Tensor:
    """Return the window's local mean (N, H, W) of (N, H + 6, W + 6)."""
    if torch.compiler.is_compiling():
        return _correlate(_correlate(padded, 1), 2)
    return _Filter.apply(padded)  # type: ignore[no-any-return,no-untyped-call]


def normalize(gray: Tensor, padding: Padding, dtype: torch.dtype | None = None) -> Tensor:
    """Return mean-subtracted, contrast-normalized luminance (TIP 2012, eq. 1 to 3).

    Args:
        gray: (N, H, W) from 0 to 255.
        padding: of the border: NIQE replicates, BRISQUE takes zeros.
        dtype: of the result, by default that of the input. The filters need float64, since differences of squares
            decide what is flat; their output can be stored in float32 without changing the fits' first digits.

    Returns:
        Four maps (4, N, H, W): the values (gray - mean) / (deviation + 1); their sign in [-1, 1]; their presence in
        [0, 1], which is 0 where the official code has an exact zero; the local standard deviation in gray levels.
    """
    return normalize_padded(pad(gray, padding), dtype or gray.dtype)


def normalize_padded(padded: Tensor, dtype: torch.dtype) -> Tensor:
    """``normalize`` of what is padded already, (N, H + 6, W + 6)."""
    return in_rows(partial(_normalize, dtype=dtype), padded, 6)


def _normalize(padded: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    gray, mean = padded[:, 3:-3, 3:-3], local_mean(padded)
    variance = (local_mean(padded * padded) - mean * mean).clamp_min(0)
    deviation = (variance + 1e-10).sqrt()  # 1e-10 keeps the root's slope finite on flat regions
    values = ((gray - mean) / (deviation + 1)).to(dtype)

    # The sign changes smoothly over a narrow ramp, so that it has a gradient.
    variance = variance.to(dtype)
    width = RAMP_FLAT + RAMP_SLOPE * variance / (1 + RAMP_SLOPE / RAMP * variance)
    ramp = (values / width).clamp(-1, 1)
    sign, presence = ramp * (3 - ramp * ramp) / 2, torch.ones_like(values)

    # Without flat regions this changes nothing. A compiled graph cannot branch on values, and on a GPU the check would
    # wait for the device.
    if torch.compiler.is_compiling() or variance.is_cuda or variance.min() < FLAT:
        flat = (variance / FLAT).clamp(0, 1)
        flat = 1 - flat * flat * (3 - 2 * flat)
        side = _flat_side(gray).to(dtype)
        sign, presence = sign + flat * (side - sign), 1 + flat * (side.abs() - 1)
    return values, sign, presence, deviation.to(dtype)


def _flat_side(gray: Tensor) -> Tensor:
    """Return ``flat_side`` of gray levels; 0 between the 8-bit levels, for which the official codes are not defined."""
    level = gray.detach().round().clamp(0, 255)
    away = (2 / LATTICE * (gray - level).abs() - 1).clamp(0, 1)
    return flat_side().to(gray)[level.long()] * (1 - away * away * (3 - 2 * away))


def tiles(x: Tensor, size: int) -> Tensor:
    """Split (..., N, H, W) into squares of ``size`` pixels, row by row: (..., N * H * W / size**2, size, size)."""
    x = rearrange(x, "... n (h a) (w b) -> ... n h w a b", a=size, b=size)
    return x.contiguous().flatten(-5, -3)  # torch.export cannot tell for all sizes whether this could be a view


# The official window, split in two by MATLAB's singular value decomposition: the exact factors plus these many
# units in the last place. See docs/handcrafted.md for how they were found and what rests on them.
_COLUMN_ULPS, _ROW_ULPS = (-1, 3, -2, 1, 0, -1, 0), (0, 1, -2, -2, 2, -3, 2)


def flat_side() -> Tensor:
    """Return the sign (256,) of the official codes' ``gray - mean`` on a flat region of each gray level: -1, 0 or 1.

    It is not zero but the rounding residue of the official filter, and its sign decides how many values the left and
    the right deviation are averaged over. The residue is that of two passes of seven products, added in order in double
    precision.
    """
    return torch.tensor(_SIDES, dtype=torch.float64)


# Square roots of the diagonal of fspecial('gaussian', 7, 7/6), from the center out.
_SPLIT = tuple(
    float.fromhex(h)
    for h in (
        "0x1.5edacbc602378p-2",
        "0x1.e5fb7c557fad1p-3",
        "0x1.42e11ca517a61p-4",
        "0x1.9b92991f24880p-7",
    )
)


def _residue_signs() -> list[int]:
    def factor(ulps: tuple[int, ...]) -> list[float]:
        exact = [_SPLIT[abs(k - 3)] for k in range(7)]
        return [value + n * math.ulp(value) for value, n in zip(exact, ulps, strict=True)]

    column, row = factor(_COLUMN_ULPS), factor(_ROW_ULPS)

    def residue(level: float) -> float:
        inner = outer = 0.0
        for weight in column:
            inner += weight * level
        for weight in row:
            outer += weight * inner
        return level - outer

    residues = [residue(float(level)) for level in range(256)]
    return [(r > 0) - (r < 0) for r in residues]


_SIDES = _residue_signs()


def _log_ratio(alpha: Tensor) -> Tensor:
    return lgamma(2 / alpha) * 2 - lgamma(1 / alpha) - lgamma(3 / alpha)


def _log_ratio_slope(alpha: Tensor) -> Tensor:
    """Derivative of log r: [psi(1/a) + 3 psi(3/a) - 4 psi(2/a)] / a^2."""
    return (torch.digamma(1 / alpha) + 3 * torch.digamma(3 / alpha) - 4 * torch.digamma(2 / alpha)) / alpha**2


@lru_cache(maxsize=8)
def _cached_grid(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return _grid(device, dtype)


def _grid(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    alpha = torch.linspace(ALPHA_MIN, ALPHA_MAX, 981, dtype=dtype, device=device)
    return alpha, _log_ratio(alpha)


def _solve(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shape alpha at which r(alpha) = ratio, and d alpha / d ratio = 1 / r'(alpha)."""
    table = _grid if torch.compiler.is_compiling() else _cached_grid
    grid, log_ratio = table(ratio.device, ratio.dtype)
    target = ratio.clamp_min(1e-300 if ratio.dtype == torch.float64 else 1e-30).log()
    above = torch.searchsorted(log_ratio, target).clamp(1, len(grid) - 1)
    low, high = grid[above - 1], grid[above]

    alpha = (low + high) / 2
    for _ in range(5):  # Newton's method inside the grid cell of 0.01 converges quadratically
        step = (_log_ratio(alpha) - target) / _log_ratio_slope(alpha)
        alpha = torch.minimum(torch.maximum(alpha - step, low), high)

    inside = (target > log_ratio[0]) & (target < log_ratio[-1])
    slope = torch.where(inside, _log_ratio_slope(alpha) * ratio, torch.ones_like(alpha))
    return alpha, torch.where(inside, 1 / slope, torch.zeros_like(alpha))


def _solve_by_chords(ratio: Tensor) -> Tensor:
    """Return the first result of ``_solve``, within 1e-9, by operations that ONNX has."""
    grid, log_ratio = _grid(ratio.device, ratio.dtype)
    target = ratio.clamp_min(1e-300).log()
    above = (log_ratio < target[..., None]).sum(-1).clamp(1, len(grid) - 1)
    low, high, start = grid[above - 1], grid[above], log_ratio[above - 1]
    slope = (log_ratio[above] - start) / (high - low)

    alpha = low + (target - start) / slope
    for _ in range(4):
        alpha = torch.minimum(torch.maximum(alpha, low), high)
        alpha = alpha + (target - _log_ratio(alpha)) / slope
    return torch.minimum(torch.maximum(alpha, low), high)


class _Shape(torch.autograd.Function):
    """``_solve``, differentiated by the implicit function theorem."""

    @staticmethod
    def forward(ctx: Any, ratio: Tensor) -> Tensor:
        alpha, derivative = _solve(ratio)
        ctx.save_for_backward(derivative)
        return alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (derivative,) = ctx.saved_tensors
        return grad * derivative  # type: ignore[no-any-return]


def solve_shape(ratio: Tensor) -> Tensor:
    """Solve Gamma(2/alpha)^2 / (Gamma(1/alpha) Gamma(3/alpha)) = ``ratio`` for alpha, to full precision.

    Args:
        ratio: E|x|^2 / E[x^2] of the generalized Gaussian, a tensor of any shape.

    Returns:
        alpha, limited to [0.2, 10] as in the official codes' table; beyond the limits its gradient is zero.
        The gradient is exact; there is no second derivative.

    Example:
        >>> round(solve_shape(torch.tensor(2 / math.pi, dtype=torch.float64)).item(), 6)  # a Gaussian
        2.0
        >>> round(solve_shape(torch.tensor(0.5, dtype=torch.float64)).item(), 6)  # a Laplacian
        1.0
    """
    if exporting():
        return _solve_by_chords(ratio)
    if torch.compiler.is_compiling():
        fixed = ratio.detach()
        alpha, derivative = _solve(fixed)
        return alpha + (ratio - fixed) * derivative
    return _Shape.apply(ratio)  # type: ignore[no-any-return,no-untyped-call]


class Moments(NamedTuple):
    """Sums over the pixels of a patch, to which an asymmetric generalized Gaussian is fitted."""

    absolute: Tensor  # sum of |x|
    left: Tensor  # sum of x^2 over x < 0
    right: Tensor  # sum of x^2 over x > 0
    count_left: Tensor
    count_right: Tensor
    pixels: int


class Fit(NamedTuple):
    """An asymmetric generalized Gaussian."""

    alpha: Tensor
    left: Tensor  # deviation of the values below zero; 0 where there are none
    right: Tensor
    has_left: Tensor  # bool: whether the official code has any value below zero
    has_right: Tensor


def moments(maps: Tensor, shifts: Sequence[tuple[int, int]]) -> tuple[Moments, Moments]:
    """Return the moments of the normalized luminance and of the products of neighbors in each patch.

    Args:
        maps: (4, T, h, w) of T patches, from ``normalize``.
        shifts: S offsets (down, right) of the neighbor; patches wrap around at the border as in MATLAB's ``circshift``.

    Returns:
        Those of the values themselves, tensors (T,), and those of the products, tensors (S, T).
    """
    if torch.compiler.is_compiling():
        rows = torch.cat([maps[:3, :, -1:], maps[:3], maps[:3, :, :1]], 2)
        found = working(sums(rows, shifts))
    else:
        found = _Sums.apply(maps, tuple(shifts))  # type: ignore[no-untyped-call]
    pixels = maps.shape[2] * maps.shape[3]
    return to_moments(found[0], pixels), to_moments(found[1:], pixels)


def to_moments(sums: Tensor, pixels: int) -> Moments:
    """The moments of sums (..., 5, T) as ``sums`` takes them."""
    absolute, square, skew, signs, present = sums.unbind(-2)
    return Moments(
        absolute, (square - skew) / 2, (square + skew) / 2, (present - signs) / 2, (present + signs) / 2, pixels
    )


class _Sums(torch.autograd.Function):
    """Five sums (S + 1, 5, T) over each of T patches (4, T, h, w), of the values and their products with S neighbors.

    They are computed in parts as in ``in_rows``: rows of large patches, or many small ones.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, shifts: tuple[tuple[int, int], ...]) -> Tensor:
        ctx.shifts = shifts
        ctx.save_for_backward(maps)
        total = working(maps.new_zeros(len(shifts) + 1, 5, maps.shape[1]))
        for some, rows in _Sums.parts(maps):
            total[:, :, some] += working(sums(maps[:3, some].index_select(2, rows), shifts))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (maps,) = ctx.saved_tensors
        total = torch.zeros_like(maps)
        for some, rows in _Sums.parts(maps):
            with torch.enable_grad():
                part = maps[:3, some].index_select(2, rows).requires_grad_()
                (slope,) = torch.autograd.grad(sums(part, ctx.shifts), part, grad[:, :, some].to(part.dtype))
            total[:3, some].index_add_(2, rows, slope)
        return total, None

    @staticmethod
    def parts(maps: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of patches and row indices, with one row more at either end; a GPU takes all at once."""
        _, count, height, width = maps.shape
        patches = max(1, budget(maps) // (height * width))
        step = max(8, budget(maps) // (min(count, patches) * width))
        for first in range(0, count, patches):
            for top in range(0, height, step):
                rows = torch.arange(top - 1, min(height, top + step) + 1, device=maps.device) % height
                yield slice(first, first + patches), rows


def sums(maps: Tensor, shifts: Sequence[tuple[int, int]]) -> Tensor:
    """Return the five sums (S + 1, 5, T) of (3, T, h + 2, w), whose outer rows serve as neighbors only."""
    maps = torch.cat([maps[..., -1:], maps, maps[..., :1]], -1)  # (3, T, h + 2, w + 2)
    height, width = maps.shape[2] - 2, maps.shape[3] - 2
    center = maps[..., 1:-1, 1:-1]

    found = []
    for shift in (None, *shifts):
        x = center
        if shift is not None:
            top, left = 1 - shift[0], 1 - shift[1]
            x = center * maps[..., top : top + height, left : left + width]
        absolute = x[0].abs()
        terms = absolute, x[0] * x[0], x[0] * absolute, x[1], x[2]
        found.append(torch.stack([term.sum((1, 2)) for term in terms]))
    return torch.stack(found)


def fit_aggd(m: Moments) -> Fit:
    """Fit an asymmetric generalized Gaussian by moments (Lasmar et al. 2009, as in estimateaggdparam.m)."""
    has_left, has_right = m.count_left > 0.5, m.count_right > 0.5
    left = _root(m.left / m.count_left.clamp_min(0.5))
    right = _root(m.right / m.count_right.clamp_min(0.5))
    both = has_left & has_right & (left > 0) & (right > 0)
    one = torch.ones_like(left)
    balance = torch.where(both, left, one) / torch.where(both, right, one)
    power = torch.where(both, m.left + m.right, one) / m.pixels
    ratio = (torch.where(both, m.absolute, one) / m.pixels) ** 2 / power
    ratio = ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    # Where one side has no values, MATLAB's min() over NaN returns the first entry of the table.
    alpha = torch.where(both, solve_shape(ratio), one * ALPHA_MIN)
    return Fit(alpha, left, right, has_left, has_right)


def _root(x: Tensor) -> Tensor:
    """Return the square root, with a gradient of zero instead of infinity at zero."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, torch.ones_like(x)).sqrt(), torch.zeros_like(x))


def fit_ggd(m: Moments) -> tuple[Tensor, Tensor]:
    """Return shape and variance of the symmetric generalized Gaussian (estimateggdparam.m)."""
    power = m.left + m.right
    varied = power > MIN_POWER
    one = torch.ones_like(power)
    ratio = torch.where(varied, m.absolute, one) ** 2 / torch.where(varied, power, one) / m.pixels
    return torch.where(varied, solve_shape(ratio), one * ALPHA_MIN), power / m.pixels


def gamma_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return Gamma(numerator) / Gamma(denominator) of positive arguments.

    Example:
        >>> round(gamma_ratio(torch.tensor(5.0), torch.tensor(3.0)).item(), 4)
        12.0
    """
    return torch.exp(lgamma(numerator) - lgamma(denominator))
