"""BMQA: words and what they are made of, the towers, the captioner's search, a user's text, the stages of training."""

import copy
import itertools
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from support import PICTURES
from torch import nn

from lowlight_iqa import WeightsNotFound, create_metric, read_image
from lowlight_iqa.metrics.bmqa.captioner import Captioner
from lowlight_iqa.metrics.bmqa.metric import PAPER, Bmqa
from lowlight_iqa.metrics.bmqa.network import BmqaNetwork, Config, paper_config
from lowlight_iqa.metrics.bmqa.slots import SLOTS, measure, plain_sentence, slots_of
from lowlight_iqa.metrics.bmqa.towers import GRID, Attention, TextTower
from lowlight_iqa.metrics.bmqa.vocabulary import END, UNKNOWN, Vocabulary, padded
from lowlight_iqa.registry import get_card
from lowlight_iqa.training.bmqa import descriptions
from lowlight_iqa.training.degradations import RAMPS, degrade
from lowlight_iqa.training.losses import info_nce

DOUBLE = torch.float64
LEVELS = [dict(zip(SLOTS, ranks, strict=True)) for ranks in itertools.product(*(range(len(s.words)) for s in SLOTS.values()))]  # fmt: skip  # noqa: E501
VOCABULARY = Vocabulary.of(descriptions.all_words())
RULES = {
    "brightness": [0.2, 0.4],
    "contrast": [15.0, 50.0],
    "noise": [-0.03, -0.005],
    "exposure": [-0.1, -0.001],
    "appearance": [0.5],
}


def photo():
    return read_image(PICTURES / "chelsea.png")[:, 60:124, 100:164].contiguous()


def untrained(**config):
    """A metric on weights of no meaning."""
    torch.manual_seed(0)
    network = BmqaNetwork(Config("lite0", **config), VOCABULARY)
    for parameter in network.tower.trunk.parameters():
        parameter.data.mul_(1.3)  # random batch norms fade from stage to stage
    network.captioner.output.bias.data[END] += 0.5
    return Bmqa(get_card("bmqa"), network, (0.9, 0.1, 0.0, 0.5), RULES)


@pytest.fixture(scope="module")
def metric():
    return untrained()


# The loss


def test_info_nce_is_ln_n_at_chance_and_zero_at_the_end():
    one = torch.eye(8, dtype=DOUBLE)
    assert info_nce(torch.ones(8, 4), torch.ones(8, 4), torch.tensor(0.07)).item() == pytest.approx(math.log(8))
    assert info_nce(one, 5 * one, torch.tensor(0.01)).item() == pytest.approx(0, abs=1e-9)
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 3, generator=draw, dtype=DOUBLE) for _ in range(2))
    loss = info_nce(a, b, torch.tensor(0.5))
    torch.testing.assert_close(info_nce(b, a, torch.tensor(0.5)), loss)
    cosines = nn.functional.cosine_similarity(a[:, None], b[None], dim=2) / 0.5
    by_hand = [cosines.exp()[i, i] ** 2 / (cosines.exp()[i].sum() * cosines.exp()[:, i].sum()) for i in range(6)]
    assert loss.item() == pytest.approx(-torch.stack(by_hand).log().mean().item() / 2)


def test_info_nce_does_not_ask_to_tell_equal_partners_apart():
    a = torch.eye(3)[[0, 0, 1]]
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    assert info_nce(a, a, torch.tensor(0.01)).item() > 0.4
    assert info_nce(a, a, torch.tensor(0.01), same).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="pairs of vectors"):
        info_nce(a, a[:2], torch.tensor(1.0))


# Descriptions


@pytest.mark.parametrize("levels", LEVELS[::7])
def test_what_is_written_says_what_was_meant(levels):
    rng = np.random.default_rng(0)
    for _ in range(10):
        text = descriptions.write(levels, rng)
        assert slots_of(text) == levels
        assert UNKNOWN not in VOCABULARY.encode(text)
    without = {name: level for name, level in levels.items() if name != "appearance"}
    assert slots_of(descriptions.write(without, rng)) == without
    assert slots_of(plain_sentence(levels)) == levels
    assert slots_of(plain_sentence(without)) == without


