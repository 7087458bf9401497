"""The ``score`` command beside another version of it, ``metric(list)`` and pyiqa's command, in alternating pairs.

``python benchmarks/score_command.py FOLDER --old CHECKOUT`` runs both commands in turn on the same pictures and prints
the median ratio of their times, by the clock and in processor seconds, and the peak memory of each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIST = (
    "import sys, torch, lowlight_iqa; m = lowlight_iqa.create_metric({metric!r})\n"
    "with torch.inference_mode(): print(m(sys.argv[1:]).mean())"
)


def main() -> None:
    """Print a row for each opponent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--old", type=Path, help="a checkout of another version")
    parser.add_argument("--pyiqa", type=Path, help="the python of an environment with pyiqa")
    parser.add_argument("--metric", default="leiq")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=3)
    args = parser.parse_args()

    here = Path(__file__).parents[1]
    paths = [str(path) for path in sorted(args.folder.iterdir()) if path.is_file()][: args.pictures]
    options = ["score", *paths, "-m", args.metric, "--format", "csv"]
    ours = ([sys.executable, "-m", "lowlight_iqa", *options], here)
    others = {"metric(list)": ([sys.executable, "-c", LIST.format(metric=args.metric), *paths], here)}
    if args.old:
        others["old command"] = ([sys.executable, "-m", "lowlight_iqa", *options], args.old)
    if args.pyiqa:
        command = [args.pyiqa.with_name("pyiqa"), args.metric, "-t", str(args.folder), "--device", "cpu"]
        others["pyiqa"] = ([*map(str, command)], here)

    print(f"{args.metric}, {len(paths)} pictures, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before")
    for name, other in others.items():
        pairs = [(measure(*other), measure(*ours)) for _ in range(args.pairs)]
        clock, processor = ([theirs[k] / own[k] for theirs, own in pairs] for k in (0, 1))
        memory = ", ".join(f"{max(pair[k][2] for pair in pairs) / 1e3:.0f} MB" for k in (0, 1))
        print(
            f"{name} / score: {statistics.median(clock):.2f} times by the clock "
            f"({min(clock):.2f} to {max(clock):.2f}), {statistics.median(processor):.2f} in processor time; "
            f"peak memory {memory}; last pair {pairs[-1][0][0]:.1f} and {pairs[-1][1][0]:.1f} s",
            flush=True,
        )


def measure(command: list[str], package: Path) -> tuple[float, float, float]:
    """Seconds by the clock, processor seconds, and peak memory in kB of a command."""
    environment = os.environ | {"PYTHONPATH": str(package)}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd=package)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{command[:6]} left with status {status}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


if __name__ == "__main__":
    main()
