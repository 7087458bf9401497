"""LEIQ's own recipe on tiny towers and made-up pictures in MLE's layout, through the command line."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from lowlight_iqa import backbones, create_metric, read_image
from lowlight_iqa.cli.main import main
from lowlight_iqa.data import mle
from lowlight_iqa.data.rated import Rated
from lowlight_iqa.metrics.leiq import TASKS
from lowlight_iqa.metrics.leiq_authors import TOWERS, resize_8_bit
from lowlight_iqa.training import leiq_authors, loop
from lowlight_iqa.training.leiq_authors import divide

B16, SO400M = TOWERS
SCENES, LETTERS = 10, "ABCD"
SMALL = ["--epochs", "2", "--batch", "8", "--rate", "3e-3"]


def tiny_tower(name, device="meta"):
    """Two narrow blocks and attention pooling in place of timm's tower of this name."""
    side = next(side for tower, side, _ in TOWERS.values() if tower == name)
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": side // 6}
    with torch.device(device):
        return backbones.import_timm().create_model(name, num_classes=0, global_pool="map", **sizes)


@pytest.fixture(autouse=True, scope="module")
def tiny():
    patch, threads = pytest.MonkeyPatch(), torch.get_num_threads()
    patch.setattr(backbones, "siglip_tower", tiny_tower)
    torch.set_num_threads(1)  # there is nothing to share out
    yield
    torch.set_num_threads(threads)
    patch.undo()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten scenes of four pictures, brighter with every letter; MOS and attributes rise with brightness."""
    root, rng, rows = tmp_path_factory.mktemp("mle"), np.random.default_rng(0), []
    (root / "MLE" / "training").mkdir(parents=True)
    for scene in range(SCENES):
        content = rng.uniform(0, 1, (6, 9, 3)).repeat(8, 0).repeat(8, 1)
        for place, letter in enumerate(LETTERS):
            file = f"MLE/training/b_{scene}_{letter}.png"
            Image.fromarray((content * (60 + 60 * place)).astype(np.uint8)).save(root / file)
            attributes = {task: 1.5 + place + 0.3 * rng.uniform() for task in TASKS[1:]}
            mos = 2.0 + 1.8 * place + 0.5 * rng.uniform()
            rows.append({"id": f"b_{scene}_{letter}", "file": file, "mos": mos, "description": "", **attributes})
    (root / "MLE-training.json").write_text(json.dumps(rows))
    return root


def arguments(name, data, out, *options):
    return ["train", name, "--data", str(data), "--out", str(out), *SMALL, *options]


def run(name, data, out, *options):
    return main(arguments(name, data, out, "--from-scratch", *options))


@pytest.fixture(scope="module", params=[B16, SO400M])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def trained(name, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert run(name, data, out) == 0
    return out / name


def weights(directory):
    return load_file(directory / "model.safetensors")


def figures(log, key):
    """The values behind a key in the log, in order."""
    return [float(line.split(f"{key} ")[1].split()[0]) for line in log.splitlines() if f" {key} " in line]


# The result


def test_it_scores_explains_and_says_what_it_is(name, trained, data):
    metric = create_metric(name, weights=trained)
    dark, bright = (metric.assess(data / "MLE" / "training" / f"b_3_{letter}.png") for letter in "AD")
    assert 0 <= dark.score < bright.score <= 10
    tasks = TASKS if name == SO400M else TASKS[:1]
    assert tuple(bright.attributes) == tasks[1:]
    assert all(1 <= value <= 5 for value in bright.attributes.values())
    assert not bright.uncalibrated
    card = metric.card
    assert f"trained by `lowlight-iqa train {name}`; not the authors'" in card.summary
    assert "FROM RANDOM WEIGHTS" in card.trained_on
    assert "equal to" not in card.source
    assert len(card.reached) == len(tasks)
    assert all("optimistic" in figure and "last epoch SRCC" in figure for figure in card.reached.values())
    assert all("8 pictures of 2 other scenes" in what for what in card.reached)


def test_the_best_epoch_is_kept_and_the_last_one_told(data, tmp_path):
    """Learning that is far too fast after a good start: the last epoch is not the best one."""
    assert run(B16, data, tmp_path, "--epochs", "5", "--rate", "0.02") == 0
    log = (tmp_path / "train.log").read_text()
    assert "optimistic" in log
    srcc, plcc = figures(log, "mos_srcc"), figures(log, "mos_plcc")
    goodness = [(one + other) / 2 for one, other in zip(srcc, plcc, strict=True)]
    best = int(np.argmax(goodness))
    reached = create_metric("leiq-b16", weights=tmp_path / "leiq-b16").card.reached
    (figure,) = reached.values()
    assert f"best epoch, {best + 1} of 5" in figure
    assert f"SRCC {srcc[best]:.3f}, PLCC {plcc[best]:.3f}; last epoch SRCC {srcc[-1]:.3f}" in figure
    # the weights that were written are those of that epoch
    metric = create_metric("leiq-b16", weights=tmp_path / "leiq-b16")
    checking = divide(mle.read(data), "scene", 0)[1]
    found = leiq_authors.Validation(checking)(metric.network)
    assert found["mos_srcc"] == pytest.approx(srcc[best], abs=1e-4)
    assert found["mos_plcc"] == pytest.approx(plcc[best], abs=1e-4)


def test_the_loss_falls(data, tmp_path, monkeypatch):
    losses, plcc_loss = [], leiq_authors.plcc_loss

    def noted(prediction, target):
        losses.append(plcc_loss(prediction, target))
        return losses[-1]

    monkeypatch.setattr(leiq_authors, "plcc_loss", noted)
    assert run(SO400M, data, tmp_path, "--epochs", "3", "--rate", "1e-3") == 0
    steps = torch.stack(losses).detach().view(12, 7).sum(1)  # 12 steps of seven tasks
    assert steps[-4:].mean() < 0.5 * steps[0]


# Start


def test_without_weights_for_the_tower_nothing_is_trained(name, data, tmp_path, capsys):
    assert main(arguments(name, data, tmp_path)) == 2
    message = capsys.readouterr().err
    assert "--initial FILE" in message
    assert "SigLIP2" in message
    assert main(arguments(name, data, tmp_path, "--initial", str(tmp_path / "no.safetensors"))) == 2
    assert "no.safetensors does not exist" in capsys.readouterr().err
    assert main(arguments(name, data, tmp_path, "--initial", "x", "--from-scratch")) == 2
    assert "give one of the two" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("names", ["timm", "open_clip", "ours", "pickled"])
def test_the_tower_starts_from_the_weights_given(data, tmp_path, names):
    start = tiny_tower(TOWERS[B16][0], "cpu").state_dict()
    file = tmp_path / ("siglip.pth" if names == "pickled" else "siglip.safetensors")
    if names in ("open_clip", "ours"):
        prefix = "visual.trunk." if names == "open_clip" else "feature_extraction.trunk."
        more = {"text.positional_embedding": torch.zeros(3), "logit_scale": torch.zeros(())}
        save_file({prefix + key: value for key, value in start.items()} | more, file)
    else:
        (torch.save if names == "pickled" else save_file)(start, file)
    options = ["--initial", str(file), "--epochs", "1", "--rate", "1e-9"]
    assert main(arguments(B16, data, tmp_path / "run", *options)) == 0
    found = weights(tmp_path / "run" / "leiq-b16")
    for key, value in start.items():
        torch.testing.assert_close(found[f"feature_extraction.trunk.{key}"], value, rtol=0, atol=1e-6)
    trained_on = create_metric("leiq-b16", weights=tmp_path / "run" / "leiq-b16").card.trained_on
    assert f"tower from {file.name}" in trained_on


def test_weights_of_another_tower_are_refused(data, tmp_path, capsys):
    save_file(tiny_tower(TOWERS[B16][0], "cpu").state_dict(), tmp_path / "b16.safetensors")
    assert main(arguments(SO400M, data, tmp_path, "--initial", str(tmp_path / "b16.safetensors"))) == 2
    assert "b16.safetensors is not vit_so400m" in capsys.readouterr().err


# Running


def test_a_resumed_run_ends_where_an_unbroken_one_does(name, data, trained, tmp_path, monkeypatch):
    save = loop.Checkpoint.save

    def save_and_die(*args):
        save(*args)
        raise KeyboardInterrupt  # after the first epoch

    monkeypatch.setattr(loop.Checkpoint, "save", save_and_die)
    assert run(name, data, tmp_path) == 130
    monkeypatch.setattr(loop.Checkpoint, "save", save)
    assert run(name, data, tmp_path, "--resume") == 0
    found, expected = weights(tmp_path / name), weights(trained)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    config = "config.json"
    assert (tmp_path / name / config).read_text() == (trained / config).read_text()


def test_a_checkpoint_of_another_recipe_is_refused(data, trained, name, tmp_path, capsys):
    (tmp_path / "checkpoint.pt").symlink_to(trained.parent / "checkpoint.pt")
    assert run(name, data, tmp_path, "--resume", "--split", "random") == 2
    assert "resume with the same settings" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(data, tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert run(B16, data, tmp_path / name, "--seed", seed, "--epochs", "1") == 0
    a, b, c = (weights(tmp_path / name / "leiq-b16") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_the_blocks_run_in_bfloat16_and_are_computed_again(data, tmp_path, monkeypatch):
    """Autocast and checkpointing are on by default, and off where they are switched off."""
    kinds = []

    def tower(name, device="meta"):
        built = tiny_tower(name, device)
        built.blocks[0].mlp.fc1.register_forward_hook(
            lambda _, args, output: kinds.append(
                (output.dtype, torch.is_grad_enabled(), torch.is_inference_mode_enabled())
            )
        )
        return built

    monkeypatch.setattr(backbones, "siglip_tower", tower)
    steps = SCENES * len(LETTERS) * 4 // 5 // 8
    assert run(B16, data, tmp_path / "on", "--epochs", "1") == 0
    training = [dtype for dtype, _, inference in kinds if not inference]
    assert training == [torch.bfloat16] * 2 * steps  # once forward, once more in the backward pass
    assert {dtype for dtype, _, inference in kinds if inference} == {torch.float32}  # validated as it scores
    kinds.clear()
    assert run(B16, data, tmp_path / "off", "--epochs", "1", "--no-half", "--no-checkpointing") == 0
    assert [dtype for dtype, _, inference in kinds if not inference] == [torch.float32] * steps


def test_checkpointing_changes_no_gradient():
    tower = tiny_tower(TOWERS[B16][0], "cpu")
    gradients = []
    for again in (False, True):
        tower.set_grad_checkpointing(again)
        tower.zero_grad()
        tower(torch.linspace(-1, 1, 2 * 3 * 384 * 384).view(2, 3, 384, 384)).square().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in tower.parameters()]))
    assert torch.equal(*gradients)


def test_the_schedule_is_the_authors():
    schedule = leiq_authors.Steps(
        epochs=6, steps_per_epoch=3, warmup=0, weight_decay=1e-7, average=0, seed=0, decay=0.95
    )
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-5)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.95)
    for epoch in range(6):
        rates = [1e-5 * schedule.factor(3 * epoch + step) for step in range(3)]
        assert rates == pytest.approx(theirs.get_last_lr() * 3)
        optimizer.step()
        theirs.step()
    assert leiq_authors.Steps.optimizer is torch.optim.Adam


PROGRAM = """
import sys, torch
from pathlib import Path

sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
import test_leiq_authors as here
from lowlight_iqa import backbones

torch.set_num_threads(1)
backbones.siglip_tower = here.tiny_tower
data, out = map(Path, sys.argv[2:])
torch.distributed.init_process_group("gloo")  # for both trainings: a group of one name cannot be joined twice
torch.save(here.first_gradients(data, out), out / f"{torch.distributed.get_rank()}.pt")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def first_gradients(data, out):
    """The gradient of a step in float32 and in bfloat16, as the optimizer is given it."""
    found, add = [], loop.Ranks.sum_gradients

    def keep(ranks, network):
        add(ranks, network)
        found.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).double())

    loop.Ranks.sum_gradients = keep
    try:
        for half in ("--no-half", "--half"):
            assert run(SO400M, data, out / half[2:], "--epochs", "1", "--batch", "32", half) == 0
    finally:
        loop.Ranks.sum_gradients = add
    return found


@pytest.mark.slow
def test_two_processes_agree_with_one_on_the_gradient(data, tmp_path):
    """That of the whole batch; in bfloat16 within its rounding."""
    one = first_gradients(data, tmp_path / "one")
    script, out = tmp_path / "program.py", tmp_path / "two"
    script.write_text(PROGRAM)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(loop.__file__).parents[2])}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, str(script), str(Path(__file__).parent), str(data), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        two = torch.load(out / f"{rank}.pt", weights_only=True)
        for expected, found, tolerance in zip(one, two, (1e-4, 0.02), strict=True):
            assert expected.norm() > 1e-3
            assert (found - expected).norm() < tolerance * expected.norm()


