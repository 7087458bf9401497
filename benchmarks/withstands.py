"""What the library withstands: run the checks and keep their figures for the table of docs/reliability.md.

    python benchmarks/withstands.py                  # all of them, some hours
    python benchmarks/withstands.py memory faults    # some of them
    python tools/pages.py                             # then: write the table

The figures stand in benchmarks/withstands.json, each with the commit that it was measured on. A check that fails keeps
its former figure, says why and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
FIGURES = Path(__file__).with_suffix(".json")
KILLS = 50
STEPS = 5000
SIDE = 10_000  # pixels: 100 megapixels
MOST = 4096  # MiB
GROWTH = 1.0  # percent
CHILD = "--child"
MALICE = (
    "tests/weights/test_strangers.py",
    "tests/weights/test_checkpoint.py",
    "tests/weights/test_files.py",
    "tests/comparison/test_compare.py",
    "tests/scoring/test_sinks.py",
    "tests/evaluation/test_evaluate.py",
    "tests/cli/test_explain.py",
    "tests/data/test_readers.py",
    "tests/reliability/test_bad_inputs.py",
)
KILLED = (
    ("train iaca", "tests/training/test_kill.py", "-k", "iaca"),
    ("train leiq", "tests/training/test_kill.py", "-k", "leiq"),
    ("evaluate", "tests/evaluation/test_kill.py"),
    ("score --out .csv", "tests/scoring/test_sinks.py", "-k", "killed and csv"),
    ("score --out .jsonl", "tests/scoring/test_sinks.py", "-k", "killed and jsonl"),
    ("score --out .parquet", "tests/scoring/test_sinks.py", "-k", "killed and parquet"),
)

Facts = dict[str, Any]


def run_tests(*arguments: str, optimized: bool = False, environment: dict[str, str] | None = None) -> Facts:
    """Run pytest; how many passed, how many did not run, and what the tests recorded, by name.

    Raises:
        ValueError: some failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, *(["-O"] if optimized else []), "-m", "pytest", "-n", "0", f"--junitxml={report}"]
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, text=True
        )
        if done.returncode:
            raise ValueError(f"pytest {' '.join(arguments)} failed:\n{done.stdout[-3000:]}")
        suite = ElementTree.parse(report).getroot()[0]

    recorded: dict[str, list[float]] = {}
    for each in suite.iter("property"):
        recorded.setdefault(each.attrib["name"], []).append(float(each.attrib["value"]))
    total, skipped = int(suite.attrib["tests"]), int(suite.attrib["skipped"])
    return {"passed": total - skipped, "skipped": skipped, **recorded}


def promises() -> Facts:
    """The contract of every registered metric, as it is and under ``python -O``."""
    from support.contract import subject_of

    from lowlight_iqa import list_metrics

    names, pictures = set(list_metrics()), len(subject_of("exposure").pictures())
    cases: dict[str, set[str]] = {}
    for test, case in re.findall(r"::(\w+)\[([^\]]+)\]", collected("tests/contract")):
        cases.setdefault(test, set()).update(name for name in names if f"-{case}".endswith(f"-{name}"))
    kept = [test for test, own in cases.items() if own >= names]
    passed, optimized = (run_tests("tests/contract", optimized=optimized)["passed"] for optimized in (False, True))
    return {
        "rows": [
            (
                "promises that every registered metric keeps",
                f"{len(kept)}, by {len(names)} metrics, on up to {pictures} hard pictures: {passed:,} cases, "
                f"{optimized:,} under `python -O`",
            )
        ]
    }


def bad_inputs() -> Facts:
    """Bad values, files and command lines."""
    from reliability.bad_inputs import BAD_COMMANDS, bad_files, bad_values

    with tempfile.TemporaryDirectory() as folder:
        files = len(bad_files(Path(folder) / "bad"))
    run_tests("tests/reliability/test_bad_inputs.py")
    return {
        "rows": [
            (
                "bad inputs, to the API and the command line",
                f"{len(bad_values())} values, {files} files, {len(BAD_COMMANDS)} command lines: each one clear line "
                "that says what to do, the right exit status, the other pictures scored",
            )
        ]
    }


