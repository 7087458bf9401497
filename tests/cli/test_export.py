"""``export``: one line for what it wrote, one for what it cannot."""

import pytest

from lowlight_iqa.cli.main import main


@pytest.mark.slow
def test_a_metric_is_written_and_its_path_printed(tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime is missing: pip install '.[onnx]'")
    pytest.importorskip("onnxscript", reason="onnxscript is missing: pip install '.[onnx]'")
    path = tmp_path / "e.onnx"
    assert main(["export", "contrast", "-o", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("args", "message"),
    [(["loe"], "loe compares with the dark input and cannot be exported"), (["lieq"], "no metric is called 'lieq'")],
)
def test_what_cannot_be_exported_is_one_line(tmp_path, capsys, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *args]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err or "pip install" in err
    assert not list(tmp_path.iterdir())