# The split


@given(
    scenes=st.lists(st.integers(1, 12), min_size=2, max_size=40),
    seed=st.integers(0, 2**32),
    how=st.sampled_from(["scene", "random"]),
)
@settings(max_examples=100, deadline=None)
def test_a_scene_split_never_shares_a_scene(scenes, seed, how):
    names = [(f"s{scene}", letter) for scene, count in enumerate(scenes) for letter in range(count)]
    rated = [Rated(Path(f"{scene}_{letter}.png"), 5.0, group=scene) for scene, letter in names]
    fitting, checking = divide(rated, how, seed)
    assert sorted(map(rated.index, fitting + checking)) == list(range(len(rated)))
    assert checking
    assert (fitting, checking) == divide(rated, how, seed)
    if how == "scene":
        groups = [{item.group for item in part} for part in (fitting, checking)]
        assert not groups[0] & groups[1]
        assert len(groups[0]) == len(scenes) * 4 // 5


def test_the_random_split_is_the_authors(data):
    rated = mle.read(data)
    for seed in range(10):
        places = list(range(len(rated)))
        random.Random(seed).shuffle(places)
        fitting, checking = divide(rated, "random", seed)
        assert {rated.index(item) for item in fitting} == set(places[:32])
        assert {rated.index(item) for item in checking} == set(places[32:])
    with pytest.raises(ValueError, match="no split 'scenes'; there are: scene, random"):
        divide(rated, "scenes", 0)


