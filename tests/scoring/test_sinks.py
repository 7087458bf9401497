"""Files of scores: written as they come, cut anywhere, gone on with; the same table as of one undisturbed run."""

import csv
import hashlib
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.forks import Forks

from lowlight_iqa import Assessment
from lowlight_iqa.cli.main import main
from lowlight_iqa.scoring import Record
from lowlight_iqa.scoring.pipeline import Work, make_metrics, run
from lowlight_iqa.scoring.sinks import csv_line, inert, open_sink, original
from lowlight_iqa.scoring.sources import Source, find_sources

NAMES = [
    "plain.png",
    "=1+1.png",
    "+a.png",
    "-b.png",
    "@c.png",
    "\td.png",
    "'e.png",
    'q"u,o\nte\r.png',
    "\udcff.png",
    "é",
]
KILLS = int(os.environ.get("LOWLIGHT_IQA_KILLS", "4"))
KINDS = ["csv", "jsonl", "parquet"]


def record(name, score=0.5, error=""):
    if error:
        return Record(name, error=error, size=3, modified=7)
    results = {"leiq": Assessment(score, {"light": 2.5}, {"extra": -1.0})}
    return Record(name, results, size=len(name), modified=10**18 + len(name))


def source(name):
    return Source(name, name, len(name), 10**18 + len(name))


