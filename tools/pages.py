"""Write the tables of README.md and docs/ that follow from the cards and from kept measurements.

    python tools/pages.py           # write them
    python tools/pages.py --check   # exit with 1 and name the pages that differ from what would be written

Each table stands between two comments, ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``. One whose data are not at
hand is left as it is and named. Measurements that take hours are kept in files of benchmarks/, from which their tables
are made. Not covered are tables whose runs were not kept: those of former weights and losses ("before"), and those of
docs/leiq.md, iaca.md, bmqa.md, fit.md and scale.md, which their benchmarks print.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lowlight_iqa import Card, create_metric, list_metrics
from lowlight_iqa.registry import get_card

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


def cards() -> list[Card]:
    """The cards of the metrics that need nothing but the package, learned ones first."""
    found = [get_card(name) for name in list_metrics()]
    return sorted((card for card in found if not card.origin and not card.checkpoint), key=lambda c: not c.learned)


def metric_table() -> str:
    """What each metric sees, misses, and may be used for."""
    rows = ["| metric | range, better | answers to | known to misjudge | commercial use |", "|---|---|---|---|---|"]
    for card in cards():
        low, high = card.score_range
        rows.append(
            f"| `{card.name}` | {low:g} to {high:g}, {'lower' if card.lower_better else 'higher'} "
            f"| {', '.join(card.sees) or 'one property alone'} | {plain(card.blind_spots) or 'see its page'} "
            f"| {'yes' if card.commercial else 'no'} |"
        )
    return "\n".join(rows)


def reached_table() -> str:
    """The figures that the cards of the learned metrics state."""
    rows = ["| metric | figure | reached |", "|---|---|---|"]
    for card in cards():
        rows += [f"| `{card.name}` | {plain(what)} | {plain(value)} |" for what, value in card.reached.items()]
    return "\n".join(rows)


def looks_table() -> str:
    """How many models of each name were scored on the test split."""
    found = [card for card in cards() if card.looks]
    rows = ["| metric | models scored on the test split |", "|---|---|"]
    rows += [f"| `{card.name}` | {card.looks} |" for card in found]
    return "\n".join([*rows, f"| all | {sum(card.looks for card in found)} |"])


def speed_table() -> str:
    """Rows of benchmarks/speed.json, as benchmarks/test_speed.py keeps them."""
    from test_speed import speed_table

    return speed_table(json_file("speed.json"))


def speed_leiq_table() -> str:
    """The authors' LEIQ on a GPU, from the same file."""
    from test_speed import leiq_table

    return leiq_table(json_file("speed.json"))


def response_table() -> str:
    """Mean scores of the sample photographs at some exposures and with some noise; plot_response.py draws them."""
    from plot_response import answers, photographs

    exposures, sigmas, pictures = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02), (0.01, 0.04, 0.1, 0.15), photographs()
    head = ["metric", "exposure x1", *(f"x{x:g}" for x in exposures[1:]), "noise 0.01", *(f"{s:g}" for s in sigmas[1:])]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name in ("niqe", "brisque", "piqe", "exposure", "colorfulness", "entropy", "contrast", "noise"):
        _, files, noisy = answers(name, pictures, exposures, sigmas)
        rows.append("| " + " | ".join([f"`{name}`", *(f"{score:#.3g}".rstrip(".") for score in files + noisy)]) + " |")
    return "\n".join(rows)


