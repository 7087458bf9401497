"""Which code gives which number: niqe, brisque and piqe here, in piq and in pyiqa, on the five calibration pictures.

    pip install -e ".[peers]" && python benchmarks/which_number.py PICTURES

PICTURES holds the pictures and ``official.csv``, what the authors' or MATLAB's code gives for them. Writes the table of
docs/from-pyiqa.md. piq and pyiqa would download the parameters of niqe and brisque; they are handed ours, which are
the same numbers. A library that is not installed is left out.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from test_speed import load

import lowlight_iqa

PAGE = Path(__file__).parents[1] / "docs" / "from-pyiqa.md"
BEGIN, END = "<!-- numbers: begin -->", "<!-- numbers: end -->"
CODES = {
    "niqe": ("niqe", "lowlight_iqa", "pyiqa", "niqe_matlab"),
    "brisque": ("brisque", "lowlight_iqa", "piq", "pyiqa", "brisque_matlab"),
    "piqe": ("piqe", "lowlight_iqa", "pyiqa"),
}
OFFICIAL = {
    "niqe": "the authors' release",
    "niqe_matlab": "MATLAB's function, other parameters",
    "brisque": "the authors' release",
    "brisque_matlab": "MATLAB's function, other parameters",
    "piqe": "MATLAB's function",
}


def metric_of(library: str, name: str) -> Callable[[Any], Any]:
    """The metric of a library: a picture (1, 3, H, W) to its score."""
    if library == "pyiqa" and name == "piqe":  # it has no parameters
        from lowlight_iqa.backbones import import_torchvision

        import_torchvision()
        import pyiqa

        return pyiqa.create_metric("piqe", device="cpu")
    return load(library, name, "cpu")


def rows(folder: Path) -> list[list[str]]:
    """The table: metric, code, and a score for each picture."""
    with (folder / "official.csv").open(newline="") as file:
        (_, *names), *official = csv.reader(file)
    known = {method: [float(value) for value in values] for method, *values in official}
    pictures = [lowlight_iqa.read_image(folder / name)[None] for name in names]

    table = [["metric", "code", *(Path(name).stem for name in names)]]
    for name, codes in CODES.items():
        for code in codes:
            if code in known:
                what, scores = OFFICIAL[code], known[code]
            elif importlib.util.find_spec(code) is None:
                print(f"{code} is not installed and left out")
                continue
            else:
                metric = metric_of(code, name)
                with torch.no_grad():
                    scores = [float(metric(picture)) for picture in pictures]
                what = "here" if code == "lowlight_iqa" else f"{code} {importlib.metadata.version(code)}"
            table.append([name, what, *(f"{score:.4f}" for score in scores)])
    return table


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    head, *body = rows(parser.parse_args().pictures)
    lines = [head, ["---", "---", *("---:" for _ in head[2:])], *body]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    print(table)
    text = PAGE.read_text(encoding="utf-8")
    filled = f"{BEGIN}\n\n{table}\n\n{END}"
    PAGE.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: filled, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