def test_free_wording_can_be_read_and_contradicts_nothing():
    rng = np.random.default_rng(0)
    texts = {descriptions.write(LEVELS[rng.integers(len(LEVELS))], rng, varied=True) for _ in range(300)}
    assert len(texts) > 250
    for text in texts:
        assert VOCABULARY.read(text, 77)[-1] == END
    for levels in LEVELS[::10]:
        assert slots_of(descriptions.write(levels, rng, varied=True)).items() <= levels.items()


def test_the_slots_of_real_wording():
    text = (
        "The image has bright brightness with no shadowed areas, high color contrast,and the blue on the awning "
        "appears realistic, slight noise and Severe exposure at the door , presenting a  unnatural appearance."
    )
    expected = {"brightness": 2, "contrast": 2, "noise": 2, "exposure": 0, "appearance": 0}
    assert slots_of(text) == slots_of(descriptions.tidy(text)) == expected
    assert "an unnatural" in descriptions.tidy(text)
    assert " ," not in descriptions.tidy(text)


def test_thresholds_part_values_as_often_as_asked():
    values = np.random.default_rng(0).random(4000)
    first, second = descriptions.thresholds(values, (1, 2, 1))
    assert np.mean(values > second) == pytest.approx(0.25, abs=1e-3)
    assert np.mean(values > first) == pytest.approx(0.75, abs=1e-3)
    shared = np.where(values > 0.3, 0.0, values - 1)  # most pictures have nothing burnt out
    (edge,) = descriptions.thresholds(shared, (1, 1))
    assert (edge < 0.0) == (np.mean(shared > edge) > 0.5)


@pytest.mark.parametrize(
    ("slot", "ramp"), [("brightness", "under"), ("contrast", "desaturate"), ("noise", "noise"), ("exposure", "over")]
)
def test_what_is_measured_follows_the_degradation(slot, ramp):
    clean = (photo() * 255).round() / 255
    shown = [degrade(clean, how, np.random.default_rng(0))[0] for how in RAMPS[ramp][::2]]
    shown = [clean, *(torch.from_numpy(each).permute(2, 0, 1).float() / 255 for each in shown)]
    values = measure(torch.stack(shown))[slot]
    assert (values.diff() < 0).all()
    singles = torch.cat([measure(each[None])[slot] for each in shown])
    torch.testing.assert_close(values, singles)


def test_slips_move_a_word_by_one_place_as_often_as_asked():
    rng = np.random.default_rng(0)
    rates = dict.fromkeys(SLOTS, 0.3)
    moved = [descriptions.slip(LEVELS[60], rates, rng) for _ in range(2000)]
    for name, level in LEVELS[60].items():
        steps = np.array([abs(each[name] - level) for each in moved])
        assert steps.max() == 1
        assert steps.mean() == pytest.approx(0.3, abs=0.04)


# Words


def test_sentences_come_back_from_their_tokens():
    text = "The image has dim brightness, well-controlled exposure and no noise: natural."
    vocabulary = Vocabulary.of([text])
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.encode("gleaming noise")[0] == UNKNOWN
    assert len(vocabulary) == len(set(re.findall(r"[a-z-]+|[.,:]", text.lower()))) + 4


def test_a_user_s_text(metric):
    x = photo()
    for text in ("a dim street, severe noise in the sky", "Noisy!", "GLOOMY xyzzy noise", "bright. " * 38):
        assert metric(x, text=text).isfinite().all()
    assert torch.equal(metric(x, text="dark noise"), metric(x, text="DARK  noise"))
    assert not torch.equal(metric(x, text="dark noise"), metric(x, text="dark xyzzy"))
    assert torch.equal(metric(x, text="dark foo"), metric(x, text="dark xyzzy"))