def official_table() -> str:
    """Scores of the pictures that came with the authors' scores, beside these.

    Raises:
        FileNotFoundError: the pictures are not at hand.
    """
    folder = Path(os.environ.get("LOWLIGHT_IQA_CALIBRATION", "/nowhere"))
    with (folder / "official.csv").open(encoding="utf-8") as file:
        official = {row.pop("Method"): row for row in csv.DictReader(file)}
    names = ("niqe", "brisque", "piqe")
    head = ["picture", *(f"`{name}` official | ours | " for name in names)]
    rows = ["| " + " | ".join(head) + "|", "|---" * 10 + "|"]
    for picture in official["niqe"]:
        cells = [picture.removesuffix(".bmp")]
        for name in names:
            theirs, ours = float(official[name][picture]), create_metric(name)(folder / picture).item()
            digits = {"niqe": 4, "brisque": 3, "piqe": 2}[name]
            off = f"{ours - theirs:+.2f}" if name == "brisque" else f"{100 * (ours / theirs - 1):+.2f} %"
            cells += [f"{theirs:.{digits}f}", f"{ours:.{digits}f}", off]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def reliability_table() -> str:
    """Rows of benchmarks/withstands.json, as benchmarks/withstands.py keeps them."""
    rows = ["| what | reached | check | commit |", "|---|---|---|---|"]
    for check, found in json_file("withstands.json").items():
        rows += [f"| {what} | {reached} | `{check}` | {found['commit']} |" for what, reached in found["rows"]]
    return "\n".join(rows)


def peak_table() -> str:
    """The peak of memory of each metric, from the same file."""
    peaks = json_file("withstands.json")["memory"]["peaks"]
    return "\n".join(["| metric | peak, MiB |", "|---|---|", *(f"| `{name}` | {peaks[name]:,} |" for name in peaks)])


def robustness_tables() -> str:
    """Rows of benchmarks/robustness.jsonl, as benchmarks/robustness.py adds them."""
    from robustness import tables

    return tables(json_lines("robustness.jsonl"))


def enhancement_tables() -> str:
    """Runs of benchmarks/enhancement.jsonl, as benchmarks/enhancement.py adds them."""
    from enhancement import kept

    return kept()


def restoration_tables() -> str:
    """Runs of benchmarks/restoration.jsonl, as benchmarks/restoration.py adds them."""
    from restoration import kept

    return kept()


def leaderboard_page() -> str:
    """docs/leaderboard.md, from the figures that benchmarks/leaderboard.py has kept."""
    from leaderboard import KEPT, page

    return page(json.loads(KEPT.read_text(encoding="utf-8")))


def json_file(name: str) -> dict[str, Any]:
    """What a benchmark has kept in a file of benchmarks/."""
    kept: dict[str, Any] = json.loads((BENCHMARKS / name).read_text(encoding="utf-8"))
    return kept


def json_lines(name: str) -> list[dict[str, Any]]:
    """The rows of a file of benchmarks/."""
    return [json.loads(line) for line in (BENCHMARKS / name).read_text(encoding="utf-8").splitlines()]


def plain(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


TABLES: dict[str, Callable[[], str]] = {
    "metrics": metric_table,
    "reached": reached_table,
    "looks": looks_table,
    "speed": speed_table,
    "speed-leiq": speed_leiq_table,
    "response": response_table,
    "official": official_table,
    "reliability": reliability_table,
    "peak": peak_table,
    "robustness": robustness_tables,
    "enhancement": enhancement_tables,
    "restoration": restoration_tables,
}
WHOLE: dict[str, Callable[[], str]] = {
    "docs/leaderboard.md": leaderboard_page
}  # pages that are one table after another


def written(text: str) -> str:
    """A page with each of its tables as it should be; those without data stay."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if begin not in text:
            continue
        try:
            table = make()
        except FileNotFoundError as error:
            print(f"left as it is, for want of data: table {name} ({error})")
            continue
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}"
    return text


def main() -> int:
    """Write the pages, or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page differs")
    args = parser.parse_args()
    differing = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        before = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT).as_posix()
        after = WHOLE[name]() if name in WHOLE else written(before)
        if after != before:
            differing.append(name)
            if not args.check:
                path.write_text(after, encoding="utf-8")
    if differing:
        print(f"{'differ' if args.check else 'written'}: {', '.join(differing)}")
    return 1 if args.check and differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
