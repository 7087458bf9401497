"""The pipeline: one record a picture, in order, whatever a picture does; the same scores however they are batched."""

import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import lowlight_iqa
from lowlight_iqa import Card, Metric
from lowlight_iqa.scoring import Record, pipeline
from lowlight_iqa.scoring.pipeline import Work, run
from lowlight_iqa.scoring.sources import Source, find_sources

FACTS = {"summary": "test", "source": "test", "lower_better": False, "score_range": (0.0, 1.0), "license": "Apache-2.0"}


class Brightness(Metric):
    """Mean brightness, which keeps count of the batches it gets."""

    def __init__(self, name="toy", **facts):
        super().__init__(Card(name=name, **(FACTS | {"min_size": 8} | facts)))
        self.batches = []

    def score_batch(self, x, reference=None):
        self.batches.append(len(x))
        return x.mean((1, 2, 3)) if reference is None else (x - reference).mean((1, 2, 3))


def save(path, level=0.5, size=(16, 16)):
    Image.fromarray(np.full((*size, 3), round(255 * level), np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Twelve noisy pictures of three sizes."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for k in range(12):
        size = ((64, 64), (64, 96), (80, 64))[k % 3]
        Image.fromarray(rng.integers(0, 200, (*size, 3), np.uint8)).save(folder / f"{k:02}.png")
    return folder


@pytest.fixture(scope="module")
def leiq():
    return lowlight_iqa.create_metric("leiq")


def scores(records, name):
    return [record.results[name].score for record in records]


@pytest.mark.parametrize("name", ["leiq", "brisque", "contrast"])
def test_one_worker_and_batches_of_one_are_bit_equal_to_the_metric(photographs, name):
    metric = lowlight_iqa.create_metric(name)
    paths = sorted(photographs.iterdir())
    records = list(lowlight_iqa.score(paths, metric, workers=1, batch=1))
    with torch.inference_mode():
        assert scores(records, name) == [metric(path).item() for path in paths]


@pytest.mark.parametrize(("workers", "batch"), [(1, 4), (3, 1), (4, 3), (2, 100)])
def test_workers_and_batches_change_neither_order_nor_scores(photographs, leiq, workers, batch):
    paths = sorted(photographs.iterdir())
    records = list(lowlight_iqa.score(paths, leiq, workers=workers, batch=batch))
    assert [record.path for record in records] == [str(path) for path in paths]
    assert scores(records, "leiq") == pytest.approx(leiq(paths).tolist(), abs=1e-4)


def test_batches_are_of_one_size_and_the_same_in_every_run(tmp_path):
    paths = [save(tmp_path / f"{k}.png", k / 40, (16, 16 + k % 3)) for k in range(40)]
    found = []
    for delay in (0, 0.002):
        metric = Brightness()
        real = pipeline.read_image

        def slow(path, delay=delay, real=real):
            time.sleep(delay * (hash(path) % 3))
            return real(path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "read_image", slow)
            assert scores(lowlight_iqa.score(paths, metric, workers=1, batch=4), "toy") == pytest.approx(
                [k / 40 for k in range(40)], abs=0.003
            )
        found.append(metric.batches)
    assert found[0] == found[1]
    assert max(found[0]) == 4
    assert sum(found[0]) == 40


def test_a_rare_size_does_not_hold_up_the_others_for_ever(tmp_path):
    odd = save(tmp_path / "odd.png", 0.1, (16, 40))
    even = save(tmp_path / "even.png", 0.2)
    given = []

    def endless():
        yield odd
        while True:
            given.append(1)
            yield even

    records = lowlight_iqa.score(endless(), Brightness(), workers=1, batch=4)
    assert next(records).path == str(odd)
    records.close()
    assert len(given) < 60


def test_nothing_is_read_far_ahead_of_what_is_taken(tmp_path):
    path = save(tmp_path / "a.png")
    given = []
    records = lowlight_iqa.score((given.append(1) or path for _ in range(10_000)), Brightness(), workers=2)
    next(records)
    time.sleep(0.1)
    assert len(given) < 20
    records.close()


def test_every_bad_picture_is_a_record_and_the_others_are_scored(tmp_path):
    good = save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    small = save(tmp_path / "small.png", 0.5, (4, 4))
    bad = {
        str(tmp_path / "missing.png"): "does not exist",
        str(tmp_path / "text.png"): "not a picture",
        str(tmp_path / "empty"): "holds no pictures",
        str(tmp_path / "pipe.png"): "a pipe or device",
        str(tmp_path / ("n" * 300)): "name too long",
        str(tmp_path / "a\0b"): "null",
        str(small): "too small",
        "": "the path is empty",
        str(tmp_path / "*.tif"): "nothing matches",
    }
    given = [path for name in bad for path in (good, name)]
    records = list(lowlight_iqa.score(given, Brightness()))
    assert [record.path for record in records] == [str(path) for path in given]
    for record in records[1::2]:
        assert bad[record.path] in record.error.lower()
        assert record.path in record.error
        assert not record.results
    assert all(record.results["toy"].score == pytest.approx(0.5, abs=0.01) for record in records[::2])


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    (tmp_path / "closed").mkdir()
    (tmp_path / "z").mkdir()
    save(tmp_path / "z" / "z.png")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    records = list(lowlight_iqa.score(tmp_path, Brightness()))
    assert [bool(record.error) for record in records] == [False, True, False]
    assert "closed cannot be opened: permission denied" in records[1].error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "more memory than there is"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "more memory than"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), "more memory than the GPU has"),
        (KeyError("surprise"), "KeyError"),
    ],
)
def test_a_metric_that_fails_for_one_picture_fails_for_that_one(tmp_path, error, words):
    paths = [save(tmp_path / f"{k}.png", k / 10) for k in range(6)]

    class Fragile(Brightness):
        def score_batch(self, x, reference=None):
            if (x.mean((1, 2, 3)) - 0.3).abs().min() < 0.01:
                raise error
            return super().score_batch(x)

    for batch in (1, 4):
        records = list(lowlight_iqa.score(paths, Fragile(), batch=batch))
        assert [bool(record.error) for record in records] == [False, False, False, True, False, False]
        assert words in records[3].error
        assert records[3].error.startswith(str(paths[3]))


