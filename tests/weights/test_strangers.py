"""Weights from a stranger: every fact is checked before it is believed, and saving follows nobody's links."""

import hashlib
import json
import os
import resource
import socket
import stat
import time
from contextlib import suppress

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lowlight_iqa import create_metric
from lowlight_iqa.registry import get_card
from lowlight_iqa.weights import files
from lowlight_iqa.weights.files import BUNDLED, CONFIG, README, WEIGHTS
from lowlight_iqa.weights.transfer import fetch

LEARNED = ("leiq", "iaca", "bmqa")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved folder of each learned metric and of brisque."""
    root = tmp_path_factory.mktemp("saved")
    return {name: create_metric(name).save_pretrained(root / name) for name in (*LEARNED, "brisque")}


def rewrite(source, target, change_config=None, change_card=None, metadata=True):
    """A copy of saved weights with another config in its header or another card, and the right hash."""
    target.mkdir()
    with safe_open(source / WEIGHTS, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    if change_config:
        change_config(config)
    save_file(tensors, target / WEIGHTS, {"config": json.dumps(config)} if metadata else None)
    facts = json.loads((source / CONFIG).read_text())
    facts["card"]["sha256"] = hashlib.sha256((target / WEIGHTS).read_bytes()).hexdigest()
    if change_card:
        change_card(facts["card"])
    (target / CONFIG).write_text(json.dumps(facts))
    return target


def refused(name, folder, words):
    start = time.process_time()
    with pytest.raises(ValueError, match=words):
        create_metric(name, weights=folder)
    assert time.process_time() - start < 5


def put(*path, value):
    def change(config):
        for key in path[:-1]:
            config = config[key]
        if value is None:
            del config[path[-1]]
        else:
            config[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("name", "path", "value", "words"),
    [
        ("leiq", ("hidden",), 100_000, "another architecture"),
        ("leiq", ("hidden",), 10**6, "'hidden' .* is 1000000, not a whole number"),
        ("leiq", ("hidden",), 1.5, "not a whole number"),
        ("leiq", ("trunk",), "hf-hub:someone/model", "not one of lite0"),
        ("leiq", ("trunk",), None, "lacks 'trunk'"),
        ("leiq", ("mappings",), None, "lacks 'mappings'"),
        ("leiq", ("mappings", "mos"), [1, 0, 0, 0], "last one must not be 0"),
        ("leiq", ("mappings", "mos"), [1, 0, "a", 1], "a list of 4 finite numbers"),
        ("leiq", ("mappings", "mos"), [1, 0, float("nan"), 1], "NaN"),
        ("iaca", ("network", "taps"), [99], "taps"),
        ("iaca", ("network", "gating"), "yes", "true or false"),
        ("iaca", ("mapping",), [1, 2], "a list of 4 finite numbers"),
        ("bmqa", ("network", "text_layers"), 100_000, "'text_layers'"),
        ("bmqa", ("network", "width"), 8000, "another architecture"),
        ("bmqa", ("network", "heads"), 7, "not a multiple of 7 heads"),
        ("bmqa", ("network", "mood"), 7, "mood"),
        ("bmqa", ("network", "tower"), "hf-hub:someone/model", "'tower' .* not one of"),
        ("bmqa", ("network", "tower"), "local-dir:/tmp", "'tower' .* not one of"),
        ("bmqa", ("rules", "noise"), [1], "a list of 2 finite numbers"),
        ("bmqa", ("words",), [1, 2], "a list of strings"),
    ],
)
def test_a_config_is_not_believed(name, path, value, words, saved, tmp_path):
    refused(name, rewrite(saved[name], tmp_path / "x", put(*path, value=value)), words)


@pytest.mark.parametrize("name", LEARNED)
def test_no_string_of_a_config_reaches_for_the_network(name, saved, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", fail)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with safe_open(saved[name] / WEIGHTS, "pt") as file:
        config = json.loads(file.metadata()["config"])

    def strings(value, path=()):
        if isinstance(value, str):
            yield path
        for key, inner in value.items() if isinstance(value, dict) else ():
            yield from strings(inner, (*path, key))

    for number, path in enumerate(strings(config)):
        folder = rewrite(saved[name], tmp_path / str(number), put(*path, value="hf-hub:someone/model"))
        refused(name, folder, "not one of")


@pytest.mark.parametrize(
    ("fact", "value", "words"),
    [
        ("min_size", 0, "'min_size'"),
        ("min_size", 10**9, "'min_size'"),
        ("min_size", "8", "'min_size' .* not a whole number"),
        ("score_range", ["a", "b"], "two finite numbers"),
        ("score_range", [1.0, 0.0], "not low and high"),
        ("score_range", [0.0], "two finite numbers"),
        ("typical_range", [1.0, 1.0], "two equal ends"),
        ("needs_reference", True, "'needs_reference'"),
        ("commercial", "yes", "true or false"),
        ("summary", 3, "a line of text"),
        ("summary", "\x1b[31mred", "a line of text"),
        ("summary", "two\nlines", "a line of text"),
        ("summary", "x" * 100_000, "a line of text"),
        ("reached", {"SRCC": 3}, "lines by name"),
        ("sees", "noise", "a list of lines"),
        ("zero_gradient", "edge", "a list of lines"),
        ("piecewise", 0, "true or false"),
        ("sha256", "../../x", "64 hex digits"),
        ("mood", "good", "does not know: mood"),
    ],
)
def test_a_card_is_not_believed(fact, value, words, saved, tmp_path):
    refused("brisque", rewrite(saved["brisque"], tmp_path / "x", change_card=put(fact, value=value)), words)


def test_a_file_without_a_config_in_its_header(saved, tmp_path):
    refused("leiq", rewrite(saved["leiq"], tmp_path / "x", metadata=False), "has no config in its header")


def test_numbers_that_are_none(saved, tmp_path):
    folder = rewrite(saved["brisque"], tmp_path / "x")
    tensors = dict(create_metric("brisque").state_dict())
    tensors["gamma"] = torch.tensor(float("nan"))
    save_file({key: value.float() for key, value in tensors.items()}, folder / WEIGHTS, {"config": "{}"})
    config = json.loads((folder / CONFIG).read_text())
    config["card"]["sha256"] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / CONFIG).write_text(json.dumps(config))
    refused("brisque", folder, "gamma in .* holds NaN")


def test_configs_that_are_too_deep_or_too_large(saved, tmp_path):
    folder = rewrite(saved["brisque"], tmp_path / "x")
    (folder / CONFIG).write_text('{"card":' + "[" * 200_000)
    refused("brisque", folder, "nested too deeply")
    with (folder / CONFIG).open("wb") as file:
        file.truncate(3_000_000_000)  # sparse
    refused("brisque", folder, "more than 1000000 bytes")


# Saving


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, README])
def test_a_planted_link_is_replaced_and_not_followed(name, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    for save in (create_metric("brisque").save_pretrained, lambda to: fetch(get_card("brisque"), to=to)):
        folder = tmp_path / save.__name__
        folder.mkdir()
        (folder / name).symlink_to(secret)
        save(folder)
        assert secret.read_text() == "mine"
        assert not (folder / name).is_symlink()


def test_saved_files_have_the_mode_of_any_new_file(tmp_path):
    old = os.umask(0o022)
    try:
        folder = create_metric("brisque").save_pretrained(tmp_path / "x")
    finally:
        os.umask(old)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


@pytest.mark.parametrize("room", [0, 1000, 100_000])
def test_a_full_disk_leaves_what_was_there(room, tmp_path):
    folder = create_metric("brisque").save_pretrained(tmp_path / "x")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        for save in (create_metric("brisque-dark").save_pretrained, lambda to: fetch(get_card("brisque"), to=to)):
            with pytest.raises(OSError, match=r"x.(model\.safetensors|config\.json) could not be written .*free space"):
                save(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file.sub could not be written"):
        create_metric("brisque").save_pretrained(tmp_path / "file" / "sub")


def test_a_license_brings_its_notice(tmp_path):
    for notice in BUNDLED.glob("NOTICE.*"):
        card = get_card(notice.suffix[1:])
        assert f"weights/bundled/{notice.name}" in card.license
        assert notice.read_text() in files._license(card)


def test_killed_while_saving(tmp_path):
    """What another process left behind is not in the way."""
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / f".{WEIGHTS}.{os.getpid()}.new").write_text("left behind")
    create_metric("brisque").save_pretrained(folder)
    with suppress(FileNotFoundError):
        assert create_metric("brisque", weights=folder)
    assert not list(folder.glob(".*"))