def fuzz() -> Facts:
    """Mutated pictures, weights and labels, ten times as many as in the suite."""
    done = subprocess.run([sys.executable, "tools/fuzz.py", "--long"], cwd=ROOT, capture_output=True, text=True)
    found = re.findall(r"(\w+): (\d+) tried, 0 broke a promise, .*?(\d+) MB more", done.stdout)
    if done.returncode or len(found) != 3:
        raise ValueError(f"tools/fuzz.py --long: {done.stdout[-2000:]}{done.stderr[-1000:]}")
    tried = ", ".join(f"{int(count):,} {kind}" for kind, count, _ in found)
    more = max(int(megabytes) for *_, megabytes in found)
    return {
        "rows": [
            (
                "mutated files under a fixed seed",
                f"{tried}: only documented errors, none took 5 s of processor time or more than {more} MB of memory",
            )
        ]
    }


def malice() -> Facts:
    """Pickles, paths and links that lead elsewhere, and markup in names."""
    passed = run_tests(*MALICE, "-k", "malicious or pickle or network or link or escape or markup or formula or leads")
    return {
        "rows": [
            (
                "hostile pickles, paths, links, names in HTML, Markdown, LaTeX, CSV and the terminal",
                f"{passed['passed']} cases: nothing was executed, followed or left unescaped",
            )
        ]
    }


def kills() -> Facts:
    """Training, evaluation and files of scores killed again and again."""
    counts = {}
    for what, *arguments in KILLED:
        tests = run_tests("-m", "slow", *arguments, environment={"LOWLIGHT_IQA_KILLS": str(KILLS)})
        counts[what] = int(sum(tests["kills"]))
        print(f"  {what}: {counts[what]} kills", flush=True)
    done = ", ".join(f"`{what}` {count}" for what, count in counts.items())
    return {
        "rows": [("killed at random moments (`kill -9`) and run again", f"{done} times: the same result to the bit")]
    }


def faults() -> Facts:
    """Full and read-only disks, Ctrl-C, one cache for eight processes, a Hub that fails."""
    disks = run_tests("-m", "slow or not slow", "tests/reliability/test_disk.py")["passed"]
    stops = run_tests("-m", "slow or not slow", "tests/reliability/test_interrupt.py")["seconds"]
    hub = run_tests("tests/weights/test_hub.py")["passed"]
    return {
        "rows": [
            (
                "disk full or read-only, at every write",
                f"{disks} cases: one line that names the file, the old file whole",
            ),
            (
                "Ctrl-C while importing, scoring, evaluating, training",
                f"{len(stops)} moments: exit status 130, no traceback, within {max(stops):.2f} s",
            ),
            (
                "eight processes on one cache; a Hub that is slow, cut, broken, wrong",
                f"{hub} cases with a Hub on loopback: healed, or one line in a bounded time",
            ),
        ]
    }


def memory() -> Facts:
    """The peak of scoring 100 megapixels, in MiB, by each bundled metric in a process of its own."""
    from support.contract import is_bundled

    from lowlight_iqa import list_metrics

    peaks = {}
    for name in filter(is_bundled, list_metrics()):
        peaks[name] = int(child("peak", name))
        print(f"  {name}: {peaks[name]} MiB", flush=True)
    if max(peaks.values()) > MOST:
        raise ValueError(f"more than {MOST} MiB: {peaks}")
    return {
        "rows": [("100 megapixels, forward", f"{len(peaks)} metrics, {max(peaks.values()):,} MiB at the most")],
        "peaks": peaks,
    }


