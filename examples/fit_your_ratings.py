"""Fit leiq's score to ratings of your own: a CSV of pictures and numbers in, a directory of weights out.

    python examples/fit_your_ratings.py --folder /tmp/ratings

makes 80 pictures from the samples and rates them as a person would who minds noise and likes vivid colors, on a scale
of 1 to 5; then fits and compares. With ratings of your own, start at ``fit``: all it needs is the CSV file,

    image,mos
    night_001.jpg,3.5
    ...

50 rows or more, paths relative to the file, a higher number for a better picture. The command line does the same:

    lowlight-iqa fit leiq --data ratings.csv --out my-leiq
    lowlight-iqa score --weights my-leiq night_002.jpg
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lowlight_iqa import create_metric, read_image
from lowlight_iqa.training.degradations import Degradation, render, to_uint8
from lowlight_iqa.training.fit import fit

SAMPLES = Path(__file__).parents[1] / "samples"


def make_ratings(folder: Path, count: int = 80, size: int = 128) -> Path:
    """Write pictures and ``ratings.csv`` to a folder; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    sources = [read_image(SAMPLES / name) for name in ("astronaut.jpg", "chelsea.jpg", "coffee.jpg", "rocket.jpg")]
    rows: list[tuple[str, object]] = [("image", "mos")]
    for index in range(count):
        source = sources[index % len(sources)]
        top, left = (int(rng.integers(0, length - size)) for length in source.shape[1:])
        clean = source[:, top : top + size, left : left + size]

        noise, saturation = rng.uniform(0, 0.8), rng.uniform(0.3, 1.6)
        look = Degradation(exposure=-rng.uniform(0, 2), noise=noise, saturation=saturation)
        normal = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        Image.fromarray(to_uint8(render(clean, look, normal))).save(folder / f"{index:03}.png")

        rating = 2.2 - 2 * noise + 1.8 * saturation + rng.normal(0, 0.3)  # a person is not quite sure
        rows.append((f"{index:03}.png", round(float(np.clip(rating, 1, 5)), 1)))

    path = folder / "ratings.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def main() -> None:
    """Make ratings, fit, and score a picture by both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where pictures, ratings and weights are written")
    parser.add_argument("--count", type=int, default=80, help="pictures")
    args = parser.parse_args()

    ratings = make_ratings(args.folder, args.count)
    result = fit("leiq", ratings, args.folder / "my-leiq", scale=(1, 5))
    print(result)  # SRCC before and after, on pictures left out of the fit

    mine = create_metric("leiq", weights=result.directory)
    print(mine.card.summary)
    picture = args.folder / "000.png"
    print(
        f"{picture.name}: leiq {create_metric('leiq')(picture).item():.2f} of 10, yours {mine(picture).item():.2f} of 5"
    )


if __name__ == "__main__":
    main()
