"""Speed and peak memory of every metric, and of other libraries' on the same pictures, each in a process of its own.

    pip install -e ".[bench]" && python benchmarks/test_speed.py [--device cpu] [--threads 2] [--metric niqe ...]

Writes docs/benchmarks.md and benchmarks/speed.json. Times are medians; memory is what the peak of the process grows by
over the loaded metric. Peers that are not installed are named and left out. piq and pyiqa download the parameters of
their metrics; here they are handed ours, which are the same numbers. The learned metrics have no twin elsewhere: beside
them stand other learned ones, ARNIQA of torchmetrics and MUSIQ of pyiqa, with weights drawn at random, which take the
same time as trained ones; their scores are not looked at. Under pytest nothing is asserted of the machine, only that
every measurement runs and that both libraries judge alike where they compute the same metric.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
CASES = {"8 x 512x512": (8, 512, 512), "1 x 12 MP": (1, 3000, 4000)}
TWINS = {"niqe": ("pyiqa",), "brisque": ("piq", "pyiqa")}  # the same metric in other libraries
OTHERS = {"torchmetrics": "ARNIQA", "pyiqa": "MUSIQ"}  # learned metrics to stand beside ours
LIBRARIES = ("piq", "pyiqa", "torchmetrics")
PEERS = {**TWINS, **dict.fromkeys(("leiq", "iaca", "bmqa"), tuple(OTHERS))}
SECONDS = 5.0  # of measuring, at least three passes


def pictures(count: int, height: int, width: int) -> Any:
    """Smooth pictures with a little noise, (count, 3, height, width), the same in every process."""
    import torch
    import torch.nn.functional as F

    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, height // 8 + 1, width // 8 + 1, generator=draw)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic")
    return (smooth + 0.03 * torch.randn(smooth.shape, generator=draw)).clamp(0, 1)


def load(library: str, name: str, device: str) -> Callable[[Any], Any]:
    """The metric of a library: pictures to scores."""
    import torch

    from lowlight_iqa import create_metric
    from lowlight_iqa.backbones import import_torchvision

    if library == "lowlight_iqa":
        metric = create_metric(name, device=device)
        return (lambda x: metric(x, reference=x.flip(3))) if metric.card.needs_reference else metric
    import_torchvision()  # the others import it too; this way also beside a CPU build of torch
    if name not in TWINS:
        return load_other(library).to(device).eval()
    from safetensors.torch import load_file
    from scipy.io import savemat

    ours = load_file(ROOT / "lowlight_iqa" / "weights" / f"{name}.safetensors")
    folder = Path(tempfile.mkdtemp())
    if name == "niqe":
        from pyiqa.archs.niqe_arch import NIQE

        savemat(
            folder / "p.mat", {"mu_prisparam": ours["mean"][None].numpy(), "cov_prisparam": ours["covariance"].numpy()}
        )
        return NIQE(pretrained_model_path=str(folder / "p.mat")).to(device)
    file = folder / "hub" / "checkpoints" / "brisque_svm_weights.pt"
    file.parent.mkdir(parents=True)
    torch.save((ours["coefficients"][:, None].float(), ours["support"].float()), file)
    if library == "piq":
        import piq

        os.environ["TORCH_HOME"] = str(folder)  # where it looks for what it has downloaded
        return lambda x: piq.brisque(x, data_range=1.0, reduction="none")
    from pyiqa.archs.brisque_arch import BRISQUE

    return BRISQUE(pretrained_model_path=str(file)).to(device)


def load_other(library: str) -> Any:
    """The learned metric of another library, its weights drawn at random."""
    import torch

    torch.manual_seed(0)
    if library == "pyiqa":
        from pyiqa.archs.musiq_arch import MUSIQ

        return MUSIQ(pretrained=False)
    from torchmetrics.functional.image.arniqa import _ARNIQA

    class Untrained(_ARNIQA):  # type: ignore[misc]
        def _load_weights(self) -> None:
            """Leave out the download."""

    return Untrained()


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Measure one case in this process."""
    import torch

    torch.set_num_threads(job["threads"])
    device, backward = job["device"], job["backward"]
    metric, x = load(job["library"], job["metric"], device), pictures(*job["size"]).to(device)

    def once() -> Any:
        y = x.clone().requires_grad_(backward)
        with torch.set_grad_enabled(backward):
            scores = metric(y)
        if backward:
            scores.sum().backward()
        if device != "cpu":
            torch.cuda.synchronize()
        return scores.detach().flatten().tolist()

    def peak() -> float:
        if device != "cpu":
            return float(torch.cuda.max_memory_allocated()) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before, scores, times = peak(), once(), []
    while len(times) < 3 or (sum(times) < SECONDS and len(times) < 50):
        start = time.perf_counter()
        once()
        times.append(time.perf_counter() - start)
    return {"seconds": sorted(times)[len(times) // 2], "megabytes": peak() - before, "scores": scores}


def measure(
    library: str, metric: str, size: tuple[int, int, int], backward: bool, threads: int, device: str
) -> dict[str, Any]:
    """``work`` in a new process; an empty result with the reason if it failed."""
    names = ("library", "metric", "size", "backward", "threads", "device")
    job = dict(zip(names, (library, metric, size, backward, threads, device), strict=True))
    done = subprocess.run(
        [sys.executable, __file__, "--work", json.dumps(job)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {**job, "failed": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
    return {**job, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--metric", action="append", help="may be repeated; default: all that are bundled")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(json.loads(args.work))))
        return
    rows = []
    for name in args.metric or bundled():
        for size in CASES.values():
            for backward in (False, True):
                for library in ("lowlight_iqa", *(peer for peer in PEERS.get(name, ()) if installed(peer))):
                    rows.append(measure(library, name, size, backward, args.threads, args.device))
                    print(line(rows[-1], rows), flush=True)
    facts = {"machine": machine(args.device, args.threads), "rows": [{**row, "scores": None} for row in rows]}
    (ROOT / "benchmarks" / "speed.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (ROOT / "docs" / "benchmarks.md").write_text(page(facts["machine"], rows), encoding="utf-8")


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def bundled() -> list[str]:
    """Metrics that need nothing but the package."""
    from lowlight_iqa import WeightsNotFound, create_metric, list_metrics

    found = []
    for name in list_metrics():
        try:
            create_metric(name)
        except WeightsNotFound:
            continue
        found.append(name)
    return found


def machine(device: str, threads: int) -> str:
    import torch

    versions = [
        f"{package} {importlib.metadata.version(package)}" for package in ("torch", *LIBRARIES) if installed(package)
    ]
    missing = [package for package in LIBRARIES if not installed(package)]
    place = torch.cuda.get_device_name() if device != "cpu" else f"{platform.processor() or platform.machine()} CPU"
    text = f"{place}, {threads} threads; Python {platform.python_version()}, {', '.join(versions)}"
    return text + (f"; not installed: {', '.join(missing)}" if missing else "")


def line(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """A row of the table; ratios are to our own measurement of the same case."""
    case = next(name for name, size in CASES.items() if tuple(row["size"]) == size)
    library = row["library"]
    if library in OTHERS and row["metric"] not in TWINS:
        library += f" ({OTHERS[library]})"
    title = f"| {row['metric']} | {case} | {'forward, backward' if row['backward'] else 'forward'} | {library} "
    if "failed" in row:
        return f"{title}| failed: {row['failed'][:80]} | | | | |"
    same = ("metric", "size", "backward")
    ours = next(r for r in rows if r["library"] == "lowlight_iqa" and all(r[key] == row[key] for key in same))
    count, height, width = row["size"]
    ratio = f"{row['seconds'] / ours['seconds']:.1f}" if row is not ours and "seconds" in ours else ""
    return (
        f"{title}| {count / row['seconds']:.3g} | {row['seconds'] * 1e9 / (count * height * width):.1f} "
        f"| {row['megabytes']:.0f} | {ratio} |"
    )


def page(where: str, rows: list[dict[str, Any]]) -> str:
    table = "\n".join(line(row, rows) for row in rows)
    return f"""# Speed and memory

Made by `python benchmarks/test_speed.py` on: {where}.

Every row is a process of its own; time is the median pass, memory what the process's peak grows by over the loaded
metric. The last column says how many times faster lowlight_iqa is than that library on the same pictures in the same
run. piq and pyiqa are handed the parameters that they would download. The learned metrics have no twin in those
libraries; what stands beside them are other learned no-reference metrics (weights drawn at random: they do not change
the time), so their rows compare what a user would otherwise take, not the same computation.

| metric | pictures | pass | library | pictures/s | ms per megapixel | peak MB | we are faster by |
|---|---|---|---|---|---|---|---|
{table}
"""


def test_every_measurement_runs() -> None:
    for name in bundled():
        for backward in (False, True):
            found = measure("lowlight_iqa", name, (1, 256, 256), backward, 1, "cpu")
            assert "failed" not in found, found["failed"]


@pytest.mark.parametrize(("metric", "peer"), [(metric, peer) for metric, peers in TWINS.items() for peer in peers])
def test_peers_compute_the_same_thing(metric: str, peer: str) -> None:
    """A speed-up over something else would be none: scores within 10 % of the other library's."""
    if not installed(peer):
        pytest.skip(f"{peer} is not installed: pip install {peer}")
    ours, theirs = (measure(library, metric, (2, 512, 512), False, 1, "cpu") for library in ("lowlight_iqa", peer))
    assert "failed" not in theirs, theirs["failed"]
    assert theirs["scores"] == pytest.approx(ours["scores"], rel=0.1)


if __name__ == "__main__":
    main()