def table(path, metric="leiq"):
    """Rows by path, whatever the kind of file."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return {row["path"]: row[metric]["score"] if metric in row else row["error"] for row in rows}
    if path.suffix == ".parquet":
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    else:
        with path.open(newline="", errors="surrogateescape") as file:
            rows = [{**row, "path": original(row["path"])} for row in csv.DictReader(file)]
    assert len(rows) == len({row["path"] for row in rows})
    return {row["path"]: row["error"] or float(row[metric]) for row in rows}


def shown(name, kind):
    return name.encode(errors="backslashreplace").decode() if kind == "parquet" else name


def expected(kind):
    return {shown(name, kind): k / 10 for k, name in enumerate(NAMES)}


def fill(sink):
    for k, name in enumerate(NAMES):
        if not sink.holds(source(name)):
            sink.write(record(name, k / 10))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_back_and_held(tmp_path, kind):
    pytest.importorskip("pyarrow") if kind == "parquet" else None
    path = tmp_path / f"scores.{kind}"
    with open_sink(path, ["leiq"]) as sink:
        fill(sink)
    assert table(path) == pytest.approx(expected(kind))
    assert list(tmp_path.iterdir()) == [path]
    content = path.read_bytes()
    with open_sink(path, ["leiq"], resume=True) as sink:
        held = [name for name in NAMES if sink.holds(source(name))]
        assert set(NAMES) - set(held) <= ({"\udcff.png"} if kind == "parquet" else set())
    assert table(path) == pytest.approx(expected(kind))
    assert path.read_bytes() == content or kind == "parquet"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_cut_at_any_byte_is_completed(tmp_path, kind):
    whole = tmp_path / f"whole.{kind}"
    with open_sink(whole, ["leiq"]) as sink:
        fill(sink)
    content = whole.read_bytes()
    path = tmp_path / f"cut.{kind}"
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with open_sink(path, ["leiq"], resume=True) as sink:
            fill(sink)
        assert path.read_bytes() == content, end


def test_a_run_that_ended_before_its_parquet_was_written_goes_on(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "scores.parquet"
    sink = open_sink(path, ["leiq"])
    for k, name in enumerate(NAMES[:4]):
        sink.write(record(name, k / 10))
    sink.file.close()  # killed
    assert not path.exists()
    with pytest.raises(ValueError, match="--resume"):
        open_sink(path, ["leiq"])
    with open_sink(path, ["leiq"], resume=True) as sink:
        assert [name for name in NAMES if sink.holds(source(name))] == NAMES[:4]
        fill(sink)
    assert table(path) == pytest.approx(expected("parquet"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", KINDS)
def test_changed_and_failed_pictures_are_scored_again_and_replace_their_rows(tmp_path, kind):
    pytest.importorskip("pyarrow") if kind == "parquet" else None
    path = tmp_path / f"scores.{kind}"
    with open_sink(path, ["leiq"]) as sink:
        sink.write(record("bad.png", error="=bad.png is damaged"))
        sink.write(record("good.png", 0.1))
        sink.write(record("other.png", 0.2))
    assert table(path) == {"bad.png": inert("=bad.png is damaged") if kind == "csv" else "=bad.png is damaged"} | {
        "good.png": 0.1,
        "other.png": 0.2,
    }
    with open_sink(path, ["leiq"], resume=True) as sink:
        assert not sink.holds(Source("bad.png", "bad.png", 3, 7))
        assert not sink.holds(Source("good.png", "good.png", 99, 99))
        assert sink.holds(source("other.png"))
        sink.write(record("bad.png", 0.3))
        sink.write(record("good.png", 0.4))
    assert table(path) == pytest.approx({"bad.png": 0.3, "good.png": 0.4, "other.png": 0.2})


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_known_by_its_content_and_another_content_of_its_size_is_not(tmp_path, kind):
    pytest.importorskip("pyarrow") if kind == "parquet" else None
    path, picture = tmp_path / f"scores.{kind}", tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(picture)
    content = picture.read_bytes()
    (first,) = find_sources([picture])
    with open_sink(path, ["contrast"]) as sink:
        for found in run([first], Work(make_metrics(["contrast"], None, None), digest=True)):
            sink.write(found)
    assert found.digest == hashlib.sha256(content).hexdigest()

    def held(source):
        with open_sink(path, ["contrast"], resume=True) as sink:
            return sink.holds(source)

    os.utime(picture, ns=(1, 1))  # as copying does
    (copy,) = find_sources([picture])
    assert copy.modified != first.modified
    assert held(first)
    assert held(copy)
    assert held(Source(str(picture), content, len(content)))  # from Parquet, which knows no time
    assert not held(Source(str(picture), content[::-1], len(content)))
    picture.write_bytes(content[::-1])
    os.utime(picture, ns=(1, 1))
    assert not held(copy)
    picture.unlink()
    assert not held(copy)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_files_that_are_not_ours_are_left_alone(tmp_path, kind):
    path = tmp_path / f"scores.{kind}"
    path.write_text('name,age\n"x",3\n' if kind == "csv" else '{"name": "x"}\n')
    content = path.read_bytes()
    with pytest.raises(ValueError, match="exists already"):
        open_sink(path, ["leiq"])
    with pytest.raises(ValueError, match="give another --out"):
        open_sink(path, ["leiq"], resume=True)
    assert path.read_bytes() == content
    with pytest.raises(ValueError, match=r"one of \.csv, \.jsonl, \.parquet"):
        open_sink(tmp_path / "scores.xlsx", ["leiq"])


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_scores_of_another_metric_are_not_gone_on_with(tmp_path, kind):
    path = tmp_path / f"scores.{kind}"
    with open_sink(path, ["leiq"]) as sink:
        fill(sink)
    with pytest.raises(ValueError, match="give another --out"):
        open_sink(path, ["iaca"], resume=True)


def test_a_full_disk_names_the_file_and_the_remedy(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    sink = open_sink(tmp_path / "scores.csv", ["leiq"])
    with Path("/dev/full").open("wb", buffering=0) as full:
        sink.file, real = full, sink.file
        with pytest.raises(OSError, match=r"scores\.csv cannot be written \(No space left.*--resume"):
            sink.write(record("a.png"))
        real.close()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "'x", "''", "plain", "", "a=b"])
def test_no_cell_is_a_formula_and_every_one_comes_back(text):
    assert not inert(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert original(inert(text)) == text
    assert next(csv.reader([csv_line([inert(text), 1])]))[0] == inert(text)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for k in range(300):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{k:03}.png")
    return folder


def test_the_command_resumes(pictures, tmp_path, capsys):
    arguments = ["score", str(pictures), "-m", "contrast,noise", "--out", str(tmp_path / "scores.csv")]
    assert main(arguments) == 0
    assert capsys.readouterr().out == ""
    content = (tmp_path / "scores.csv").read_bytes()
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    (tmp_path / "scores.csv").write_bytes(content[: len(content) // 2])
    assert main([*arguments, "--resume"]) == 0
    assert "skipped" in capsys.readouterr().err
    assert (tmp_path / "scores.csv").read_bytes() == content
    assert main([*arguments[:4], "--resume"]) == 2
    for picture in pictures.iterdir():
        os.utime(picture, ns=(7, 7))
    assert main([*arguments, "--resume"]) == 0
    assert "300 skipped" in capsys.readouterr().err


@pytest.fixture(scope="module")
def forks():
    with Forks() as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_again_and_again_ends_with_the_same_table(pictures, tmp_path, kind, forks, record_property):
    """``LOWLIGHT_IQA_KILLS=50 python -m pytest -m slow -n0 tests/scoring/test_sinks.py -k killed``."""
    pytest.importorskip("pyarrow") if kind == "parquet" else None
    arguments = ["score", pictures, "-m", "contrast", "--workers", "2", "--out"]
    whole = tmp_path / f"whole.{kind}"
    assert forks.run(*arguments, whole) == 0
    rng, kills, done = random.Random(0), 0, 0
    while kills < KILLS:
        path, killed, size = tmp_path / f"killed{done}.{kind}", True, 0
        journal = path.with_name(f"{path.name}.jsonl") if kind == "parquet" else path
        while killed and kills < KILLS:
            child = forks.start(*arguments, path, "--resume")
            wanted = size + rng.randrange(4000)
            killed = forks.kill_at(
                child,
                lambda journal=journal, wanted=wanted: journal.exists() and journal.stat().st_size > wanted,
                rng.uniform(0, 0.02),
            )
            kills += killed
            if journal.exists():
                assert journal.stat().st_size >= size  # nothing that was there is lost
                size = journal.stat().st_size
        assert main([*map(str, arguments), str(path), "--resume"]) == 0
        assert table(path, "contrast") == table(whole, "contrast")
        assert len(table(path, "contrast")) == 300
        done += 1
    record_property("kills", kills)
