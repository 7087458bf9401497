"""QualityMetric keeps what torchmetrics promises of a metric: states, forward, pickling, collections, processes."""

import pickle

import pytest
import torch
import torch.multiprocessing as mp

from lowlight_iqa import create_metric

QualityMetric = pytest.importorskip("lowlight_iqa.torchmetrics", exc_type=ImportError).QualityMetric
torchmetrics = pytest.importorskip("torchmetrics")
from support.two_processes import pictures, share  # noqa: E402  (needs torchmetrics)


def test_the_mean_is_that_of_every_picture_however_batched():
    x = pictures(7)
    quality = QualityMetric("exposure")
    for batch in x.split((4, 2, 1)):
        quality.update(batch)
    assert quality.compute().item() == pytest.approx(create_metric("exposure")(x).mean().item(), rel=1e-6)


def test_forward_gives_the_batch_and_adds_to_the_whole():
    x, metric = pictures(6), create_metric("exposure")
    quality = QualityMetric(metric)
    values = [quality(batch).item() for batch in x.split(3)]
    assert values == pytest.approx([metric(batch).mean().item() for batch in x.split(3)], rel=1e-6)
    assert quality.compute().item() == pytest.approx(metric(x).mean().item(), rel=1e-6)
    quality.reset()
    assert quality.count == 0
    with pytest.raises(ValueError, match="no picture was given to exposure"):
        quality.compute()


def test_facts_and_gradient():
    quality = QualityMetric("exposure")
    assert isinstance(quality, torchmetrics.Metric)
    assert quality.higher_is_better is False
    assert (quality.plot_lower_bound, quality.plot_upper_bound) == create_metric("exposure").card.score_range
    assert QualityMetric("contrast").higher_is_better is True
    x = pictures(2).requires_grad_()
    quality(x).backward()
    assert x.grad.count_nonzero() > 0
    assert not list(filter(lambda p: p.requires_grad, QualityMetric("niqe").parameters()))


def test_pickled_cloned_and_in_a_collection():
    x = pictures(4)
    quality = QualityMetric("exposure")
    quality.update(x[:3])
    again, cloned = pickle.loads(pickle.dumps(quality)), quality.clone()
    for each in (quality, again, cloned):
        each.update(x[3:])
    assert again.compute() == cloned.compute() == quality.compute()

    collection = torchmetrics.MetricCollection({"e": QualityMetric("exposure"), "c": QualityMetric("contrast")})
    collection.update(x)
    found = collection.compute()
    assert found.keys() == {"e", "c"}
    assert found["e"] != found["c"]
    average = torchmetrics.MeanMetric()
    average.update(found["e"])
    assert average.compute() == found["e"]


def test_state_dict_holds_no_weights():
    quality = QualityMetric("niqe")
    assert not quality.state_dict()
    quality.persistent(True)
    quality.update(torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)))
    state = quality.state_dict()
    assert state.keys() == {"total", "count"}
    other = QualityMetric("niqe")
    other.persistent(True)
    other.load_state_dict(state)
    assert other.compute() == quality.compute()
    parent = torch.nn.Module()
    parent.quality = QualityMetric("niqe")
    parent.load_state_dict(parent.state_dict())


def test_plot(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    quality = QualityMetric("exposure")
    values = [quality(batch) for batch in pictures(6).split(2)]
    figure, _ = quality.plot(values)
    figure.savefig(tmp_path / "plot.png")


def test_what_is_no_metric_is_refused():
    with pytest.raises(ValueError, match="did you mean 'leiq'"):
        QualityMetric("leiqq")
    with pytest.raises(TypeError, match="not int"):
        QualityMetric(3)
    with pytest.raises(TypeError, match="belong to create_metric"):
        QualityMetric(create_metric("exposure"), weights="somewhere")
    with pytest.raises(TypeError, match="no-reference"):
        QualityMetric("exposure").update(pictures(1), pictures(1))


@pytest.mark.slow
def test_two_processes_have_the_mean_over_both(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(share, (str(tmp_path / "meet"), results), nprocs=2)
        whole = create_metric("exposure")(pictures(4)).mean().item()
        assert results[0] == results[1] == pytest.approx(whole, rel=1e-6)
        assert (results[2], results[3]) == (4, 2)
