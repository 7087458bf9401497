"""The authors' LEIQ: their numbers on stand-in weights; on tiny towers scales, splits, gradients and input."""

import gc
import io
import json
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat
from support import GOLDEN, PICTURES, ROOT
from support.standin import fill
from torch import nn

from lowlight_iqa import WeightsNotFound, backbones, create_metric, read_image
from lowlight_iqa.cli.main import main
from lowlight_iqa.functional.logistic import logistic
from lowlight_iqa.metrics.leiq import TASKS
from lowlight_iqa.metrics.leiq_authors import TOWERS, new_size, resize, resize_8_bit
from lowlight_iqa.registry import get_card, get_class
from lowlight_iqa.weights.files import save_splits

SHARED = Path(os.environ.get("LOWLIGHT_IQA_SHARED", ROOT.parent / "shared"))
AUTHORS = json.loads((GOLDEN / "leiq_siglip.json").read_text())
MATS = {"leiq-b16": GOLDEN / "leiq_single_task.mat", "leiq-so400m": GOLDEN / "leiq_multi_task.mat"}
PHOTOS = [PICTURES / name for name in ("astronaut.png", "chelsea.png", "coffee.png")]
DOUBLE = torch.float64
EXACT = 1e-5  # docs/leiq-authors.md has what was reached, 3e-6 at the most; sums of another machine may differ more


def shapes(name):
    """Keys and shapes of the authors' state dict."""
    tower, _, tasks = TOWERS[name]
    trunk = backbones.siglip_tower(tower)
    found = {f"feature_extraction.trunk.{key}": tuple(value.shape) for key, value in trunk.state_dict().items()}
    for head in ["quality"] if len(tasks) == 1 else [f"heads.{task}" for task in tasks]:
        found |= {f"{head}.0.weight": (128, trunk.num_features), f"{head}.0.bias": (128,)}
        found |= {f"{head}.1.weight": (1, 128), f"{head}.1.bias": (1,)}
    return found


def tensors(name):
    return {key: torch.from_numpy(value) for key, value in fill(shapes(name)).items()}


def stand_in(name, mat=None, shift=0.0):
    """A metric on stand-in weights; ``shift`` makes splits of it."""
    weights = tensors(name)
    for key in weights:
        if key.endswith("1.bias"):
            weights[key] = weights[key] + shift
    return get_class(name).from_tensors(get_card(name), weights, mat or loadmat(MATS[name]))


@pytest.fixture
def tiny(monkeypatch):
    """Towers of two narrow blocks in place of timm's."""

    def tower(name):
        side = next(side for other, side, _ in TOWERS.values() if other == name)
        sizes = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": side // 6}
        with torch.device("meta"):
            return backbones.import_timm().create_model(name, num_classes=0, global_pool="map", **sizes)

    monkeypatch.setattr(backbones, "siglip_tower", tower)


@pytest.fixture
def towers(tiny, monkeypatch):
    """How many towers were in memory, itself included, when each was built."""
    alive, counts = weakref.WeakSet(), []
    build = backbones.siglip_tower

    def counted(name):
        gc.collect()
        tower = build(name)
        alive.add(tower)
        counts.append(len(alive))
        return tower

    monkeypatch.setattr(backbones, "siglip_tower", counted)
    return counts


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LOWLIGHT_IQA_HOME", str(tmp_path / "store"))
    return tmp_path / "store"


def save(name, folder, count):
    """Stand-in weights of one or more splits in a folder."""
    if count == 1:
        return stand_in(name).save_pretrained(folder)
    for split in range(count):
        stand_in(name, shift=0.2 * split).save_pretrained(folder / f"v{split}")
    return save_splits(get_card(name), folder, [f"v{split}" for split in range(count)])


def photo(size=128):
    return read_image(PHOTOS[1])[:, 60 : 60 + size, 100 : 100 + size].contiguous()


# The authors' numbers


