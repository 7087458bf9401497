"""The degradation model of low light and enhancement, and the six attribute targets that it determines.

A camera in the dark and an enhancer are simulated on a clean picture; each attribute's target measures how far the
result departs from the clean picture in that respect. docs/attributes.md gives the sources of formulas and constants.

Pictures are (3, H, W) sRGB in [0, 1], float32.
"""

import io
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..attributes import ATTRIBUTES

# The departure at which an attribute is 3, the middle of its scale of 1..5; about the median over random mixtures.
HALF = {"light": 0.15, "color": 0.12, "noise": 0.035, "exposure": 0.15, "nature": 0.40, "content_recovery": 0.35}


@dataclass(frozen=True)
class Degradation:
    """Parameters of camera and enhancer; the defaults do not change the picture."""

    exposure: float = 0.0  # stops, in linear light; clipped at white
    noise: float = 0.0  # 0 (none) to 1: shot variance 0.04 n^2 per unit of light, read deviation 0.02 n
    gain: float = 0.0  # stops restored by the enhancer, after the 8-bit capture
    gamma: float = 1.0  # exponent of the tone curve on code values; below 1 lifts the shadows
    halo: float = 0.0  # 0 to 1: share of the blurred log luminance that local tone mapping removes
    smooth: float = 0.0  # 0 to 1: edge-preserving over-smoothing by a guided filter
    saturation: float = 1.0  # 0 is gray
    cast: tuple[float, float] = (0.0, 0.0)  # stops on red and on blue
    jpeg: int = 0  # quality; 0: no compression


# One degradation at a time, worse from left to right, all from the clean picture.
RAMPS: dict[str, tuple[Degradation, ...]] = {
    "under": tuple(Degradation(exposure=e) for e in (-1.0, -2.32, -3.32, -4.32, -5.64)),
    "over": tuple(Degradation(exposure=e) for e in (0.6, 1.1, 1.7, 2.3, 3.0)),
    "noise": tuple(Degradation(noise=n) for n in (0.12, 0.25, 0.45, 0.7, 1.0)),
    "lift": tuple(Degradation(gamma=g) for g in (0.8, 0.63, 0.5, 0.4, 0.3)),
    "halo": tuple(Degradation(halo=h) for h in (0.25, 0.45, 0.65, 0.85, 1.0)),
    "smooth": tuple(Degradation(smooth=s) for s in (0.2, 0.4, 0.6, 0.8, 1.0)),
    "desaturate": tuple(Degradation(saturation=s) for s in (0.75, 0.5, 0.3, 0.15, 0.0)),
    "oversaturate": tuple(Degradation(saturation=s) for s in (1.4, 1.8, 2.3, 2.9, 3.6)),
    "warm": tuple(Degradation(cast=(c, -c)) for c in (0.2, 0.4, 0.65, 0.95, 1.3)),
    "cold": tuple(Degradation(cast=(-c, c)) for c in (0.2, 0.4, 0.65, 0.95, 1.3)),
    "green": tuple(Degradation(cast=(-c, -c)) for c in (0.2, 0.4, 0.65, 0.95, 1.3)),
    "jpeg": tuple(Degradation(jpeg=q) for q in (60, 35, 20, 12, 6)),
    # A dark capture at falling light, restored by the enhancer: noise grows, then color and detail are lost.
    "enhanced": tuple(
        Degradation(exposure=-e, gain=e * 0.9, noise=0.12 + 0.04 * e, saturation=1 - 0.05 * e)
        for e in (1.0, 2.0, 3.0, 4.0, 5.0)
    ),
}

# Down to almost black: without the last two steps, black pictures would score above dark ones.
LADDER = tuple(Degradation(exposure=stops) for stops in (0.0, -1.0, -2.32, -3.32, -4.32, -6.0, -8.5))
TENTH = 3  # index of a tenth of the exposure


def mixture(rng: np.random.Generator) -> Degradation:
    """Draw a random degradation of an enhanced low-light picture: every part of the model acts or not."""

    def sometimes(probability: float, value: float, otherwise: float = 0.0) -> float:
        return value if rng.random() < probability else otherwise

    dark = sometimes(0.65, rng.uniform(0.5, 5.5))
    restored = dark * sometimes(0.75, rng.uniform(0.3, 1.5))
    by_curve = rng.random() < 0.4  # the enhancer brightens by a curve rather than by a gain
    angle = rng.uniform(0, 2 * np.pi)
    strength = sometimes(0.65, 0.1 + abs(rng.normal(0, 0.6)))
    vividness = rng.uniform(0, 0.8) if rng.random() < 0.6 else rng.uniform(1.3, 3.2)
    return Degradation(
        exposure=-dark if dark else sometimes(0.85, rng.uniform(0.1, 2.8)),
        noise=rng.uniform(0.02, 0.85) ** 1.5,
        gain=0.0 if by_curve else restored,
        gamma=float(np.clip(2 ** (-restored / 2.2 * 0.6), 0.2, 1)) if by_curve else 1.0,
        halo=sometimes(0.45, rng.uniform(0.1, 1.0)),
        smooth=sometimes(0.45, rng.uniform(0.05, 1.0)),
        saturation=sometimes(0.65, vividness, 1.0),
        cast=(strength * float(np.cos(angle)), strength * float(np.sin(angle))),
        jpeg=int(sometimes(0.35, rng.uniform(8, 85))),
    )


