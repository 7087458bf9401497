"""Do the maps show where a picture is degraded? Well-exposed pictures whose left half is degraded, one way at a time.

    python benchmarks/maps.py BIQ2021 [--metrics leiq,iaca,bmqa] [--pictures 50] [--step 3]

A row counts the pictures whose map is worse on the left, in the mean, than on the right, before the degradation ("as
it is": the halves differ by nature) and after it. Of leiq the map is that of the attribute that the degradation is an
example of; of the others, and in leiq's second column, that of the score. "falls" is how often the metric scores the
picture lower when all of it is degraded: what a metric does not mind, its map cannot show. The pictures are drawn from
BIQ2021's test list; the labels are not looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from noise_words import well_exposed
from torch import Tensor

import lowlight_iqa
from lowlight_iqa.training.degradations import RAMPS, Degradation, render

ATTRIBUTE = {
    "under": "light",
    "over": "exposure",
    "noise": "noise",
    "lift": "exposure",
    "halo": "nature",
    "smooth": "content_recovery",
    "desaturate": "color",
    "oversaturate": "color",
    "warm": "color",
    "cold": "color",
    "green": "color",
    "jpeg": "content_recovery",
    "enhanced": "noise",
}


def half_degraded(picture: Tensor, whole: Tensor) -> Tensor:
    """A picture (3, H, W) whose left half is that of ``whole``."""
    half = picture.shape[2] // 2
    return torch.cat([whole[:, :, :half], picture[:, :, half:]], 2)


def degraded(picture: Tensor, how: Degradation, seed: int) -> Tensor:
    """The picture after the degradation, with noise of its own."""
    return render(picture, how, torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed)))


def left_is_worse(metric: lowlight_iqa.Metric, picture: Tensor, attribute: str) -> bool:
    """Whether the map's mean is worse on the left half than on the right."""
    found = metric.map(picture, attribute)
    half = found.shape[1] // 2
    left, right = found[:, :half].mean(), found[:, half:].mean()
    better_is_lower = metric.card.lower_better and attribute == "score"
    return bool(left > right if better_is_lower else left < right)


def main() -> None:
    """Print a table of each metric."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--metrics", default="leiq,iaca,bmqa")
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--step", type=int, default=3, help="which of a ramp's five steps, from 0")
    args = parser.parse_args()
    pictures = well_exposed(args.data, args.pictures)
    for name in args.metrics.split(","):
        metric = lowlight_iqa.create_metric(name)
        print(
            f"| {name} | attribute | as it is | left half degraded | score's map | falls |\n|---|---|---|---|---|---|"
        )
        for kind, ramp in RAMPS.items():
            attribute = ATTRIBUTE[kind] if name == "leiq" else "score"
            counts = torch.zeros(4)
            for seed, clean in enumerate(pictures):
                whole = degraded(clean, ramp[args.step], seed)
                half = half_degraded(clean, whole)
                by_attribute = left_is_worse(metric, half, attribute)
                by_score = left_is_worse(metric, half, "score") if attribute != "score" else by_attribute
                with torch.inference_mode():
                    falls = metric.loss(whole) > metric.loss(clean)
                counts += torch.tensor([left_is_worse(metric, clean, attribute), by_attribute, by_score, falls])
            shares = " | ".join(f"{share:.2f}" for share in (counts / len(pictures)).tolist())
            print(f"| {kind} | {attribute} | {shares} |", flush=True)
        print()


if __name__ == "__main__":
    main()
