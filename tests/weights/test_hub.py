"""The Hub's real client against a Hub on loopback: what comes, what does not, and what is sent there."""

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard, constants, file_download, utils
from huggingface_hub.repocard import metadata_load
from support import ROOT
from support.hub_server import TOKEN, HubServer, metadata_errors

import lowlight_iqa
from lowlight_iqa import WeightsNotFound, create_metric, list_metrics, read_image, registry
from lowlight_iqa.cli.main import main
from lowlight_iqa.metrics.brisque import Brisque
from lowlight_iqa.metrics.niqe import NIQE
from lowlight_iqa.registry import get_card
from lowlight_iqa.weights.files import CONFIG, FILES, LICENSE, README, WEIGHTS
from lowlight_iqa.weights.model_card import model_card
from lowlight_iqa.weights.resolve import home, installed, load, name_of, splits
from lowlight_iqa.weights.transfer import fetch, push

METRIC, REPO = "brisque-dark", "someone/dark"
since_1 = pytest.mark.skipif(huggingface_hub.__version__ < "1", reason="the client can do it since 1.0")
X = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return create_metric(METRIC).save_pretrained(tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def expected():
    return create_metric(METRIC)(X)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub, and the client turned to it with an empty cache; the client has read its environment long before."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer() as server:
        for name, value in {
            "ENDPOINT": server.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_DISABLE_XET": True,
        }.items():
            for module in (constants, file_download):  # before 1.0 the client kept some by name
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, value)
        yield server


@pytest.fixture
def source(hub, saved):
    """The weights on the Hub."""
    return f"hf://{REPO}@{hub.commit(REPO, contents(saved))}"


def contents(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def scores(source):
    return create_metric(METRIC, weights=source)(X)


def digests(folder):
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents(folder).items()}


def flip(content):
    return content[:-9] + bytes([content[-9] ^ 4]) + content[-8:]


HTML = b"<!DOCTYPE html><title>Too many requests</title>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 327680\n"


# Downloads


def test_whole(hub, source, expected):
    assert torch.equal(scores(source), expected)
    assert (hub.gets(CONFIG), hub.gets(WEIGHTS)) == (1, 1)