def to_linear(srgb: Tensor) -> Tensor:
    """Convert sRGB code values to linear light (IEC 61966-2-1)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Tensor) -> Tensor:
    """Convert linear light to sRGB code values (IEC 61966-2-1)."""
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


_LUMINANCE = (0.2126, 0.7152, 0.0722)  # Rec. 709
_XYZ = ((0.4124, 0.3576, 0.1805), _LUMINANCE, (0.0193, 0.1192, 0.9505))
_WHITE = (0.9505, 1.0, 1.089)  # D65
_CODES = to_linear(torch.arange(256) / 255)  # linear light of the 8-bit codes


def luminance(linear: Tensor) -> Tensor:
    """Return the Rec. 709 luminance (1, H, W) of linear (3, H, W)."""
    weights = linear.new_tensor(_LUMINANCE).view(3, 1, 1)
    return (weights * linear).sum(0, keepdim=True)


def _cube_root(t: Tensor) -> Tensor:
    return torch.where(t > 0.008856, t.clamp_min(0.008856) ** (1 / 3), 7.787 * t + 16 / 116)


def lightness(linear: Tensor) -> Tensor:
    """Return the CIE lightness L*/100 (1, H, W) of linear sRGB (3, H, W)."""
    return 1.16 * _cube_root(luminance(linear)) - 0.16


def hues(linear: Tensor) -> Tensor:
    """Return CIELAB a*/100 and b*/100 (D65), (2, H, W), of linear sRGB (3, H, W)."""
    to_xyz = linear.new_tensor(_XYZ) / linear.new_tensor(_WHITE)[:, None]
    x, y, z = _cube_root(torch.tensordot(to_xyz, linear, 1))
    return torch.stack([5 * (x - y), 2 * (y - z)])


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur (C, H, W) by a Gaussian with mirrored borders; large sigmas work on a reduced grid."""
    step = max(1, int(sigma / 2))
    if step > 1:
        small = F.interpolate(x[None], scale_factor=1 / step, mode="area")[0]
        return F.interpolate(blur(small, sigma / step)[None], size=x.shape[1:], mode="bilinear")[0]
    radius = int(3 * sigma + 0.5)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=x.dtype) / sigma) ** 2)
    taps = (taps / taps.sum()).view(1, 1, 1, -1)
    x = F.conv2d(F.pad(x[:, None], (radius, radius, 0, 0), mode="reflect"), taps)
    return F.conv2d(F.pad(x, (0, 0, radius, radius), mode="reflect"), taps.mT)[:, 0]


def _guided(x: Tensor, radius: int, eps: float) -> Tensor:
    """Apply a guided filter to each channel, guided by itself (He, Sun and Tang, ECCV 2010)."""

    def box(y: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(y[None], (radius,) * 4, mode="reflect"), 2 * radius + 1, 1)[0]

    mean = box(x)
    variance = (box(x * x) - mean * mean).clamp_min(0)
    share = variance / (variance + eps)
    return box(share) * x + box(mean * (1 - share))


