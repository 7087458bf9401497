"""The example that trains an enhancement network, on tiny dark pictures."""

import csv
import importlib.util
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import ROOT

from lowlight_iqa import create_metric, read_image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("train_enhancer", ROOT / "examples" / "train_enhancer.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two samples, dark and well lit, 192x160, by the same file names."""
    low, high = (tmp_path_factory.mktemp(name) for name in ("low", "high"))
    for name in ("astronaut", "coffee"):
        for folder, source in ((low, f"{name}_dark.png"), (high, f"{name}.jpg")):
            with Image.open(ROOT / "samples" / source) as picture:
                picture.resize((192, 160)).save(folder / f"{name}.png")
    return low, high


@pytest.fixture(scope="module")
def pairs(example, folders):
    return example.read_pictures(example.files(folders[0]), folders[1])


def arguments(folders, out, more=""):
    return f"--pictures {folders[0]} --out {out} --steps 2 --batch 2 --size 128 --device cpu {more}".split()


def losses(out):
    with (out / "losses.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_the_command_writes_network_grid_and_losses(example, folders, tmp_path):
    metrics = "--metric leiq --metric-weight 0.5 --metric brisque --metric-weight 0.1"
    example.main(arguments(folders, tmp_path, f"--reference {folders[1]} --random-crops {metrics}"))
    rows = losses(tmp_path)
    assert [row["step"] for row in rows] == [1, 2]
    assert {"loss", *example.PRIORS, "leiq", "brisque", "fidelity"} < set(rows[0])
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in rows)
    network = example.Enhancer()
    network.load_state_dict(load_file(tmp_path / "enhancer.safetensors"))
    with Image.open(tmp_path / "before_after.png") as grid:
        assert grid.size == (3 * 240, 2 * 200)  # dark, enhanced, reference; a row for each picture


def test_the_same_seed_gives_the_same_numbers(example, folders, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        example.main(arguments(folders, tmp_path / name, f"--metric leiq --random-crops --seed {seed}"))
    first, again, other = (losses(tmp_path / name) for name in "abc")
    assert first == again
    assert first != other


def test_the_network_is_small_keeps_size_and_range_and_starts_near_the_identity(example):
    torch.manual_seed(0)
    network = example.Enhancer()
    assert sum(p.numel() for p in network.parameters()) == 79_416  # Zero-DCE's
    x = torch.rand(2, 3, 45, 67)
    with torch.no_grad():
        y = network(x)
        strong = example.apply_curves(x, torch.ones(2, 24, 11, 16))
    assert y.shape == x.shape
    assert (y - x).abs().max() < 0.2
    assert strong.min() >= 0
    assert strong.max() <= 1
    assert (strong >= x).all()


def test_curves_and_priors_against_numbers_worked_by_hand(example):
    x, curves = torch.full((1, 3, 32, 32), 0.5), torch.zeros(1, 24, 8, 8)
    curves[:, :3] = 0.4
    assert torch.allclose(example.apply_curves(x, curves), torch.full_like(x, 0.6))  # .5 + .4 * .25
    good = example.priors(torch.full_like(x, 0.6), x, curves)
    assert all(abs(value.item()) < 1e-10 for value in good.values())
    x[:, 0] = 0.8  # red
    assert example.priors(x, x, curves)["color"].item() == pytest.approx(2 * 0.3**2)
    assert example.priors(x, x, curves)["exposure"].item() == pytest.approx(0, abs=1e-10)  # gray .6
    steps = torch.zeros(1, 3, 16, 16)
    steps[..., 8:] = 0.3  # one of three differences between neighboring 4x4 regions in a row
    assert example.priors(steps, 0 * steps, curves)["spatial"].item() == pytest.approx(2 * 0.3**2 / 3)
    curves[:, :, :, 4:] += 0.1
    assert example.priors(x, x, curves)["smoothness"].item() == pytest.approx(0.1**2 / 7)


@pytest.mark.parametrize("name", ["leiq", "brisque", "loe"])
def test_a_metric_has_a_gradient_in_the_network(example, pairs, name):
    torch.manual_seed(0)
    network, batch = example.Enhancer(), torch.stack(pairs)
    term = example.quality(create_metric(name))
    term(network(batch[:, :3]), batch[:, :3], None).backward()
    gradients = [p.grad for p in network.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients)


def test_a_metric_moves_the_network(example, pairs):
    settings = example.Settings(steps=12, batch=2, size=128)
    dark, metric = [pair[:3] for pair in pairs], create_metric("leiq")
    scores = []
    for weight in (0.0, 1.0):
        network, _ = example.train(dark, {"leiq": (example.quality(metric), weight)}, settings, CPU)
        scores.append(metric(torch.stack([example.enhance(network, picture) for picture in dark])).mean().item())
    assert scores[1] > scores[0]


def test_views_are_the_same_square_of_both_pictures(example, pairs):
    dark, light = pairs[0][:3], pairs[0][3:]
    whole = example.square(torch.cat([dark, light]), 40)
    assert whole.shape == (6, 40, 40)
    assert torch.equal(whole[:3], example.square(dark, 40))
    draws = [torch.Generator().manual_seed(5) for _ in range(2)]
    assert torch.equal(*(example.square(light, 40, draw) for draw in draws))
    assert not torch.equal(example.square(light, 40, draws[0]), example.square(light, 40, draws[0]))
    assert torch.equal(example.square(light, 160), light[:, :, 16:176])  # the middle, untouched


def test_bad_folders_are_named(example, folders, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no pictures"):
        example.files(tmp_path)
    with pytest.raises(OSError, match="astronaut"):
        example.read_pictures(example.files(folders[0]), tmp_path)
    Image.new("RGB", (50, 50)).save(tmp_path / "astronaut.png")
    with pytest.raises(ValueError, match="differ in size"):
        example.read_pictures(example.files(folders[0])[:1], tmp_path)
    with pytest.raises(SystemExit):
        example.main(arguments(folders, tmp_path, "--metric leiq --metric-weight 1 --metric-weight 2"))


def test_enhanced_pictures_are_what_a_file_holds(example, pairs, tmp_path):
    torch.manual_seed(0)
    enhanced = example.enhance(example.Enhancer(), pairs[0][:3])
    Image.fromarray((enhanced.permute(1, 2, 0) * 255).round().byte().numpy()).save(tmp_path / "x.png")
    assert torch.allclose(read_image(tmp_path / "x.png"), enhanced, atol=1e-6)