def test_the_random_split_says_that_it_shares_scenes(data, tmp_path):
    assert run(B16, data, tmp_path, "--split", "random", "--epochs", "1") == 0
    (what,) = create_metric("leiq-b16", weights=tmp_path / "leiq-b16").card.reached
    assert "of the same scenes" in what


# Input


def test_what_cannot_be_trained_on_is_refused(data, tmp_path, capsys):
    assert run(B16, data, tmp_path, "--batch", "33") == 2
    assert "32 training and 8 validation pictures" in capsys.readouterr().err
    rows = json.loads((data / "MLE-training.json").read_text())
    del rows[7]["nature"]
    (tmp_path / "MLE").symlink_to(data / "MLE")
    (tmp_path / "MLE-training.json").write_text(json.dumps(rows))
    assert run(SO400M, tmp_path, tmp_path / "run") == 2
    assert "b_1_D.png has no label of nature" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("leiq-huge", data, tmp_path)
    assert "invalid choice: 'leiq-huge' (choose from" in capsys.readouterr().err


def test_crops_are_squares_of_the_resized_picture_at_any_place(data):
    path = data / "MLE" / "training" / "b_0_D.png"
    whole = resize_8_bit((read_image(path)[None] * 255).round().byte())[0]  # (3, 432, 648)
    album = leiq_authors.Album()
    assert torch.equal(album.crop(path, 378, (0.0, 0.0)), whole[:, :378, :378])
    last = np.nextafter(1, 0)
    assert torch.equal(album.crop(path, 378, (last, last)), whole[:, -378:, -378:])
