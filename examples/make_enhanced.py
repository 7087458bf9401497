"""Enhance dark pictures by three classical methods of scikit-image: gamma, histogram equalization, CLAHE.

    python examples/make_enhanced.py DARK_DIR OUT_DIR

writes OUT_DIR/gamma, OUT_DIR/equalized and OUT_DIR/clahe, each with a picture of every name in DARK_DIR, as PNG.
Gamma and the equalizations work on the V of HSV, so that hue and saturation stay. Needs pip install ".[report]".
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import exposure
from skimage.color import hsv2rgb, rgb2hsv

import lowlight_iqa
from lowlight_iqa.images import SUFFIXES

Picture = NDArray[np.float64]
TARGET = 0.4  # mean value that gamma aims at


def gamma(value: Picture) -> Picture:
    """Raise the values to the power that brings their mean logarithm to that of ``TARGET``."""
    level = np.exp(np.log(value.clip(1 / 255)).mean())
    return value ** min(1.0, np.log(TARGET) / np.log(min(level, 0.99)))


def equalized(value: Picture) -> Picture:
    """Equalize the histogram of the whole picture."""
    return exposure.equalize_hist(value)


def clahe(value: Picture) -> Picture:
    """Equalize the histogram of each tile, with limited contrast."""
    return exposure.equalize_adapthist(value, clip_limit=0.03)


METHODS: dict[str, Callable[[Picture], Picture]] = {"gamma": gamma, "equalized": equalized, "clahe": clahe}


def main(dark: Path, out: Path) -> None:
    """Write every picture of ``dark`` as each method makes it."""
    files = sorted(file for file in dark.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        sys.exit(f"{dark} holds no pictures")
    for name, enhance in METHODS.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for file in files:
            hsv = rgb2hsv(lowlight_iqa.read_image(file).permute(1, 2, 0).double().numpy())
            hsv[..., 2] = enhance(hsv[..., 2]).clip(0, 1)
            Image.fromarray(np.rint(hsv2rgb(hsv) * 255).astype(np.uint8)).save(out / name / f"{file.stem}.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
