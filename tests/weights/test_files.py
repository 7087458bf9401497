"""Weights come from three places, are checked at every load and never run code."""

import hashlib
import json
import pickle
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from torch import nn

from lowlight_iqa import Card, Metric, WeightsNotFound, create_metric, registry
from lowlight_iqa.weights.files import CONFIG, WEIGHTS, load_strictly, read_weights, serialize
from lowlight_iqa.weights.resolve import load

REPO, COMMIT = "someone/some-metric", "0123456789abcdef" * 2 + "01234567"
CARD = Card(
    name="toy",
    summary="a metric with weights",
    source="test",
    lower_better=False,
    score_range=(0.0, 1.0),
    license="Apache-2.0",
    sees=("exposure", "noise"),
)


class Toy(Metric):
    def __init__(self, card, layer):
        super().__init__(card)
        self.layer = layer
        self.eval().requires_grad_(False)

    @classmethod
    def from_weights(cls, loaded):
        metric = cls(loaded.card, nn.Linear(3, 1))
        load_strictly(metric, loaded.tensors)
        return metric

    @classmethod
    def from_source(cls, card, source=None):
        return cls(card, nn.Linear(3, 1)) if source is None else super().from_source(card, source)

    def score_batch(self, x, reference=None):
        return self.layer(x.mean((2, 3)))[:, 0]

    def weight_config(self):
        return {"width": 3}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_entries", {**registry._table()})
    registry.register(CARD)(Toy)


@pytest.fixture
def metric():
    return create_metric("toy")


@pytest.fixture
def saved(metric, tmp_path):
    return metric.save_pretrained(tmp_path / "saved")


def same(one, other):
    x = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    return torch.equal(one(x), other(x))


# A directory


def test_what_is_saved_comes_back(metric, saved):
    loaded = load(CARD, saved)
    assert loaded.config == {"width": 3}
    assert (loaded.card.sees, loaded.card.score_range) == (CARD.sees, CARD.score_range)
    assert {file.name for file in saved.iterdir()} == {WEIGHTS, CONFIG, "README.md"}
    for source in (saved, str(saved), saved / WEIGHTS):
        assert same(metric, create_metric("toy", weights=source))


def test_a_card_saved_before_a_fact_was_added_has_it_from_the_registered_one(saved):
    facts = json.loads((saved / CONFIG).read_text())
    for fact in ("piecewise", "zero_gradient"):
        del facts["card"][fact]
    (saved / CONFIG).write_text(json.dumps(facts))
    registered = replace(CARD, piecewise=True, zero_gradient=("edge",))
    assert (load(registered, saved).card.piecewise, load(registered, saved).card.zero_gradient) == (True, ("edge",))


def test_saving_twice_gives_the_same_bytes(metric, tmp_path):
    first, second = (metric.save_pretrained(tmp_path / name) for name in "ab")
    for name in (WEIGHTS, CONFIG, "README.md"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_half_precision_on_disk_is_float32_in_memory(tmp_path):
    content = serialize({"layer.weight": torch.ones(1, 3).half()}, {})
    (tmp_path / "half.safetensors").write_bytes(content)
    assert (
        read_weights(tmp_path / "half.safetensors", _sha(content), CARD).tensors["layer.weight"].dtype == torch.float32
    )


def _sha(content):
    return hashlib.sha256(content).hexdigest()


def test_nothing_there(tmp_path):
    with pytest.raises(WeightsNotFound, match=r"toy.model\.safetensors does not exist; no weights.*'toy'.*weights=DIR"):
        load(CARD)
    with pytest.raises(WeightsNotFound, match=r"nowhere.config\.json does not exist"):
        load(CARD, tmp_path / "nowhere")


@pytest.mark.parametrize("file", [WEIGHTS, CONFIG])
def test_one_file_missing(saved, file):
    (saved / file).unlink()
    with pytest.raises(WeightsNotFound, match=file):
        load(CARD, saved)


def test_any_changed_byte_is_noticed(saved):
    content = (saved / WEIGHTS).read_bytes()
    draw = random.Random(0)
    for _ in range(40):
        place = draw.randrange(len(content))
        spoiled = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
        (saved / WEIGHTS).write_bytes(spoiled)
        with pytest.raises(ValueError, match="sha256"):
            load(CARD, saved)


@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1\n", b"\xff\xfe", b"[]", b"{}"],
)
def test_other_files_in_place_of_the_two(saved, content):
    config = (saved / CONFIG).read_bytes()
    (saved / CONFIG).write_bytes(content)
    with pytest.raises(ValueError, match=CONFIG):
        load(CARD, saved)
    (saved / CONFIG).write_bytes(config)
    (saved / WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match=WEIGHTS):
        load(CARD, saved)


