"""One way from a picture to a metric: the metric, the command line's pipeline and evaluate agree to the bit."""

import pytest
from PIL import Image
from support.contract import photo

import lowlight_iqa


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """A list of four rated pictures and their paths."""
    folder = tmp_path_factory.mktemp("rated")
    paths = []
    for index, exposure in enumerate((1.0, 0.7, 0.5, 0.3)):
        paths.append(folder / f"{index}.png")
        pixels = (photo(192) * exposure * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(paths[-1])
    rows = [f"{path.name},{4 - index}" for index, path in enumerate(paths)]
    (folder / "list.csv").write_text("\n".join(["image,mos", *rows]))
    return folder / "list.csv", paths


def test_a_path_the_pipeline_and_evaluate_give_the_same_score(subject, rated, tmp_path):
    if subject.card.needs_reference:
        pytest.skip("evaluate has no references to give")
    if subject.side > 192:
        pytest.skip("its smallest picture is larger than these")
    table, paths = rated
    metric = subject.metric()
    single = [metric(path).item() for path in paths]
    records = list(lowlight_iqa.score(paths, [metric], workers=1, batch=1))
    found = lowlight_iqa.evaluate(metric, "csv", table, cache=tmp_path, draws=2)
    assert [record.results[subject.name].score for record in records] == single
    assert found.scores.tolist() == single