@pytest.mark.parametrize("name", TOWERS)
def test_keys_and_shapes_are_the_authors(name):
    table = SHARED / "golden" / "leiq_shapes.json"
    if not table.is_file():
        pytest.skip(f"the shapes of the authors' checkpoints are not at {table}; set LOWLIGHT_IQA_SHARED")
    authors = json.loads(table.read_text())["single_task" if name == "leiq-b16" else "multi_task"]
    assert shapes(name) == {key: tuple(shape) for key, shape in authors.items()}


def authors_pictures():
    """Those that come with the tests, and the others where they are at hand."""
    places = [*PHOTOS, *(SHARED / "data" / place for place in ("mle/b_11_A.png",))]
    places += [SHARED / "data" / "square_lol" / name for name in ("low00009_MR_0.png", "low00011_RetinexNet_0.png")]
    return [path for path in places if path.is_file()]


def check_parity(metric, exact, differentiable):
    """Raw outputs and MOS on the pictures of the 8-bit path and on those of the differentiable one."""
    authors = AUTHORS[metric.card.name]
    assert metric.mappings["mos"] == pytest.approx(authors["mapping"], rel=1e-7)
    paths = [*exact, *differentiable]
    ways = [metric.preprocess(read_image(path)) for path in exact]
    ways += [read_image(path) for path in differentiable]
    for index, (path, x) in enumerate(zip(paths, ways, strict=True)):
        with torch.inference_mode():
            found = {task: value.item() for task, value in metric.raw(x[None]).items()}
        expected = dict(authors["pictures"][path.name])
        mapped = expected.pop("mapped_mos")
        raw, mos = (EXACT, EXACT) if index < len(exact) else (2e-3, 1e-2)
        assert found == pytest.approx(expected, abs=raw), path.name
        assert logistic(found["mos"], metric.mappings["mos"]) == pytest.approx(mapped, abs=mos), path.name


@pytest.fixture(scope="module")
def b16():
    return stand_in("leiq-b16")


@pytest.mark.slow
def test_the_authors_numbers_single_task(b16):
    check_parity(b16, authors_pictures(), PHOTOS)


@pytest.mark.slow
def test_the_authors_numbers_multi_task():
    check_parity(stand_in("leiq-so400m"), PHOTOS, [])  # the other path has the same tower: see the two paths below


# The contract, with the real tower


@pytest.mark.slow
def test_b16_keeps_the_contract(b16):
    x = torch.stack([photo(96) * 0.02, photo(96)])
    x[1, :, :, :48] = 0
    leaf = x.clone().requires_grad_()
    scores = b16(leaf)
    (slope,) = torch.autograd.grad(scores.sum(), leaf)
    assert scores.isfinite().all()
    assert slope.isfinite().all()
    assert slope.flatten(1).any(1).all()
    with torch.inference_mode():
        singles = torch.cat([b16(one[None]) for one in x])
        assert torch.allclose(scores, singles, rtol=0, atol=1e-4)
        assert torch.equal(b16(x[:1]), singles[:1])


@pytest.mark.slow
def test_b16_in_half_precision(b16):
    x = photo(96)[None]
    with torch.inference_mode():
        expected = b16(x)
        b16.half_precision = torch.float16
        try:
            found = b16(x)
        finally:
            b16.half_precision = None
    assert 0 < abs(found - expected) < 0.01  # 0.1 % of the scale


def test_training_beside_it_changes_nothing(tiny):
    metric = stand_in("leiq-so400m")
    network = nn.Conv2d(3, 3, 3, padding=1)
    parent = nn.ModuleDict({"network": network, "metric": metric}).train()
    before = {key: value.clone() for key, value in metric.state_dict().items()}
    optimizer = torch.optim.AdamW(parent.parameters(), lr=0.1, weight_decay=0.5)
    metric.loss((photo()[None] + 0.01 * network(photo()[None])).clamp(0, 1)).backward()
    optimizer.step()
    assert network.weight.grad.count_nonzero() > 0
    assert not any(module.training for module in metric.modules())
    assert not any(parameter.requires_grad for parameter in metric.parameters())
    assert all(torch.equal(value, before[key]) for key, value in metric.state_dict().items())


