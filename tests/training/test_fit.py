"""Fitting a metric's score to ratings, on pictures made on the spot; the closed form against other solvers."""

import csv
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from support import PICTURES

from lowlight_iqa import create_metric, read_image
from lowlight_iqa.cli.main import main
from lowlight_iqa.evaluation.correlation import srcc
from lowlight_iqa.evaluation.figures import figure
from lowlight_iqa.training import fit as module
from lowlight_iqa.training.degradations import RAMPS, degrade
from lowlight_iqa.training.fit import cross_validated, fit, folds_of, solve
from lowlight_iqa.training.linear import adjust, offset_of, weight_of

COUNT = 60


def write_list(path, names, ratings, groups=None):
    rows = [("image", "mos", "group"), *zip(names, ratings, groups or [""] * len(names), strict=True)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Crops at falling exposure, names and levels; a person's ratings on 1 to 5 fall with the level."""
    root, rng = tmp_path_factory.mktemp("rated"), np.random.default_rng(0)
    source = read_image(PICTURES / "chelsea.png")
    names, levels = [], []
    for index in range(COUNT):
        top, left = rng.integers(0, 150, 2)
        level = index % 4
        cut = source[:, top : top + 64, left : left + 64].contiguous()
        picture, _ = degrade(cut, RAMPS["under"][level], rng)
        Image.fromarray(picture).save(root / f"{index}.png")
        names.append(f"{index}.png")
        levels.append(level)
    ratings = np.round(4.6 - np.array(levels) + rng.normal(0, 0.2, COUNT), 2)
    return root, names, ratings.clip(1, 5)


@pytest.mark.parametrize("name", ["leiq", "iaca", "bmqa"])
def test_the_fitted_metric_scores_on_the_ratings_scale(rated, tmp_path, capsys, name):
    root, names, ratings = rated
    data = write_list(root / f"{name}.csv", names, ratings)
    out = tmp_path / "fitted"
    assert main(["fit", name, "--data", str(data), "--out", str(out), "--scale", "1", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["SRCC", "SRCC", "gain"]
    assert lines[-1] == str(out)

    fitted, bundled = create_metric(name, weights=out), create_metric(name)
    pictures = [root / each for each in names[::3]]
    scores = fitted(pictures)
    error = np.abs(scores.numpy() - ratings[::3]).mean()
    assert error < (0.5 if name != "iaca" else np.abs(ratings - np.mean(ratings)).mean())
    assert scores.min() >= 1
    assert scores.max() <= 5
    assert fitted.card.score_range == (1, 5)
    assert f"60 ratings of {name}.csv" in fitted.card.summary
    assert "cross-validated" in " ".join(fitted.card.reached)
    assert lines[1].split("  ")[1].strip() in next(iter(fitted.card.reached.values()))
    assert fitted.assess(pictures[0]).attributes == bundled.assess(pictures[0]).attributes


def test_the_file_is_what_was_fitted(rated, tmp_path):
    """Scores by the saved weights are those of the closed form."""
    root, names, ratings = rated
    data = write_list(root / "same.csv", names, ratings)
    result = fit("iaca", data, tmp_path)
    metric = create_metric("iaca")
    head = metric.network.output
    items = module.load("csv", data).items
    z, prior = module.features(metric, items), weight_of(head)
    weight, offset = (found[0] for found in solve(z, prior, ratings, [result.strength]))
    fitted = create_metric("iaca", weights=tmp_path)
    np.testing.assert_allclose(weight_of(fitted.network.output), weight, atol=1e-5)
    assert offset_of(fitted.network.output) == pytest.approx(offset, abs=1e-4)
    assert result.after.low <= result.after.value <= result.after.high


# Refusals


def test_ratings_that_say_nothing_are_refused(rated, tmp_path):
    root, names, ratings = rated
    rng = np.random.default_rng(2)
    shuffled = write_list(root / "shuffled.csv", names, rng.permutation(ratings))
    with pytest.raises(ValueError, match=r"cannot be predicted: SRCC .* of shuffled ratings do as well"):
        fit("leiq", shuffled, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ratings_without_sense_pass_seldom():
    rng, passed = np.random.default_rng(0), 0
    scenes = [str(i) for i in range(60)]
    for _ in range(10):
        z, prior, ratings = rng.normal(size=(60, 80)), rng.normal(size=80), rng.normal(size=60)
        predicted = cross_validated(z, prior, ratings, scenes)
        before, after = (figure(srcc, v, ratings, scenes) for v in (z @ prior, predicted))
        try:
            module.check_agreement(before, after, predicted, ratings, "made up")
            passed += 1
        except ValueError:
            pass
    assert passed == 0


@pytest.mark.parametrize(
    ("change", "options", "word"),
    [
        (lambda r: r[:49], {}, "has 49 ratings; 50 are needed"),
        (lambda r: 3 + 0 * r, {}, "every rating in .* is 3"),
        (lambda r: 6 - r, {}, "fall where quality rises"),
        (lambda r: r, {"scale": (1, 3)}, "outside the scale 1 to 3"),
        (lambda r: r, {"scale": (5, 1)}, "outside the scale 5 to 1"),
        (lambda r: r, {"dataset": "live"}, "no data set 'live' to fit to"),
    ],
)
def test_what_cannot_be_fitted_to_is_refused(rated, tmp_path, change, options, word):
    root, names, ratings = rated
    changed = change(ratings)
    data = write_list(root / "changed.csv", names[: len(changed)], changed)
    with pytest.raises(ValueError, match=word):
        fit("leiq", data, tmp_path / "out", **options)


def test_other_metrics_and_too_few_scenes_are_refused(rated, tmp_path):
    root, names, ratings = rated
    data = write_list(root / "scenes.csv", names, ratings, [f"scene {i % 4}" for i in range(COUNT)])
    with pytest.raises(ValueError, match="has 4 scenes; 5 are needed"):
        fit("leiq", data, tmp_path)
    with pytest.raises(ValueError, match=r"'niqe' cannot be fitted; those that can are .*iaca.*leiq"):
        fit("niqe", data, tmp_path)


# The closed form


@pytest.mark.parametrize("shape", [(80, 12), (40, 90)])
def test_it_is_the_penalized_least_squares(shape):
    """Against scikit-learn on the features beside a prior that costs nothing, and at the ends of the penalty."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    z, prior, noise = rng.normal(size=shape) + 1, rng.normal(size=shape[1]), rng.normal(size=shape[0])
    ratings = 2 + 0.5 * z @ prior + z[:, 0] + noise
    weights, offsets = solve(z, prior, ratings, [0.1, np.inf])

    p = z @ prior
    fixed = np.stack([np.ones(len(z)), p], 1)
    x = z - fixed @ np.linalg.lstsq(fixed, z, rcond=None)[0]
    penalty = 0.1 * (x**2).sum() / shape[1]
    cheap = 1e4  # a feature that is scaled up costs next to nothing
    reference = linear_model.Ridge(alpha=penalty, tol=1e-12).fit(np.column_stack([z, cheap * p]), ratings)
    np.testing.assert_allclose(
        z @ weights[0] + offsets[0], reference.predict(np.column_stack([z, cheap * p])), atol=1e-4
    )

    slope, intercept = np.polyfit(p, ratings, 1)
    np.testing.assert_allclose(weights[1], slope * prior, atol=1e-8)
    assert offsets[1] == pytest.approx(intercept)


def test_left_out_pictures_have_no_part_in_their_prediction():
    rng = np.random.default_rng(0)
    z, prior = rng.normal(size=(60, 20)), rng.normal(size=20)
    ratings = z @ prior + z[:, 3] + 0.3 * rng.normal(size=60)
    scenes = [f"scene {i // 3}" for i in range(60)]
    predicted = cross_validated(z, prior, ratings, scenes)
    folds = folds_of(scenes, 10, seed=0)
    assert all(len({folds[i] for i in range(60) if scenes[i] == scene}) == 1 for scene in scenes)
    other = ratings.copy()
    other[folds == 2] += 100 * rng.normal(size=(folds == 2).sum())
    moved = cross_validated(z, prior, other, scenes)
    np.testing.assert_array_equal(moved[folds == 2], predicted[folds == 2])
    assert not np.allclose(moved[folds == 1], predicted[folds == 1])


@pytest.mark.parametrize("sizes", [(9, 1), (9, 4, 1)])
def test_a_head_is_read_and_changed_as_one_linear_map(sizes):
    torch.manual_seed(0)
    head = torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))
    x = torch.randn(5, 9)
    expected = x.double().numpy() @ weight_of(head) + offset_of(head)
    np.testing.assert_allclose(head(x)[:, 0].detach(), expected, atol=1e-5)
    change = np.arange(9.0)
    adjust(head, change, 3.0)
    np.testing.assert_allclose(head(x)[:, 0].detach(), expected + x.numpy() @ change + 3, atol=1e-4)
