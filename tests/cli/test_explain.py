"""``explain``: one file that holds everything, with names that cannot break it."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support import ROOT

from lowlight_iqa import create_metric
from lowlight_iqa.cli.main import main
from lowlight_iqa.explanation import explain

NAME = "<img src=x onerror=alert(1)>&'\".png"


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("explain") / NAME
    with Image.open(ROOT / "samples/chelsea_dark.png") as image:
        image.crop((0, 0, 200, 140)).save(path)
    return path


@pytest.fixture(scope="module")
def page(picture):
    out = picture.parent / "page.html"
    assert main(["explain", str(picture), "-o", str(out)]) == 0
    return out


def test_the_page_holds_everything_and_asks_for_nothing(page, picture):
    text = page.read_text(encoding="utf-8")
    result = create_metric("leiq").assess(picture)
    assert result.description in text
    assert f"{result.score:.3g}" in text
    for name in result.attributes:
        assert name.replace("_", " ") in text
    assert len(re.findall(r'<img class="map', text)) == 7
    links = re.findall(r'(?:src|href)="([^"]*)"|url\(', text)
    assert links
    assert all(link.startswith("data:image/") for link in links)


def test_a_files_name_is_text_on_the_page(page):
    text = page.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;&#39;&#34;.png" in text


def test_the_figure_is_written(picture, tmp_path):
    assert main(["explain", str(picture), "-m", "niqe", "-o", str(tmp_path / "figure.png")]) == 0
    with Image.open(tmp_path / "figure.png") as image:
        assert np.asarray(image.convert("RGB")).std() > 5


def test_badness_is_turned_the_metrics_way(picture):
    better_is_higher, better_is_lower = (
        explain(picture, create_metric(name)).layers[0] for name in ("leiq", "exposure")
    )
    assert better_is_higher.worst < better_is_higher.best
    assert better_is_lower.worst > better_is_lower.best
    for layer in (better_is_higher, better_is_lower):
        assert layer.badness.min() == 0
        assert layer.badness.max() == 1


def test_a_metric_without_maps_has_a_page_too(picture, tmp_path):
    assert main(["explain", str(picture), "-m", "entropy", "-o", str(tmp_path / "page.html")]) == 0
    assert "entropy has no map" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "page.pdf"], "neither .html nor .png"),
        (["-o", "page.html", "-m", "leiqq"], "did you mean 'leiq'"),
        (["-o", "page.html", "-m", "loe"], "compares two pictures"),
    ],
)
def test_what_cannot_be_done_is_one_line(picture, capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", str(picture), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_package_is_named_with_its_extra(picture, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["explain", str(picture), "-o", str(tmp_path / "page.html")]) == 2
    assert "lowlight_iqa[report]" in capsys.readouterr().err


@pytest.mark.slow
def test_a_browser_shows_it(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("no Chromium; install Debian's chromium")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,700", "--virtual-time-budget=2000"]
    shot = tmp_path / "shot.png"
    subprocess.run(
        [browser, *flags, f"--screenshot={shot}", page.as_uri()], check=True, timeout=60, capture_output=True
    )
    with Image.open(shot) as image:
        assert np.asarray(image.convert("RGB")).std() > 20
