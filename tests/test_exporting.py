"""Exported graphs give the metric's scores at any size, say what they are, and refuse what they cannot take."""

import sys

import pytest
import torch
from support import ROOT

import lowlight_iqa
from lowlight_iqa import Card, Metric, create_metric, read_image
from lowlight_iqa.exporting import EXPORTED, export_onnx, export_program
from lowlight_iqa.functional.resize import reduce

FACTS = {"source": "this test", "lower_better": False, "score_range": (0.0, 1.0), "license": "none"}


class Mean(Metric):
    """A metric that exports quickly."""

    def score_batch(self, x, reference=None):
        return x.mean((1, 2, 3))


class Liar(Metric):
    """A metric whose exported scores are others."""

    def score_batch(self, x, reference=None):
        return x.mean((1, 2, 3)) + 0.01 * torch.compiler.is_compiling()


class Stubborn(Metric):
    """A metric that depends on values in a way no graph can."""

    def score_batch(self, x, reference=None):
        return torch.tensor([each.mean().item() for each in x])


def card(name):
    return Card(name=name, summary="of a test", min_size=40, **FACTS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Export a metric and return a function from batches to scores, and the file's metadata."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is missing: pip install '.[onnx]'")
    pytest.importorskip("onnxscript", reason="onnxscript is missing: pip install '.[onnx]'")
    made = {}

    def get(metric):
        name = metric.card.name
        if name not in made:
            path = export_onnx(metric, tmp_path_factory.mktemp("onnx") / f"{name}.onnx")
            made[name] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        session = made[name]
        facts = session.get_modelmeta().custom_metadata_map
        return lambda x: torch.from_numpy(session.run(["score"], {"picture": x.numpy()})[0]), facts

    return get


def test_a_file_scores_any_size_and_says_what_it_is(run):
    metric = Mean(card("mean"))
    score, facts = run(metric)
    for shape in ((1, 3, 40, 40), (3, 3, 41, 700)):
        x = torch.rand(shape)
        assert torch.allclose(score(x), metric(x), atol=1e-6)
    assert {key: facts[key] for key in ("name", "version", "score_range", "better", "min_size", "license")} == {
        "name": "mean",
        "version": lowlight_iqa.__version__,
        "score_range": "0 1",
        "better": "higher",
        "min_size": "40",
        "license": "none",
    }
    assert "RGB in [0, 1]" in facts["input"]
    assert facts["weights"] == "none"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, 255.0])
def test_a_picture_outside_the_range_scores_nan_and_its_neighbor_does_not(run, value):
    score, _ = run(Mean(card("mean")))
    x = torch.full((2, 3, 50, 60), 0.5)
    x[0, 1, 2, 3] = value
    bad, good = score(x)
    assert bad.isnan()
    assert good == 0.5


@pytest.mark.parametrize("shape", [(1, 3, 39, 60), (1, 3, 60, 39)])
def test_a_picture_that_is_too_small_is_refused(run, shape):
    score, _ = run(Mean(card("mean")))
    with pytest.raises(Exception, match="out of"):
        score(torch.rand(shape))


def test_a_program_scores_any_size_and_leaves_the_metric_alone():
    metric = Mean(card("mean"))
    program = export_program(metric).module()
    for shape in ((1, 3, 40, 40), (3, 3, 41, 700)):
        x = torch.rand(shape)
        assert torch.equal(program(x), metric(x))


def test_a_file_that_disagrees_is_not_left(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is missing: pip install '.[onnx]'")
    path = tmp_path / "liar.onnx"
    path.write_text("what was there")
    with pytest.raises(
        ValueError, match=r"the exported liar is off by 0\.01, no file is left.* export one of bmqa, iaca, leiq"
    ):
        export_onnx(Liar(card("liar")), path)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_exported_is_refused_by_name():
    with pytest.raises(ValueError, match=r"stubborn cannot be exported .* export one of bmqa, iaca, leiq"):
        export_program(Stubborn(card("stubborn")))
    with pytest.raises(ValueError, match="loe compares with the dark input and cannot be exported"):
        export_program("loe")


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r'(onnxruntime|onnxscript): pip install "lowlight_iqa\[onnx\]"'):
        export_onnx("exposure", tmp_path / "x.onnx")


@pytest.mark.parametrize("short", [320, 512])
def test_the_reduced_size_is_the_rounded_one(short):
    """In whole numbers, half to even as Python rounds."""
    for height, width in (
        (short, 2000),
        (1024, 1025),
        (1024, 1027),
        (1536, 1539),
        (768, 771),
        (3000, 4001),
        (513, 514),
    ):
        if min(height, width) <= short:
            continue
        factor = short / min(height, width)
        expected = [max(short, round(side * factor)) for side in (height, width)]
        assert list(reduce(torch.empty(1, 3, height, width, device="meta"), short).shape[2:]) == expected


def pictures(least):
    """Photographs, whole and of sizes around the bounds, dark ones, and hard pictures."""
    photo, other = (read_image(ROOT / "samples" / name) for name in ("coffee.jpg", "chelsea_dark.png"))
    if min(photo.shape[1:]) >= least:
        yield photo[None]
    for height, width in ((least, least), (131, 97), (least, 900), (512, 512), (513, 700), (1025, 1024), (97, 1203)):
        size = max(height, least), max(width, least)
        both = [
            torch.nn.functional.interpolate(x[None], size, mode="bilinear", antialias=True)[0] for x in (photo, other)
        ]
        yield torch.stack([both[0], both[1], both[0] * 0.05]).clamp(0, 1)
    for flat in (0.0, 0.5, 1.0):
        yield torch.full((1, 3, 200, 299), flat)
    yield torch.rand(1, 3, 200, 299, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_scores_of_the_file_are_the_metric_s(run, name):
    metric = create_metric(name)
    score, facts = run(metric)
    low, high = metric.card.score_range
    good, bad = metric.card.loss_range
    for x in pictures(metric.card.min_size):
        if name == "iaca" and x.shape[2:] == (32, 32):
            continue  # NaN: docs/export.md
        with torch.inference_mode():
            off = (score(x.contiguous()) - metric(x)).abs().max().item()
        assert off <= min(1e-4 * (high - low), 5e-4 * abs(good - bad)), tuple(x.shape)
    assert facts["weights"] == f"{metric.card.weights} sha256 {metric.card.sha256}"
    assert metric.card.license in facts["license"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["leiq", "niqe"])
def test_scores_of_the_program_are_the_metric_s(name):
    metric = create_metric(name)
    program = export_program(metric).module()
    least = 192 if name == "niqe" else metric.card.min_size  # docs/export.md: niqe's program takes no narrower ones
    for shape in ((1, 3, least, least + 9), (3, 3, 530, 601)):
        x = torch.rand(shape) * torch.linspace(0, 1, shape[3])
        assert torch.allclose(program(x), metric(x), rtol=1e-4)
