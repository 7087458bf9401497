"""Where pictures come from: folders, globs, lists, tar shards, Parquet; the same order every time."""

import csv
import io
import os
import sys
import tarfile
import time

import pytest
from PIL import Image

import lowlight_iqa
from lowlight_iqa.cli.main import main
from lowlight_iqa.scoring.sources import find_sources


def names(*given):
    return [source.name for source in find_sources([str(item) for item in given])]


@pytest.fixture
def folder(tmp_path):
    """a.png, b/a.jpg, b/c.PNG, c.png and a text file."""
    (tmp_path / "b").mkdir()
    for name in ("c.png", "a.png", "b/c.PNG", "b/a.jpg"):
        Image.new("RGB", (40, 40), (90, 80, 70)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("a.png\n\nb/c.PNG\r\nmissing.png\n")
    return tmp_path


def test_folders_come_in_the_order_of_names(folder):
    assert names(folder) == [str(folder / name) for name in ("a.png", "b/a.jpg", "b/c.PNG", "c.png")]
    assert all(source.size > 0 and source.modified > 0 for source in find_sources([folder]))


def test_links_to_folders_are_not_followed_round_and_round(folder):
    (folder / "b" / "loop").symlink_to(folder)
    assert len(names(folder)) == 4


def test_globs(folder):
    assert names(folder / "*.png") == [str(folder / name) for name in ("a.png", "c.png")]
    assert names(folder / "**" / "*") == [str(folder / name) for name in ("a.png", "b/a.jpg", "b/c.PNG", "c.png")]
    (folder / "x[1].png").write_bytes((folder / "a.png").read_bytes())
    assert names(folder / "x[1].png") == [str(folder / "x[1].png")]


def test_a_list_names_pictures_from_its_own_folder_on(folder):
    found = list(find_sources([folder / "notes.txt"]))
    assert [source.name for source in found] == [str(folder / name) for name in ("a.png", "b/c.PNG", "missing.png")]
    assert [bool(source.error) for source in found] == [False, False, True]


def test_a_list_on_standard_input(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{folder}/c.png\n{folder}/a.png\n"))
    assert main(["score", "-", "-m", "exposure", "--format", "csv"]) == 0
    assert [row["path"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == [
        f"{folder}/c.png",
        f"{folder}/a.png",
    ]


def test_names_on_standard_input_may_be_any_bytes(folder, monkeypatch):
    odd = os.fsdecode(os.fsencode(folder) + b"/\xff.png")
    (folder / "a.png").rename(odd)
    given = io.TextIOWrapper(io.BytesIO(os.fsencode(f"{odd}\n{folder}/c.png\n")), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", given)
    found = list(find_sources(["-"]))
    assert [source.name for source in found] == [odd, f"{folder}/c.png"]
    assert not any(source.error for source in found)


def test_csv_with_a_column_of_paths(folder):
    table = folder / "table.csv"
    table.write_text("mos,Image\n3,c.png\n4,b/a.jpg\n")
    assert names(table) == [str(folder / "c.png"), str(folder / "b/a.jpg")]
    for separator in (";", "\t"):
        table.write_text(f"mos{separator}Image\n3,5{separator}c.png\n4,2{separator}b/a.jpg\n")
        assert names(table) == [str(folder / "c.png"), str(folder / "b/a.jpg")]
    table.write_text("mos,what\n3,c.png\n")
    (source,) = find_sources([table])
    assert "no column is named path, image" in source.error


def test_tar_shards_are_read_without_unpacking(folder, tmp_path_factory):
    shard = tmp_path_factory.mktemp("shards") / "0000.tar"
    with tarfile.open(shard, "w") as archive:
        for name in ("a.png", "notes.txt", "b/a.jpg"):
            archive.add(folder / name, name)
    records = list(lowlight_iqa.score(str(shard), "exposure"))
    assert [record.path for record in records] == [f"{shard}/a.png", f"{shard}/b/a.jpg"]
    (direct,) = lowlight_iqa.score(folder / "a.png", "exposure")
    assert records[0].results == direct.results
    for name in ("list.txt", "list.csv"):
        (shard.parent / name).write_text("path\n0000.tar\n" if name == "list.csv" else "0000.tar\n")
    for given in ("*.tar", "**/*", "list.txt", "list.csv", "*.txt"):
        assert names(shard.parent / given) == [record.path for record in records], given
    assert [source.name for source in find_sources([str(shard.parent / "*.tar")], shards=False)] == [str(shard)]
    with tarfile.open(shard.parent / "0000.tar.gz", "w:gz") as archive:
        archive.add(folder / "a.png", "a.png")
    assert names(shard.parent / "*.gz") == [f"{shard}.gz/a.png"]
    (empty,) = find_sources([shard.parent])
    assert str(shard.parent / "*.tar") in empty.error
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 3])
    last = list(lowlight_iqa.score(str(shard), "exposure"))[-1]
    assert str(shard) in last.error
    shard.write_text("no archive")
    (bad,) = lowlight_iqa.score(str(shard), "exposure")
    assert str(shard) in bad.error


def test_parquet_with_bytes_or_paths(folder):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    content = (folder / "a.png").read_bytes()
    tables = {
        "bytes": {"path": ["x", "y"], "bytes": [content, None]},
        "struct": {"image": [{"bytes": content, "path": "x"}, {"bytes": None, "path": "y"}]},
        "paths": {"path": ["a.png", "missing.png"]},
    }
    for name, columns in tables.items():
        path = folder / f"{name}.parquet"
        parquet.write_table(pyarrow.table(columns), path)
        good, bad = lowlight_iqa.score(path, "exposure")
        assert good.results, name
        assert bad.error, name
    parquet.write_table(pyarrow.table({"n": [1]}), folder / "none.parquet")
    (none,) = lowlight_iqa.score(folder / "none.parquet", "exposure")
    assert "no column is named path" in none.error


@pytest.mark.slow
def test_a_folder_of_100_000_files_starts_at_once(tmp_path):
    for k in range(100_000):
        (tmp_path / f"{k:06}.png").touch()
    start = time.perf_counter()
    first = next(iter(find_sources([tmp_path])))
    assert time.perf_counter() - start < 2
    assert first.name.endswith("000000.png")
