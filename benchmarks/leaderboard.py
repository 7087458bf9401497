"""Write docs/leaderboard.md: every metric on every data set at hand.

    python benchmarks/leaderboard.py --data DIR [--metrics NAME ...] [--out docs/leaderboard.md]

The data sets lie in DIR under their names (``lowlight_iqa.data.list_datasets()``).
Scores are cached: a second run is quick. The figures are kept in leaderboard.json, from which tools/pages.py writes the
page again.
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
PAGE = Path(__file__).parents[1] / "docs" / "leaderboard.md"
KEPT = Path(__file__).with_suffix(".json")
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
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--kept", type=Path, default=KEPT, help="where the figures are kept, for tools/pages.py")
    args = parser.parse_args()
    found = measured(args.data, made(args.metrics or lowlight_iqa.list_metrics()))
    args.kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    args.out.write_text(page(found), encoding="utf-8")


def measured(data: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """What the page is made from: figures with their intervals by data set and metric, facts of the metrics."""
    sets, missing = {}, []
    for name in list_datasets():
        try:
            load(name, data / name)
        except FileNotFoundError:
            missing.append(name)
            continue
        results = [evaluate(metric, name, data / name, progress=True) for metric in metrics.values()]
        first = results[0]
        sets[name] = {
            "split": first.dataset.split,
            "pictures": len(first.scores),
            "figures": {result.card.name: figures_of(result) for result in results},
            "dark": {r.card.name: bounds(better(r, r.parts[DARK].figures["SRCC"])) for r in results if DARK in r.parts},
        }
    if not sets:
        raise SystemExit(f"{data} holds none of {', '.join(list_datasets())} in full")
    fast, machine = speeds()
    return {
        "datasets": sets,
        "metrics": {name: facts_of(metric, fast.get(name)) for name, metric in metrics.items()},
        "machine": machine,
        "missing": [name for name in missing if name != "csv"],
        "versions": f"lowlight_iqa {lowlight_iqa.__version__}, torch {torch.__version__}, {platform.machine()}",
    }


def figures_of(result: Evaluation) -> dict[str, list[float]]:
    """The columns of a data set's table."""
    found = {what: better(result, result.figures[what]) for what in ("SRCC", "KRCC", "PLCC")}
    found |= {what: result.figures[what] for what in ("PLCC, logistic", "RMSE")}
    for what, figure in result.within.items():
        found[f"{what} within scenes"] = better(result, figure) if what == "mean SRCC" else figure
    return {what: bounds(figure) for what, figure in found.items()}


def bounds(figure: Figure) -> list[float]:
    return [figure.value, figure.low, figure.high]


def facts_of(metric: lowlight_iqa.Metric, speed: float | None) -> dict[str, Any]:
    """What a user has to know of a metric."""
    card = metric.card
    return {
        "trained": card.trained_on.split(";")[0] if card.learned else "no",
        "license": card.license + ("" if card.commercial else " (not commercial)"),
        "parameters": sum(value.numel() for value in metric.state_dict().values()),
        "ms per megapixel": speed,
    }


def page(found: dict[str, Any]) -> str:
    """The page, from what ``measured`` returned."""
    blocks = [HEAD, overview(found), *(details(name, each) for name, each in found["datasets"].items())]
    blocks.append(f"Not at hand when this was written: {', '.join(found['missing'])}.")
    blocks.append(f"{found['versions']}.")
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n"


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


def overview(found: dict[str, Any]) -> str:
    """Metric x data set: SRCC; then what a user has to know."""
    columns = []  # (head, figures by metric)
    for name, each in found["datasets"].items():
        columns.append((f"{name}, {each['split']}", {metric: row["SRCC"] for metric, row in each["figures"].items()}))
        if each["dark"]:
            columns.append((f"{name}, {each['split']}, dark", each["dark"]))
    heads = [f"SRCC, {head}" for head, _ in columns]
    heads += ["trained on people's scores", "license", "parameters", "ms per megapixel"]
    lines = [f"| metric | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in sorted(found["metrics"], key=lambda name: -columns[0][1][name][0]):
        facts = found["metrics"][name]
        speed = facts["ms per megapixel"]
        cells = [short(column[name]) for _, column in columns]
        cells += [facts["trained"], facts["license"], f"{facts['parameters']:,}"]
        cells.append("not measured" if speed is None else f"{speed:.1f}")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += [
        "",
        "Parameters: all numbers in the weights, support vectors and statistics included. Speed: forward pass on",
    ]
    lines[-1] += f" 512x512 pictures, {found['machine'] or 'by benchmarks/test_speed.py'}."
    return "\n".join(lines)


def short(figure: list[float]) -> str:
    value, low, high = figure
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def details(name: str, found: dict[str, Any]) -> str:
    """All figures on one data set, and what is published on it."""
    lines = [f"## {name}, {found['split']}: {found['pictures']} pictures", ""]
    rows_of = sorted(found["figures"].items(), key=lambda item: -item[1]["SRCC"][0])
    heads = list(rows_of[0][1])
    lines += [f"| metric | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    lines += [f"| `{metric}` | {' | '.join(short(figures[head]) for head in heads)} |" for metric, figures in rows_of]
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