@pytest.mark.parametrize(
    ("text", "error", "word"),
    [
        ("", ValueError, "0 words"),
        ("  ,;. ", ValueError, "0 words"),
        ("eine dunkle Straße mit starkem Rauschen", ValueError, "English"),
        ("一条昏暗的街道", ValueError, "English"),
        ("noise " * 80, ValueError, "shorten"),
        (3, TypeError, "int"),
        ([None], TypeError, "NoneType"),
        (["dark", "bright"], ValueError, "1 pictures but 2 texts"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused_with_advice(metric, text, error, word):
    with pytest.raises(error, match=word):
        metric(photo(), text=text)


def test_texts_go_with_their_pictures(metric, tmp_path):
    x, texts = torch.stack([photo(), photo() * 0.3]), ["dark noise", "bright"]
    expected = torch.cat([metric(each, text=text) for each, text in zip(x, texts, strict=True)])
    torch.testing.assert_close(metric(x, text=texts), expected, rtol=0, atol=1e-5)
    wide = torch.cat([photo(), photo()], 2)
    assert metric([x[0], wide, x[1]], text=["dark noise", "dark", "bright"])[::2].tolist() == pytest.approx(
        expected.tolist(), abs=1e-5
    )
    path = tmp_path / "picture.png"
    Image.fromarray((x[0].permute(1, 2, 0) * 255).byte().numpy()).save(path)
    assert torch.equal(metric(path, text="dark"), metric([path], text=["dark"]))
    with pytest.raises(TypeError, match="no-reference"):
        metric(x, x, text="dark")


def test_the_caption_is_a_text_like_any_other(metric):
    x = torch.stack([photo(), photo() * 0.3])
    captions = metric.caption(x)
    assert len(captions) == 2
    torch.testing.assert_close(metric(x, text=captions), metric(x), rtol=0, atol=1e-5)
    assert metric.caption(x) == captions


def test_the_gradient_at_a_fixed_caption_equals_central_differences(metric):
    network = copy.deepcopy(metric.network).double()
    wide = Bmqa(metric.card, network, metric.mapping, metric.rules)
    x = (0.1 + 0.8 * photo().double()[None]).requires_grad_()
    text = wide.caption(x)
    scores = wide(x, text=text)
    assert scores.dtype == DOUBLE
    torch.testing.assert_close(scores, wide(x), rtol=0, atol=1e-12)
    (found,) = torch.autograd.grad(scores.sum(), x)
    assert torch.equal(found, torch.autograd.grad(wide(x).sum(), x)[0])
    way = found / found.abs().max()
    with torch.no_grad():
        central = [(wide(x + h * way, text=text) - wide(x - h * way, text=text)) / (2 * h) for h in (1e-6, 1e-8)]
    expected = (found * way).sum().item()
    assert min(abs(value.item() / expected - 1) for value in central) < 1e-3


def test_an_assessment_shows_where_each_word_was_found(metric):
    result = metric.assess(photo())
    assert result.description == metric.caption(photo())[0]
    assert VOCABULARY.encode(" ".join(word for word, _ in result.words)) == VOCABULARY.encode(result.description)
    for _, seen in result.words:
        assert seen.shape == photo().shape[1:]
        assert seen.min() >= 0
        assert seen.mean().item() == pytest.approx(1 / GRID**2, rel=0.3)


def test_rules_say_what_is_measured(metric, tmp_path):
    folder = metric.save_pretrained(tmp_path)
    by_rules = create_metric("bmqa", weights=folder, captioner="rules")
    x = torch.stack([photo(), photo() * 0.05])
    texts = by_rules.caption(x)
    for text, values in zip(texts, ({k: v[i].item() for k, v in measure(x).items()} for i in range(2)), strict=True):
        found = slots_of(text)
        assert found.keys() == SLOTS.keys()
        for name, value in values.items():
            assert found[name] == sum(value > edge for edge in RULES[name])
    assert slots_of(texts[1])["brightness"] == 0
    torch.testing.assert_close(by_rules(x), metric(x, text=texts), rtol=0, atol=1e-6)
    assert by_rules.assess(x[0]).description == texts[0]
    assert not by_rules.assess(x[0]).words
    leaf = x.clone().requires_grad_()
    assert torch.autograd.grad(by_rules.loss(leaf), leaf)[0].count_nonzero() > 0


def test_options_of_one_metric_are_refused_by_others():
    with pytest.raises(ValueError, match="'learned' and 'rules', not 'oracle'"):
        create_metric("bmqa", captioner="oracle")
    with pytest.raises(TypeError, match="niqe has no option 'captioner'; it has"):
        create_metric("niqe", captioner="rules")


# The bundled weights


def test_the_bundled_words_say_what_is_to_be_seen():
    bundled = create_metric("bmqa")
    dark, bright = (slots_of(bundled.caption(f"samples/{name}")[0]) for name in ("astronaut_dark.png", "coffee.jpg"))
    assert dark.keys() == bright.keys() == SLOTS.keys()
    assert dark["brightness"] == 0 < bright["brightness"]
    assert dark["appearance"] == 0 < bright["appearance"]
    assert bright["noise"] == 2, "a textured picture without noise is not called noisy"
    x = read_image("samples/coffee.jpg")
    noise = 0.15 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    (noisy,) = bundled.caption((x + noise).clamp(0, 1))
    assert slots_of(noisy)["noise"] == 0 < bright["noise"]
    words = (bundled(x, text=f"an image of {word} appearance") for word in ("natural", "unnatural"))
    assert next(words) > next(words)


# The towers


@pytest.mark.parametrize("kind", ["transformer", "rnn", "bow"])
def test_text_towers(kind):
    torch.manual_seed(0)
    tower = TextTower(kind, 20, 16, 2, 4, 12)
    text = [5, 6, 7, END]
    alone = tower(padded([text]))
    assert alone.shape == (1, 5, 16)
    together = tower(padded([text, [5, 6, 7, 8, 9, 10, END]]))
    torch.testing.assert_close(together[:1, :5], alone, rtol=0, atol=1e-6)
    other = tower(padded([[5, 6, 8, END]]))
    torch.testing.assert_close(other[:, 1:3], alone[:, 1:3], rtol=0, atol=1e-6)  # words do not see later ones
    assert not torch.allclose(other[:, 0], alone[:, 0], atol=1e-6)
    turned = tower(padded([[7, 6, 5, END]]))
    assert torch.allclose(turned[:, 0], alone[:, 0], atol=1e-6) == (kind == "bow")
    with pytest.raises(ValueError, match="'lstm'"):
        TextTower("lstm", 20, 16, 2, 4, 12)


def test_padding_does_not_change_a_text_s_vector(metric):
    texts = [VOCABULARY.encode(text) for text in ("dark", "a bright scene with some grain, well exposed")]
    together = metric.network.text(padded(texts))
    for row, text in zip(together, texts, strict=True):
        torch.testing.assert_close(metric.network.text(padded([text]))[0], row, rtol=0, atol=1e-5)


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    ours, theirs = Attention(32, 8), nn.MultiheadAttention(32, 8, batch_first=True)
    layers = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.data = torch.cat([layer.weight for layer in layers]).detach()
    theirs.in_proj_bias.data = torch.cat([layer.bias for layer in layers]).detach()
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    tokens, kept = torch.randn(3, 6, 32), torch.rand(3, 6) > 0.3
    kept[:, 0] = True
    found = ours(tokens[:, :1], tokens, kept[:, None, None])
    expected, _ = theirs(tokens[:, :1], tokens, tokens, key_padding_mask=~kept)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("modalities", ["image", "text"])
def test_a_modality_that_is_switched_off_does_not_count(modalities):
    metric = untrained(modalities=modalities)
    x = torch.stack([photo(), photo() * 0.3])
    first, second = metric(x, text="dark noise"), metric(x, text="bright")
    assert torch.allclose(first, second, atol=1e-7) == (modalities == "image")
    assert torch.allclose(first[0], first[1], atol=1e-7) == (modalities == "text")


@pytest.mark.parametrize("tower", PAPER)
def test_the_paper_s_towers(tower):
    with torch.device("meta"):
        network = BmqaNetwork(paper_config(tower), VOCABULARY)
        features = network.features(torch.rand(2, 3, 300, 400))
        image, text = network.image(features), network.text(torch.full((2, 9), END))
        assert network.captioner(features, torch.full((2, 9), END))[0].shape == (2, 9, len(VOCABULARY))
    assert features.shape[:2] == (2, 1 + 49)
    assert image.shape == text.shape == (2, 1024)
    assert network.image_alignment.attention.heads == 32
    assert network.image_alignment.attention.query.weight.shape == (2048, 2048)
    assert network.probe.weight.shape == (1, 2048)
    assert network.fuse(image, text).shape == (2,)
    with pytest.raises(WeightsNotFound, match="train bmqa"):
        create_metric(PAPER[tower])


def test_the_compact_tower_sees_noise_where_it_is(metric):
    x = torch.full((1, 3, 112, 112), 0.5)
    x[..., :16, :16] += 0.2 * torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    spread = metric.network.tower(x)[0, :, 3]  # the first sample's deviation: of the whole, then of the cells
    assert spread[1] > 0.1
    assert spread[2:].max() < 0.01
    assert spread[0] == pytest.approx(x[0, 0].std(correction=0).item(), abs=1e-3)


def test_the_bundled_architecture_is_small_enough():
    with torch.device("meta"):
        network = BmqaNetwork(Config(), Vocabulary([str(i) for i in range(700)]))
    assert 2 * sum(value.numel() for value in network.state_dict().values()) < 16e6


# The captioner


@pytest.fixture(scope="module")
def captioner():
    torch.manual_seed(3)
    made = Captioner(12, 8, 16).double()
    for parameter in made.parameters():
        parameter.data.mul_(2.5)
    return made


def total(captioner, features, tokens):
    logits, _ = captioner(features, torch.tensor([tokens]))
    return logits[0].log_softmax(1)[range(len(tokens)), tokens].sum().item()


def test_a_wide_search_finds_the_likeliest_caption(captioner):
    words = [4, 5, 6, 7]
    texts = [[*text, END] for length in (1, 2) for text in itertools.product(words, repeat=length)]
    texts += [[*text] for text in itertools.product(words, repeat=3)]  # cut off
    for seed in range(3):
        features = torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
        ((found, looked),) = captioner.search(features, beams=100, longest=3)
        best = max(texts, key=lambda text: total(captioner, features, text))
        assert found == ([*best, END] if best[-1] != END else best)
        assert looked.shape == (len(found) - 1, 5)


def test_one_beam_is_greedy_and_the_batch_does_not_matter(captioner):
    features = torch.randn(6, 5, 12, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    for beams in (1, 3):
        together = captioner.search(features, beams, 12)
        for row, (tokens, looked) in enumerate(together):
            ((alone, seen),) = captioner.search(features[row : row + 1], beams, 12)
            assert tokens == alone
            torch.testing.assert_close(looked, seen)
            _, expected = captioner(features[row : row + 1], torch.tensor([tokens]))
            torch.testing.assert_close(looked, expected[0, : len(looked)])
    tokens, _ = captioner.search(features, 1, 12)[0]
    logits, _ = captioner(features[:1], torch.tensor([tokens]))
    logits[..., [0, 1, UNKNOWN]] = -math.inf
    logits[:, 0, END] = -math.inf
    assert logits[0].argmax(1)[: min(12, len(tokens))].tolist() == tokens[:12]