def growth() -> Facts:
    """How much memory grows over 5,000 steps against a loss."""
    found = {}
    for name in ("leiq", "iaca", "bmqa", "niqe", "brisque"):
        found[name] = float(child("growth", name))
        print(f"  {name}: {found[name]:+.2f} %", flush=True)
    if max(found.values()) > GROWTH:
        raise ValueError(f"more than {GROWTH:g} %: {found}")
    told = ", ".join(f"`{name}` {percent:+.2f} %" for name, percent in found.items())
    return {"rows": [("5,000 steps against a loss: memory at the end, against that after 200", told)]}


def sockets() -> Facts:
    """How many tests there are, all of which run with sockets blocked; and those that may reach a Hub on loopback."""
    every, loopback = (len(collected(*path).splitlines()) for path in ((), ("tests/weights/test_hub.py",)))
    return {
        "rows": [
            (
                "sockets blocked",
                f"all {every:,} tests; {loopback:,} of them talk to a Hub on loopback, no others to any",
            )
        ]
    }


def collected(*arguments: str) -> str:
    """The names of the tests that pytest finds, one a line; with another -q beside setup.cfg's it would only count."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "--collect-only", "-m", "slow or not slow", *arguments]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [line for line in listing.splitlines() if "::" in line]
    if not names:
        raise ValueError(f"pytest names no tests: {listing[-500:]}")
    return "\n".join(names)


def child(*arguments: str) -> str:
    """Run a function below in a process of its own; what it prints."""
    command = [sys.executable, __file__, CHILD, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


CHECKS: dict[str, Callable[[], Facts]] = {
    check.__name__: check for check in (promises, bad_inputs, fuzz, malice, kills, faults, memory, growth, sockets)
}


# In a process of its own


def peak(name: str, side: int = SIDE) -> int:
    """Return the most memory that this process has had, in MiB, when it has scored a picture of side x side."""
    import torch

    from lowlight_iqa import create_metric

    metric = create_metric(name)
    draw = torch.Generator().manual_seed(0)
    x = torch.empty(3, side, side)
    for rows in x.split(side // 20, 1):
        rows.uniform_(generator=draw)
    reference = {"reference": x / 2} if metric.card.needs_reference else {}
    with torch.inference_mode():
        if not metric(x, **reference).isfinite().all():
            raise ValueError(f"{name} is not finite")
    return status("VmHWM") >> 10


def grown(name: str) -> float:
    """Return by how many percent memory grows from step 200 of a training against a loss to the last."""
    import torch

    from lowlight_iqa import create_metric

    metric = create_metric(name)
    side = max(32, metric.card.min_size)
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, side, side, generator=draw)
    gain = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([gain], 1e-4)
    start = 0
    for step in range(STEPS):
        optimizer.zero_grad()
        metric.loss((gain * x).clamp(0, 1)).backward()
        optimizer.step()
        if step == STEPS // 25:
            start = status("VmRSS")
    return 100 * (status("VmRSS") / start - 1)


def status(key: str) -> int:
    """Return a figure in kB that the kernel has of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


def main() -> int:
    """Run the checks that are named and keep their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"{', '.join(CHECKS)} (default: all)")
    parser.add_argument(CHILD, nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        what, name, *side = args.child
        print(grown(name) if what == "growth" else peak(name, *map(int, side)))
        return 0
    sys.path.insert(0, str(ROOT / "tests"))
    unknown = [name for name in args.checks if name not in CHECKS]
    if unknown:
        parser.error(f"there is no check {unknown[0]}; there are {', '.join(CHECKS)}")

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    failed = 0
    for name in args.checks or CHECKS:
        start = time.monotonic()
        try:
            found = CHECKS[name]()
        except (ValueError, subprocess.CalledProcessError) as error:
            print(f"{name}: {error}", flush=True)
            failed += 1
            continue
        kept = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        kept[name] = {"commit": commit, **found}
        ordered = {check: kept[check] for check in CHECKS if check in kept}
        FIGURES.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {found['rows']}, {time.monotonic() - start:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
