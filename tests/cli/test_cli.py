"""The command line: scores on stdout, one line on stderr for what goes wrong, an honest exit status."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support import ROOT

import lowlight_iqa
from lowlight_iqa import Assessment, Card, Metric, registry
from lowlight_iqa.cli.main import main
from lowlight_iqa.scoring import pipeline


class Brightness(Metric):
    def score_batch(self, x, reference=None):
        return x.mean((1, 2, 3)) if reference is None else (x - reference).mean((1, 2, 3))

    def explain_batch(self, x):
        return self.score_batch(x), {"light": x.amax((1, 2, 3)), "noise": x.amin((1, 2, 3))}


FACTS = {
    "source": "test",
    "lower_better": False,
    "score_range": (0.0, 1.0),
    "license": "Apache-2.0",
    "min_size": 8,
}


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setattr(registry, "_entries", {**registry._table()})
    registry.register(
        Card(name="toy", summary="mean brightness", learned=True, **FACTS),
        Card(name="toy-nc", summary="the same, not for commerce", learned=True, commercial=False, **FACTS),
        Card(name="toy-pair", summary="gain in brightness", needs_reference=True, **FACTS),
    )(Brightness)


@pytest.fixture
def folder(tmp_path):
    """c.png (0.6), a.png (0.2), sub/b.png (0.4) and a text file."""
    (tmp_path / "sub").mkdir()
    for name, level in {"c.png": 0.6, "a.PNG": 0.2, "sub/b.png": 0.4}.items():
        Image.fromarray(np.full((16, 16, 3), round(level * 255), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_of_a_folder(folder, capsys):
    status, out, err = run(capsys, "score", folder, "--metric", "toy", "--format", "csv")
    assert status == 0
    assert err.startswith("3 scored, 0 failed; toy mean 0.4, deviation 0.163; ")
    assert [row["path"] for row in rows(out)] == [str(folder / name) for name in ("a.PNG", "c.png", "sub/b.png")]
    assert [float(row["toy"]) for row in rows(out)] == pytest.approx([0.2, 0.6, 0.4], abs=1e-5)


def test_the_order_given_is_kept(folder, capsys):
    paths = [folder / name for name in ("sub/b.png", "c.png", "a.PNG", "c.png")]
    _, out, _ = run(capsys, "score", *paths, "-m", "toy", "--format", "csv")
    assert [row["path"] for row in rows(out)] == [str(path) for path in paths]


def test_several_metrics_decode_once(folder, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(pipeline, "read_image", lambda path: seen.append(path) or lowlight_iqa.read_image(path))
    _, out, _ = run(capsys, "score", folder, "-m", "toy,toy-nc", "-m", "toy", "--format", "csv")
    assert list(rows(out)[0]) == ["path", "toy", "toy-nc"]
    assert len(seen) == 3


def test_table(folder, capsys):
    status, out, _ = run(capsys, "score", folder / "c.png", "-m", "toy", "--attributes")
    assert status == 0
    assert out.split() == [
        "path",
        "toy",
        "toy.light",
        "toy.noise",
        str(folder / "c.png"),
        "0.6",
        "0.6",
        "0.6",
    ]


def test_json_with_attributes(folder, capsys):
    _, out, _ = run(capsys, "score", folder / "c.png", "-m", "toy", "--attributes", "--format", "json")
    (entry,) = json.loads(out)
    assert entry["toy"]["score"] == pytest.approx(0.6)
    assert entry["toy"]["attributes"] == pytest.approx({"light": 0.6, "noise": 0.6})
    assert entry["toy"]["description"].startswith("toy 0.6")


@pytest.mark.parametrize("format", ["table", "csv", "json"])
def test_one_bad_file(folder, capsys, format):
    bad, small = folder / "bad.png", folder / "small.png"
    bad.write_bytes(b"not a picture")
    Image.new("RGB", (4, 4)).save(small)
    missing = folder / "missing.png"
    paths = [folder / "c.png", bad, missing, small, folder / "a.PNG"]
    status, out, err = run(capsys, "score", *paths, "-m", "toy", "--format", format)
    assert status == 1
    *lines, summary = err.splitlines()
    assert summary.startswith("2 scored, 3 failed; ")
    for path, line in zip((bad, missing, small), lines, strict=True):
        assert str(path) in line
    if format == "json":
        entries = json.loads(out)
        assert [entry["path"] for entry in entries] == [str(path) for path in paths]
        assert ["error" in entry for entry in entries] == [False, True, True, True, False]
        assert ["toy" in entry for entry in entries] == [True, False, False, False, True]
    else:
        assert [path for path in paths if str(path) in out] == [paths[0], paths[-1]]


def test_only_bad_files(folder, capsys):
    arguments = ("score", folder / "missing.png", "-m", "toy", "--format")
    assert run(capsys, *arguments, "csv")[:2] == (1, "path,toy\n")
    assert run(capsys, *arguments, "table")[:2] == (1, "")


def test_reference(folder, capsys):
    dark = folder / "dark"
    dark.mkdir()
    Image.fromarray(np.full((16, 16, 3), 51, np.uint8)).save(dark / "c.png")
    for reference in (dark, dark / "c.png"):
        status, out, _ = run(
            capsys,
            "score",
            folder / "c.png",
            "-m",
            "toy-pair,toy",
            "--reference",
            reference,
            "--format",
            "csv",
        )
        assert status == 0
        assert float(rows(out)[0]["toy-pair"]) == pytest.approx(0.4, abs=1e-5)
    status, _, err = run(capsys, "score", folder / "a.PNG", "-m", "toy-pair", "--reference", dark)
    assert status == 1
    assert str(dark / "a.PNG") in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "{folder}", "-m", "toi"], "did you mean 'toy'"),
        (["score", "{folder}", "-m", "toy,toy-nc", "--weights", "x"], "--weights belongs to one metric"),
        (["score", "{folder}", "-m", "toy-pair"], "give --reference"),
        (["score", "{folder}", "-m", "toy", "--reference", "x"], "leave it out"),
        (["score", "{folder}", "-m", "toy", "--device", "teapot"], "'teapot' cannot be used here"),
        (["score", "{folder}", "-m", "toy", "--device", "cuda:77"], "'cuda:77' cannot be used here"),
        (["card", "toi"], "did you mean 'toy'"),
    ],
)
def test_what_cannot_run_at_all(folder, capsys, arguments, words):
    status, out, err = run(capsys, *(argument.format(folder=folder) for argument in arguments))
    assert (status, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["score"], ["scare"], ["score", "x", "--format", "xml"], ["list", "--what"]])
def test_wrong_usage_is_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "--help" in captured.err


def test_progress_on_a_terminal_alone(folder, capsys, monkeypatch):
    assert "picture/s" not in run(capsys, "score", folder, "-m", "toy")[2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, out, err = run(capsys, "score", folder, "-m", "toy", "--format", "csv")
    assert "picture/s" in err
    assert len(rows(out)) == 3


def test_scoring_builds_no_graph(folder, capsys, monkeypatch):
    modes = []
    monkeypatch.setattr(
        Brightness,
        "explain_batch",
        lambda self, x: modes.append(torch.is_inference_mode_enabled()) or (x.sum((1, 2, 3)), {}),
    )
    run(capsys, "score", folder / "c.png", "-m", "toy", "--attributes")
    assert modes == [True]
    assert Assessment(1.0).attributes == {}


def test_list(capsys):
    status, out, _ = run(capsys, "list")
    assert status == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert {"name", "toy", "toy-nc", "toy-pair", *lowlight_iqa.list_metrics()} == set(lines)
    assert lines["toy"].split() == ["toy", "higher", "0", "to", "1", "mean", "brightness"]
    assert "toy-pair" not in run(capsys, "list", "--learned")[1]
    assert "toy-nc" not in run(capsys, "list", "--commercial")[1]


def test_card(capsys):
    status, out, _ = run(capsys, "card", "toy")
    assert status == 0
    assert out.startswith("toy: mean brightness\n")


def test_help_names_every_command_without_importing_one():
    code = (
        "import sys; from lowlight_iqa.cli.main import COMMANDS, main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(f'lowlight_iqa.cli.{name}' in sys.modules for name in COMMANDS))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("score", "list", "card", "convert", "train", "fetch", "push", "evaluate"):
        assert f"    {name} " in done.stdout


def test_as_a_module():
    run = subprocess.run(
        [sys.executable, "-m", "lowlight_iqa", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == f"lowlight-iqa {lowlight_iqa.__version__}\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes of another kind")
def test_a_reader_that_stops_reading():
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [sys.executable, "-m", "lowlight_iqa", "list"],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert run.stderr == b""
    assert run.returncode == 1


# train


def test_recipes_are_imported_for_training_alone():
    code = (
        "import sys; from lowlight_iqa.cli import main; main(['list']); "
        "sys.exit(any(name.startswith('lowlight_iqa.training.') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("arguments", "word"), [([], "RECIPE"), (["nonsense"], "invalid choice: 'nonsense'")])
def test_training_names_its_recipes(arguments, word, capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", *arguments])
    assert left.value.code == 2
    assert word in capsys.readouterr().err
