"""Speed and peak memory of every metric, and of other libraries' on the same pictures, each in a process of its own.

    pip install -e ".[peers]" && python benchmarks/test_speed.py [--device cpu] [--threads 2] [--metric niqe ...]

Writes benchmarks/speed.json, from which tools/pages.py makes the tables of docs/benchmarks.md. Times are medians;
memory is what the peak of the process grows by over the loaded metric. Peers that are not installed are named and
left out. piq and pyiqa download the parameters of their metrics; here they are handed ours, which are the same
numbers. The learned metrics have no twin elsewhere: beside them stand other learned ones, ARNIQA of torchmetrics and
MUSIQ of pyiqa, with weights drawn at random, which take the same time as trained ones; their scores are not looked
at. Under pytest nothing is asserted of the machine, only that every measurement runs and that both libraries judge
alike where they compute the same metric.

With ``--device cuda`` the authors' LEIQ is compared too: their way of running it and ours, on one tower.
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
SPEEDS = ROOT / "benchmarks" / "speed.json"
TWINS = {"niqe": ("pyiqa",), "brisque": ("piq", "pyiqa")}  # the same metric in other libraries
OTHERS = {"torchmetrics": "ARNIQA", "pyiqa": "MUSIQ"}  # learned metrics to stand beside ours
LIBRARIES = ("piq", "pyiqa", "torchmetrics")
PEERS = {**TWINS, "leiq": tuple(OTHERS)}
SECONDS = 4.0  # of measuring, at least three passes


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

    ours = load_file(ROOT / "lowlight_iqa" / "weights" / "bundled" / f"{name}.safetensors")
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
        status = Path("/proc/self/status")
        if not status.is_file():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return int(next(row.split()[1] for row in status.read_text().splitlines() if row.startswith("VmHWM"))) / 1024

    if Path("/proc/self/clear_refs").is_file():
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, not from what loading took
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
    parser.add_argument("--metric", action="append", help="may be repeated, other rows stay; default: all")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(json.loads(args.work))))
        return
    ways = [] if args.device == "cpu" else [compare_leiq(LEIQ, args.device, compiled=each) for each in (False, True)]
    rows = []
    for name in args.metric or bundled():
        for size in CASES.values():
            for backward in (False, True):
                for library in ("lowlight_iqa", *peers_of(name, size)):
                    rows.append(measure(library, name, size, backward, args.threads, args.device))
                    print(line(rows[-1], rows), flush=True)
    if args.metric:  # the other metrics' rows stay
        kept = json.loads(SPEEDS.read_text(encoding="utf-8"))["rows"]
        rows = sorted([row for row in kept if row["metric"] not in args.metric] + rows, key=lambda row: row["metric"])
    facts: dict[str, Any] = {"machine": machine(args.device, args.threads), "leiq": ways}
    facts["rows"] = [{**row, "scores": None} for row in rows]
    SPEEDS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def peers_of(name: str, size: tuple[int, int, int]) -> list[str]:
    """The installed libraries to compare a metric with; other learned metrics not at 12 MP, where they need 20 GB."""
    if name not in TWINS and size != CASES["8 x 512x512"]:
        return []
    return [peer for peer in PEERS.get(name, ()) if installed(peer)]


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


def speed_table(facts: dict[str, Any]) -> str:
    """Every row of speed.json, and where it was measured."""
    rows = facts["rows"]
    heads = "| metric | pictures | pass | library | pictures/s | ms per megapixel | peak MB | we are faster by |"
    return "\n".join([f"Measured on: {facts['machine']}.", "", heads, "|---" * 8 + "|", *(line(r, rows) for r in rows)])


def leiq_table(facts: dict[str, Any]) -> str:
    """The authors' LEIQ in two ways, where there was a GPU."""
    ways = facts["leiq"]
    if not ways:
        return "**It has not run on a GPU yet**, so there are no figures."
    heads = "| compiled | their way, pictures/s | ours | ratio | largest difference, MOS | ceiling, TFLOP/s | share |"
    rows = [
        f"| {way['compiled']} | {way['theirs']:.1f} | {way['ours']:.1f} | {way['ratio']:.1f} | {way['difference']:.1e} "
        f"| {way['ceiling'] / 1e12:.0f} | {way['share']:.0%} |"
        for way in ways
    ]
    return "\n".join([f"{ways[0]['weights']}, on: {facts['machine']}.", "", heads, "|---" * 7 + "|", *rows])


# The authors' LEIQ: their way of running it and ours

LEIQ = "leiq-so400m"


