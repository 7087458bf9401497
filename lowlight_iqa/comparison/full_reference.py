"""Full-reference figures by scikit-image: PSNR, SSIM and CIEDE2000 of a picture against its normal-light reference.

Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004; Sharma, Wu,
Dalal, "The CIEDE2000 color-difference formula", Color Research and Application 2005.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import require
from ..images import read_image

NAMES = ("psnr", "ssim", "ciede2000")
LOWER_BETTER = {"psnr": False, "ssim": False, "ciede2000": True}
SUMMARY = {
    "psnr": "peak signal-to-noise ratio in dB over R, G and B; identical pictures count as 100 dB",
    "ssim": "structural similarity, Gaussian window of 1.5, mean of R, G and B",
    "ciede2000": "mean CIEDE2000 color difference over pixels, D65",
}
IDENTICAL = 100.0  # dB, for a PSNR that would be infinite: means and ranks stay finite
MIN_SIZE = 11  # the window of SSIM


def import_skimage(module: str = "skimage") -> Any:
    """Import a module of scikit-image."""
    return require(module, "references need scikit-image", "report")


def measure(picture: Path, reference: Path) -> dict[str, float]:
    """Compute every figure of ``NAMES`` for a file against its reference.

    Raises:
        ValueError: the two differ in size, or are too small.
        OSError: one cannot be read.
    """
    a, b = _read(picture), _read(reference)
    if a.shape != b.shape:
        raise ValueError(
            f"{picture} is {a.shape[1]} x {a.shape[0]} and its reference {reference} {b.shape[1]} x {b.shape[0]}; "
            "they must be the same size"
        )
    if min(a.shape[:2]) < MIN_SIZE:
        raise ValueError(f"{picture} is {a.shape[1]} x {a.shape[0]}; SSIM needs a side of {MIN_SIZE} at least")
    return {"psnr": psnr(a, b), "ssim": ssim(a, b), "ciede2000": ciede2000(a, b)}


def psnr(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the peak signal-to-noise ratio in dB of pictures (H, W, 3) in [0, 1], at most ``IDENTICAL``."""
    if np.array_equal(a, b):
        return IDENTICAL
    return min(IDENTICAL, float(import_skimage("skimage.metrics").peak_signal_noise_ratio(b, a, data_range=1.0)))


def ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the structural similarity of pictures (H, W, 3) in [0, 1], with the window of its paper."""
    similarity = import_skimage("skimage.metrics").structural_similarity(
        a, b, data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(similarity)


def ciede2000(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the mean CIEDE2000 difference of pictures (H, W, 3), sRGB in [0, 1]."""
    color = import_skimage("skimage.color")
    return float(color.deltaE_ciede2000(color.rgb2lab(b), color.rgb2lab(a)).mean())


def _read(file: Path) -> NDArray[np.float64]:
    """Read a file as (H, W, 3) float64 in [0, 1]."""
    return np.ascontiguousarray(read_image(file).permute(1, 2, 0).numpy(), dtype=np.float64)
