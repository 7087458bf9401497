"""benchmarks/published.toml: well-formed, and no card states a figure without a row that measures it."""

import subprocess
import sys

import pytest
from published import FIGURES, HOWS, label, rows
from support import ROOT

import lowlight_iqa
from lowlight_iqa.data import list_datasets, load
from lowlight_iqa.registry import get_card

ROWS = rows()


def test_every_figure_of_every_card_has_a_row():
    stated = {(name, what) for name in lowlight_iqa.list_metrics() for what in get_card(name).reached}
    measured = {(row["metric"], row["card"]) for row in ROWS if row["how"] == "card"}
    assert stated - measured == set(), "add a row to benchmarks/published.toml"
    assert measured - stated == set(), "these rows measure what no card states"


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_a_row_says_where_it_comes_from_and_how_it_is_measured(row):
    assert row["how"] in HOWS
    assert row["source"]
    assert row["protocol"]
    assert row["how"] == "quoted" or row["tolerance"] > 0
    if row["how"] in ("out of reach", "weights"):
        assert "`lowlight-iqa " in row["needs"]  # the command that gets it, or as near as one can get
    if row["how"] == "card":
        assert "measure" in row or row["figure"] in ("srcc", "plcc")
    else:
        given = [
            end
            for name in FIGURES
            if name in row
            for end in (row[name] if isinstance(row[name], list) else [row[name]])
        ]
        assert given
        assert all(0 < figure < 1 for figure in given)
    if "dataset" in row:
        assert row["dataset"] in list_datasets()
        with pytest.raises(FileNotFoundError, match="does not exist"):  # the split is known, the folder is not there
            load(row["dataset"], "nowhere", row["split"])


def test_no_two_rows_state_the_same_figure():
    labels = [(label(row), row["source"]) for row in ROWS]
    assert len(set(labels)) == len(labels)


def test_pytest_collects_the_benchmarks():
    command = [sys.executable, "-m", "pytest", "benchmarks", "--collect-only", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "test_published.py::test_published_figure" in done.stdout
