"""Plot how each hand-crafted metric answers to exposure and to noise: docs/img/exposure_response.png.

    python tools/plot_response.py [FILE]

Needs matplotlib (the docs extra). Each curve is the mean over the four photographs of samples/.
tools/pages.py writes some of the numbers into docs/handcrafted.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from lowlight_iqa import create_metric, read_image

ROOT = Path(__file__).parents[1]
NAMES = ("niqe", "brisque", "piqe", "exposure", "colorfulness", "entropy", "noise", "contrast", "loe")
EXPOSURES = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
SIGMAS = (0.0, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15)


def photographs() -> list[torch.Tensor]:
    """Read the four photographs, (1, 3, H, W) each."""
    return [read_image(ROOT / "samples" / f"{n}.jpg")[None] for n in ("astronaut", "chelsea", "coffee", "rocket")]


def stored(x: torch.Tensor) -> torch.Tensor:
    """As an 8-bit file holds it."""
    return (x.clamp(0, 1) * 255).round() / 255


def answers(
    name: str, pictures: Sequence[torch.Tensor], exposures: Sequence[float], sigmas: Sequence[float]
) -> tuple[list[float], list[float], list[float]]:
    """Score darker pictures in floats and with 8 bits, and noisy ones with 8 bits: the mean for each step."""
    metric = create_metric(name)
    draw = torch.Generator().manual_seed(0)
    noises = [torch.randn(x.shape, generator=draw) for x in pictures]

    def mean(versions: Sequence[torch.Tensor]) -> float:
        pairs = zip(versions, pictures, strict=True)
        with torch.inference_mode():
            if metric.card.needs_reference:  # the enhancement under test against the untouched picture
                return torch.cat([metric(x, reference=whole) for x, whole in pairs]).mean().item()
            return torch.cat([metric(x) for x in versions]).mean().item()

    floats = [mean([x * factor for x in pictures]) for factor in exposures]
    files = [mean([stored(x * factor) for x in pictures]) for factor in exposures]
    noisy = [mean([stored(x + s * n) for x, n in zip(pictures, noises, strict=True)]) for s in sigmas]
    return floats, files, noisy


def main() -> None:
    """Draw the curves."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    pictures = photographs()
    figure, axes = plt.subplots(len(NAMES), 2, figsize=(8, 1.7 * len(NAMES)), sharex="col")
    for row, name in zip(axes, NAMES, strict=True):
        floats, files, noisy = answers(name, pictures, EXPOSURES, SIGMAS)
        row[0].plot(EXPOSURES, floats, "o-", ms=3, color="C0", label="16 bits or floats")
        row[0].plot(EXPOSURES, files, "s--", ms=3, color="C1", label="8 bits")
        row[1].plot(SIGMAS, noisy, "o-", ms=3, color="C2")
        better = "lower" if create_metric(name).card.lower_better else "higher"
        row[0].set_ylabel(f"{name}\n({better} is better)", fontsize=8)
        print(name, *([round(v, 3) for v in curve] for curve in (floats, files, noisy)), flush=True)
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    axes[0, 0].set_xscale("log")
    axes[0, 0].invert_xaxis()
    axes[0, 0].set_title("exposure", fontsize=9)
    axes[0, 1].set_title("white noise", fontsize=9)
    axes[0, 0].legend(fontsize=7)
    axes[-1, 0].set_xlabel("factor on the picture's values", fontsize=8)
    axes[-1, 1].set_xlabel("standard deviation (1 is white)", fontsize=8)
    figure.align_ylabels()
    figure.tight_layout()
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "img" / "exposure_response.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main()
