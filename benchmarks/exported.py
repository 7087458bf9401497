"""How far the scores of exported ONNX files are from the metrics': the table of docs/export.md.

``python benchmarks/exported.py --pictures FOLDER`` exports each metric and compares, over sizes from the smallest that
the metric accepts to three megapixels, on photographs of the folder (default: samples/) and on black, flat and noisy
pictures, in batches of one and of three.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

import lowlight_iqa
from lowlight_iqa.exporting import EXPORTED, export_onnx
from lowlight_iqa.scoring.sources import find_pictures

ROOT = Path(__file__).parents[1]
SIZES = (  # height, width; 0 stands for the smallest side that the metric accepts
    (0, 0),
    (0, 101),
    (131, 97),
    (0, 1500),
    (300, 300),
    (511, 513),
    (512, 512),
    (513, 700),
    (1024, 769),
    (1025, 1024),
    (97, 2003),
    (3001, 520),
    (1500, 2000),
)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, default=ROOT / "samples")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--metrics", nargs="+", default=EXPORTED)
    args = parser.parse_args()
    paths = list(find_pictures([args.pictures]))
    paths = paths[:: max(1, len(paths) // args.count)][: args.count]
    photographs = [lowlight_iqa.read_image(path) for path in paths]

    print("| metric | comparisons | largest difference | of the range | of the typical range | file | export |")
    print("|---|---|---|---|---|---|---|")
    for name in args.metrics:
        print(row(name, photographs), flush=True)


def row(name: str, photographs: list[Tensor]) -> str:
    """Export a metric and return its row."""
    metric = lowlight_iqa.create_metric(name)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        path = export_onnx(metric, Path(folder, "metric.onnx"))
        seconds, size = time.process_time() - start, path.stat().st_size
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    count, worst = 0, 0.0
    for what, batch in batches(photographs, metric.card.min_size):
        (scores,) = session.run(None, {"picture": batch.numpy()})
        with torch.inference_mode():
            off = (torch.from_numpy(scores) - metric(batch)).abs().max().item()
        count += len(batch)
        if not off <= worst:
            worst = off
            print(f"<!-- {name}: {off:.2e} on {what}, {tuple(batch.shape)} -->", flush=True)

    low, high = metric.card.score_range
    good, bad = metric.card.loss_range
    shares = f"{worst / (high - low):.1e} | {worst / abs(bad - good):.1e}"
    return f"| `{name}` | {count} | {worst:.1e} | {shares} | {size / 1e6:.1f} MB | {seconds:.0f} s |"


def batches(photographs: list[Tensor], least: int) -> Iterator[tuple[str, Tensor]]:
    """Yield what is compared: whole photographs, crops and enlargements of them at each size, hard pictures."""
    for index, picture in enumerate(photographs):
        if min(picture.shape[1:]) >= least:
            yield f"photograph {index}", picture[None].contiguous()

    generator = torch.Generator().manual_seed(0)
    for step, (height, width) in enumerate(SIZES):
        size = max(height, least), max(width, least)
        three = [resized(photographs[(step + k) % len(photographs)], size) for k in range(3)]
        yield "one", three[0][None]
        yield "three", torch.stack([three[1], three[2] * 0.05, three[0]])

        noise = torch.rand(3, *size, generator=generator)
        hard = {
            "black": torch.zeros(3, *size),
            "flat": torch.full((3, *size), 0.5),
            "white": torch.ones(3, *size),
            "noise": noise,
            "half black": three[0] * (torch.arange(size[1]) >= size[1] // 2),
            "16-bit dark": three[0] * 0.001,
        }
        if size[0] * size[1] < 1e6:
            for what, picture in hard.items():
                yield what, picture[None].contiguous()


def resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a photograph (3, H, W)."""
    return torch.nn.functional.interpolate(picture[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)


if __name__ == "__main__":
    main()
