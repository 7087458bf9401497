"""What scoring costs a picture and a core, and where many workers saturate: the figures of docs/scale.md.

``python benchmarks/scale.py FOLDER`` measures decoding and metrics on the pictures of a folder, in processor time, so
that other programs on the machine count little; simulates 1, 16 and 1,000 workers; and checks the simulation of this
machine against a run of the pipeline.
"""

from __future__ import annotations

import argparse
import heapq
import random
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import lowlight_iqa
from lowlight_iqa.scoring.sinks import open_sink
from lowlight_iqa.scoring.sources import find_pictures

METRICS = ("leiq", "iaca", "bmqa", "niqe", "brisque", "piqe", "exposure", "contrast")
CLUSTERS = (1, 16, 1000)  # workers: processor cores


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes that a picture takes."""

    decode: Sequence[float]  # of a core, one for each picture that was measured
    score: Sequence[float]
    size: Sequence[int]  # of the files
    write: float  # of the driver, a row


def main() -> None:
    """Print the figures as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--metrics", nargs="+", default=METRICS)
    parser.add_argument("--network", type=float, default=1.25e9, help="bytes/s that storage gives to all (10 Gbit/s)")
    args = parser.parse_args()
    torch.set_num_threads(1)

    paths = list(find_pictures([args.folder]))
    random.Random(0).shuffle(paths)
    paths = paths[: args.pictures]
    decode, pixels = decoding(paths)
    write, row = writing()
    megapixels = sum(x[0].numel() for x in pixels) / 1e6 / len(paths)
    size = sum(path.stat().st_size for path in paths) / len(paths)
    print(f"{len(paths)} pictures, {megapixels:.2f} megapixels and {size / 1e3:.0f} kB each; a row {row:.0f} bytes")
    print(f"decoding {1e3 * mean(decode):.1f} ms, writing a row {1e6 * write:.0f} us\n")

    print("| metric | ms a picture | pictures/s and core | core hours for 10^6 | for 10^8 |\n|---|---|---|---|---|")
    found = {}
    for name in args.metrics:
        found[name] = Costs(decode, scoring(name, pixels), [path.stat().st_size for path in paths], write)
        each = mean(found[name].decode) + mean(found[name].score)
        cells = [name, f"{1e3 * mean(found[name].score):.1f}", f"{1 / each:.3g}"]
        print(f"| {' | '.join([*cells, f'{1e6 * each / 3600:.3g}', f'{1e8 * each / 3600:.3g}'])} |", flush=True)

    print("\n| metric | workers | pictures/s | of the sum of the cores | what is full |\n|---|---|---|---|---|")
    for name, costs in found.items():
        for workers in CLUSTERS:
            rate, share, full = simulate(costs, workers, args.network)
            print(f"| {name} | {workers:,} | {rate:.4g} | {share:.0%} | {full} |")

    name = args.metrics[0]
    predicted, measured = check(found[name], name, paths)
    print(f"\n{name}, one worker, processor time a picture: simulated {predicted:.4f} s, pipeline {measured:.4f} s")


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def decoding(paths: Sequence[Path]) -> tuple[list[float], list[torch.Tensor]]:
    """Processor seconds to read each picture, and the pictures."""
    seconds, pixels = [], []
    lowlight_iqa.read_image(paths[0])  # imports
    for path in paths:
        start = time.thread_time()
        pixels.append(lowlight_iqa.read_image(path))
        seconds.append(time.thread_time() - start)
    return seconds, pixels


def scoring(name: str, pixels: Sequence[torch.Tensor]) -> list[float]:
    """Processor seconds to prepare and score each picture, on one core."""
    metric = lowlight_iqa.create_metric(name)
    seconds = []
    with torch.inference_mode():
        metric(metric.preprocess(pixels[0]))
        for picture in pixels:
            start = time.thread_time()
            metric(metric.preprocess(picture)).item()
            seconds.append(time.thread_time() - start)
    return seconds


def writing(rows: int = 20_000) -> tuple[float, float]:
    """Processor seconds and bytes of a row in a file of scores."""
    result, digest = {"leiq": lowlight_iqa.Assessment(1 / 3)}, 64 * "0"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.csv"
        with open_sink(path, ["leiq"]) as sink:
            start = time.thread_time()
            for k in range(rows):
                name = f"/data/pictures/{k:09}.jpg"
                sink.write(lowlight_iqa.scoring.Record(name, result, size=k, modified=10**18, digest=digest))
            return (time.thread_time() - start) / rows, path.stat().st_size / rows


def simulate(costs: Costs, workers: int, network: float, pictures: int = 40_000) -> tuple[float, float, str]:
    """Run a queue of pictures through storage, workers and the driver.

    Storage sends one file after the other at ``network`` bytes/s. A picture is then decoded and scored by the worker
    that is free first, and its row is written by the one driver. Times are drawn from those measured.

    Returns:
        Pictures per second; the share of what the workers could do alone; the stage that is busiest.
    """
    rng = random.Random(0)
    free = [0.0] * workers  # when each worker is free again, a heap
    sent = written = busy = 0.0
    for _ in range(max(pictures, 20 * workers)):
        k = rng.randrange(len(costs.decode))
        sent = max(sent, free[0] - 1) + costs.size[k] / network  # read ahead by no more than a second
        start = max(sent, heapq.heappop(free))
        service = costs.decode[k] + costs.score[k]
        heapq.heappush(free, start + service)
        busy += service
        written = max(written, start + service) + costs.write

    count = max(pictures, 20 * workers)
    end = max(written, max(free))
    loads = {
        "workers": busy / workers / end,
        "network": count * mean(costs.size) / network / end,
        "driver": count * costs.write / end,
    }
    rate = count / end
    return rate, rate * (mean(costs.decode) + mean(costs.score)) / workers, max(loads, key=loads.__getitem__)


def check(costs: Costs, name: str, paths: Sequence[Path]) -> tuple[float, float]:
    """Seconds a picture of one worker: as simulated without a network to wait for, and in the pipeline."""
    predicted = 1 / simulate(costs, 1, 1e12)[0]
    metric = lowlight_iqa.create_metric(name)
    list(lowlight_iqa.score(paths[:1], metric, workers=1))
    start = resource.getrusage(resource.RUSAGE_SELF)
    list(lowlight_iqa.score(paths, metric, workers=1))
    end = resource.getrusage(resource.RUSAGE_SELF)
    return predicted, (end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime) / len(paths)


if __name__ == "__main__":
    main()
