"""Record the scores of every bundled metric: tests/golden/scores.json, which a change of a score must change knowingly.

    python tools/record_scores.py [--metrics leiq iaca] [--biq2021 FOLDER]

The pictures are those of samples/, one of 640 x 960 and one of 960 x 640 made from a test picture, so that what is
done to large pictures is seen too, and ten of BIQ2021 if its folder is given. ``--metrics`` keeps the others' scores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lowlight_iqa import Metric, WeightsNotFound, create_metric, list_metrics, read_image

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "scores.json"
DARKENED = 0.1  # the dark input of metrics that need one


def large() -> dict[str, Tensor]:
    """Make pictures above 512 pixels a side, 8 bits deep."""
    x = read_image(ROOT / "tests" / "pictures" / "coffee.png")[None]
    x = torch.nn.functional.interpolate(x, size=(640, 960), mode="bicubic", align_corners=False)[0].clamp(0, 1)
    x = (x * 255).round() / 255
    return {"640x960": x, "960x640": x.mT.contiguous()}


def small() -> dict[str, Path]:
    """Find the sample pictures."""
    return {path.name: path for path in sorted((ROOT / "samples").glob("*.*")) if path.suffix in (".png", ".jpg")}


def biq2021(folder: Path) -> dict[str, Path]:
    """Find ten pictures of BIQ2021: every 1,200th by name."""
    return {f"biq2021/{path.name}": path for path in sorted((folder / "Images").glob("*.jpg"))[::1200][:10]}


@torch.inference_mode()
def record(metric: Metric, pictures: Mapping[str, Path | Tensor]) -> dict[str, float]:
    """Score pictures by name."""
    scores = {}
    for name, picture in pictures.items():
        if metric.card.needs_reference:
            x = read_image(picture)
            scores[name] = metric(x, reference=x * DARKENED).item()
        else:
            scores[name] = metric(picture).item()
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", nargs="+", default=list_metrics(), choices=list_metrics(), metavar="NAME")
    parser.add_argument("--biq2021", type=Path, help="its folder, which holds Images/")
    args = parser.parse_args()
    torch.set_num_threads(1)

    scores = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {}
    pictures = {**small(), **large(), **(biq2021(args.biq2021) if args.biq2021 else {})}
    for name in args.metrics:
        try:
            metric = create_metric(name)
        except WeightsNotFound:
            continue
        scores[name] = {**scores.get(name, {}), **record(metric, pictures)}
    GOLDEN.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
