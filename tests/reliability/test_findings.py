"""Defects that were found by attack and have no better place: each was reproduced before it was mended."""

import os
import pickle
import re

import pytest
import torch
from support import TESTS

from lowlight_iqa import create_metric
from lowlight_iqa.cli.main import main


@pytest.fixture(scope="module")
def metric():
    return create_metric("exposure")


def test_an_error_says_which_picture_of_a_list_or_batch_it_is_about(metric):
    good, bad = torch.full((3, 32, 32), 0.5), torch.full((3, 32, 32), 3.3)
    with pytest.raises(ValueError, match="picture 2 of 3"):
        metric([good, bad, good])
    with pytest.raises(ValueError, match="picture 3 of 3"):
        metric(torch.stack([good, good, bad]))
    with pytest.raises(FileNotFoundError, match=r"picture 2 of 2.*nowhere"):
        metric([good, "nowhere.png"])


def test_dark_integers_are_told_to_be_divided_and_not_clamped(metric):
    x = torch.zeros(3, 32, 32)
    x[:, ::2] = 2.0  # a night picture from 0 to 255
    with pytest.raises(ValueError, match="divide by 255"):
        metric(x)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_place_of_a_checkpoint_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.pth")
    assert main(["convert", "leiq-b16", str(tmp_path / "pipe.pth"), "-o", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pipe.pth does not exist or is not a file" in line


class Runs:
    """A pickle of it would run a command."""

    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_something_is_refused_by_that_in_one_line(tmp_path, capfd, protocol):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"weight": Runs()}, protocol))
    assert main(["convert", "leiq-b16", str(path), "-o", str(tmp_path / "out")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert re.search(r"evil\.pth is refused: loading it would run \w+\.system", line)


def test_damaged_tiffs_add_no_lines_of_libtiff(tmp_path, capfd):
    from PIL import Image

    picture = Image.effect_noise((64, 64), 90).convert("RGB")
    for number, compression in enumerate(("tiff_lzw", "tiff_adobe_deflate", "jpeg")):
        path = tmp_path / f"{number}.tiff"
        picture.save(path, compression=compression)
        content = bytearray(path.read_bytes())
        content[200:260] = bytes(range(60))
        path.write_bytes(content)
        main(["score", str(path), "-m", "exposure"])
    err = capfd.readouterr().err
    assert all(line.startswith("lowlight-iqa: ") for line in err.splitlines()), err
    assert err


def test_every_test_that_the_list_of_defects_names_is_there():
    text = (TESTS / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)` in `([\w/.]+)`", text)
    assert len(named) >= 40
    for test, file in named:
        assert re.search(rf"def {test}\(", (TESTS / file).read_text(encoding="utf-8")), f"{test} in {file}"
