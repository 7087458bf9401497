"""Write docs/leaderboard.md: every metric on every data set at hand.

    python benchmarks/leaderboard.py --data DIR [--metrics NAME ...] [--out docs/leaderboard.md]

The data sets lie in DIR under their names (``lowlight_iqa.data.list_datasets()``).
Scores are cached: a second run is quick.
Speeds are read from speed.json, where benchmarks/test_speed.py has written it.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from published import label, rows

import lowlight_iqa
from lowlight_iqa.data import list_datasets, load
from lowlight_iqa.evaluation.evaluate import Evaluation, evaluate
from lowlight_iqa.evaluation.figures import Figure

DARK = "dark (mean luma < 70)"
HEAD = """# Leaderboard

Written by `python benchmarks/leaderboard.py --data DIR`, not by hand. Every figure is zero-shot: the metric as it is
created, on every picture of the split, unless the metric was trained on the data set's other part, which is marked.
In brackets: 95 % bootstrap intervals. Correlations are turned so that more is better, whatever the metric's direction.
[protocols.md](protocols.md) says what such figures can and cannot be compared with.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--metrics", nargs="+", help="default: all that need no reference")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "leaderboard.md")
    args = parser.parse_args()
    metrics = made(args.metrics or lowlight_iqa.list_metrics())
    found: dict[str, list[Evaluation]] = {}
    missing = []
    for name in list_datasets():
        try:
            load(name, args.data / name)
        except FileNotFoundError:
            missing.append(name)
            continue
        found[name] = [evaluate(metric, name, args.data / name, progress=True) for metric in metrics.values()]
    if not found:
        raise SystemExit(f"{args.data} holds none of {', '.join(list_datasets())} in full")
    blocks = [HEAD, overview(found, metrics), *(details(name, results) for name, results in found.items())]
    blocks.append(f"Not at hand when this was written: {', '.join(n for n in missing if n != 'csv')}.")
    blocks.append(f"lowlight_iqa {lowlight_iqa.__version__}, torch {torch.__version__}, {platform.machine()}.\n")
    args.out.write_text("\n\n".join(block.strip("\n") for block in blocks) + "\n", encoding="utf-8")


def made(names: list[str]) -> dict[str, Any]:
    """The metrics that need no reference and whose weights are at hand."""
    metrics = {}
    for name in names:
        try:
            metric = lowlight_iqa.create_metric(name)
        except lowlight_iqa.WeightsNotFound as error:
            print(f"left out: {error}")
            continue
        if not metric.card.needs_reference:
            metrics[name] = metric
    return metrics


def speeds() -> tuple[dict[str, float], str]:
    """Milliseconds per megapixel of each metric on 512x512 pictures, forward; and on which machine."""
    path = Path(__file__).with_name("speed.json")
    facts = json.loads(path.read_text()) if path.is_file() else {"rows": [], "machine": ""}
    found = {}
    for row in facts["rows"]:
        count, height, width = row["size"]
        if row["library"] == "lowlight_iqa" and height == 512 and not row["backward"] and "seconds" in row:
            found[row["metric"]] = row["seconds"] * 1e9 / (count * height * width)
    return found, facts["machine"]


def better(result: Evaluation, figure: Figure) -> Figure:
    """A correlation, turned so that more is better."""
    if not result.card.lower_better:
        return figure
    return Figure(-figure.value, -figure.high, -figure.low)


def overview(found: dict[str, list[Evaluation]], metrics: dict[str, Any]) -> str:
    """Metric x data set: SRCC; then what a user has to know."""
    columns = []  # (head, figures by metric)
    for name, results in found.items():
        split = results[0].dataset.split
        columns.append((f"{name}, {split}", {r.card.name: better(r, r.figures["SRCC"]) for r in results}))
        if DARK in results[0].parts:
            dark = {r.card.name: better(r, r.parts[DARK].figures["SRCC"]) for r in results}
            columns.append((f"{name}, {split}, dark", dark))
    fast, machine = speeds()
    heads = [f"SRCC, {head}" for head, _ in columns]
    heads += ["trained on people's scores", "license", "parameters", "ms per megapixel"]
    lines = [f"| metric | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in sorted(metrics, key=lambda name: -columns[0][1][name].value):
        card = metrics[name].card
        cells = [short(column[name]) for _, column in columns]
        numbers = sum(value.numel() for value in metrics[name].state_dict().values())
        license = card.license + ("" if card.commercial else " (not commercial)")
        learned = card.trained_on.split(";")[0] if card.learned else "no"
        cells += [learned, license, f"{numbers:,}", f"{fast[name]:.1f}" if name in fast else "not measured"]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += [
        "",
        "Parameters: all numbers in the weights, support vectors and statistics included. Speed: forward pass on",
    ]
    lines[-1] += f" 512x512 pictures, {machine}." if machine else " 512x512 pictures, by benchmarks/test_speed.py."
    return "\n".join(lines)


def short(figure: Figure) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def details(name: str, results: list[Evaluation]) -> str:
    """All figures on one data set, and what is published on it."""
    first = results[0]
    lines = [f"## {name}, {first.dataset.split}: {len(first.scores)} pictures", ""]
    inside = list(first.within)
    heads = ["SRCC", "KRCC", "PLCC", "PLCC, logistic", "RMSE", *(f"{what} within scenes" for what in inside)]
    lines += [f"| metric | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for result in sorted(results, key=lambda r: -better(r, r.figures["SRCC"]).value):
        figures = [better(result, result.figures[what]) for what in ("SRCC", "KRCC", "PLCC")]
        figures += [result.figures[what] for what in ("PLCC, logistic", "RMSE")]
        figures += [
            better(result, result.within[what]) if what == "mean SRCC" else result.within[what] for what in inside
        ]
        lines.append(f"| `{result.card.name}` | {' | '.join(map(short, figures))} |")
    published = [
        row for row in rows() if row.get("dataset") == name and row["how"] != "card" and "attribute" not in row
    ]
    if published:
        lines += ["", "Published:", "", "| what | SRCC | PLCC | RMSE | source and protocol |", "|---|---|---|---|---|"]
    for row in published:
        plcc = row.get("mapped", row.get("plcc", ""))
        cells = [told(row.get("srcc", "")), told(plcc), told(row.get("rmse", ""))]
        what = label(row).replace(f" {name}", "", 1) + (", retrained" if row["how"] == "retrain" else "")
        lines.append(f"| {what} | {' | '.join(cells)} | {row['source']}; {row['protocol']} |")
    return "\n".join(lines)


def told(figure: Any) -> str:
    return " to ".join(f"{end:g}" for end in figure) if isinstance(figure, list) else str(figure)


if __name__ == "__main__":
    main()