def recoded(picture: np.ndarray, quality: int) -> np.ndarray:
    """Save a picture (H, W, 3), bytes, as a JPEG and read it again."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def is_typical(picture: Tensor) -> bool:
    """Check that a picture has usual exposure and colors, so that a loss of either is visible in the result.

    Mean code value (Rec. 709) from 75 to 170, under 5 % of the pixels clipped, under a quarter of the regions darker
    than lightness 0.1, mean chroma above 0.07.
    """
    low = F.avg_pool2d(to_linear(picture), 8)
    return (
        75 < luminance(picture).mean().item() * 255 < 170
        and (picture.amax(0) > 0.98).float().mean().item() < 0.05
        and (lightness(low) < 0.1).float().mean().item() < 0.25
        and hues(low).norm(dim=0).mean().item() > 0.07
    )


def to_uint8(srgb: Tensor) -> np.ndarray:
    """Convert (3, H, W) in [0, 1] to (H, W, 3) bytes."""
    levels: np.ndarray = rearrange((srgb.clamp(0, 1) * 255 + 0.5).to(torch.uint8), "c h w -> h w c").numpy()
    return levels


def render(clean: Tensor, how: Degradation, normal: Tensor | None = None) -> Tensor:
    """Simulate camera and enhancer on a clean picture (3, H, W); ``normal``: standard normal numbers for the noise."""
    light = to_linear(clean) * 2**how.exposure
    if normal is not None and how.noise > 0:
        light = light + normal * (0.04 * how.noise**2 * light + (0.02 * how.noise) ** 2).sqrt()
    x = (to_srgb(light.clamp(0, 1)) * 255).round() / 255  # the 8-bit capture

    if how.gain > 0:
        x = to_srgb((to_linear(x) * 2**how.gain).clamp(0, 1))
    if how.gamma != 1:
        x = x**how.gamma
    if how.halo > 0:
        log = (x.amax(0, keepdim=True) + 0.02).log()
        base = blur(log, 0.05 * max(x.shape[1:]))
        x = (x * torch.exp(how.halo * (base.mean() - base))).clamp(0, 1)
    if how.smooth > 0:
        x = _guided(x, 4, (0.3 * how.smooth**1.5) ** 2)
    if how.saturation != 1:
        gray = luminance(x)
        x = (gray + how.saturation * (x - gray)).clamp(0, 1)
    if how.cast != (0.0, 0.0):
        red, blue = how.cast
        gains = 2 ** torch.tensor([red, -(red + blue) / 2, blue]).view(3, 1, 1)
        x = to_srgb((to_linear(x) * gains).clamp(0, 1))
    if how.jpeg > 0:
        x = rearrange(torch.from_numpy(recoded(to_uint8(x), how.jpeg)), "h w c -> c h w").float() / 255
    return (x * 255).round() / 255


def departures(clean: Tensor, result: Tensor, noiseless: Tensor) -> dict[str, float]:
    """Measure how far a result departs from its clean picture in each attribute; 0 is no departure.

    ``result`` and ``noiseless`` are ``render`` of the clean picture with and without noise; all are (3, H, W).
    """
    c, r, q = (_CODES[(x * 255 + 0.5).long()] for x in (clean, result, noiseless))
    c_low, r_low = (
        F.avg_pool2d(x, 8) for x in (c, r)
    )  # regions of 8x8, so that noise does not count as light or color
    lift = lightness(r_low) - lightness(c_low)
    clipped_r, clipped_c = ((x.amax(0) > 0.98).float().mean() for x in (result, clean))
    exposure = lift.clamp_min(0).mean() + (clipped_r - clipped_c).clamp_min(0)

    # Naturalness: differences of log luminance between neighboring regions; exposure does not change them.
    before, after = (_steps((luminance(x) + 0.01).log()) for x in (c_low, r_low))
    nature = (after - before).norm(dim=0).mean() / (before.norm(dim=0).mean() + 0.02)

    lost, detail = torch.zeros(()), torch.zeros(())
    for sigma in (0.7, 1.5):
        before, after = (_contrast(blur(lightness(x), sigma)) for x in (c, q))
        lost += (before - after).clamp_min(0).sum()
        detail += before.sum()

    return {
        "light": (-lift).clamp_min(0).mean().item(),
        "color": (hues(r_low) - hues(c_low)).norm(dim=0).mean().item(),
        "noise": (result - noiseless).square().mean().sqrt().item(),
        "exposure": exposure.item(),
        "nature": nature.item(),
        "content_recovery": (lost / (detail + 1e-3 * clean[0].numel())).item(),
    }


def _steps(x: Tensor) -> Tensor:
    """Return the differences (2, H-1, W-1) of (1, H, W) from the pixel above and the pixel to the left."""
    center = x[0, 1:, 1:]
    return torch.stack([center - x[0, :-1, 1:], center - x[0, 1:, :-1]])


def _contrast(x: Tensor) -> Tensor:
    """Return the gradient magnitude of (1, H, W)."""
    across = x[:, 1:-1, 2:] - x[:, 1:-1, :-2]
    down = x[:, 2:, 1:-1] - x[:, :-2, 1:-1]
    return (across**2 + down**2).sqrt()


def to_scale(name: str, departure: float) -> float:
    """Map a departure to the attribute's scale: 5 for none, 3 at ``HALF``, toward 1 for large ones."""
    return 1 + 4 * float(0.5 ** (departure / HALF[name]))


def degrade(clean: Tensor, how: Degradation, rng: np.random.Generator) -> tuple[np.ndarray, list[float]]:
    """Return a degraded picture (H, W, 3) as bytes and its six targets on 1..5, in the order of ``ATTRIBUTES``."""
    noiseless = render(clean, replace(how, noise=0.0))
    result = noiseless
    if how.noise > 0:
        normal = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        result = render(clean, how, normal)
    distances = departures(clean, result, noiseless)
    return to_uint8(result), [to_scale(name, distances[name]) for name in ATTRIBUTES]