@pytest.mark.parametrize("name", [*TOWERS, "splits", "leiq-ensemble"])
def test_the_gradient_equals_central_differences(tiny, tmp_path, name):
    if name == "splits":
        metric = create_metric("leiq-b16", weights=save("leiq-b16", tmp_path, 2))
    elif name == "leiq-ensemble":
        for each, count in zip(TOWERS, (2, 1), strict=True):
            save(each, tmp_path / each, count)
        metric = create_metric(name, weights=tmp_path)
    else:
        metric = stand_in(name)
    metric.double()
    x = 0.1 + 0.8 * torch.stack([photo(64), photo(64).flip(2)]).double()
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad((metric(leaf) * torch.tensor([1.0, -2.0])).sum(), leaf)
    assert found.flatten(1).any(1).all()
    directions = [torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)]
    for pixel in ((0, 2, 20, 40), (1, 1, 40, 25)):
        directions.append(torch.zeros_like(x))
        directions[-1][pixel] = 1
    for direction in directions:
        with torch.no_grad():
            ahead, behind = (metric(x + sign * 1e-5 * direction) for sign in (1, -1))
        central = ((ahead - behind) * torch.tensor([1.0, -2.0])).sum() / 2e-5
        assert (found * direction).sum().item() == pytest.approx(central.item(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_to_be_asked_for(tiny, tmp_path, dtype):
    metric, x = create_metric("leiq-b16", weights=save("leiq-b16", tmp_path, 2)), photo()[None]
    expected = metric(x)
    assert torch.equal(metric(x.to(dtype)), metric(x.to(dtype).float()))
    with torch.autocast("cpu", dtype):
        assert torch.equal(metric(x), expected)
    metric.half_precision = dtype
    assert metric(x).dtype == torch.float32
    assert 0 < abs(metric(x) - expected) < 0.1


def test_pooling_and_heads_stay_in_float32(tiny):
    metric, kinds = stand_in("leiq-so400m"), {}
    parts = {
        "block": metric.network.feature_extraction["trunk"].blocks[1].mlp.fc1,
        "head": metric.network.heads["noise"][0],
    }
    parts["pooling"] = metric.network.feature_extraction["trunk"].attn_pool.q
    for part, module in parts.items():
        module.register_forward_hook(lambda _, args, output, part=part: kinds.update({part: output.dtype}))
    metric.half_precision = torch.float16
    metric(photo()[None])
    assert kinds == {"block": torch.float16, "pooling": torch.float32, "head": torch.float32}


def test_attention_is_torch_s_own(tiny, monkeypatch):
    """Fused where the device has it; in every block and in the pooling."""
    fused, calls = torch.nn.functional.scaled_dot_product_attention, []
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **kwargs: calls.append(args[0].shape) or fused(*args, **kwargs),
    )
    stand_in("leiq-b16")(photo()[None])
    assert len(calls) == 3  # two blocks, one pooling


def test_the_blocks_can_be_compiled(tiny):
    metric, x = stand_in("leiq-b16"), photo()[None]
    expected, keys = metric(x), set(metric.state_dict())
    torch._dynamo.utils.counters.clear()
    metric.network.feature_extraction["trunk"].blocks.compile(backend="aot_eager")
    with torch.inference_mode():
        assert torch.allclose(metric(x), expected, rtol=0, atol=1e-4)
    leaf = x.clone().requires_grad_()
    assert torch.autograd.grad(metric(leaf).sum(), leaf)[0].isfinite().all()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert set(metric.state_dict()) == keys


@pytest.mark.parametrize("picture", ["black", "white", "constant", "near black"])
def test_finite_on_the_dark_and_the_flat(tiny, picture):
    levels = {"black": 0.0, "white": 1.0, "constant": 0.5, "near black": torch.rand(3, 64, 64) / 255}
    leaf = (torch.zeros(1, 3, 64, 64) + levels[picture]).requires_grad_()
    score = stand_in("leiq-so400m")(leaf)
    assert score.isfinite().all()
    assert torch.autograd.grad(score.sum(), leaf)[0].isfinite().all()


# Preprocessing

SIZES = [
    (64, 64),
    (64, 97),
    (300, 451),
    (600, 400),
    (432, 432),
    (432, 435),
    (437, 432),
    (434, 432),
    (999, 433),
    (33, 200),
]


def random_picture(height, width):
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("size", SIZES)
def test_the_8_bit_path_is_torchvision_s(tiny, name, size):
    backbones.import_torchvision()
    from torchvision import transforms

    metric, side, array = stand_in(name), TOWERS[name][1], random_picture(*size)
    steps = [transforms.Resize(432), transforms.CenterCrop(side), transforms.ToTensor()]
    expected = transforms.Compose([*steps, transforms.Normalize([0.5] * 3, [0.5] * 3)])(Image.fromarray(array))
    seen = []
    metric.network.feature_extraction["trunk"].patch_embed.register_forward_pre_hook(
        lambda _, args: seen.append(args[0][0])
    )
    metric(array)
    assert torch.equal(seen[0], expected)


@pytest.mark.parametrize("size", [*SIZES, (2000, 3000)])
def test_the_two_paths_differ_by_one_level_at_most(size):
    """Pillow rounds to 8 bits twice, after rows and after columns: half a level each, and its weights to 22 bits."""
    levels = torch.from_numpy(random_picture(*size)).permute(2, 0, 1)[None]
    smooth = resize(levels / 255)
    assert smooth.shape[2:] == new_size(*size)
    assert (resize_8_bit(levels) - smooth).abs().max() <= 1.01 / 255


def test_every_form_of_an_8_bit_picture_scores_the_same_to_the_bit(tiny):
    metric, path = stand_in("leiq-b16"), PHOTOS[1]
    image = Image.open(path)
    forms = [str(path), image, np.asarray(image), np.asarray(image) / np.float32(255), io.BytesIO(path.read_bytes())]
    expected = metric(path).item()
    for form in forms:
        assert metric(form).item() == metric.assess(form).score == expected
    tensor = metric(read_image(path)).item()
    assert tensor != expected
    assert abs(tensor - expected) < 0.05


def test_finer_pictures_are_not_rounded(tiny, tmp_path):
    metric = stand_in("leiq-b16")
    deep = (np.asarray(Image.open(PHOTOS[1]).convert("L")).astype(np.uint16) + 1) * 3  # a dark 16-bit picture
    Image.fromarray(deep).save(tmp_path / "deep.png")
    x = read_image(tmp_path / "deep.png")
    assert torch.allclose(metric(tmp_path / "deep.png"), metric(x), rtol=0, atol=1e-5)
    assert torch.allclose(metric(x.permute(1, 2, 0).numpy()), metric(x), rtol=0, atol=1e-5)
    for picture, rounded in ((x, False), ((x * 255).round() / 255, True)):
        levels = metric.preprocess(picture) * 255
        assert (abs(levels - levels.round()).max() < 1e-3) == rounded


@pytest.mark.parametrize("size", [(64, 64), (300, 64), (6000, 4000)])
def test_pictures_of_all_sizes(tiny, size):
    metric, array = stand_in("leiq-so400m"), random_picture(64, 64).repeat(100, 0).repeat(100, 1)[: size[0], : size[1]]
    with torch.inference_mode():
        exact, smooth = metric(array), metric(read_image(array))
    assert exact.isfinite().all()
    assert abs(exact - smooth) < 0.05
    with pytest.raises(ValueError, match="too small"):
        metric(array[:31])


def test_many_pictures_are_scored_in_the_order_given(tiny):
    metric = stand_in("leiq-b16")
    pictures = [*PHOTOS, photo(), random_picture(50, 70), photo(96)] * 4
    scores = metric(pictures)
    singles = torch.cat([metric(picture) for picture in pictures[:6]])
    assert torch.allclose(scores, singles.repeat(4), rtol=0, atol=1e-4)


def test_the_command_line_takes_the_8_bit_path(tiny, tmp_path, capsys):
    folder = save("leiq-b16", tmp_path, 1)
    assert main(["score", str(PHOTOS[0]), "-m", "leiq-b16", "--weights", str(folder), "--format", "json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["leiq-b16"]["score"] == create_metric("leiq-b16", weights=folder)(PHOTOS[0]).item()


# Scales


def mat_with(*tasks):
    """The authors' variables, and made-up ones for some attributes."""
    mat, draw = loadmat(MATS["leiq-so400m"]), np.random.default_rng(0)
    for task in tasks:
        mat[f"{task}_pred"] = draw.normal(size=(1, 80))
        mat[f"{task}_label"] = 3 + 1.5 * np.tanh(2 * mat[f"{task}_pred"]) + 0.1 * draw.normal(size=(1, 80))
    return mat


def test_attributes_with_labels_are_on_their_scale(tiny):
    metric = stand_in("leiq-so400m", mat_with(*TASKS[1:]))
    x = photo()
    found, raw = metric.assess(x), metric.raw(x[None])
    assert tuple(found.attributes) == TASKS[1:]
    assert not found.uncalibrated
    assert found.description.startswith("The image has ")
    for task, value in found.attributes.items():
        assert 1 <= value <= 5
        assert value == pytest.approx(3 + 1.5 * np.tanh(2 * raw[task].item()), abs=0.2)


def test_attributes_without_labels_are_not_shown_as_if_on_a_scale(tiny, tmp_path, capsys):
    metric = stand_in("leiq-so400m", mat_with("light"))
    x = photo()
    found, raw = metric.assess(x), metric.raw(x[None])
    assert set(found.attributes) == {"light"}
    assert found.uncalibrated == pytest.approx({task: raw[task].item() for task in TASKS[2:]}, abs=1e-5)
    assert "image has" not in found.description
    assert found.score == pytest.approx(metric(x).item(), abs=1e-5)

    arguments = ["score", str(PHOTOS[0]), "-m", "leiq-so400m", "--weights", str(metric.save_pretrained(tmp_path))]
    main([*arguments, "--attributes", "--format", "json"])
    entry = json.loads(capsys.readouterr().out)[0]["leiq-so400m"]
    assert list(entry["attributes"]) == ["light"]
    assert tuple(entry["uncalibrated"]) == TASKS[2:]
    main([*arguments, "--attributes", "--format", "csv"])
    header = capsys.readouterr().out.splitlines()[0].split(",")
    assert header[:4] == ["path", "leiq-so400m", "leiq-so400m.light", "leiq-so400m.color.uncalibrated"]


@pytest.mark.parametrize(
    ("mat", "words"), [(None, "give --mat"), ({"__header__": b"", "x": 0}, "holds x, but neither")]
)
def test_there_is_no_mos_without_its_labels(tiny, mat, words):
    cls, card = get_class("leiq-b16"), get_card("leiq-b16")
    with pytest.raises(ValueError, match=words):
        cls.from_tensors(card, tensors("leiq-b16"), mat)


# Splits and the ensemble


@pytest.mark.slow
def test_splits_are_averaged_and_one_is_in_memory_at_a_time(towers, tmp_path):
    folder = save("leiq-so400m", tmp_path, 3)
    parts = [create_metric("leiq-so400m", weights=folder / f"v{split}") for split in range(3)]
    pictures = [*PHOTOS, photo(), photo(96)]
    expected = torch.stack([part(pictures) for part in parts]).mean(0)
    raws = torch.stack([part.raw(photo()[None])["color"] for part in parts]).mean()
    assert expected.std() > 0
    parts.clear()
    towers.clear()

    metric = create_metric("leiq-so400m", weights=folder)
    assert towers == []
    assert torch.allclose(metric(pictures), expected, rtol=0, atol=1e-5)
    assert towers == [1, 1, 1]  # once each, whatever the sizes
    found = metric.assess(photo())
    assert found.score == pytest.approx(expected[3].item(), abs=1e-5)
    assert found.uncalibrated["color"] == pytest.approx(raws.item(), abs=1e-5)
    assert set(towers) == {1}

    leaf = photo()[None].requires_grad_()
    (slope,) = torch.autograd.grad(metric(leaf).sum(), leaf)
    assert set(towers) == {1}
    towers.clear()
    metric.keep_loaded = True
    (kept,) = torch.autograd.grad(metric(leaf).sum(), leaf)
    assert torch.allclose(slope, kept, rtol=1e-4, atol=1e-7)
    assert torch.equal(metric(pictures), metric(pictures))
    assert towers == [1, 2, 3]


def test_parts_are_not_loaded_inside_a_transform(tiny, tmp_path):
    """What torch.func makes there ends with it: a part that was moved there crashed the process later."""
    metric = create_metric("leiq-b16", weights=save("leiq-b16", tmp_path, 2))
    metric.keep_loaded = True
    x = photo()[None]
    with pytest.raises(TypeError, match=r"leiq-b16 cannot load v0 inside torch.*set keep_loaded"):
        torch.func.grad(lambda y: metric.loss(y, check="fast"))(x)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(metric.loss(leaf), leaf)
    found = torch.func.grad(lambda y: metric.loss(y, check="fast"))(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert torch.equal(metric(x), metric(leaf))


def test_saved_splits_come_back(tiny, tmp_path):
    metric = create_metric("leiq-b16", weights=save("leiq-b16", tmp_path / "a", 2))
    again = create_metric("leiq-b16", weights=metric.save_pretrained(tmp_path / "b"))
    assert torch.equal(again(photo()), metric(photo()))
    (tmp_path / "b" / "v1" / "config.json").unlink()
    with pytest.raises(WeightsNotFound, match="v1 of its 2 splits"):
        create_metric("leiq-b16", weights=tmp_path / "b")


@pytest.mark.slow
def test_the_ensemble_is_the_mean_of_the_two_models(towers, tmp_path):
    for name, count in (("leiq-b16", 3), ("leiq-so400m", 1)):
        save(name, tmp_path / name, count)
    singles = {name: create_metric(name, weights=tmp_path / name)(PHOTOS) for name in TOWERS}
    towers.clear()
    metric = create_metric("leiq-ensemble", weights=tmp_path)
    assert torch.allclose(metric(PHOTOS), (singles["leiq-b16"] + singles["leiq-so400m"]) / 2, rtol=0, atol=1e-5)
    assert towers == [1, 1, 1, 1]
    found = metric.assess(PHOTOS[0])
    assert tuple(found.uncalibrated) == TASKS[1:]
    assert not found.attributes
    assert found.score == pytest.approx(metric(PHOTOS[0]).item(), abs=1e-5)
    metric.save_pretrained(tmp_path / "again")
    assert torch.equal(create_metric("leiq-ensemble", weights=tmp_path / "again")(PHOTOS), metric(PHOTOS))
    towers.clear()
    metric.keep_loaded = True
    assert torch.equal(metric(PHOTOS), metric(PHOTOS))
    assert towers == [1, 2, 3, 4]


def test_bare_names_stand_for_what_is_installed(tiny, home):
    with pytest.raises(WeightsNotFound, match=r"sunwei925.*SigLIP2_384_Image_MLE_v\*.*lowlight-iqa convert leiq-b16"):
        create_metric("leiq-b16")
    save("leiq-b16", home / "weights" / "leiq-b16", 1)
    with pytest.raises(WeightsNotFound, match=r"SigLIP2_ViTG_384_Image_MT_MLE.*lowlight-iqa convert leiq-so400m"):
        create_metric("leiq-ensemble")
    save("leiq-so400m", home / "weights" / "leiq-so400m", 1)
    scores = [create_metric(name)(photo()) for name in (*TOWERS, "leiq-ensemble")]
    assert scores[2] == pytest.approx(((scores[0] + scores[1]) / 2).item(), abs=1e-5)
    with pytest.raises(ValueError, match="loaded from a folder that holds"):
        create_metric("leiq-ensemble", weights="hf://a/b@" + "0" * 40)
