"""Make samples/: free photographs out of scikit-image, each with a low-light version by a camera model.

    python tools/make_samples.py [DIR]

Needs scikit-image 0.26 (pip install scikit-image==0.26.0), NumPy and Pillow.
"""

import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

LONG_SIDE = 400  # pixels
FULL_WELL = 6000.0  # electrons of a white pixel at exposure 1
READ_NOISE = 2.5  # electrons, standard deviation
EXPOSURE = {"astronaut": 0.03, "chelsea": 0.02, "coffee": 0.05, "rocket": 0.1}
QUALITY = 92  # of the JPEG files


def linear(srgb):
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def gamma(light):
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def darken(photo, exposure, rng):
    """The 8-bit photograph that a camera makes at ``exposure`` times the light, without gain."""
    electrons = rng.poisson(linear(photo / 255) * exposure * FULL_WELL) + rng.normal(0, READ_NOISE, photo.shape)
    return np.rint(gamma((electrons / FULL_WELL).clip(0, 1)) * 255).astype(np.uint8)


def main(folder):
    folder.mkdir(exist_ok=True)
    for seed, (name, exposure) in enumerate(EXPOSURE.items()):
        image = Image.fromarray(getattr(skimage.data, name)())
        image.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
        image.save(folder / f"{name}.jpg", quality=QUALITY, subsampling=0)
        with Image.open(folder / f"{name}.jpg") as photo:
            dark = darken(np.asarray(photo), exposure, np.random.default_rng(seed))
        Image.fromarray(dark).save(folder / f"{name}_dark.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "samples")
