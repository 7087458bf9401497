"""Every reader, on a folder in its authors' layout: whole, missing, half-complete and damaged."""

import contextlib
import csv
import json
import math
import random
import re
import time
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from scipy.io import savemat

from lowlight_iqa.data import Rated, list_datasets, load, register
from lowlight_iqa.data import biq2021 as biq
from lowlight_iqa.data import registry as data_registry
from lowlight_iqa.data.rated import MAX_BYTES


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def write_csv(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_xlsx(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)


def mle(root):
    scores = dict.fromkeys(("light", "color", "noise", "exposure", "nature", "content_recovery"), 3.5)
    rows = [
        {"id": name, "file": f"MLE/training/{name}.png", "mos": mos, **scores, "description": "dim brightness"}
        for name, mos in (("b_1_A", 4.5), ("b_12_J", 6.0))
    ]
    (root / "MLE-training.json").write_text(json.dumps(rows))
    (root / "MLE-test.json").write_text(json.dumps([{"id": "i_5_A", "file": "MLE/test/i_5_A.png"}]))
    touch(*(root / row["file"] for row in rows), root / "MLE" / "test" / "i_5_A.png")


def square_lol(root):
    names = [f"low{scene:05}_{made}_0.png" for scene in range(2476) for made in ("Self_Supervised",)]
    (root / "name_mos.txt").write_text("".join(f"{name}\t0.5\n" for name in names))
    touch(*(root / "enhancement" / name for name in names[2470:]))


def nnid(root):
    for size, folder in ((512, "sub512"), (1024, "sub1024"), (2048, "Sub2048")):
        name = f"D2_IC07_img3_{size}.jpg"
        (root / f"mos{size}_with_names.txt").write_text(f"0.25\t{name}\n")
        touch(root / folder / name)


def mliq(root):
    rows = [("D1_IC101_img1_512.jpg", 0.4, "", ""), ("canon_1.jpg", 0.6, "c1", "Canon EOS 6D")]
    write_csv(root / "MLIQ.csv", ("image", "mos", "group", "device"), *rows)
    touch(*(root / row[0] for row in rows))


def dark4k(root):
    write_csv(root / "Dark-4K.csv", ("image", "mos"), ("a.png", 0.3))
    touch(root / "a.png")


def biq2021(root):
    for split in ("Train", "Test"):
        name = f"ss01 ({split}).jpg"
        write_csv(root / f"{split} (Images and MOS).csv", ("Image Name", "MOS"), (name, 0.7))
        touch(root / "Images" / name)


def live_challenge(root):
    names = [f"t{k}.bmp" for k in range(1, 8)] + ["3.bmp", "4.bmp"]
    cells = np.empty((len(names), 1), object)
    cells[:, 0] = names
    (root / "Data").mkdir()
    savemat(root / "Data" / "AllImages_release.mat", {"AllImages_release": cells})
    savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": np.arange(len(names))[None] * 10.0})
    touch(*(root / "Images" / name for name in names[7:]))
    touch(*(root / "Images" / "trainingImages" / name for name in names[:7]))


def koniq10k(root):
    rows = [("1.jpg", 60.5, "training"), ("2.jpg", 70.5, "test"), ("3.jpg", 80.5, "validation")]
    write_csv(root / "koniq10k_distributions_sets.csv", ("image_name", "MOS", "set"), *rows)
    touch(*(root / "512x384" / row[0] for row in rows))


def spaq(root):
    heads = ("Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")
    rows = [heads, ("00001.jpg", 35.2, 60, 56, 40, 60, 30), ("00002.jpg", 42.5, 47, 58, 29, 43, 21)]
    write_xlsx(root / "Annotations" / "MOS and Image attribute scores.xlsx", rows)
    scenes = [("Image name", "Landscape", "Night scene"), ("00001.jpg", 1, 0), ("00002.jpg", 0, 0.5)]
    write_xlsx(root / "Annotations" / "Scene category labels.xlsx", scenes)
    touch(root / "TestImage" / "00001.jpg", root / "TestImage" / "00002.jpg")


LAYOUTS = {f.__name__: f for f in (biq2021, dark4k, koniq10k, live_challenge, mle, mliq, nnid, spaq, square_lol)}


def lay(name, folder):
    """The data set laid out in a folder; returns what to give as root."""
    if name == "csv":
        header = ("image", "mos", "group", "device", "enhancer", "description", "attribute.noise")
        write_csv(folder / "mine.csv", header, ("in/a.png", 1.5, "g", "phone", "CRM", "dim", 2))
        touch(folder / "in" / "a.png")
        return folder / "mine.csv"
    LAYOUTS[name](folder)
    return folder


def only(items):
    assert len(items) == 1
    return items[0]


def test_every_data_set_has_a_layout_here():
    assert set(list_datasets()) == {*LAYOUTS, "csv"}


@pytest.mark.parametrize("name", list_datasets())
def test_a_whole_folder_is_read(name, tmp_path):
    found = load(name, lay(name, tmp_path))
    assert found.items
    assert all(item.path.is_file() for item in found.items)
    assert all(math.isfinite(item.mos) for item in found.items)


@pytest.mark.parametrize("name", list_datasets())
def test_a_missing_folder_says_what_to_get_and_where_to_put_it(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)does not exist\. (Ask|Clone|Download|Get|Write) .*"):
        load(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", list_datasets())
def test_a_half_complete_folder_is_refused_and_the_missing_picture_named(name, tmp_path):
    root = lay(name, tmp_path)
    gone = load(name, root).items[0].path
    gone.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load(name, root)
    assert gone.name in str(caught.value)
    assert "lacks 1 of" in str(caught.value)
    assert load(name, root, pictures=False).items  # the labels alone can still be had


def test_mle_holds_scenes_attributes_and_words(tmp_path):
    root = lay("mle", tmp_path)
    first, second = load("mle", root).items
    assert (first.mos, first.group, second.group) == (4.5, "b_1", "b_12")
    assert first.attributes["content_recovery"] == 3.5
    assert first.description == "dim brightness"
    unseen = only(load("mle", root, "test").items)
    assert math.isnan(unseen.mos)
    assert (unseen.group, unseen.path.stem) == ("i_5", "i_5_A")


def test_square_lol_leaves_out_the_line_that_its_authors_leave_out(tmp_path):
    found = load("square_lol", lay("square_lol", tmp_path))
    assert found.relative
    assert len(found.items) == 2476 - 2470 - 1
    assert (found.items[0].group, found.items[0].enhancer) == ("low02470", "Self_Supervised")
    assert len(load("square_lol", tmp_path, "train", pictures=False).items) == 2470


def test_nnid_numbers_scenes_by_camera_and_size(tmp_path):
    root = lay("nnid", tmp_path)
    found = load("nnid", root).items
    assert {item.group for item in found} == {"D2_IC07_512", "D2_IC07_1024", "D2_IC07_2048"}
    assert {item.device for item in found} == {"iPhone 8 Plus"}
    assert only(load("nnid", root, "2048").items).mos == 0.25


def test_mliq_knows_scenes_by_name_or_by_column(tmp_path):
    root = lay("mliq", tmp_path)
    assert [(i.group, i.device) for i in load("mliq", root).items] == [
        ("D1_IC101_512", "Nikon D5300"),
        ("c1", "Canon EOS 6D"),
    ]
    write_csv(root / "MLIQ.csv", ("image", "mos"), ("canon_1.jpg", 0.6))
    with pytest.raises(ValueError, match=r"no scene is known for canon_1\.jpg"):
        load("mliq", root)


def test_live_challenge_leaves_out_the_seven_training_pictures(tmp_path):
    root = lay("live_challenge", tmp_path)
    assert [(i.path.name, i.mos) for i in load("live_challenge", root).items] == [("3.bmp", 70.0), ("4.bmp", 80.0)]
    assert len(load("live_challenge", root, "train").items) == 7


def test_koniq_and_spaq_have_the_splits_of_their_authors(tmp_path):
    (tmp_path / "k").mkdir()
    (tmp_path / "s").mkdir()
    assert only(load("koniq10k", lay("koniq10k", tmp_path / "k")).items).path.name == "2.jpg"
    night = only(load("spaq", lay("spaq", tmp_path / "s"), "night").items)
    assert (night.path.name, night.mos, night.attributes["noisiness"]) == ("00002.jpg", 42.5, 43.0)


def test_biq2021_is_read_as_its_authors_publish_it(tmp_path):
    item = only(load("biq2021", lay("biq2021", tmp_path), "train").items)
    assert (item.path.name, item.mos) == ("ss01 (Train).jpg", 0.7)
    assert math.isnan(item.mean_luma)


def test_biq2021_finds_files_in_another_case_and_parts_copies_alike(tmp_path):
    root = tmp_path / "authors"
    write_csv(
        root / "Train (Images and MOS).csv", ("Image Name", "MOS"), *((f"ss02 ({k}).jpg", 0.5) for k in range(60))
    )
    touch(*(root / "Images" / f"ss02 ({k}).{'JPG' if k == 14 else 'jpg'}" for k in range(60)))
    copy = tmp_path / "copy"
    write_csv(copy / "train.csv", ("image", "mos"), *((f"ss02_{k}.jpg", 0.5) for k in range(60)))
    touch(*(copy / "images" / f"ss02_{k}.jpg" for k in range(60)))
    items, copies = (load("biq2021", folder, "train").items for folder in (root, copy))
    assert items[14].path.is_file()
    held = [biq.held_out(item) for item in items]
    assert held == [biq.held_out(item) for item in copies]
    assert 0 < sum(held) < 30


def test_a_table_holds_all_that_its_columns_say(tmp_path):
    item = only(load("csv", lay("csv", tmp_path)).items)
    assert (item.mos, item.group, item.device, item.enhancer, item.description) == (1.5, "g", "phone", "CRM", "dim")
    assert item.attributes == {"noise": 2.0}


def test_damaged_labels_are_refused(tmp_path):
    path = lay("csv", tmp_path)
    for rows, message in (
        ([("image", "score"), ("a.png", 1)], "must have the columns image and mos"),
        ([("image", "mos"), ("in/a.png", "high")], "line 2, mos: 'high' is not a score"),
        ([("image", "mos"), ("in/a.png", "nan")], "'nan' is not a score"),
        ([("image", "mos"), ("in/a.png", 1), ("in/a.png", 2)], "more than once"),
    ):
        write_csv(path, *rows)
        with pytest.raises(ValueError, match=message):
            load("csv", path)
    root = lay("mle", tmp_path)
    (root / "MLE-training.json").write_text('[{"id": "b_1_A"')
    with pytest.raises(ValueError, match="not MLE's list"):
        load("mle", root)
    lay("spaq", tmp_path)
    (tmp_path / "Annotations" / "MOS and Image attribute scores.xlsx").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="not a workbook"):
        load("spaq", tmp_path)


def test_wrong_names_list_the_right_ones(tmp_path):
    with pytest.raises(ValueError, match="there are: biq2021, csv"):
        load("tid2013", tmp_path)
    with pytest.raises(ValueError, match="there are: train, test"):
        load("mle", tmp_path, "validation")


# Lists from strangers: one kind of error, which says where


def refused(name, root, words):
    with pytest.raises(ValueError, match=words):
        load(name, root, pictures=False)


def test_lists_that_are_not_utf_8(tmp_path):
    for name, file in (
        ("csv", "mine.csv"), ("koniq10k", "koniq10k_distributions_sets.csv"), ("square_lol", "name_mos.txt"),
        ("nnid", "mos512_with_names.txt"), ("biq2021", "Test (Images and MOS).csv"),
    ):  # fmt: skip
        root = lay(name, tmp_path / name if name == "csv" else folder(tmp_path / name))
        path = tmp_path / name / file
        path.write_bytes(path.read_bytes() + b"\xff\xfe.jpg,1\n")
        refused(name, root, rf"{re.escape(file)}, line \d+: it is not UTF-8")
    root = lay("mle", folder(tmp_path / "mle"))
    (root / "MLE-training.json").write_bytes(b'["\xff"]')
    refused("mle", root, "MLE-training.json is not MLE's list")


def folder(path):
    path.mkdir(parents=True)
    return path


def test_numbers_that_are_none_are_refused_with_their_place(tmp_path):
    root = folder(tmp_path / "b")
    write_csv(root / "test.csv", ("image", "mos", "mean_luma"), ("a.jpg", 0.5, 60), ("b.jpg", 0.5, "57.{3"))
    refused("biq2021", root, r"test\.csv, line 3, mean_luma: '57\.\{3' is not a score")
    lay("spaq", folder(tmp_path / "s"))
    scenes = tmp_path / "s" / "Annotations" / "Scene category labels.xlsx"
    write_xlsx(scenes, [("Image name", "Night scene"), ("00001.jpg", "57.{")])
    with pytest.raises(ValueError, match=r"labels\.xlsx, row 2, Night scene: '57\.\{' is not a score"):
        load("spaq", tmp_path / "s", "night")


@pytest.mark.parametrize(
    "text", ['{"a": 1}', "[1]", '[{"id": 3}]', '[{"id": "b_1_A", "file": "a.png", "mos": NaN}]', "[" * 100_000, "null",
             '[{"id": "b_1_A", "file": ["a"], "mos": 1}]', '[{"id": "b_1_A", "file": "a.png", "mos": true}]']
)  # fmt: skip
def test_json_that_is_not_mle_s(text, tmp_path):
    (tmp_path / "MLE-training.json").write_text(text)
    refused("mle", tmp_path, "MLE-training.json")


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/passwd", "a/../../b.jpg", "C:\\b.jpg", "..\\b.jpg", "a\x07.jpg"])
def test_no_published_list_leads_out_of_its_folder(name, tmp_path):
    write_csv(tmp_path / "koniq10k_distributions_sets.csv", ("image_name", "MOS", "set"), (name, 1, "test"))
    refused("koniq10k", tmp_path, r"line 2: .*(leads out of|not the name)")


def test_a_table_whose_rows_differ(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("image,mos\na.png,1\nb.png\n")
    refused("csv", path, "line 3: it has 1 cells, and the first line 2")
    path.write_text('image,mos\na.png,1\n"b.png,1\n')
    refused("csv", path, r"mine\.csv, line 3")


def test_workbooks_that_grow_are_refused_before_they_are_unpacked(tmp_path):
    root = lay("spaq", tmp_path)
    path = root / "Annotations" / "MOS and Image attribute scores.xlsx"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/more.xml", bytes(MAX_BYTES))
    assert path.stat().st_size < 1_000_000
    start = time.perf_counter()
    refused("spaq", root, "decompresses to")
    assert time.perf_counter() - start < 2


def test_a_sheet_with_a_cell_far_away_is_read_in_time(tmp_path):
    root = lay("spaq", tmp_path)
    path = root / "Annotations" / "MOS and Image attribute scores.xlsx"
    book = openpyxl.load_workbook(path)
    book.active["XFD1048576"] = 1
    book.save(path)
    start = time.perf_counter()
    assert len(load("spaq", root).items) == 2
    assert time.perf_counter() - start < 5


def test_a_damaged_mat_is_refused_and_the_process_lives(tmp_path):
    root = lay("live_challenge", tmp_path)
    path = root / "Data" / "AllImages_release.mat"
    whole = path.read_bytes()
    draw = random.Random(0)
    for _ in range(100):
        spoiled = bytearray(whole)
        for _ in range(draw.choice((1, 4))):
            spoiled[draw.randrange(128, 400)] = draw.randrange(256)
        path.write_bytes(spoiled)
        with contextlib.suppress(ValueError):
            load("live_challenge", root, pictures=False)
    path.write_bytes(whole[:300])
    refused("live_challenge", root, r"AllImages_release\.mat is damaged")


def test_a_reader_of_one_s_own_is_registered_once(monkeypatch):
    monkeypatch.setattr(data_registry, "_readers", dict(data_registry._table()))

    @register("mine", ("all",), "make it yourself")
    def read(root, split="all", *, pictures=True):
        return [Rated(root / "a.png", 1.0)]

    assert "mine" in list_datasets()
    assert only(load("mine", Path("/somewhere")).items).mos == 1.0
    with pytest.raises(ValueError, match="registered already"):
        register("mine", ("all",), "again")(read)