def test_a_score_that_is_no_number_is_an_error(tmp_path):
    class Broken(Brightness):
        def score_batch(self, x, reference=None):
            return torch.log(x.mean((1, 2, 3)))

    paths = [save(tmp_path / "black.png", 0), save(tmp_path / "gray.png")]
    black, gray = lowlight_iqa.score(paths, Broken(), batch=2)
    assert "toy gives -inf" in black.error
    assert gray.results["toy"].score < 0


def test_a_large_picture_is_scored_alone_with_the_others_around_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "LARGE", 1000)
    sizes = [(16, 16), (16, 16), (40, 40), (16, 16), (48, 48)]
    paths = [save(tmp_path / f"{k}.png", k / 10, size) for k, size in enumerate(sizes)]
    busy, most = [0], []
    real = pipeline.read_image

    def read(path):
        pixels = real(path)
        if pixels.shape[1] > 16:
            busy[0] += 1
            most.append(busy[0])
            time.sleep(0.05)
            busy[0] -= 1
        return pixels

    monkeypatch.setattr(pipeline, "read_image", read)
    records = list(lowlight_iqa.score(paths, Brightness(), workers=4, batch=2))
    assert scores(records, "toy") == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.01)
    assert most == [1, 1]


def test_several_metrics_share_one_decoding(tmp_path, monkeypatch):
    paths = [save(tmp_path / f"{k}.png", k / 10) for k in range(5)]
    seen = []
    real = pipeline.read_image
    monkeypatch.setattr(pipeline, "read_image", lambda path: seen.append(path) or real(path))
    records = list(lowlight_iqa.score(paths, [Brightness("a"), Brightness("b"), "contrast"]))
    assert len(seen) == 5
    assert list(records[0].results) == ["a", "b", "contrast"]


def test_references_are_a_file_a_folder_or_one_for_each(tmp_path):
    (tmp_path / "dark").mkdir()
    pair = Brightness("pair", needs_reference=True)
    paths = [save(tmp_path / f"{k}.png", 0.5) for k in range(2)]
    darks = [save(tmp_path / "dark" / f"{k}.png", (k + 1) / 10) for k in range(2)]
    for references, expected in ((tmp_path / "dark", (0.4, 0.3)), (darks[0], (0.4, 0.4)), (darks[::-1], (0.3, 0.4))):
        records = list(lowlight_iqa.score(paths, pair, references=references))
        assert scores(records, "pair") == pytest.approx(expected, abs=0.01)
    first, second = lowlight_iqa.score(paths, pair, references=darks[:1])
    assert not first.error
    assert "none for picture 2" in second.error


def test_pictures_in_memory_are_scored_and_numbered(tmp_path):
    path = save(tmp_path / "a.png", 0.2)
    given = [torch.full((3, 16, 16), 0.4), np.full((16, 16, 3), 153, np.uint8), Image.open(path)]
    records = list(lowlight_iqa.score(given, Brightness()))
    assert [record.path for record in records] == ["#0", "#1", str(path)]
    assert scores(records, "toy") == pytest.approx([0.4, 0.6, 0.2], abs=0.01)
    (single,) = lowlight_iqa.score(given[0], Brightness())
    assert single.results["toy"].score == pytest.approx(0.4)