def edit(saved, **facts):
    config = json.loads((saved / CONFIG).read_text())
    config["card"].update(facts)
    config["card"] = {key: value for key, value in config["card"].items() if value is not None}
    (saved / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"name": "other"}, "weights of 'other', not of 'toy'"),
        ({"mood": "good"}, "does not know: mood"),
        ({"summary": None}, "summary"),
        ({"score_range": None}, "score_range"),
        ({"name": 3}, "its card has no name"),
        ({"sha256": "0" * 64}, "sha256"),
    ],
)
def test_a_config_of_something_else(saved, facts, words):
    edit(saved, **facts)
    with pytest.raises(ValueError, match=words):
        load(CARD, saved)


def test_pickles_do_not_run(saved, tmp_path):
    class Spy:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "mark",))

    evil = pickle.dumps({"layer.weight": Spy()})
    for name in ("evil.pth", "evil.pt", "evil.bin", "evil.ckpt", "evil.pkl"):
        (tmp_path / name).write_bytes(evil)
        with pytest.raises(ValueError, match=f"{name[:-4]}.*not safetensors"):
            load(CARD, tmp_path / name)
    (saved / WEIGHTS).write_bytes(evil)
    edit(saved, sha256=_sha(evil))  # even with the right hash
    with pytest.raises(ValueError, match="not a safetensors file"):
        load(CARD, saved)
    assert not (tmp_path / "mark").exists()


def test_keys_and_shapes_must_match(metric):
    tensors = dict(metric.state_dict())
    for spoiled, words in (
        ({"layer.weight": tensors["layer.weight"]}, "missing layer.bias"),
        ({**tensors, "extra": torch.ones(1)}, "unexpected extra"),
        ({**tensors, "layer.weight": torch.ones(1, 4)}, r"layer.weight is \(1, 4\), not \(1, 3\)"),
    ):
        before = metric.layer.bias.clone()
        with pytest.raises(ValueError, match=words):
            load_strictly(metric, spoiled)
        assert torch.equal(metric.layer.bias, before)


# The Hub's cache, and no Hub: test_hub.py has one


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub's client."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub" / "models--someone--some-metric"


def fill(cache, saved):
    snapshot = cache / "snapshots" / COMMIT
    shutil.copytree(saved, snapshot)
    (cache / "refs").mkdir()
    return snapshot


@pytest.mark.parametrize(
    "source",
    [
        f"hf://{REPO}",
        f"hf://{REPO}@{COMMIT}/../v0",
        f"hf://{REPO}@main",
        f"hf://{REPO}@v1.0",
        f"hf://{REPO}@{COMMIT[:7]}",
        f"hf://{REPO}@{COMMIT.upper()}",
        f"hf://{REPO}@{COMMIT}/",
        f"hf://../../etc@{COMMIT}",
        f"hf:{REPO}@{COMMIT}",
    ],
)
def test_what_is_not_pinned_is_refused(source):
    with pytest.raises(ValueError, match=r"write hf://[\w./-]+/[\w.-]+@<40-hex commit>"):
        load(CARD, source)


def test_a_cached_commit_needs_no_network(metric, saved, cache):
    fill(cache, saved)
    assert same(metric, create_metric("toy", weights=f"hf://{REPO}@{COMMIT}"))


@pytest.mark.parametrize("offline", [True, False])
def test_offline_and_not_cached_fails_at_once(cache, monkeypatch, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)  # else it is the network that is missing
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert huggingface_hub.hf_hub_download  # imports it: only what comes after is measured
    start = time.perf_counter()
    with pytest.raises(WeightsNotFound) as caught:
        load(CARD, f"hf://{REPO}@{COMMIT}")
    assert time.perf_counter() - start < 2
    for word in (REPO, COMMIT, CONFIG, "lowlight-iqa fetch", "weights=DIR"):
        assert word in str(caught.value)


def test_a_damaged_cache_without_a_network(saved, cache):
    snapshot = fill(cache, saved)
    (snapshot / WEIGHTS).write_bytes(b"?")
    with pytest.raises(ValueError, match="sha256"):
        load(CARD, f"hf://{REPO}@{COMMIT}")


def test_weights_of_another_metric_are_not_fetched_again(saved, cache):
    edit(saved, name="other")
    fill(cache, saved)
    with pytest.raises(ValueError, match="'other'"):
        load(CARD, f"hf://{REPO}@{COMMIT}")
