"""Everything that needs a GPU, in one command: ``python benchmarks/gpu.py --out gpu.md``.

For every metric whose weights are at hand it checks on CUDA

* that a score equals the CPU's within 1e-4 of the range, with TF32 allowed outside (it must be off inside);
* that two calls of score and gradient give the same bits, or by how much they differ;
* that float16 and bfloat16 autocast and inputs change no score by more than 1e-2 of the range;
* that ``loss(..., check="fast")`` forward and backward never waits for the device (``torch.cuda.set_sync_debug_mode``);
* how long forward, and forward with backward, take at 8 x 512x512, and the memory they need;

and writes a Markdown table. With ``--authors`` it adds ``leiq-so400m`` on stand-in weights in float32 and in half
precision beside the ceiling of a matrix product, as docs/benchmarks.md describes. The exit status is 1 if one fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lowlight_iqa import Metric, WeightsNotFound, create_metric, list_metrics, read_image

ROOT = Path(__file__).parents[1]
SAMPLES = ("astronaut.jpg", "astronaut_dark.png", "coffee.jpg", "chelsea_dark.png")
SIDE, BATCH, REPEATS = 512, 8, 10


@dataclass
class Row:
    """What was found of one metric."""

    name: str
    cells: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def check(self, what: str, value: float, limit: float) -> None:
        """Note a figure, and a failure where it passes its limit."""
        self.cells[what] = f"{value:.1e}"
        if not value <= limit:
            self.failed.append(what)


def sample_batch(device: str) -> Tensor:
    """Squares (4, 3, 256, 256) of the samples."""
    pictures = [read_image(ROOT / "samples" / name)[:, :256, :256] for name in SAMPLES]
    return torch.stack(pictures).to(device)


def gradient(metric: Metric, x: Tensor, **options: str) -> Tensor:
    """The loss's gradient with respect to pictures."""
    x = x.detach().clone().requires_grad_()
    metric.loss(x, *reference_of(metric, x), **options).backward()
    if x.grad is None:
        raise RuntimeError(f"{metric.card.name} gave no gradient")
    return x.grad


def reference_of(metric: Metric, x: Tensor) -> tuple[Tensor, ...]:
    """The dark input, for the metrics that want one."""
    return (x.detach() * 0.2,) if metric.card.needs_reference else ()


def check_agreement(metric: Metric, row: Row, on_cpu: Tensor) -> None:
    """Compare with the CPU, with itself, and with lower precision."""
    low, high = metric.card.score_range
    x = sample_batch("cuda")
    references = reference_of(metric, x)
    score = metric(x, *references)
    row.check("CPU", float((score.cpu() - on_cpu).abs().max()) / (high - low), 1e-4)
    row.check("twice", float((metric(x, *references) - score).abs().max()), 0.0)

    first, second = gradient(metric, x), gradient(metric, x)
    row.cells["gradient twice"] = f"{float((first - second).abs().max() / first.abs().max()):.1e}"

    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cuda", dtype=dtype):
            cast = metric(x, *references)
        row.check(f"autocast {str(dtype)[6:]}", float((cast - score).abs().max()) / (high - low), 1e-6)
        halves = [each.to(dtype) for each in (x, *references)]
        given = metric(*halves).to(score)
        row.check(f"{str(dtype)[6:]} input", float((given - score).abs().max()) / (high - low), 1e-2)


def check_synchronization(metric: Metric, row: Row) -> None:
    """Run a training step in which every wait for the device is an error."""
    x = sample_batch("cuda").requires_grad_()
    references = reference_of(metric, x)
    metric.loss(x, *references, check="fast").backward()  # lazy initialization may wait once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.loss(x, *references, check="fast").backward()
        row.cells["no wait"] = "yes"
    except RuntimeError as error:
        row.cells["no wait"] = "no"
        row.failed.append(f"no wait ({str(error).splitlines()[0]})")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def measure_speed(metric: Metric, row: Row) -> None:
    """Time forward, and forward with backward, and note the peak memory."""
    x = torch.rand(BATCH, 3, SIDE, SIDE, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    references = reference_of(metric, x)
    megapixels = BATCH * SIDE * SIDE / 1e6

    def forward() -> None:
        with torch.inference_mode():
            metric(x, *references)

    torch.cuda.reset_peak_memory_stats()
    row.cells["forward, ms/MP"] = f"{timed(forward) / megapixels:.2f}"
    row.cells["with backward, ms/MP"] = f"{timed(lambda: gradient(metric, x, check='fast')) / megapixels:.2f}"
    row.cells["peak, GB"] = f"{torch.cuda.max_memory_allocated() / 1e9:.2f}"


def timed(run: Callable[[], object]) -> float:
    """Median milliseconds of a call, after three to warm up."""
    for _ in range(3):
        run()
    times = []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)[REPEATS // 2]


def examine(name: str) -> Row | None:
    """Make every check on one metric; None where its weights are not at hand."""
    try:
        metric = create_metric(name)
    except WeightsNotFound:
        return None
    row = Row(name)
    x = sample_batch("cpu")
    on_cpu = metric(x, *reference_of(metric, x))
    metric.to("cuda")
    for step in (lambda: check_agreement(metric, row, on_cpu), lambda: check_synchronization(metric, row),
                 lambda: measure_speed(metric, row)):  # fmt: skip
        try:
            step()
        except (RuntimeError, TypeError, ValueError) as error:
            row.failed.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    return row


def authors_row() -> Row:
    """Time the authors' larger model on stand-in weights beside a matrix product of the same precision."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]
    from test_speed import leiq_metric

    row = Row("leiq-so400m, stand-in weights")
    metric = leiq_metric("leiq-so400m")[0].to("cuda")
    x = torch.rand(BATCH, 3, SIDE, SIDE, device="cuda")
    for label, dtype in (("float32", None), ("float16", torch.float16)):
        metric.half_precision = dtype
        with torch.inference_mode():
            row.cells[f"{label}, pictures/s"] = f"{1e3 * BATCH / timed(lambda: metric(x)):.1f}"
    a = torch.rand(8192, 8192, device="cuda", dtype=torch.float16)
    row.cells["float16 product, TFLOP/s"] = f"{2 * 8192**3 / timed(lambda: a @ a) / 1e9:.0f}"
    return row


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    columns = list(dict.fromkeys(column for row in rows for column in row.cells))
    lines = [["metric", *columns, "failed"], ["---"] * (len(columns) + 2)]
    for row in rows:
        failed = "; ".join(row.failed).replace("|", "\\|") or "nothing"
        lines.append([row.name, *(row.cells.get(column, "") for column in columns), failed])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> int:
    """Check every metric and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--metric", action="append", choices=list_metrics(), help="may be repeated; default: all")
    parser.add_argument("--authors", action="store_true", help="also leiq-so400m on stand-in weights")
    parser.add_argument("--out", type=Path, default=Path("gpu.md"))
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here; nothing of this can run without one")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as trainings set it

    rows = [row for name in args.metric or list_metrics() if (row := examine(name))]
    if args.authors:
        rows.append(authors_row())
    title = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, TF32 allowed outside the metrics\n\n"
    args.out.write_text(title + table(rows), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
