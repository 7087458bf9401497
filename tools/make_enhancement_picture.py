"""Make docs/img/enhancement.jpg: dark, enhanced by priors alone, by priors and a metric, and taken in normal light.

    python tools/make_enhancement_picture.py DATA/lol

Trains two of the networks of benchmarks/enhancement.py again, seed 0, and shows two pictures of eval15.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from lowlight_iqa import create_metric

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "benchmarks")]

from enhancement import SHOWN, STEPS  # noqa: E402
from train_enhancer import Settings, enhance, files, quality, read_pictures, train  # noqa: E402

PICTURES = ("493.png", "665.png")


def main(lol: Path, out: Path) -> None:
    """Train and draw."""
    dark = [pair[:3] for pair in read_pictures(files(lol / "train" / "low"), lol / "train" / "high")]
    names = [path.name for path in files(lol / "eval15" / "low")]
    pairs = read_pictures(files(lol / "eval15" / "low"), lol / "eval15" / "high")
    shown = [pairs[names.index(name)] for name in PICTURES]

    name, weight = SHOWN
    settings, cpu = Settings(steps=STEPS), torch.device("cpu")
    alone, _ = train(dark, {}, settings, cpu)
    guided, _ = train(dark, {name: (quality(create_metric(name)), weight)}, settings, cpu)

    titles = ("dark", "Zero-DCE's priors", f"priors + {weight:g} {name}", "normal light")
    fig, axes = plt.subplots(len(shown), 4, figsize=(12, 4.3), layout="constrained", squeeze=False)
    for row, pair in zip(axes, shown, strict=True):
        pictures = (pair[:3], enhance(alone, pair[:3]), enhance(guided, pair[:3]), pair[3:])
        for ax, picture in zip(row, pictures, strict=True):
            ax.imshow(picture.permute(1, 2, 0).numpy())
            ax.set_axis_off()
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=12)
    fig.savefig(out, dpi=100, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), ROOT / "docs" / "img" / "enhancement.jpg")