@pytest.mark.parametrize("gone", [False, True])
def test_a_warm_cache_needs_no_connection(hub, source, expected, gone):
    scores(source)
    before = hub.connections
    if gone:
        hub.__exit__()
    assert torch.equal(scores(source), expected)
    assert hub.connections == before


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (WEIGHTS, lambda whole: whole[: len(whole) // 2]),
        (WEIGHTS, lambda whole: HTML),
        (WEIGHTS, lambda whole: POINTER),
        (WEIGHTS, flip),
        (CONFIG, lambda whole: whole[: len(whole) // 2]),
        (CONFIG, lambda whole: HTML),
        (CONFIG, lambda whole: POINTER),
    ],
)
def test_damage_at_the_source_is_an_error_after_one_more_download(hub, saved, file, content):
    files = contents(saved)
    commit = hub.commit(REPO, {**files, file: content(files[file])})
    with pytest.raises(ValueError, match=file):
        scores(f"hf://{REPO}@{commit}")
    assert hub.gets(file) == 2


@pytest.mark.parametrize("file", [WEIGHTS, CONFIG])
def test_damage_on_the_way_is_healed(hub, source, expected, file):
    hub.bodies[file] = [flip if file == WEIGHTS else lambda whole: b"?" * len(whole)]
    assert torch.equal(scores(source), expected)
    assert hub.gets(file) == 2
    before = hub.connections
    assert torch.equal(scores(source), expected)
    assert hub.connections == before


@pytest.mark.parametrize("file", [WEIGHTS, CONFIG])
def test_a_damaged_cache_is_healed(hub, source, expected, file, tmp_path):
    scores(source)
    (kept,) = (tmp_path / "hub").rglob(file)
    kept.write_bytes(kept.read_bytes()[:999])
    assert torch.equal(scores(source), expected)
    assert hub.gets(file) == 2


def test_one_more_download_is_all(hub, source, expected):
    hub.bodies[WEIGHTS] = [flip, flip]
    with pytest.raises(ValueError, match="sha256"):
        scores(source)
    assert hub.gets(WEIGHTS) == 2
    assert torch.equal(scores(source), expected)


@pytest.mark.parametrize("body", [lambda whole: whole[: len(whole) // 2], lambda whole: HTML])
def test_a_body_of_another_size_is_not_kept(hub, source, expected, body):
    hub.bodies[WEIGHTS] = [body]
    with pytest.raises(WeightsNotFound, match="size"):
        scores(source)
    assert torch.equal(scores(source), expected)


def test_a_page_in_place_of_the_hub(hub, source, expected):
    hub.heads[CONFIG] = ["portal"]
    with pytest.raises(WeightsNotFound, match=r"X-Repo-Commit|does not seem to be on"):
        scores(source)
    assert torch.equal(scores(source), expected)


def test_what_the_hub_does_not_give(hub, saved, source):
    commit = source[-40:]
    files = contents(saved)
    del files[WEIGHTS]
    for asked, file, words in (
        (source.replace(REPO, "someone/else"), CONFIG, "401"),
        (source.replace(commit, "0" * 40), CONFIG, "404"),
        (f"hf://{REPO}@{hub.commit(REPO, files)}", WEIGHTS, "404"),
    ):
        start = time.perf_counter()
        with pytest.raises(WeightsNotFound) as caught:
            scores(asked)
        assert time.perf_counter() - start < 2
        repo, revision = asked[5:].split("@")
        for word in (repo, revision, file, words, f"lowlight-iqa fetch {asked} --to DIR"):
            assert word in str(caught.value)


@since_1
def test_the_server_s_error_passes(hub, source, expected):
    hub.heads[WEIGHTS] = [500, 500]
    assert torch.equal(scores(source), expected)
    assert hub.heads[WEIGHTS] == []


@since_1
def test_a_cut_connection_is_taken_up_again(hub, source, expected, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    hub.bodies[WEIGHTS] = ["cut"]
    assert torch.equal(scores(source), expected)
    ranges = [headers.get("Range") for method, path, headers, second in hub.asked if second]
    assert ranges[0] is None
    assert int(re.fullmatch(r"bytes=(\d+)-", ranges[1])[1]) > 4096


def _create(source, barrier, results):
    torch.set_num_threads(1)  # threads do not survive a fork
    barrier.wait()
    metric = create_metric(METRIC, weights=source)
    results.put(hashlib.sha256(metric.support.numpy().tobytes()).hexdigest())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_eight_processes_on_an_empty_cache(hub, source, saved, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_create, args=(source, barrier, results)) for _ in range(8)]
    for process in processes:
        process.start()
    found = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    assert found == {hashlib.sha256(create_metric(METRIC, weights=saved).support.numpy().tobytes()).hexdigest()}
    (kept,) = (tmp_path / "hub").rglob(WEIGHTS)
    assert kept.read_bytes() == (saved / WEIGHTS).read_bytes()
    assert hub.gets(WEIGHTS) == 1


# No network


def refused(source):
    start = time.perf_counter()
    with pytest.raises(WeightsNotFound) as caught:
        scores(source)
    assert time.perf_counter() - start < 2
    for word in (REPO, source[-40:], CONFIG, f"lowlight-iqa fetch {source} --to DIR", "weights=DIR"):
        assert word in str(caught.value)
    return str(caught.value)


def test_offline(hub, source, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused(source)
    assert hub.connections == 0


def test_the_server_is_gone(hub, source):
    hub.__exit__()
    assert "refused" in refused(source).lower()


def test_nobody_answers(hub, source, monkeypatch):
    def wait(*_):  # as where names are looked up in vain
        time.sleep(3)
        raise TimeoutError

    assert lowlight_iqa.weights.hub.CONNECT < 2
    monkeypatch.setattr(lowlight_iqa.weights.hub, "CONNECT", 0.5)  # leaves time to slow machines
    monkeypatch.setattr(socket, "getaddrinfo", wait)
    assert "no address" in refused(source)


@since_1
def test_a_proxy_that_is_gone(hub, source, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused.getsockname()[1]}")
        utils.close_session()  # the client keeps the environment that it found
        try:
            assert str(unused.getsockname()[1]) in refused(source)
        finally:
            utils.close_session()
    assert hub.connections == 0


def run(code, **env):
    """A program with its own environment, which the client reads when it is imported."""
    env = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT), **env}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_environment_is_honored(hub, source, tmp_path):
    hub.private.add(REPO)
    env = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
    code = f"from lowlight_iqa.cli import main; raise SystemExit(main(['fetch', {source!r}]))"
    place = Path(run(code, **env, HF_HUB_OFFLINE="0").strip())
    assert place.is_relative_to(tmp_path / "home" / "hub")
    assert (place / WEIGHTS).is_file()
    seen = {(second, headers.get("Authorization")) for _, _, headers, second in hub.asked}
    assert seen == {(False, f"Bearer {TOKEN}"), (True, None)}  # the token goes to the Hub and nowhere else

    before = hub.connections
    other = source[:-1] + ("0" if source[-1] != "0" else "1")
    code = f"""
import time, lowlight_iqa
lowlight_iqa.create_metric({METRIC!r}, weights={source!r})
start = time.perf_counter()
try:
    lowlight_iqa.create_metric({METRIC!r}, weights={other!r})
except lowlight_iqa.WeightsNotFound as error:
    print(time.perf_counter() - start, error)
"""
    seconds, message = run(code, **env, HF_HUB_OFFLINE="1").split(maxsplit=1)
    assert float(seconds) < 2
    assert f"lowlight-iqa fetch {other}" in message
    assert hub.connections == before


def test_a_private_repository(hub, source, expected, monkeypatch):
    hub.private.add(REPO)
    with pytest.raises(WeightsNotFound, match="401"):
        scores(source)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert torch.equal(scores(source), expected)


# Names


@pytest.fixture
def unbundled(hub, tmp_path, monkeypatch):
    """A metric that is nowhere but on the Hub."""
    monkeypatch.setenv("LOWLIGHT_IQA_HOME", str(tmp_path / "store"))
    monkeypatch.setattr(registry, "_entries", {**registry._table()})
    card = replace(get_card(METRIC), name="elsewhere", weights="", sha256="")
    metric = Brisque(card, parameters=create_metric(METRIC).state_dict())
    commit = hub.commit(REPO, contents(metric.save_pretrained(tmp_path / "made")))
    registry.register(replace(card, hub=f"{REPO}@{commit}"))(Brisque)
    return metric


def test_a_name_s_weights_are_looked_for_in_the_store_and_then_on_the_hub(hub, unbundled):
    assert torch.equal(create_metric("elsewhere")(X), unbundled(X))
    assert hub.connections > 0
    unbundled.offset += 1
    unbundled.save_pretrained(installed("elsewhere"))
    before = hub.connections
    assert torch.equal(create_metric("elsewhere")(X), unbundled(X))
    assert hub.connections == before
    assert fetch(get_card("elsewhere")) == installed("elsewhere")


@pytest.mark.parametrize("address", [REPO, f"{REPO}@main", f"{REPO}@{'0' * 39}", f"{REPO}@{'G' * 40}"])
def test_a_card_s_repository_without_a_whole_commit_is_refused_before_it_is_asked(hub, unbundled, address):
    before = hub.connections
    with pytest.raises(ValueError, match="@<40-hex commit>"):
        load(replace(get_card("elsewhere"), hub=address))
    assert hub.connections == before


def test_a_name_without_weights_says_where_they_come_from(hub, unbundled):
    card = replace(get_card("elsewhere"), hub="", origin="the moon; `lowlight-iqa convert` installs them")
    with pytest.raises(WeightsNotFound) as caught:
        load(card)
    for word in (str(installed("elsewhere") / WEIGHTS), "the moon", "lowlight-iqa convert", "weights=DIR"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("platform", "variable", "place"),
    [
        ("linux", "", ".local/share/lowlight_iqa"),
        ("linux", "XDG_DATA_HOME", "given/lowlight_iqa"),
        ("darwin", "", "Library/Application Support/lowlight_iqa"),
        ("win32", "LOCALAPPDATA", "given/lowlight_iqa"),
        ("win32", "", "AppData/Local/lowlight_iqa"),
        ("linux", "LOWLIGHT_IQA_HOME", "given"),
    ],
)
def test_what_is_installed_lies_in_a_data_folder(platform, variable, place, monkeypatch, tmp_path):
    for name in ("LOWLIGHT_IQA_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "given"))
    assert home() == tmp_path / place
    assert installed("leiq") == tmp_path / place / "weights" / "leiq"


def cli(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out.strip(), err


def test_fetch_to_a_directory(hub, source, saved, expected, tmp_path, capsys):
    assert cli(capsys, "fetch", source, "--to", tmp_path / "there")[:2] == (0, str(tmp_path / "there"))
    assert digests(tmp_path / "there") == digests(saved)
    hub.__exit__()
    assert torch.equal(scores(tmp_path / "there"), expected)


def test_fetch_a_name(hub, unbundled, tmp_path, capsys):
    status, out, _ = cli(capsys, "fetch", "elsewhere")
    assert status == 0
    assert digests(Path(out)).keys() >= {CONFIG, WEIGHTS}
    assert cli(capsys, "fetch", "elsewhere", "--to", tmp_path / "there")[0] == 0
    assert torch.equal(create_metric("elsewhere", weights=tmp_path / "there")(X), unbundled(X))


def test_fetch_what_is_bundled(hub, tmp_path, expected, capsys):
    status, out, _ = cli(capsys, "fetch", METRIC)
    assert status == 0
    assert hashlib.sha256(Path(out).read_bytes()).hexdigest() == get_card(METRIC).sha256
    assert cli(capsys, "fetch", METRIC, "--to", tmp_path / "there")[0] == 0
    assert torch.equal(scores(tmp_path / "there"), expected)
    assert hub.connections == 0


def test_fetch_what_is_damaged_or_not_pinned(hub, source, tmp_path, capsys):
    hub.bodies[WEIGHTS] = [flip, flip]
    status, out, err = cli(capsys, "fetch", source, "--to", tmp_path / "there")
    assert (status, out) == (2, "")
    assert "sha256" in err
    assert not (tmp_path / "there").exists()
    status, _, err = cli(capsys, "fetch", f"hf://{REPO}@main")
    assert status == 2
    assert f"write hf://{REPO}@<40-hex commit>" in err
    assert "no weights are published for 'exposure'" in cli(capsys, "fetch", "exposure")[2]


# Several splits


@pytest.fixture
def several(saved, tmp_path):
    """A directory of two splits, the second with another offset."""
    root = tmp_path / "several"
    shutil.copytree(saved, root / "v0")
    other = create_metric(METRIC)
    other.offset += 1
    other.save_pretrained(root / "v1")
    card = json.loads((saved / CONFIG).read_text())["card"]
    (root / CONFIG).write_text(json.dumps({"card": card, "splits": ["v0", "v1"]}))
    return root


def test_splits_are_fetched_and_checked_one_by_one(hub, several, tmp_path):
    card = get_card(METRIC)
    source = f"hf://{REPO}@{hub.commit(REPO, contents(several))}"
    for whole in (several, source):
        v0, v1 = splits(card, whole)
        assert (scores(v1) - scores(v0)).tolist() == pytest.approx([1, 1], abs=1e-4)
        with pytest.raises(ValueError, match=r"several splits; load one, such as .*/v0"):
            scores(whole)
    there = fetch(get_card(name_of(source)), source, tmp_path / "there")
    assert digests(there) == digests(several)
    hub.bodies[f"v1/{WEIGHTS}"] = [flip]
    shutil.rmtree(tmp_path / "hub")
    fetch(get_card(name_of(source)), source)
    assert (hub.gets(f"v0/{WEIGHTS}"), hub.gets(f"v1/{WEIGHTS}")) == (2, 3)


def test_what_has_no_splits_is_its_own(saved):
    assert splits(get_card(METRIC), saved) == [saved]


@pytest.mark.parametrize("names", [["../saved"], ["v0", "/etc"], "v0", [""]])
def test_splits_lie_inside(several, names):
    config = json.loads((several / CONFIG).read_text())
    (several / CONFIG).write_text(json.dumps({**config, "splits": names}))
    with pytest.raises(ValueError, match="plain folder names"):
        splits(get_card(METRIC), several)


# Uploads


@pytest.mark.parametrize("xet", [False, pytest.param(True, marks=since_1)])
def test_what_is_pushed_loads_back(hub, saved, expected, monkeypatch, capsys, tmp_path, xet):
    if xet:  # the client's other way to upload; large files would need its storage, so that here there are none
        pytest.importorskip("hf_xet")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
        hub.lfs = (".none",)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    shutil.copytree(saved, tmp_path / "mine")
    (tmp_path / "mine" / "checkpoint.pt").write_text("not to be uploaded")
    status, source, _ = cli(capsys, "push", tmp_path / "mine", REPO)
    assert status == 0
    assert re.fullmatch(rf"hf://{REPO}@[0-9a-f]{{40}}", source)
    assert set(hub.commits[REPO][source[-40:]]) == set(FILES)
    assert torch.equal(scores(source), expected)
    assert push(get_card(METRIC), saved, REPO) == source  # nothing has changed
    assert REPO not in hub.private


def test_push_splits_to_a_private_repository(hub, several, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    source = push(get_card(name_of(several)), several, REPO, private=True)
    assert set(hub.commits[REPO][source[-40:]]) == {
        CONFIG, *(f"{split}/{name}" for split in ("v0", "v1") for name in FILES)
    }  # fmt: skip
    assert REPO in hub.private
    assert torch.equal(scores(f"{source}/v1"), scores(several / "v1"))


def test_what_is_not_pushed(hub, saved, tmp_path, capsys):
    status, _, err = cli(capsys, "push", saved, REPO)
    assert status == 2
    for word in (REPO, "401", "HF_TOKEN"):
        assert word in err
    before = hub.connections
    shutil.copytree(saved, tmp_path / "bad")
    (tmp_path / "bad" / WEIGHTS).write_bytes(flip((saved / WEIGHTS).read_bytes()))
    assert "sha256" in cli(capsys, "push", tmp_path / "bad", REPO)[2]
    assert CONFIG in cli(capsys, "push", tmp_path, REPO)[2]
    assert "owner/repo" in cli(capsys, "push", saved, "dark")[2]
    assert hub.connections == before


# The model card


@pytest.mark.parametrize("name", list_metrics())
def test_the_model_card_is_one_that_the_hub_accepts(name, tmp_path):
    card = get_card(name)
    text = model_card(card)
    assert metadata_errors(text) == []
    parsed = ModelCard(text)  # model-index too
    (tmp_path / README).write_text(text)
    facts = metadata_load(tmp_path / README)
    assert parsed.data.to_dict() == facts
    assert (facts["library_name"], facts["pipeline_tag"]) == ("lowlight-iqa", "image-classification")
    assert {"image-quality-assessment", "no-reference", "low-light", name} <= set(facts["tags"])
    if facts["license"] == "other":
        assert re.fullmatch(r"[a-z0-9.-]+", facts["license_name"])
        assert facts["license_link"] == LICENSE
    assert f'create_metric("{name}", weights=' in parsed.text
    for fact in (card.summary, card.source, card.license, card.trained_on, *card.reached.values()):
        assert fact in parsed.text


def results(card):
    data = ModelCard(model_card(card)).data
    return {(item.metric_type, item.dataset_name): item.metric_value for item in data.eval_results}


def test_the_model_cards_of_the_trained_metrics():
    card = get_card("leiq")
    data = ModelCard(model_card(card)).data
    assert (data.base_model, data.datasets) == ("timm/tf_efficientnet_lite2.in1k", ["BIQ2021", "LOL"])
    assert (data.license, data.license_name) == ("other", "research-use")
    assert results(card) == {
        ("spearmanr", "BIQ2021 test split, 2000 pictures"): 0.863,
        ("pearsonr", "BIQ2021 test split, 2000 pictures"): 0.878,
        ("spearmanr", "BIQ2021 test split, 409 dark pictures (mean luma < 70)"): 0.904,
    }
    assert list(results(get_card(METRIC)).values()) == [0.735, 0.776]


def test_licenses_and_notices_go_with_the_weights(saved, tmp_path):
    assert (saved / LICENSE).read_text().startswith(f"{METRIC}: research use")
    official = create_metric("niqe").save_pretrained(tmp_path / "official")
    assert "The University of Texas at Austin" in (official / LICENSE).read_text()
    photo = read_image(ROOT / "samples" / "coffee.jpg")[:, :192, :192]
    mine = NIQE.fit([photo, photo.flip(1)]).save_pretrained(tmp_path / "mine")
    assert metadata_load(mine / README)["license"] == "unknown"
    assert not (mine / LICENSE).exists()


# A Hub that is slow, broken or not what it was


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_stays_broken_is_one_line_in_a_bounded_time(hub, source, status, capfd):
    hub.heads[CONFIG] = [status] * 20
    start = time.perf_counter()
    with pytest.raises(WeightsNotFound, match=str(status)) as caught:
        scores(source)
    assert time.perf_counter() - start < 6
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_server_that_accepts_and_never_answers(source, monkeypatch):
    monkeypatch.setattr(lowlight_iqa.weights.hub, "ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/{revision}/{filename}")
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", constants.HUGGINGFACE_CO_URL_TEMPLATE, False)
        start = time.perf_counter()
        with pytest.raises(WeightsNotFound):
            scores(source)
        assert time.perf_counter() - start < 5


def test_a_download_that_drips_comes_to_an_end(hub, source, monkeypatch):
    monkeypatch.setattr(lowlight_iqa.weights.hub, "GRACE", 0.5)
    hub.bodies[CONFIG] = [lambda whole: time.sleep(4) or whole]
    with pytest.raises(WeightsNotFound, match=r"no \d+ bytes within 0\.\d+ s"):
        scores(source)


def test_config_and_weights_exchanged_together_are_noticed(hub, source, expected, tmp_path):
    scores(source)
    other = create_metric(METRIC)
    other.offset += 1
    other.save_pretrained(tmp_path / "other")
    for name in (CONFIG, WEIGHTS):
        (cached,) = (tmp_path / "hub").rglob(name)
        cached.resolve().write_bytes((tmp_path / "other" / name).read_bytes())
    assert torch.equal(scores(source), expected)  # both were downloaded once more
    assert (hub.gets(CONFIG), hub.gets(WEIGHTS)) == (2, 2)
