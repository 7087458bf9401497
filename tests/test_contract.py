"""Every promise times every registered metric; a new metric gets all of them for nothing."""

import functools
import json
import math
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import ROOT
from torch import nn

from lowlight_iqa import Assessment, WeightsNotFound, create_metric, list_metrics, read_image
from lowlight_iqa.registry import get_card, get_class
from lowlight_iqa.weights.files import BUNDLED, CONFIG, WEIGHTS

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")
PICTURES = (
    *("photo", "dim", "dark", "dark_8_bit", "dark_16_bit", "near_black", "half_black", "clipped"),
    *("black", "constant"),
)
CHANGING = PICTURES[:-2]  # those that are not constant
DOUBLE, OWN = torch.float64, (TypeError, ValueError, OSError)

every_metric = pytest.mark.parametrize("name", list_metrics())


@functools.cache
def make(name, dtype=torch.float32):
    """The metric; skips where no weights can be bundled, fails where bundled ones are missing."""
    try:
        return create_metric(name).to(dtype)
    except WeightsNotFound as error:
        if get_card(name).weights:
            raise
        pytest.skip(str(error))


def side(name):
    return max(192, get_card(name).min_size)


@functools.cache
def photo(side, sample="astronaut"):
    whole = read_image(ROOT / "samples" / f"{sample}.jpg")
    scale = max(1.0, side / min(whole.shape[1:]))
    if scale > 1:
        size = [math.ceil(length * scale) for length in whole.shape[1:]]
        whole = nn.functional.interpolate(whole[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    top, left = ((length - side) // 2 for length in whole.shape[1:])
    return whole[:, top : top + side, left : left + side].contiguous()


@functools.cache
def pictures(side):
    """By name, (3, side, side)."""
    x = photo(side)
    draw = torch.Generator().manual_seed(0)
    half = x.clone()
    half[:, :, : side // 2] = 0
    return {
        "photo": x,
        "dim": x * 0.05,
        "dark": x * 0.01,
        "dark_8_bit": (x * 0.03 * 255).round() / 255,
        "dark_16_bit": (x * 0.01 * 65535).round() / 65535,
        "near_black": torch.rand(x.shape, generator=draw) / 255,
        "half_black": half,
        "clipped": (x * 4).clamp(0, 1),
        "black": torch.zeros_like(x),
        "constant": torch.full_like(x, 0.5),
    }


def interior(name):
    """A picture (1, 3, side, side), float64, away from 0, 1 and ties between neighbors."""
    draw = torch.Generator().manual_seed(1)
    x = 0.1 + 0.75 * photo(side(name)).double()
    return (x + 0.02 * torch.rand(x.shape, generator=draw, dtype=DOUBLE))[None]


def reference_of(name, x):
    """The dark input that the metrics with two arguments get: another exposure of the same view, unevenly lit."""
    if not get_card(name).needs_reference:
        return {}
    light = torch.linspace(0.2, 0.5, x.shape[-1], dtype=x.dtype)
    return {"reference": (0.02 + light * x).clamp(0, 1)}


def score(name, x, dtype=torch.float32):
    return make(name, dtype)(x, **reference_of(name, x.detach()))


def loss(name, x, reference, dtype=torch.float32):
    return make(name, dtype).loss(x, **reference)


def gradient(name, x, dtype=torch.float32):
    x = x.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(score(name, x, dtype).sum(), x)
    return found


def span(name):
    low, high = get_card(name).score_range
    return high - low


# The card


@every_metric
def test_the_card_is_complete(name):
    cls, card = get_class(name), get_card(name)
    assert card.name == name
    assert cls.__doc__
    for fact in (card.summary, card.source, card.license, card.gradient):
        assert fact.strip()
        assert "\n" not in fact
    low, high = card.score_range
    assert -math.inf < low < high < math.inf
    assert card.best == (low if card.lower_better else high)
    assert card.min_size >= 1
    assert name in str(card)
    if card.weights:
        assert (BUNDLED / card.weights).is_file()
        assert len(card.sha256) == 64
    assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", card.hub or f"owner/repo@{'0' * 40}")
    if card.learned:
        assert card.trained_on or not card.weights


@every_metric
def test_weights_that_are_not_at_hand_are_named(name, tmp_path):
    with pytest.raises(OWN, match=r"\w{3,} .*\w{3,}"):
        create_metric(name, weights=tmp_path / "nowhere")
    if get_card(name).weights:
        make(name)


# Scores


@every_metric
@pytest.mark.parametrize("picture", PICTURES)
def test_one_finite_score_for_each_picture(name, picture):
    x = pictures(side(name))[picture]
    scores = score(name, torch.stack([x, x]))
    assert scores.shape == (2,)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()
    assert torch.equal(scores, score(name, torch.stack([x, x])))  # to the bit


@every_metric
def test_scores_have_the_dtype_of_the_input(name):
    assert score(name, interior(name)).dtype == DOUBLE


@every_metric
def test_scores_stay_in_their_range(name):
    metric, (low, high) = make(name), get_card(name).score_range
    draw = torch.Generator().manual_seed(2)
    tries = []
    for turn in range(24):
        x = photo(side(name), SAMPLES[turn % 4])
        x = x * torch.rand(1, generator=draw)  # exposure
        x = x + torch.randn(x.shape, generator=draw) * 0.2 * torch.rand(1, generator=draw).square()  # noise
        if turn % 3 == 0:
            x = torch.rand(x.shape, generator=draw) * torch.rand(1, generator=draw)
        tries.append(x.clamp(0, 1))
    tries += pictures(side(name)).values()
    scores = torch.cat([score(name, x) for x in tries])
    slack = 0.05 * (high - low)
    assert scores.min() >= low - slack
    assert scores.max() <= high + slack
    assert metric.to_loss(scores).isfinite().all()


@every_metric
def test_a_batch_equals_its_pictures(name):
    x = torch.stack([pictures(side(name))[key] for key in ("photo", "dim", "clipped", "half_black")])
    singles = torch.cat([score(name, picture) for picture in x])
    assert torch.allclose(score(name, x), singles, rtol=0, atol=1e-5 * span(name))


@every_metric
def test_a_list_of_unlike_sizes_keeps_its_order(name):
    metric, small, large = make(name), photo(side(name)), photo(side(name) + 16, "chelsea")
    mixed = [small, large, small * 0.3, large * 0.3, small]
    references = [reference_of(name, x).get("reference") for x in mixed]
    scores = metric(mixed, references) if metric.card.needs_reference else metric(mixed)
    singles = torch.cat([score(name, x) for x in mixed])
    assert scores.shape == (5,)
    assert torch.allclose(scores, singles, rtol=0, atol=1e-5 * span(name))


@every_metric
def test_strides_do_not_matter(name):
    x = torch.stack([photo(side(name)), photo(side(name), "coffee")])
    expected = score(name, x)
    wide = torch.stack([x, x], -1).flatten(3)[..., ::2]
    for same in (
        x.to(memory_format=torch.channels_last),
        wide,
        x.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        assert torch.allclose(score(name, same), expected, rtol=0, atol=1e-5 * span(name))


@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_computed_in_float32(name, dtype):
    x = photo(side(name))[None]
    reference = reference_of(name, x)
    metric = make(name)
    narrow = metric(x.to(dtype), **reference)
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, metric(x.to(dtype).float(), **reference))
    assert abs(narrow - metric(x, **reference)) <= 1e-2 * span(name)


@every_metric
def test_autocast_changes_nothing(name):
    x = photo(side(name))[None]
    expected = score(name, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(score(name, x), expected)


@every_metric
def test_better_exposure_scores_better(name):
    if "exposure" not in get_card(name).sees:
        pytest.skip("its card does not list exposure among what it sees")
    x = torch.stack([photo(side(name), sample) for sample in SAMPLES])
    losses = [make(name).to_loss(score(name, x * factor)).mean() for factor in (1, 0.1, 0.02)]
    assert losses[0] < losses[1] < losses[2]


@every_metric
def test_less_noise_scores_better(name):
    if "noise" not in get_card(name).sees:
        pytest.skip("its card does not list noise among what it sees")
    x = torch.stack([photo(side(name), sample) for sample in SAMPLES])
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    losses = [make(name).to_loss(score(name, (x + noise * sigma).clamp(0, 1))).mean() for sigma in (0, 0.04, 0.15)]
    assert losses[0] < losses[1] < losses[2]


# Gradients


@every_metric
@pytest.mark.parametrize("picture", PICTURES)
def test_the_gradient_is_finite_and_alive(name, picture):
    x = pictures(side(name))[picture][None]
    found = gradient(name, x)
    assert found.shape == x.shape
    assert found.isfinite().all()
    may_vanish = "zero" in get_card(name).gradient  # says the card, of pictures where nothing is found to judge
    if picture in CHANGING and (picture == "photo" or not may_vanish):
        assert found.count_nonzero() > 0
    assert torch.equal(found, gradient(name, x))


@every_metric
def test_the_gradient_equals_central_differences(name):
    card = get_card(name)
    captioned = "caption" in card.gradient
    if not card.gradient.startswith("exact") and not captioned:
        pytest.skip(f"its card says of the gradient: {card.gradient}")
    x = interior(name)
    metric = make(name, DOUBLE)
    reference = {"text": metric.caption(x)} if captioned else reference_of(name, x)  # a caption is held fixed
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(metric(leaf, **reference).sum(), leaf)
    draw = torch.Generator().manual_seed(4)
    directions = [torch.randn(x.shape, generator=draw, dtype=DOUBLE) for _ in range(3)]
    directions.append(found / found.abs().max())
    for direction in directions:
        expected = (found * direction).sum()
        scale = max(expected.abs(), 0.3 * found.norm() * direction.norm() / math.sqrt(x.numel()))
        errors = []
        for step in (1e-5, 1e-7, 1e-8, 1e-9):  # whichever meets neither a kink nor rounding
            with torch.no_grad():
                ahead, behind = (metric(x + sign * step * direction, **reference) for sign in (1, -1))
            errors.append(abs((ahead - behind).item() / (2 * step) - expected) / scale)
        assert min(errors) < 1e-3


@every_metric
@pytest.mark.parametrize("picture", ["interior", "dim"])
def test_a_small_step_against_the_loss_improves_it(name, picture):
    x = interior(name) if picture == "interior" else pictures(side(name))["dim"][None].double() + 0.01
    reference = reference_of(name, x)
    leaf = x.clone().requires_grad_()
    before = loss(name, leaf, reference, DOUBLE)
    (found,) = torch.autograd.grad(before, leaf)
    with torch.no_grad():
        for step in (1e-2, 1e-3, 1e-4, 1e-5):
            after = loss(name, (x - step * found / found.abs().max()).clamp(0, 1), reference, DOUBLE)
            if after < before:
                return
    pytest.fail(f"no step improves the loss of {before.item():g}")


@every_metric
def test_the_caller_s_grad_mode_decides(name):
    x = photo(side(name))[None].clone().requires_grad_()
    assert score(name, x).requires_grad
    assert not score(name, x.detach()).requires_grad  # the parameters ask for nothing
    with torch.no_grad():
        assert not score(name, x).requires_grad
    with torch.inference_mode():
        assert score(name, x).isfinite().all()


@every_metric
def test_the_loss_is_oriented_by_the_card(name):
    metric = make(name)
    good, bad = metric.card.loss_range
    ends = metric.to_loss(torch.tensor([good, bad, (good + bad) / 2]))
    assert ends.tolist() == pytest.approx([0, 1, 0.5])
    x = torch.stack([photo(side(name)), photo(side(name)) * 0.2])
    value = loss(name, x, reference_of(name, x))
    assert value.shape == ()
    assert torch.allclose(value, metric.to_loss(score(name, x)).mean())


@every_metric
def test_as_loss(name):
    metric = make(name)
    criterion = create_metric(name, as_loss=True)
    x = photo(side(name))[None]
    reference = reference_of(name, x)
    assert torch.equal(criterion(x, **reference), metric.loss(x, **reference))
    assert not any(parameter.requires_grad for parameter in criterion.parameters())


# Frozen


@every_metric
def test_training_beside_it_changes_nothing(name):
    make(name)
    metric = create_metric(name)
    network = nn.Conv2d(3, 3, 3, padding=1)
    parent = nn.ModuleDict({"network": network, "metric": metric})
    x = photo(side(name))[None] * 0.5
    reference = reference_of(name, x)
    before, expected = {k: v.clone() for k, v in metric.state_dict().items()}, metric(x, **reference)
    old = network.weight.clone()

    parent.train()
    optimizer = torch.optim.AdamW(parent.parameters(), lr=0.1, weight_decay=0.5)
    metric.loss((x + 0.01 * network(x)).clamp(0, 1), **reference).backward()
    optimizer.step()

    assert not torch.equal(network.weight, old)
    assert not any(module.training for module in metric.modules())
    assert not any(p.requires_grad or p.grad is not None for p in metric.parameters())
    assert all(torch.equal(value, before[key]) for key, value in metric.state_dict().items())
    assert torch.equal(metric(x, **reference), expected)


# Input


def bad_inputs(folder, side):
    """What a metric must refuse, by name; (input, a word of the message)."""
    x = photo(side)
    whole = folder / "whole.png"
    image = Image.fromarray((x.permute(1, 2, 0) * 255).byte().numpy())
    image.save(whole)
    (folder / "short.png").write_bytes(whole.read_bytes()[:3000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    image.putalpha(99)
    image.save(folder / "alpha.png")
    image.convert("RGB").save(folder / "frames.gif", save_all=True, append_images=[Image.new("RGB", image.size)])
    spoiled = x.clone()
    spoiled[0, 3, 4] = math.nan
    return {
        "uint8": ((x * 255).byte(), "255"),
        "bool": (x > 0.5, "bool"),
        "complex": (x.to(torch.complex64), "complex"),
        "0 to 255": (x * 255, "255"),
        "-1 to 1": (x * 2 - 1, "/ 2"),
        "NaN": (spoiled, "NaN"),
        "infinity": (x + math.inf, "infinity"),
        "2-D": (x[0], "expand"),
        "5-D": (x[None, None], "flatten"),
        "gray": (x[:1], "expand"),
        "4 channels": (torch.cat([x, x[:1]]), "alpha"),
        "channels last": (x.permute(1, 2, 0), "permute"),
        "empty batch": (x[None][:0], "empty"),
        "another device": (x.to("meta"), "meta"),
        "None": (None, "NoneType"),
        "number": (3, "int"),
        "bytes": (whole.read_bytes(), "BytesIO"),
        "int array": (np.zeros((side, side, 3), np.int64), "int64"),
        "empty list": ([], "empty"),
        "a batch inside a list": ([x[None]], "list"),
        "missing": (folder / "missing.png", "missing.png"),
        "folder": (str(folder), "folder"),
        "truncated": (folder / "short.png", "short.png"),
        "0 bytes": (folder / "empty.jpg", "empty.jpg"),
        "text": (folder / "text.jpg", "text.jpg"),
        "alpha": (folder / "alpha.png", "transparent"),
        "animated": (folder / "frames.gif", "2 frames"),
    }


@every_metric
def test_bad_input_is_refused_with_advice(name, tmp_path):
    metric = make(name)
    good = photo(side(name))
    cases = bad_inputs(tmp_path, side(name))
    least = metric.card.min_size
    if least > 1:
        cases["too small"] = (good[:, : least - 1], str(least))
    for case, (bad, word) in cases.items():
        reference = {"reference": good} if metric.card.needs_reference else {}
        with pytest.raises(OWN) as caught:
            metric(bad, **reference)
        assert word in str(caught.value), case
        assert len(str(caught.value)) > 20, case


@every_metric
def test_the_smallest_picture_is_scored(name):
    least = get_card(name).min_size
    x = photo(side(name))[:, :least, : least + 1]
    assert score(name, x).isfinite().all()
    assert gradient(name, x[None]).isfinite().all()


@every_metric
def test_references_are_wanted_or_refused(name):
    metric, x = make(name), photo(side(name))
    if metric.card.needs_reference:
        with pytest.raises(TypeError, match="reference"):
            metric(x)
        with pytest.raises(TypeError, match="reference"):
            metric.loss(x)
        with pytest.raises(ValueError, match="same size"):
            metric(x, reference=photo(side(name) + 8))
        with pytest.raises(ValueError, match="2 pictures but 1 references"):
            metric([x, x], reference=[x])
    else:
        with pytest.raises(TypeError, match="no-reference"):
            metric(x, reference=x)


@every_metric
def test_a_picture_in_every_form(name, tmp_path):
    metric = make(name)
    array = (photo(side(name)).permute(1, 2, 0) * 255).byte().numpy()
    path = tmp_path / "picture.png"
    Image.fromarray(array).save(path)
    tensor = read_image(path)
    reference = reference_of(name, tensor)
    expected = metric(tensor, **reference)
    for form in (path, str(path), Image.open(path), array, tensor[None], [path], [array, tensor]):
        count = len(form) if isinstance(form, list) else 1
        given = {key: [value] * count for key, value in reference.items()}
        assert torch.allclose(metric(form, **given), expected.expand(count), rtol=0, atol=1e-6 * span(name))


# Explanations


@every_metric
def test_an_assessment(name):
    metric, x = make(name), photo(side(name))
    if metric.card.needs_reference:
        with pytest.raises(TypeError, match="reference"):
            metric.assess(x)
        return
    found = metric.assess(x)
    assert isinstance(found, Assessment)
    assert found.score == pytest.approx(metric(x).item(), abs=1e-5 * span(name))
    for key, value in found.attributes.items():
        assert isinstance(key, str)
        assert 0.8 <= value <= 5.2
    assert len(found.description) > 10
    if found.map is not None:
        assert found.map.shape == x.shape[1:]
        assert found.map.isfinite().all()
    assert metric.assess(x[None]).score == found.score
    with pytest.raises(ValueError, match="one picture"):
        metric.assess(torch.stack([x, x]))


# Weights


class Spy:
    """A pickle whose loading leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@every_metric
def test_saved_weights_give_the_same_scores(name, tmp_path):
    metric = make(name)
    if not metric.state_dict():
        with pytest.raises(ValueError, match="no weights"):
            metric.save_pretrained(tmp_path)
        return
    folder = metric.save_pretrained(tmp_path / "saved")
    again = create_metric(name, weights=folder)
    x = photo(side(name))
    reference = reference_of(name, x)
    assert torch.equal(again(x, **reference), metric(x, **reference))
    assert load_file(folder / WEIGHTS).keys() == metric.state_dict().keys()
    assert name in (folder / "README.md").read_text()


@every_metric
def test_wrong_weights_are_refused(name, tmp_path):
    metric = make(name)
    if not metric.state_dict():
        pytest.skip("it has no weights")
    folder = metric.save_pretrained(tmp_path)
    weights, config = folder / WEIGHTS, folder / CONFIG
    content, facts = weights.read_bytes(), json.loads(config.read_text())

    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="sha256"):
        create_metric(name, weights=folder)

    mark = tmp_path / "mark"
    (tmp_path / "model.pth").write_bytes(pickle.dumps(Spy(mark)))
    with pytest.raises(ValueError, match="pickle"):
        create_metric(name, weights=tmp_path / "model.pth")
    weights.write_bytes(pickle.dumps(Spy(mark)))
    with pytest.raises(ValueError, match="sha256"):
        create_metric(name, weights=folder)
    assert not mark.exists()

    weights.write_bytes(content)
    facts["card"]["name"] = "another"
    config.write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="'another'"):
        create_metric(name, weights=folder)

    weights.unlink()
    config.unlink()
    with pytest.raises(WeightsNotFound, match=CONFIG):
        create_metric(name, weights=folder)


# The library


def test_an_unknown_name_meets_the_nearest_ones():
    for name in list_metrics():
        with pytest.raises(ValueError, match=f"did you mean.*'{name}'"):
            create_metric(name.upper() + "x")
    with pytest.raises(ValueError, match="no metric is called 'xyzzy0815'"):
        create_metric("xyzzy0815")
    with pytest.raises(TypeError, match="NoneType"):
        create_metric(None)


def test_lists_by_fact():
    for fact in ("learned", "commercial"):
        yes, no = (set(list_metrics(**{fact: wanted})) for wanted in (True, False))
        assert yes | no == set(list_metrics())
        assert not yes & no


def test_import_is_light():
    heavy = ["torchvision", "timm", "scipy", "pandas", "cv2", "huggingface_hub", "PIL"]
    code = (
        "import sys, torch; before = set(sys.modules); import lowlight_iqa; "
        f"print(*[m for m in {heavy} if m in sys.modules and m not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
