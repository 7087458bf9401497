"""Speed and peak memory: hand-crafted metrics against other libraries, learned ones alone, each in its own process.

    pip install -e ".[bench]" && python benchmarks/test_speed.py [--threads 2]

Prints pictures per second and their ratio to the fastest peer of the same run. Peers that are not installed are named
and left out. Under pytest it asserts nothing of the machine but that every measurement runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys

from lowlight_iqa import list_metrics
from lowlight_iqa.registry import find

CASES = {"8 x 512x512": (8, 512, 512), "1 x 12 MP": (1, 3000, 4000)}
PEERS: dict[str, tuple[str, ...]] = {"niqe": ("pyiqa",), "brisque": ("piq", "pyiqa")}
LEARNED = [name for name in list_metrics(learned=True) if find(name)[1].weights]
OURS = (*PEERS, *LEARNED)

WORKER = """
import json, resource, sys, time
library, name, count, height, width, backward, threads = json.loads(sys.argv[1])
import torch
torch.set_num_threads(threads)
draw = torch.Generator().manual_seed(0)
base = torch.rand(count, 3, height // 8 + 1, width // 8 + 1, generator=draw)
x = torch.nn.functional.interpolate(base, (height, width), mode="bicubic").clamp(0, 1)
x = (x + 0.03 * torch.randn(x.shape, generator=draw)).clamp(0, 1)
if library == "lowlight_iqa":
    from lowlight_iqa import create_metric
    metric = create_metric(name)
elif library == "piq":
    from lowlight_iqa.backbones import import_torchvision
    import_torchvision()  # also beside a CPU build of torch
    import piq
    metric = lambda y: piq.brisque(y, data_range=1.0, reduction="none")
else:
    import pyiqa
    metric = pyiqa.create_metric(name, device="cpu", as_loss=backward)
start_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def once():
    y = x.clone().requires_grad_(backward)
    with torch.enable_grad() if backward else torch.no_grad():
        score = metric(y).sum()
    if backward:
        score.backward()

once()
times = []
while len(times) < 3 or (sum(times) < 5 and len(times) < 20):
    start = time.perf_counter()
    once()
    times.append(time.perf_counter() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": sorted(times)[len(times) // 2], "megabytes": (peak - start_memory) / 1024}))
"""


def measure(library: str, name: str, size: tuple[int, int, int], backward: bool, threads: int) -> dict[str, float]:
    job = json.dumps([library, name, *size, backward, threads])
    done = subprocess.run([sys.executable, "-c", WORKER, job], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": 1.0, "seconds": float("nan"), "megabytes": float("nan")}
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    installed = {peer for peers in PEERS.values() for peer in peers if importlib.util.find_spec(peer)}
    missing = sorted({"piq", "pyiqa"} - installed)
    if missing:
        print(f"not installed, left out: {', '.join(missing)}\n")
    print("| metric | pictures | pass | library | pictures/s | ratio to it | peak MB |\n|---|---|---|---|---|---|---|")
    for name in OURS:
        for case, size in CASES.items():
            for backward in (False, True):
                ours = measure("lowlight_iqa", name, size, backward, args.threads)
                peers = {
                    p: measure(p, name, size, backward, args.threads) for p in PEERS.get(name, ()) if p in installed
                }
                for library, found in {"lowlight_iqa": ours, **peers}.items():
                    ratio = found["seconds"] / ours["seconds"]
                    print(
                        f"| {name} | {case} | {'forward, backward' if backward else 'forward'} | {library} "
                        f"| {size[0] / found['seconds']:.2f} | {ratio:.2f} | {found['megabytes']:.0f} |",
                        flush=True,
                    )


def test_every_measurement_runs() -> None:
    for name in OURS:
        found = measure("lowlight_iqa", name, (1, 128, 128), True, 1)
        assert "failed" not in found


if __name__ == "__main__":
    main()
