"""Each bad input meets one clear line that names it, the right exit status, and the other pictures are scored."""

import json

import pytest
import torch
from PIL import Image
from reliability.bad_inputs import BAD_COMMANDS, bad_files, bad_values, noise

import lowlight_iqa
from lowlight_iqa.cli.main import main

OWN = (TypeError, ValueError, OSError)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return bad_files(tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def metric():
    return lowlight_iqa.create_metric("exposure")


def test_there_are_eighty():
    assert len(bad_values()) + len(BAD_COMMANDS) >= 80


@pytest.mark.parametrize("kind", list(bad_values()))
def test_a_bad_value_is_refused_with_advice(metric, kind):
    with pytest.raises(OWN) as caught:
        metric(bad_values()[kind])
    message = str(caught.value)
    assert 20 < len(message) < 400
    assert "\n" not in message


def test_bad_files_are_named_and_the_good_ones_scored(files, tmp_path, capsys):
    first, last = tmp_path / "first.png", tmp_path / "last.png"
    for good in (first, last):
        Image.fromarray(noise()).save(good)
    paths = [first, *files.values(), last]

    status = main(["score", *map(str, paths), "-m", "exposure", "--format", "json"])

    out, err = capsys.readouterr()
    entries = json.loads(out)
    assert status == 1
    scored = [entry["path"] for entry in entries if "error" not in entry]
    assert scored == [str(first), str(last)]
    refused = [entry for entry in entries if "error" in entry]
    assert len(refused) == len(files)
    assert all(len(entry["error"]) > 20 for entry in refused)
    lines = [line for line in err.splitlines() if line.startswith("lowlight-iqa:")]
    assert len([line for line in lines if "bad" in line]) == len(files)
    assert "\x1b" not in err


@pytest.mark.parametrize("kind", [kind for kind in ("cut short: jpg", "alpha", "pages", "PDF", "missing")])
def test_a_bad_file_is_named_by_the_api(metric, files, kind):
    with pytest.raises(OWN) as caught:
        metric(files[kind])
    assert files[kind].name in str(caught.value)


@pytest.mark.parametrize("line", BAD_COMMANDS, ids=" ".join)
def test_a_bad_command_line_is_one_line(line, tmp_path, capsys):
    good = tmp_path / "good.png"
    Image.fromarray(noise()).save(good)
    (tmp_path / "nothing").mkdir()
    arguments = [part.format(good=good, folder=tmp_path) for part in line]

    try:
        status = main(arguments)
    except SystemExit as exit_:
        status = exit_.code

    out, err = capsys.readouterr()
    assert status in (1, 2)
    assert out.strip() in ("", "path  exposure")
    problem = [text for text in err.splitlines() if text.startswith("lowlight-iqa:")]
    assert len(problem) == 1
    assert "Traceback" not in err
    assert len(problem[0]) > 30


def test_a_metric_still_scores_after_all_of_it(metric):
    for bad in bad_values().values():
        with pytest.raises(OWN):
            metric(bad)
    assert metric(torch.full((3, 64, 64), 0.5)).isfinite().all()
