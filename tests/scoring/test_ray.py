"""The Ray engine, on a Ray that the test starts: the table of one process, although an actor dies on the way."""

import csv
import fcntl
import os
import signal
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lowlight_iqa
from lowlight_iqa.scoring.sinks import open_sink

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    with (Path(tempfile.gettempdir()) / "lowlight_iqa-tests-ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one Ray at a time, however many processes run the tests
        memory = 100 * 2**20
        config = {"worker_niceness": 0}  # else its workers give way to every other test
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=memory, _system_config=config
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """320 noisy pictures and one that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for k in range(320):
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)).save(folder / f"{k:03}.png")
    (folder / "bad.png").write_text("no picture")
    return folder


def actors():
    """Processes of the actors that this process's Ray has started."""
    parents, names = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rsplit(")", 1)[1].split()[1])
            names[int(place.name)] = (place / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue

    def ours(pid):
        return pid == os.getpid() or (pid in parents and pid > 1 and ours(parents[pid]))

    return [pid for pid, name in names.items() if b"MapWorker" in name and ours(pid)]


def numbers(records):
    return {
        record.path: record.error or {name: result.score for name, result in record.results.items()}
        for record in records
    }


def direct(pictures):
    return [record.results["contrast"].score for record in lowlight_iqa.score(pictures, "contrast") if not record.error]


def table(path):
    with path.open(newline="") as file:
        return {row["path"]: row["error"] or float(row["contrast"]) for row in csv.DictReader(file)}


def test_an_actor_that_dies_loses_nothing(cluster, pictures, tmp_path):
    from lowlight_iqa.scoring.ray import records

    expected = numbers(lowlight_iqa.score(pictures, ["contrast", "noise"]))
    assert len(expected) == 321
    found, killed = [], []
    for record in records(str(pictures), ["contrast", "noise"], actors=2):
        found.append(record)
        if not killed:
            killed = actors()[:1]
            os.kill(killed[0], signal.SIGKILL)
    assert killed
    assert len(found) == 321
    assert numbers(found) == expected


def test_a_killed_driver_is_resumed_and_scores_nothing_twice(cluster, pictures, tmp_path):
    from lowlight_iqa.scoring import ray as engine

    expected = numbers(lowlight_iqa.score(pictures, "contrast"))
    path = tmp_path / "scores.parquet"
    sink = open_sink(path, ["contrast"])
    half = list(engine.records(str(pictures), ["contrast"], actors=2))[:150]
    for record in half:
        sink.write(record)
    sink.file.close()  # killed

    done = sum(not record.error for record in half)
    rest = []
    real = engine.records
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "records", lambda *a, **k: (rest.append(r) or r for r in real(*a, **k)))
        engine.score(str(pictures), ["contrast"], path, resume=True, actors=2)
    assert len(rest) == 321 - done
    rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    assert len(rows) == 321
    assert {row["path"]: row["error"] or {"contrast": pytest.approx(row["contrast"])} for row in rows} == expected


def test_datasets_of_bytes_are_scored(cluster, pictures):
    from lowlight_iqa.scoring.ray import records

    dataset = ray.data.read_binary_files(str(pictures), include_paths=True)
    found = {Path(path).name: value for path, value in numbers(records(dataset, ["contrast"])).items()}
    direct = numbers(lowlight_iqa.score(pictures, "contrast"))
    assert found.keys() == {Path(path).name for path in direct}
    assert all(found[Path(path).name] == value for path, value in direct.items() if isinstance(value, dict))
    assert "not a picture" in found["bad.png"]


def test_a_dataset_is_resumed_too(cluster, pictures, tmp_path):
    from lowlight_iqa.scoring.ray import score

    path = tmp_path / "scores.csv"
    for expected in (11, 21):
        dataset = ray.data.read_binary_files(
            [str(pictures / f"{k:03}.png") for k in range(expected)], include_paths=True
        )
        score(dataset, ["contrast"], path, resume=True)
        assert len(table(path)) == expected
        assert path.read_text().count("\n") == expected + 1
    assert table(path) == pytest.approx(
        {str(pictures / f"{k:03}.png"): float(f"{value:.9g}") for k, value in enumerate(direct(pictures)[:21])}
    )


def test_shards_give_the_table_of_one_process_and_are_resumed(cluster, pictures, tmp_path):
    from lowlight_iqa.scoring.ray import records, score

    with tarfile.open(tmp_path / "0.tar", "w") as shard:
        for k in range(70):
            shard.add(pictures / f"{k:03}.png", f"{k:03}.png")
        shard.add(pictures / "bad.png", "bad.png")
    (tmp_path / "1.tar").write_bytes((tmp_path / "0.tar").read_bytes()[:20_000])
    contents = [(pictures / f"{k:03}.png").read_bytes() for k in range(70, 90)]
    parquet = pytest.importorskip("pyarrow.parquet")
    table_of_bytes = pytest.importorskip("pyarrow").table({"path": [f"{k}" for k in range(20)], "bytes": contents})
    parquet.write_table(table_of_bytes, tmp_path / "2.parquet")

    shards = [str(tmp_path / "*.tar"), str(tmp_path / "2.parquet")]
    expected = numbers(lowlight_iqa.score(shards, "contrast"))
    assert numbers(records(shards, ["contrast"])) == expected
    failed = sum(isinstance(value, str) for value in expected.values())
    assert failed == 2

    done = []
    score(shards, ["contrast"], tmp_path / "scores.csv")
    again = records(shards, ["contrast"], held=open_sink(tmp_path / "scores.csv", ["contrast"], resume=True).held)
    assert len(list(again)) == failed
    score(shards, ["contrast"], tmp_path / "scores.csv", resume=True, skipped=lambda: done.append(1))
    assert len(done) == len(expected) - failed
    assert table(tmp_path / "scores.csv").keys() == expected.keys()
