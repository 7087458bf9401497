"""Pictures of several folders are matched by name; what has no partner is told, never dropped."""

import os

import pytest

from lowlight_iqa.comparison.match import KNOWN, cut_suffix, match_folders, natural_key


def fill(folder, *names):
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return folder


def test_stems_match_whatever_the_extension(tmp_path):
    found = match_folders({"a": fill(tmp_path / "a", "1.png", "2.JPG"), "b": fill(tmp_path / "b", "2.png", "1.bmp")})
    assert found.names == ("1", "2")
    assert found.files["b"]["1"].name == "1.bmp"
    assert not found.missing
    assert found.complaint() == ""


def test_known_suffixes_and_the_folders_own_name_are_cut(tmp_path):
    folders = {
        "ours": fill(tmp_path / "retinex", "1_retinex.png", "2-Retinex.png"),
        "theirs": fill(tmp_path / "b", "1_low_out.png", "2_enhanced.png"),
        "input": fill(tmp_path / "in", "1_dark.png", "2.png"),
        "reference": fill(tmp_path / "gt", "1_GT.png", "2_normal.png"),
    }
    assert match_folders(folders).names == ("1", "2")


def test_users_suffixes_take_the_place_of_the_known_ones(tmp_path):
    folders = {"a": fill(tmp_path / "a", "1_v2.png", "2_out.png"), "b": fill(tmp_path / "b", "1.png", "2_out.png")}
    assert match_folders(folders, ["_v2"]).names == ("1", "2_out")
    assert match_folders(folders, []).names == ("2_out",)
    assert match_folders(folders, [""]).names == ("2_out",)


def test_a_name_that_is_only_a_suffix_stays():
    assert cut_suffix("_out", KNOWN) == "_out"
    assert cut_suffix("a_out_out", KNOWN) == "a"


def test_what_has_no_partner_is_listed_and_counted(tmp_path):
    found = match_folders({"a": fill(tmp_path / "a", "1.png", "2.png"), "b": fill(tmp_path / "b", "2.png", "3.png")})
    assert found.names == ("2",)
    assert found.missing == {"1": ("b",), "3": ("a",)}
    assert found.complaint() == "2 of 3 pictures have no partner in every folder: '1' (not in b); '3' (not in a)"


def test_two_files_of_one_name_are_an_error_that_names_both(tmp_path):
    with pytest.raises(ValueError, match=r"1\.png and .*1_out\.png are both picture '1'.*--suffix"):
        match_folders({"a": fill(tmp_path / "a", "1.png", "1_out.png")})


def test_nothing_in_common_is_an_error_with_examples(tmp_path):
    with pytest.raises(ValueError, match=r"no picture is in every folder \(a: x\.png; b: y\.png\)"):
        match_folders({"a": fill(tmp_path / "a", "x.png"), "b": fill(tmp_path / "b", "y.png")})


def test_a_missing_and_an_empty_folder_are_told_apart(tmp_path):
    with pytest.raises(NotADirectoryError, match="gone is not a folder"):
        match_folders({"a": tmp_path / "gone"})
    with pytest.raises(ValueError, match="holds no pictures"):
        match_folders({"a": fill(tmp_path / "a", "notes.txt")})


def test_folders_inside_are_part_of_the_name(tmp_path):
    folders = {"a": fill(tmp_path / "a", "x/1.png", "y/1.png"), "b": fill(tmp_path / "b", "x/1_out.png", "y/1.png")}
    assert match_folders(folders).names == ("x/1", "y/1")


def test_names_are_in_the_order_of_people():
    assert sorted(["10", "9", "a2", "a10", "1b"], key=natural_key) == ["1b", "9", "10", "a2", "a10"]


def test_a_name_that_is_no_text_becomes_text(tmp_path):
    try:
        fill(tmp_path / "a", os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("this file system takes text alone")
    assert match_folders({"a": tmp_path / "a"}).names == ("\\udcff",)
