"""The example of compare: its methods brighten, its commands are commands of this version."""

import runpy
import shlex

import numpy as np
import pytest
from PIL import Image
from support import ROOT

from lowlight_iqa.cli.main import build_parser

EXAMPLE = (ROOT / "examples" / "compare.md").read_text(encoding="utf-8")


def test_methods_brighten_and_keep_names_and_sizes(tmp_path):
    pytest.importorskip("skimage")
    (tmp_path / "dark").mkdir()
    ramp = np.linspace(0, 40, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    for name in ("1.png", "2.bmp"):
        Image.fromarray(ramp).save(tmp_path / "dark" / name)
    main = runpy.run_path(str(ROOT / "examples" / "make_enhanced.py"))["main"]
    main(tmp_path / "dark", tmp_path / "out")

    assert {file.name for file in (tmp_path / "out").iterdir()} == {"gamma", "equalized", "clahe"}
    for method in (tmp_path / "out").iterdir():
        assert {file.name for file in method.iterdir()} == {"1.png", "2.png"}
        enhanced = np.asarray(Image.open(method / "1.png"))
        assert enhanced.shape == ramp.shape
        assert enhanced.mean() > ramp.mean() + 20


def test_commands_are_parsed():
    text = EXAMPLE.replace("\\\n", " ")
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("lowlight-iqa ")]
    assert len(commands) == 2
    for _, *arguments in commands:
        build_parser(arguments).parse_args(arguments)