def test_attributes_come_without_maps(photographs, leiq):
    path = sorted(photographs.iterdir())[0]
    (record,) = lowlight_iqa.score(path, leiq, attributes=True)
    direct = leiq.assess(path)
    assert record.results["leiq"].attributes == pytest.approx(direct.attributes, abs=1e-4)
    assert record.results["leiq"].description == direct.description
    assert record.results["leiq"].map is None


def test_threads_end_with_the_run_and_leave_torchs_own_as_they_were(photographs):
    before, threads = threading.active_count(), torch.get_num_threads()
    records = lowlight_iqa.score(photographs, Brightness(), workers=4)
    next(records)
    records.close()
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.02)
    assert threading.active_count() == before
    assert torch.get_num_threads() == threads
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [threads]


def test_what_has_been_scored_is_known_by_its_content(tmp_path):
    paths = [save(tmp_path / f"{k}.png", k / 10) for k in range(3)]
    metric = Brightness()
    first = list(run(find_sources(paths), Work([metric], luma=True, known=lambda digest: None)))
    assert [record.luma for record in first] == pytest.approx([0, 26, 51], abs=0.5)
    memory = {first[1].digest: first[1]}
    metric.batches.clear()
    again = list(run(find_sources(paths), Work([metric], luma=True, known=memory.get)))
    assert again == first
    assert len(metric.batches) == 2


def test_metrics_that_lack_a_picture_alone_score_it(tmp_path):
    paths = [save(tmp_path / f"{k}.png", k / 10) for k in range(3)]
    metric, other = Brightness(), lowlight_iqa.create_metric("contrast")
    first = list(run(find_sources(paths), Work([metric, other], known=lambda digest: None), batch=3))
    brightness = metric.card.name
    memory = {record.digest: replace(record, results={brightness: record.results[brightness]}) for record in first}
    del memory[first[0].digest]
    metric.batches.clear()
    again = list(run(find_sources(paths), Work([metric, other], known=memory.get), batch=3))
    assert again == first
    assert len(metric.batches) == 1


def test_a_score_that_takes_the_dark_input_is_known_by_both_files(tmp_path):
    picture = save(tmp_path / "a.png", 0.5, (64, 64))
    dark = [save(tmp_path / f"dark{k}.png", k / 10, (64, 64)) for k in range(2)]
    loe, asked = lowlight_iqa.create_metric("loe"), []
    for reference in (*dark, dark[0]):
        (record,) = run(find_sources([picture]), Work([loe], references=[reference], known=asked.append))
        assert record.digest == asked[-1]
    assert asked[0] == asked[2] != asked[1]
    (record,) = run(find_sources([picture]), Work([loe], references=[Image.open(dark[0])], known=pytest.fail))
    assert not record.digest
    assert not record.error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"metrics": []}, "no metric is given"),
        ({"metrics": "liq"}, "did you mean 'leiq'"),
        ({"metrics": ["contrast", "noise"], "weights": "x"}, "weights belong to one metric's name"),
        ({"metrics": "contrast", "references": "x"}, "contrast does not take references"),
        ({"metrics": "loe"}, "loe compares with the dark input"),
        ({"metrics": "contrast", "workers": 0}, "workers is 0; give a number from 1"),
        ({"metrics": "contrast", "batch": -1}, "batch is -1; give a number from 1"),
    ],
)
def test_impossible_requests_are_refused_at_once(arguments, words):
    with pytest.raises(ValueError, match=words):
        lowlight_iqa.score("x.png", **arguments)


def test_sources_with_errors_pass_through():
    (record,) = run([Source("somewhere", error="somewhere is broken")], Work([Brightness()]))
    assert record == Record("somewhere", error="somewhere is broken")


def test_a_list_of_many_sizes_holds_few_pictures(tmp_path):
    class Watched(Brightness):
        alive = most = 0

        def preprocess(self, pixels):
            self.alive += 1
            self.most = max(self.most, self.alive)
            return super().preprocess(pixels)

        def score_batch(self, x, reference=None):
            self.alive -= len(x)
            return super().score_batch(x)

    paths = [save(tmp_path / f"{k}.png", k / 100, (16, 16 + k % 12)) for k in range(100)]
    metric = Watched()
    assert metric(paths).tolist() == pytest.approx([k / 100 for k in range(100)], abs=0.003)
    assert metric.most <= 16
