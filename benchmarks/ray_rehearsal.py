"""A rehearsal of the Ray engine: 20,000 pictures, an actor killed, the driver killed and resumed, the table compared.

``python benchmarks/ray_rehearsal.py FOLDER`` makes the pictures in FOLDER (once), scores them in one process and on a
local Ray, and fails if a picture is missing, scored twice, or has another score.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    """Run it and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--metric", default="contrast")
    args = parser.parse_args()

    pictures = args.folder / "pictures"
    make(pictures, args.pictures)
    single, out = args.folder / "single.csv", args.folder / "ray.csv"
    single.unlink(missing_ok=True)
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "lowlight_iqa", "score", str(pictures), "-m", args.metric, "--out"]

    start = time.monotonic()
    subprocess.run([*command, str(single)], check=True)
    print(f"one process: {len(rows(single))} rows in {time.monotonic() - start:.0f} s", flush=True)

    ray = [*command, str(out), "--resume", "--engine", "ray"]
    driver = subprocess.Popen(ray, stderr=subprocess.DEVNULL)
    wait(lambda: lines(out) > args.pictures // 10, driver)
    actor = actors(driver.pid)[0]
    os.kill(actor, signal.SIGKILL)
    print(f"actor killed at {lines(out)} rows", flush=True)
    wait(lambda: lines(out) > args.pictures // 2, driver)
    driver.kill()
    driver.wait()
    left = lines(out)
    print(f"driver killed at {left} rows", flush=True)

    subprocess.run(ray, check=True)
    one, many = rows(single), rows(out)
    paths = [row["path"] for row in many]
    if len(paths) != len(set(paths)) or sorted(map(tuple_of, one)) != sorted(map(tuple_of, many)):
        raise SystemExit(f"the tables differ: {len(one)} rows of one process, {len(many)} of Ray")
    print(f"resumed: {len(many)} rows, none twice, none missing, every score equal; {time.monotonic() - start:.0f} s")


def make(folder: Path, count: int) -> None:
    """Make the pictures that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for k in range(count):
        path = folder / f"{k:06}.png"
        level = rng.integers(0, 256, (32, 32, 3), np.uint8)
        if not path.exists():
            Image.fromarray(level).save(path, compress_level=0)


def rows(path: Path) -> list[dict[str, str]]:
    """Read a table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tuple_of(row: dict[str, str]) -> tuple[str, ...]:
    """Return the row to compare."""
    return tuple(row.values())


def lines(path: Path) -> int:
    """Count the rows that are written so far."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait(for_: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until something is so."""
    while not for_():
        if process.poll() is not None:
            raise SystemExit(f"the driver left with status {process.returncode} before it could be killed")
        time.sleep(0.05)


def actors(ancestor: int) -> list[int]:
    """Processes of the actors that a driver's Ray has started."""
    parents, names = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rsplit(")", 1)[1].split()[1])
            names[int(place.name)] = (place / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue

    def ours(pid: int) -> bool:
        return pid == ancestor or (pid > 1 and pid in parents and ours(parents[pid]))

    return [pid for pid, name in names.items() if b"MapWorker" in name and ours(pid)]


if __name__ == "__main__":
    main()