def leiq_metric(name: str) -> tuple[Any, str]:
    """The authors' model, if its weights are installed, else one on stand-in weights; and which of the two it is."""
    import torch
    from scipy.io import loadmat

    from lowlight_iqa import WeightsNotFound, create_metric
    from lowlight_iqa.backbones import siglip_tower
    from lowlight_iqa.metrics.leiq_authors import TOWERS, LeiqSiglip, SiglipNetwork
    from lowlight_iqa.registry import get_card

    try:
        return create_metric(name), "The authors' weights"
    except WeightsNotFound:
        pass
    sys.path.insert(0, str(ROOT / "tests"))
    from support.standin import fill

    card = get_card(name)
    shapes = {
        key: tuple(value.shape)
        for key, value in SiglipNetwork(name, siglip_tower(TOWERS[name][0])).state_dict().items()
        if "trunk" in key or "heads" in key or "quality" in key
    }
    mat = loadmat(ROOT / "tests" / f"leiq_{'single' if name == 'leiq-b16' else 'multi'}_task.mat")
    tensors = {key: torch.from_numpy(value) for key, value in fill(shapes).items()}
    return LeiqSiglip.from_tensors(card, tensors, mat), "Stand-in weights (tests/support/standin.py)"


def tower_operations(name: str) -> int:
    """Floating-point operations of a tower for one picture; a product and its sum are two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from lowlight_iqa.backbones import siglip_tower
    from lowlight_iqa.metrics.leiq_authors import TOWERS

    tower, side, _ = TOWERS[name]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        siglip_tower(tower).requires_grad_(False)(torch.empty(1, 3, side, side, device="meta"))
    return int(counter.get_total_flops())


def seconds(device: str, once: Callable[[], Any], passes: int) -> float:
    """Median time of a pass, after one to warm up."""
    import torch

    times = []
    for _ in range(passes + 1):
        start = time.perf_counter()
        once()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[passes // 2]


def ceiling(device: str, side: int, passes: int) -> float:
    """Operations per second of a square matrix product in bfloat16."""
    import torch

    a = torch.randn(side, side, device=device).bfloat16()
    return 2 * side**3 / seconds(device, lambda: a @ a, passes)


def compare_leiq(
    name: str, device: str, *, compiled: bool, count: int = 64, batch: int = 16, half: str = "float16", passes: int = 10
) -> dict[str, Any]:
    """Both ways on the same 8-bit pictures in memory: pictures per second, difference, share of the ceiling."""
    import torch

    from lowlight_iqa.functional.logistic import logistic
    from lowlight_iqa.metrics.leiq_authors import center_crop, resize_8_bit

    metric, weights = leiq_metric(name)
    metric.to(device)
    levels = (pictures(count, 400, 600) * 255).round().byte()

    @torch.inference_mode()
    def theirs() -> Any:
        scores = []
        for part in levels.split(batch):
            seen = torch.cat([center_crop(resize_8_bit(one[None]), metric.network.side) for one in part])
            scores.append(
                logistic(metric.network.outputs(seen.to(device), metric.half_precision)["mos"], metric.mappings["mos"])
            )
        return torch.cat(scores)

    @torch.inference_mode()
    def ours() -> Any:
        return torch.cat([metric(part.to(device) / 255) for part in levels.split(batch)])

    expected, slow = theirs(), seconds(device, theirs, passes)
    metric.half_precision = getattr(torch, half)
    if compiled:
        metric.network.feature_extraction["trunk"].blocks.compile()
    found, fast = ours(), seconds(device, ours, passes)
    top = ceiling(device, 1024 if device == "cpu" else 8192, passes)
    return {
        "weights": weights,
        "compiled": "yes" if compiled else "no",
        "theirs": count / slow,
        "ours": count / fast,
        "ratio": slow / fast,
        "difference": (found - expected).abs().max().item(),
        "ceiling": top,
        "share": tower_operations(name) * count / fast / top,
    }


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


def test_leiq_is_faster_than_its_authors_way() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("4 times the authors' speed and half of the ceiling are asked of a GPU, and there is none")
    found = compare_leiq(LEIQ, "cuda", compiled=True)
    assert found["ratio"] >= 4, found
    assert found["difference"] <= 0.01, found
    assert found["share"] >= 0.5, found


def test_both_ways_of_leiq_run_and_agree() -> None:
    """Small, on the CPU; bfloat16, as many processors have no float16."""
    found = compare_leiq("leiq-b16", "cpu", compiled=False, count=1, batch=1, half="bfloat16", passes=1)
    assert found["difference"] < 0.1
    assert found["ratio"] > 0
    assert found["share"] > 0


def test_the_operations_of_a_tower_are_counted() -> None:
    """Against a count by hand: 12 blocks on 576 tokens, four projections, two layers of the MLP, two of attention."""
    blocks = 12 * 576 * 2 * (4 * 768**2 + 2 * 768 * 3072 + 2 * 576 * 768)
    others = 576 * 2 * (768 * 3 * 16 * 16 + 2 * 768**2)  # patches, keys and values of the pooling
    assert tower_operations("leiq-b16") == pytest.approx(blocks + others, rel=0.01)


if __name__ == "__main__":
    main()
