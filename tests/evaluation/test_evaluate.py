"""evaluate: every picture counted, figures with intervals, the cache, torchrun, the files it writes."""

import csv
import json
import math
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import lowlight_iqa
from lowlight_iqa.cli.main import main
from lowlight_iqa.data import Dataset, Rated, load
from lowlight_iqa.evaluation.correlation import interval, pairs_in_order, plcc, scene_srcc, srcc
from lowlight_iqa.evaluation.splits import group_mean, random_splits
from lowlight_iqa.scoring.cache import FILE

SCENES, EACH = 24, 3


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Noisy pictures of some scenes at three brightnesses each; MOS follows the contrast, and the scene."""
    folder = tmp_path_factory.mktemp("rated")
    rng = np.random.default_rng(0)
    rows = [("image", "mos", "group", "device", "attribute.light")]
    for scene in range(SCENES):
        base = rng.random((48, 48, 3)) * rng.uniform(0.3, 1)
        for step, light in enumerate((0.15, 0.5, 1.0)):
            name = f"{scene}_{step}.png"
            Image.fromarray((255 * base * light).astype(np.uint8)).save(folder / name)
            mos = light * base.std() * 10 + rng.normal(0, 0.1)
            rows.append((name, mos, f"s{scene}", "phone" if scene % 2 else "camera", light))
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "list.csv"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOWLIGHT_IQA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(table, metric="contrast", **options):
    return lowlight_iqa.evaluate(metric, "csv", table, draws=20, **options)


@pytest.fixture(scope="module")
def result(table, tmp_path_factory):
    return run(table, cache=tmp_path_factory.mktemp("cache"))


def test_figures_are_those_of_all_pictures_with_intervals(result):
    paths = [item.path for item in result.dataset.items]
    scores = lowlight_iqa.create_metric("contrast")(paths).double().numpy()
    labels = np.array([item.mos for item in result.dataset.items])
    assert len(scores) == SCENES * EACH
    assert result.figures["SRCC"].value == pytest.approx(srcc(scores, labels), abs=1e-6)
    assert result.figures["PLCC"].value == pytest.approx(plcc(scores, labels), abs=1e-6)
    assert list(result.figures) == ["SRCC", "KRCC", "PLCC", "PLCC, logistic", "RMSE"]
    assert all(figure.low <= figure.value <= figure.high for figure in result.figures.values())
    assert result.figures["PLCC, logistic"].value >= result.figures["PLCC"].value
    assert result.figures["RMSE"].value == pytest.approx(np.sqrt(np.mean((result.mapping(scores) - labels) ** 2)))


def test_intervals_resample_scenes(result):
    labels = np.array([item.mos for item in result.dataset.items])
    groups = [item.group for item in result.dataset.items]
    low, high = interval(srcc, result.scores, labels, groups=groups, draws=20)
    assert (result.figures["SRCC"].low, result.figures["SRCC"].high) == (low, high)
    assert (low, high) != interval(srcc, result.scores, labels, draws=20)


def test_devices_and_bands_have_their_own_figures_and_missing_attributes_none(result):
    assert result.parts["phone"].count == result.parts["camera"].count == SCENES * EACH / 2
    bands = [part.count for name, part in result.parts.items() if name not in ("phone", "camera")]
    assert sum(bands) == SCENES * EACH
    assert result.parts["dark (mean luma < 70)"].count == sum(result.lumas < 70)
    assert result.dataset.items[0].attributes
    assert not result.attributes  # this metric has no light of its own, and its score is none


def test_a_metric_with_attributes_answers_for_its_own(table):
    result = run(table, "leiq")
    light = np.array([item.attributes["light"] for item in result.dataset.items])
    assert result.attributes["light"]["SRCC"].value == pytest.approx(srcc(result.explained["light"], light))
    assert result.attributes["light"]["SRCC"].value != pytest.approx(srcc(result.scores, light))


def test_within_scenes_the_metrics_direction_counts():
    scores, labels, scenes = np.array([1, 2, 3, 9, 8, 8.0]), np.array([1, 2, 3, 1, 2, 3.0]), [*"aaabbb"]
    assert scene_srcc(scores, labels, scenes) == pytest.approx([1, srcc(scores[3:], labels[3:])])
    assert pairs_in_order(scores, labels, scenes).tolist() == [[3, 3], [0.5, 3]]
    with pytest.raises(ValueError, match="no scene has three pictures"):
        scene_srcc(scores, labels, [*"abcdef"])


def test_lower_is_better_stays_signed_and_its_pairs_are_turned(table):
    result = run(table, "exposure")  # falls as pictures get lighter
    assert result.figures["SRCC"].value < -0.5
    assert result.within["mean SRCC"].value < -0.9
    assert result.within["pairs in order"].value > 0.95
    assert result.figures["PLCC, logistic"].value > 0.5
    assert "good figures are negative" in str(result)


@pytest.fixture
def calls(monkeypatch):
    """How many batches the metric ``contrast`` has scored."""
    found = []
    real = lowlight_iqa.metrics.contrast.Contrast.score_batch
    monkeypatch.setattr(
        "lowlight_iqa.metrics.contrast.Contrast.score_batch", lambda self, x: found.append(1) or real(self, x)
    )
    return found


def entries(folder):
    with sqlite3.connect(folder / FILE) as database:
        return database.execute("SELECT key, picture, payload FROM scores").fetchall()


def change(folder, command, *values):
    with sqlite3.connect(folder / FILE) as database:
        database.execute(command, values)


def test_an_interrupted_run_goes_on_and_a_second_one_reads(table, own_cache, calls):
    whole = run(table)
    change(own_cache, "DELETE FROM scores WHERE picture > '8'")  # as if it had been killed
    kept = len(entries(own_cache))
    assert 0 < kept < SCENES * EACH
    calls.clear()
    assert str(run(table)) == str(whole)
    assert len(calls) == SCENES * EACH - kept
    calls.clear()
    assert str(run(table)) == str(whole)
    assert not calls


def test_a_killed_run_keeps_what_it_scored(table, own_cache):
    code = (
        "import os, sys, lowlight_iqa\n"
        "from lowlight_iqa.metrics.contrast import Contrast\n"
        "real, left = Contrast.score_batch, [30]\n"
        "def dying(self, x):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0: os.kill(os.getpid(), 9)\n"
        "    return real(self, x)\n"
        "Contrast.score_batch = dying\n"
        "lowlight_iqa.evaluate('contrast', 'csv', sys.argv[1], draws=5)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(table)], timeout=120, check=False)
    assert done.returncode == -9
    assert len(entries(own_cache)) >= 15
    assert str(run(table)) == str(run(table, cache=own_cache / "other"))


@pytest.mark.parametrize(
    "payload", ['{"score": 1e9, "luma": 1, "attributes": null, "uncalibrated": {}}', "{", "[]", "\udcff"]
)
def test_a_damaged_entry_is_scored_again_and_told_in_one_line(table, own_cache, calls, caplog, payload):
    whole = run(table)
    (_, picture, _) = entries(own_cache)[0]
    change(
        own_cache,
        "UPDATE scores SET payload = CAST(? AS TEXT) WHERE picture = ?",
        payload.encode(errors="surrogateescape"),
        picture,
    )
    calls.clear()
    assert str(run(table)) == str(whole)
    assert len(calls) == 1
    (record,) = caplog.records
    assert "1 entries of" in record.message


@pytest.mark.parametrize("content", [b"no database" * 100, b""])
def test_a_damaged_cache_is_put_aside(table, own_cache, content):
    own_cache.mkdir()
    (own_cache / FILE).write_bytes(content)
    assert run(table).figures
    assert len(entries(own_cache)) == SCENES * EACH
    assert (own_cache / f"{FILE}.damaged").exists() == bool(content)


def test_links_and_pipes_in_place_of_the_cache_are_refused(table, own_cache, tmp_path):
    own_cache.mkdir()
    (tmp_path / "target").write_bytes(b"")
    (own_cache / FILE).symlink_to(tmp_path / "target")
    with pytest.raises(ValueError, match="is a link or not a regular file, and is not opened"):
        run(table)
    assert (tmp_path / "target").read_bytes() == b""
    (own_cache / FILE).unlink()
    os.mkfifo(own_cache / FILE)
    with pytest.raises(ValueError, match="remove it"):
        run(table)


def test_a_cache_that_cannot_be_written_is_read(table, own_cache, calls, monkeypatch, caplog):
    real = sqlite3.connect

    def read_only(address, *args, uri=False, **options):
        if not uri:
            raise sqlite3.OperationalError("attempt to write a readonly database")
        return real(address, *args, uri=uri, **options)

    whole = run(table)
    calls.clear()
    monkeypatch.setattr(sqlite3, "connect", read_only)
    assert str(run(table)) == str(whole)
    assert not calls
    assert not caplog.records
    assert str(run(table, cache=own_cache / "nowhere")) == str(whole)  # neither to be written nor to be read
    assert "the scores of this run are not kept" in caplog.text


def test_other_pictures_are_scored_anew(tmp_path):
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for k, path in enumerate(paths):
        Image.fromarray(np.full((40, 40, 3), 60 * k, np.uint8)).save(path)
    rated = Dataset("mine", "all", [Rated(path, float(k)) for k, path in enumerate(paths)])
    first = lowlight_iqa.evaluate("exposure", rated, draws=10).scores
    Image.fromarray(np.full((40, 40, 3), 150, np.uint8)).save(paths[0])
    assert lowlight_iqa.evaluate("exposure", rated, draws=10).scores[0] != first[0]


def test_the_pixels_are_those_that_the_metric_scores_of_a_file(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path in paths:  # 16-bit color, which brisque rounds to 8 bits as its reference does
        Image.fromarray(rng.integers(0, 2**16, (64, 64), np.uint16)).save(path)
    rated = Dataset("deep", "all", [Rated(path, float(k)) for k, path in enumerate(paths)])
    metric = lowlight_iqa.create_metric("brisque")
    assert lowlight_iqa.evaluate(metric, rated, draws=5).scores.tolist() == [metric(path).item() for path in paths]


def test_a_process_of_somebody_elses_job_does_not_wait_for_the_others(table, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *args: pytest.fail("joined"))
    assert len(run(table).scores) == SCENES * EACH


def test_what_the_cache_holds_changes_no_answer(table):
    items = [Rated(item.path, item.mos) for item in load("csv", table).items]  # the same pictures without attributes
    before = lowlight_iqa.evaluate("leiq", Dataset("plain", "all", items[:6]), draws=5)
    attributed = Dataset("rated", "all", load("csv", table).items[:9])
    assert lowlight_iqa.evaluate("leiq", attributed, draws=5).explained
    after = lowlight_iqa.evaluate("leiq", Dataset("plain", "all", items[:12]), draws=5)
    assert not after.explained
    assert after.scores[:6] == pytest.approx(before.scores, abs=1e-5)


def test_no_picture_is_dropped_from_a_figure(table, tmp_path):
    items = list(load("csv", table).items)
    bad = [tmp_path / "broken.png", tmp_path / "alpha.png"]
    bad[0].write_bytes(items[0].path.read_bytes()[:300])
    Image.fromarray(np.zeros((48, 48, 4), np.uint8)).save(bad[1])
    rated = Dataset("mine", "all", [*items[:5], *(Rated(path, 1.0) for path in bad)])
    with pytest.raises(ValueError, match=r"2 of 7 pictures could not be scored.*broken\.png.*alpha\.png"):
        lowlight_iqa.evaluate("contrast", rated)


def test_what_cannot_be_evaluated_says_why(table):
    with pytest.raises(ValueError, match="loe compares with the dark input"):
        run(table, "loe")
    with pytest.raises(ValueError, match="give root"):
        lowlight_iqa.evaluate("contrast", "mle")
    with pytest.raises(ValueError, match="exists already"):
        run(table, lowlight_iqa.create_metric("contrast"), device="cpu")


@pytest.mark.parametrize("draws", [0, -1, 10**12])
def test_draws_that_cannot_be_made_are_refused_before_scoring(table, draws, capsys):
    arguments = ["evaluate", "-m", "contrast", "--dataset", "csv", "--root", str(table), "--draws", str(draws)]
    assert main(arguments) == 2
    assert f"the number of draws is {draws}" in capsys.readouterr().err


def test_labels_that_are_all_the_same_are_an_error(table):
    items = [replace(item, mos=3.0) for item in load("csv", table).items]
    with pytest.raises(ValueError, match="all 72 pictures of flat are rated 3"):
        lowlight_iqa.evaluate("contrast", Dataset("flat", "all", items), draws=5)


def test_a_group_with_a_number_for_a_name_is_not_a_picture_without_one(table):
    items = [replace(item, group="5" if k < 2 else "") for k, item in enumerate(load("csv", table).items)]
    assert not lowlight_iqa.evaluate("contrast", Dataset("few", "all", items), draws=5).within  # no scene of three


def test_names_do_not_break_the_markdown(table):
    items = [replace(item, device="a|b\nc") for item in load("csv", table).items]
    text = str(lowlight_iqa.evaluate("contrast", Dataset("bars", "all", items), draws=5))
    (row,) = [line for line in text.splitlines() if line.startswith("| a")]
    assert row.startswith("| a\\|b c | 72 |")


def test_splits_by_scene_keep_scenes_together_and_by_image_do_not(table):
    items = load("csv", table).items
    for by, shared in (("scene", False), ("image", True)):
        for train, test in random_splits(items, by):
            assert sorted([*train, *test]) == list(range(len(items)))
            assert len(test) == pytest.approx(0.2 * len(items), abs=EACH)
            assert bool({items[k].group for k in train} & {items[k].group for k in test}) is shared


def test_ungrouped_pictures_are_scenes_of_their_own_whatever_groups_are_called(tmp_path):
    items = [Rated(tmp_path / f"{k}", 0.0, group="5" if k < 2 else "") for k in range(20)]
    for train, test in random_splits(items, repeats=30):
        assert (0 in test) == (1 in test)
        assert len(test) in (4, 5)  # of 19 scenes a fifth, one of them of two pictures
        assert sorted([*train, *test]) == list(range(20))
    together = [(0 in test, 5 in test) for _, test in random_splits(items, repeats=30)]
    assert {one == other for one, other in together} == {True, False}


def test_at_least_one_scene_is_for_testing(tmp_path):
    items = [Rated(tmp_path / f"{k}", 0.0, group=f"{k % 2}") for k in range(4)]
    assert [len(test) for _, test in random_splits(items, share=0.1)] == [2] * 10
    assert [len(test) for _, test in random_splits(items, "image", share=0.5, repeats=3)] == [2] * 3
    seeds = [tuple(test) for _, test in random_splits(items, "image")]
    assert len(set(seeds)) > 1
    assert seeds == [tuple(test) for _, test in random_splits(items, "image")]


def test_a_group_without_training_pictures_gets_the_mean_of_all(tmp_path):
    train = [Rated(tmp_path / "a", mos, group=group) for mos, group in ((1.0, "x"), (2.0, "x"), (6.0, "y"))]
    test = [Rated(tmp_path / "b", 0.0, group=group) for group in ("x", "y", "z")]
    assert group_mean(train, test, lambda item: item.group).tolist() == [1.5, 6.0, 3.0]


@pytest.mark.parametrize(("pictures", "splits"), [(19, set()), (20, {"image"})])
def test_fewer_than_20_pictures_are_not_split(table, tmp_path, pictures, splits):
    rows = list(csv.reader(table.open()))[1 : pictures + 1]
    few = tmp_path / "few.csv"
    few.write_text("image,mos\n" + "".join(f"{table.parent / name},{mos}\n" for name, mos, *_ in rows))
    assert set(run(few).splits) == splits


def test_the_scene_mean_tells_what_image_splits_leak(tmp_path):
    rng = np.random.default_rng(0)
    level = rng.normal(size=40)
    items = [
        Rated(tmp_path / f"{k}", level[k % 40] + 0.5 * rng.normal(), group=f"{k % 40}", enhancer=f"{k // 40}")
        for k in range(400)
    ]
    found = {}
    for by in ("scene", "image"):
        train, test = next(random_splits(items, by))
        train, test = [items[k] for k in train], [items[k] for k in test]
        guess = group_mean(train, test, lambda item: item.group)
        found[by] = plcc(guess, [item.mos for item in test])
    assert found["scene"] == pytest.approx(0, abs=1e-9)
    assert found["image"] > 0.7


def test_both_splits_and_the_null_are_printed_for_a_set_with_scenes(result):
    assert list(result.splits) == ["scene", "image"]
    assert result.splits["scene"]["scene-mean null, PLCC"] == pytest.approx(0, abs=1e-9)
    assert "| scene |" in str(result)
    assert "| image |" in str(result)
    assert result.splits["scene"]["SRCC"] > 0.8


def test_unpublished_labels_give_a_submission_and_no_figures(tmp_path, table, capsys):
    root = tmp_path / "mle"
    (root / "MLE" / "test").mkdir(parents=True)
    names = [f"b_{k}_A" for k in (3, 4, 8)]
    for name, item in zip(names, load("csv", table).items[:3], strict=True):
        (root / "MLE" / "test" / f"{name}.png").write_bytes(item.path.read_bytes())
    rows = [{"id": name, "file": f"MLE/test/{name}.png"} for name in names]
    (root / "MLE-test.json").write_text(json.dumps(rows))
    out = tmp_path / "result.json"
    arguments = ["evaluate", "--metric", "exposure", "--dataset", "mle", "--root", str(root), "--split", "test"]
    assert main([*arguments, "--submission", str(out)]) == 0
    assert "labels are not public" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert [set(row) for row in found] == [{"id", "mos"}] * 3
    assert [row["id"] for row in found] == names
    scores = lowlight_iqa.create_metric("exposure")([root / row["file"] for row in rows])
    assert np.argsort([row["mos"] for row in found]).tolist() == torch.argsort(-scores).tolist()  # higher is better
    assert all(0 <= row["mos"] <= 10 for row in found)
    assert main([*arguments[:4], "csv", "--root", str(table), "--submission", str(out)]) == 2


@pytest.mark.slow
def test_two_processes_write_what_one_writes(table, tmp_path, monkeypatch, capsys):
    def arguments(count):
        paths = [f"--{kind}={tmp_path / str(count)}.{kind}" for kind in ("csv", "json")]
        return [
            "evaluate",
            "--metric=brisque",
            "--dataset=csv",
            f"--root={table}",
            f"--cache={tmp_path}/c{count}",
            "--distributed",
            "--draws=20",
            *paths,
        ]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as torchrun has it
    try:
        assert main(arguments(1)) == 0
    finally:
        torch.set_num_threads(threads)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "lowlight_iqa", *arguments(2)]
    own = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout == capsys.readouterr().out
    for kind in ("csv", "json"):
        assert (tmp_path / f"1.{kind}").read_bytes() == (tmp_path / f"2.{kind}").read_bytes()
    assert len(entries(tmp_path / "c2")) == SCENES * EACH
    rows = list(csv.DictReader((tmp_path / "2.csv").open()))
    assert len(rows) == SCENES * EACH
    assert all(math.isfinite(float(row["score"])) and math.isfinite(float(row["mapped"])) for row in rows)


def test_plot_is_a_picture_or_a_clear_error(table, tmp_path, capsys):
    path = tmp_path / "scatter.png"
    arguments = [
        "evaluate",
        "--metric",
        "contrast",
        "--dataset",
        "csv",
        "--root",
        str(table),
        "--plot",
        str(path),
        "--draws=20",
    ]
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert main(arguments) == 2
        assert "plots need matplotlib: pip install" in capsys.readouterr().err
        assert not path.exists()
    else:
        assert main(arguments) == 0
        assert lowlight_iqa.read_image(path).shape[1:] == (675, 900)


def test_the_package_does_not_import_it_before_it_is_used():
    code = "import lowlight_iqa, sys; assert not {'lowlight_iqa.evaluation', 'scipy', 'timm'} & set(sys.modules); "
    code += "import lowlight_iqa.evaluation; assert callable(lowlight_iqa.evaluate)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
