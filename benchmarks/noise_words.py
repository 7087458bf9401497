"""Are bmqa's words for noise true? Noise-free textured pictures and noisy flat ones, the word said of each.

    python benchmarks/noise_words.py BIQ2021 [--weights DIR]

The pictures are well-exposed ones of BIQ2021's test list, halved so that hardly any of the camera's noise is left: of
300 the 50 with the most texture everywhere and the 50 with the least. Noise is put in as the camera of
``training.degradations`` does it. What is right: "slight" where none was put in, worse than "slight" from strength
0.45 on, and "severe" at 1. The labels are not looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import lowlight_iqa
from lowlight_iqa.data import biq2021
from lowlight_iqa.functional.color import luma
from lowlight_iqa.metrics.bmqa.slots import SLOTS, measure, slots_of
from lowlight_iqa.training.degradations import Degradation, is_typical, render

LOOKED_AT, KEPT = 300, 50
STRENGTHS = (0.0, 0.12, 0.25, 0.45, 0.7, 1.0)


def halved(picture: Tensor) -> Tensor:
    """A picture (3, H, W) at half its size, in 8 bits."""
    small = F.interpolate(picture[None], scale_factor=0.5, mode="bicubic", antialias=True)[0]
    return (small.clamp(0, 1) * 255).round() / 255


def texture(picture: Tensor) -> float:
    """Gradient in the calmer quarter of the blocks: high where even the calm parts are textured."""
    gray = F.avg_pool2d(luma(picture[None].double())[:, None], 2)[0, 0]
    gradient = ((gray[1:, 1:] - gray[:-1, 1:]).square() + (gray[1:, 1:] - gray[1:, :-1]).square()).sqrt()
    return F.avg_pool2d(gradient[None, None], 8).quantile(0.25).item()


def well_exposed(data: Path, count: int) -> list[Tensor]:
    """So many pictures of the test list, drawn at random."""
    items = biq2021.read(data, "test", pictures=False)
    found: list[Tensor] = []
    for place in np.random.default_rng(0).permutation(len(items)):
        picture = lowlight_iqa.read_image(items[place].path)
        if is_typical(picture):
            found.append(picture)
        if len(found) == count:
            break
    return found


def main() -> None:
    """Print how often each word is said."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", help="instead of the bundled ones")
    args = parser.parse_args()
    captioners = {kind: lowlight_iqa.create_metric("bmqa", weights=args.weights, captioner=kind)
                  for kind in ("rules", "learned")}  # fmt: skip
    pictures = sorted((halved(picture) for picture in well_exposed(args.data, LOOKED_AT)), key=texture)
    kinds = {"textured": pictures[-KEPT:], "flat": pictures[:KEPT]}
    words = "/".join(SLOTS["noise"].words)
    print(f"| pictures | noise | measured, gray levels | {' | '.join(f'{kind}: {words}' for kind in captioners)} |")
    print("|---|---|---|" + "---|" * len(captioners))
    for name, clean in kinds.items():
        for strength in STRENGTHS:
            torch.manual_seed(0)
            shown = [render(x, Degradation(noise=strength), torch.randn(x.shape)) for x in clean]
            measured = np.median([-255 * measure(x[None])["noise"].item() for x in shown])
            said = []
            for metric in captioners.values():
                levels = [slots_of(text)["noise"] for text in metric.caption(shown)]  # type: ignore[attr-defined]
                said.append("/".join(map(str, np.bincount(levels, minlength=3))))
            print(f"| {name} | {strength:g} | {measured:.1f} | {' | '.join(said)} |", flush=True)


if __name__ == "__main__":
    main()
