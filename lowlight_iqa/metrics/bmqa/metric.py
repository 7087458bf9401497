"""BMQA's method on a compact trunk: a score from what the picture shows and from what can be said of it.

References:
    BMQA, IJCV 2024, doi 10.1007/s11263-024-02239-9 (arXiv 2303.10369): an image and a text tower, an alignment block
    for each, a linear probe on both; where no text is given, a captioner writes one.
    Show, attend and tell, Xu et al., ICML 2015, arXiv 1502.03044: the captioner.
    Where the paper is silent or unclear, docs/bmqa.md says how it was read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...card import Card
from ...functional.color import luma, working
from ...functional.logistic import logistic
from ...functional.resize import SHORT_SIDE, reduce
from ...images import check_batch
from ...metric import Assessment, Metric, Pictures, as_list
from ...registry import find, register
from ...weights.files import load, load_strictly
from ..colorfulness import Colorfulness

PAD, START, END, UNKNOWN = range(4)  # tokens that stand for no word
CAPTIONERS = ("learned", "rules")
GRID = 7  # places on a side of what the alignment and the captioner look at
BEAMS = 3
LONGEST = 60  # words of a caption
KNOWN = 1 / 3  # share of a text's words that must be known
PAPER = {"resnet50": "bmqa-rn50", "vit_base_patch32_224": "bmqa-vitb32", "convnext_base": "bmqa-convnext"}


# The five slots of a description


@dataclass(frozen=True)
class Slot:
    """One thing that a description of MLE's kind says: a word of these, from worst to best, before a noun."""

    words: tuple[str, ...]
    noun: str


SLOTS = {
    "brightness": Slot(("dim", "moderate", "bright"), "brightness"),
    "contrast": Slot(("low", "medium", "high"), "color contrast"),
    "noise": Slot(("severe", "obvious", "slight"), "noise"),
    "exposure": Slot(("severe", "local", "well-controlled"), "exposure"),
    "appearance": Slot(("unnatural", "natural"), "appearance"),
}


def slots_of(text: str) -> dict[str, int]:
    """The slots that a text fills, each with its word's place from worst (0) to best."""
    found = {}
    for name, slot in SLOTS.items():
        match = re.search(rf"\b({'|'.join(slot.words)})\s+{slot.noun}\b", text.lower())
        if match:
            found[name] = slot.words.index(match[1])
    return found


def plain_sentence(levels: Mapping[str, int]) -> str:
    """A description of the slots in MLE's template; the appearance may be missing."""
    said = {name: f"{slot.words[levels[name]]} {slot.noun}" for name, slot in SLOTS.items() if name in levels}
    appearance = said.pop("appearance", None)
    *first, last = said.values()
    end = f", presenting {'an' if appearance.startswith('un') else 'a'} {appearance}" if appearance else ""
    return f"The image has {', '.join(first)} and {last} conditions{end}."


def measure(x: Tensor) -> dict[str, Tensor]:
    """What the first four slots are about, of pictures (N, 3, H, W): numbers (N,) that are larger where it is better.

    Brightness: mean luma, 0 to 1. Contrast: colorfulness (Hasler and Suesstrunk). Noise: minus the standard deviation
    that Immerkaer's mask finds in the quieter blocks of 8x8 pixels (lower quartile), so that texture counts less.
    Exposure: minus the share of burnt-out pixels, where a sample between 0.7 and 1 counts by the square of its way.
    """
    x = working(reduce(x, SHORT_SIDE))
    gray = luma(x)
    vertical = gray[:, :-2] - 2 * gray[:, 1:-1] + gray[:, 2:]
    response = vertical[:, :, :-2] - 2 * vertical[:, :, 1:-1] + vertical[:, :, 2:]
    blocks = F.avg_pool2d(response.abs()[:, None], 8).flatten(1) * ((torch.pi / 2) ** 0.5 / 6)
    return {
        "brightness": gray.mean((1, 2)),
        "contrast": Colorfulness(find("colorfulness")[1]).score_batch(x),
        "noise": -blocks.quantile(0.25, dim=1),
        "exposure": -((x.amax(1) - 0.7).clamp_min(0) / 0.3).square().mean((1, 2)),
    }


def levels_of(x: Tensor, rules: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """The first four slots of one picture (1, 3, H, W) by the thresholds."""
    return {name: int((value > value.new_tensor(rules[name])).sum()) for name, value in measure(x).items()}


# Words


class Vocabulary:
    """Words by number and numbers by word; everything is lower case."""

    pattern = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*|\d+|[.,;:!?]")

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._places = {word: place for place, word in enumerate(words, UNKNOWN + 1)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """Every word of some texts."""
        return cls(sorted({word for text in texts for word in cls.pattern.findall(text.lower())}))

    def __len__(self) -> int:
        return len(self.words) + UNKNOWN + 1

    def encode(self, text: str) -> list[int]:
        """The words' numbers, and ``END``."""
        return [*(self._places.get(word, UNKNOWN) for word in self.pattern.findall(text.lower())), END]

    def word(self, token: int) -> str:
        """The word of a number above ``UNKNOWN``."""
        return self.words[token - UNKNOWN - 1]

    def decode(self, tokens: Iterable[int]) -> str:
        """A sentence; ``encode`` gives its tokens again."""
        text = " ".join(self.word(token) for token in tokens if token > UNKNOWN)
        text = re.sub(r" ([.,;:!?])", r"\1", text)
        return text[:1].upper() + text[1:]

    def read(self, text: str, longest: int) -> list[int]:
        """``encode`` for a user's text.

        Raises:
            TypeError: it is no string.
            ValueError: it has no words, too many of them, or too few that are known.
        """
        if not isinstance(text, str):
            raise TypeError(f"a text is a string such as 'a dim street, severe noise', not {type(text).__name__}")
        tokens = self.encode(text)
        if len(tokens) > longest:
            raise ValueError(
                f"the text has {len(tokens) - 1} words and signs, at most {longest - 1} are read; shorten it"
            )
        words = [word for word in self.pattern.findall(text.lower()) if word[0].isalnum()]
        known = sum(word in self._places for word in words)
        if not words or known < KNOWN * len(words):
            raise ValueError(
                f"of the {len(words)} words of the text {text[:60]!r} {known} are known; describe the quality in "
                "English, such as 'dim brightness, severe noise', or leave text out"
            )
        return tokens


def padded(texts: Sequence[Sequence[int]], device: torch.device | str | None = None) -> Tensor:
    """Tokens (N, T) of texts of unlike lengths, filled up with ``PAD``."""
    longest = max(map(len, texts))
    return torch.tensor([[*text, *[PAD] * (longest - len(text))] for text in texts], device=device)


# The towers


class Attention(nn.Module):
    """Scaled dot-product attention with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} cannot be shared by {heads} heads; change either")
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, Q, C) from x (N, Q, C) asking tokens (N, T, C) where the mask (N, 1, Q or 1, T) is true."""
        q, k, v = (
            layer(given).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, T, C / heads)
            for layer, given in ((self.query, x), (self.key, tokens), (self.value, tokens))
        )
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A Transformer's layer, with the norms before its parts."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N, T, C)."""
        normed = self.norms[0](x)
        x = x + self.attention(normed, normed, mask)
        return x + self.mlp(self.norms[1](x))  # type: ignore[no-any-return]


class TextTower(nn.Module):
    """BMQA's F_txt.

    Args:
        kind: "transformer" (causal), "rnn" (GRU) or "bow" (bag of words).
        vocabulary: number of tokens.
        width, layers, heads: of the Transformer; the others have the width alone.
        longest: tokens of a text.
    """

    def __init__(self, kind: str, vocabulary: int, width: int, layers: int, heads: int, longest: int) -> None:
        super().__init__()
        if kind not in ("transformer", "rnn", "bow"):
            raise ValueError(f"the text towers are 'transformer', 'rnn' and 'bow', not {kind!r}")
        self.kind = kind
        self.words = nn.Embedding(vocabulary, width, padding_idx=PAD)
        nn.init.normal_(self.words.weight, std=0.02)
        if kind == "transformer":
            self.positions = nn.Parameter(0.01 * torch.randn(longest, width))
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
            self.norm = nn.LayerNorm(width)
        elif kind == "rnn":
            self.rnn = nn.GRU(width, width, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """Features (N, 1 + T, width) of tokens (N, T): of the whole text first, then of each word."""
        x = self.words(tokens)
        if self.kind == "bow":
            kept = (tokens != PAD).to(x.dtype)[..., None]
            return torch.cat([(x * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True), x], 1)
        if self.kind == "transformer":
            x = x + self.positions[: tokens.shape[1]]
            causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=x.device).tril()
            for block in self.blocks:
                x = block(x, causal)
            x = self.norm(x)
        else:
            x = self.rnn(x)[0]
        last = (tokens == END).int().argmax(1)  # the one place that has seen every word
        return torch.cat([x[torch.arange(len(x), device=x.device), last][:, None], x], 1)


class CompactTower(nn.Module):
    """EfficientNet-Lite; mean and deviation of the picture's and every stage's channels, on the whole and in each cell.

    The early stages' deviations hold what noise does, which maps of the last stage no longer tell.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        from ...backbones import CompactTrunk

        self.trunk: nn.Module = CompactTrunk(name)
        self.width = 2 * (3 + sum(self.trunk.widths))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1 + GRID^2, width) of pictures (N, 3, H, W): of the whole first, then of the cells, row by row."""
        x = reduce(x, SHORT_SIDE)
        parts: tuple[list[Tensor], ...] = ([], [])
        for stage in (x, *self.trunk(x)):
            stage = stage.to(x.dtype)
            middle = stage.mean((2, 3), keepdim=True)
            centered = stage - middle  # (N, C, h, w): a variance is lost to rounding where the mean is large
            squares = centered.square()
            for part, size in zip(parts, (1, GRID), strict=True):
                mean = F.adaptive_avg_pool2d(centered, size)
                variance = F.adaptive_avg_pool2d(squares, size) - mean.square()
                part += [mean + middle, (variance.relu() + 1e-6).sqrt()]
        return torch.cat([torch.cat(part, 1).flatten(2) for part in parts], 2).mT


class TimmTower(nn.Module):
    """A trunk of timm on pictures of 224x224, as the paper has it: mean of the last map, then its places.

    Args:
        name: as timm knows it, such as "resnet50".
    """

    size = 224

    def __init__(self, name: str) -> None:
        super().__init__()
        from ...backbones import import_timm

        self.trunk: nn.Module = import_timm().create_model(name, pretrained=False, num_classes=0)
        self.width: int = self.trunk.num_features
        cfg: Any = self.trunk.pretrained_cfg
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(cfg["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(cfg["std"])[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1 + GRID^2, width) of pictures (N, 3, H, W)."""
        x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        x = self.trunk.forward_features((x - self.mean) / self.std)  # type: ignore[operator]
        if x.ndim == 3:  # a ViT: its class token is left out
            x = x[:, -GRID * GRID :].mT.unflatten(2, (GRID, GRID))
        places = F.adaptive_avg_pool2d(x, GRID).flatten(2).mT
        return torch.cat([x.mean((2, 3))[:, None], places], 1)


class Alignment(nn.Module):
    """BMQA's eq. 7 and 8: attention pooling, residual and layer norm; feed-forward, residual and layer norm."""

    def __init__(self, inputs: int, width: int, heads: int, expansion: int, aligned: int, places: int = 0) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.positions = nn.Parameter(0.01 * torch.randn(places, width)) if places else None
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.leave = nn.Linear(width, aligned)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, aligned) of tokens (N, T, inputs), the first of which stands for the whole; mask (N, T)."""
        x = self.enter(tokens)
        if self.positions is not None:
            x = x + self.positions
        whole = x[:, :1]
        pooled = self.attention(whole, x, None if mask is None else mask[:, None, None])
        whole = self.norms[0](pooled + whole)
        whole = self.norms[1](self.mlp(whole) + whole)
        return self.leave(whole[:, 0])  # type: ignore[no-any-return]


# The captioner


class Captioner(nn.Module):
    """Show, attend and tell: an LSTM that looks at a weighted mean of places (soft attention) before each word.

    Args:
        inputs: features of a place; the first place is the whole picture.
        vocabulary: number of tokens.
        width: of the LSTM, the attention and the reduced places.
    """

    def __init__(self, inputs: int, vocabulary: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(inputs, width), nn.ReLU())
        self.words = nn.Embedding(vocabulary, width // 2, padding_idx=PAD)
        self.start = nn.Linear(width, 2 * width)
        self.place, self.state = nn.Linear(width, width), nn.Linear(width, width)
        self.energy = nn.Linear(width, 1)
        self.gate = nn.Linear(width, width)
        self.cell = nn.LSTMCell(width // 2 + width, width)
        self.output = nn.Linear(width, vocabulary)

    def begin(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Places (N, P, width), their keys and the LSTM's state (N, width) twice, of features (N, P, inputs)."""
        places = self.reduce(features)
        h, c = self.start(places[:, 0]).tanh().chunk(2, 1)
        return places, self.place(places), h, c

    def step(
        self, word: Tensor, places: Tensor, keys: Tensor, h: Tensor, c: Tensor, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (N, vocabulary) of the word after ``word`` (N,), where it looked (N, P), and the new state."""
        looked = self.energy((keys + self.state(h)[:, None]).relu())[..., 0].softmax(1)
        context = self.gate(h).sigmoid() * (places * looked[..., None]).sum(1)
        h, c = self.cell(torch.cat([self.words(word), context], 1), (h, c))
        return self.output(F.dropout(h, dropout, dropout > 0)), looked, h, c

    def forward(self, features: Tensor, tokens: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """Logits (N, T, vocabulary) of each token (N, T) given those before it, and where it looked (N, T, P)."""
        places, keys, h, c = self.begin(features)
        words = torch.cat([torch.full_like(tokens[:, :1], START), tokens[:, :-1]], 1)
        steps = []
        for word in words.unbind(1):
            logits, looked, h, c = self.step(word, places, keys, h, c, dropout)
            steps.append((logits, looked))
        return tuple(torch.stack(parts, 1) for parts in zip(*steps, strict=True))  # type: ignore[return-value]

    @torch.no_grad()
    def search(self, features: Tensor, beams: int = BEAMS, longest: int = LONGEST) -> list[tuple[list[int], Tensor]]:
        """The likeliest captions that a beam search finds: tokens, ``END`` last, and where each word looked (words, P).

        A picture's caption does not depend on the others of the batch; of equal sums the earlier beam's is taken.
        """
        count, device = len(features), features.device
        places, keys, h, c = (part.repeat_interleave(beams, 0) for part in self.begin(features))
        first = torch.arange(count, device=device)[:, None] * beams  # the row of each picture's first beam
        total = features.new_full((count, beams), -torch.inf)
        total[:, 0] = 0
        tokens = torch.full((count * beams, 1), START, device=device)
        looked = features.new_zeros((count * beams, 0, features.shape[1]))
        for place in range(longest):
            logits, weights, h, c = self.step(tokens[:, -1], places, keys, h, c)
            gains = logits.log_softmax(1)
            gains[:, [PAD, START, UNKNOWN] if place else [PAD, START, UNKNOWN, END]] = -torch.inf
            ended = (tokens[:, -1] == END) | (tokens[:, -1] == PAD)
            gains[ended] = -torch.inf
            gains[ended, PAD] = 0
            sums = (total.reshape(-1, 1) + gains).view(count, -1)  # (N, beams * vocabulary)
            total, best = (part[:, :beams] for part in sums.sort(stable=True, dim=1, descending=True))
            rows = (first + best // gains.shape[1]).flatten()
            h, c, tokens, looked, weights = (part[rows] for part in (h, c, tokens, looked, weights))
            tokens = torch.cat([tokens, (best % gains.shape[1]).view(-1, 1)], 1)
            looked = torch.cat([looked, weights[:, None]], 1)
            leading = tokens[::beams, -1]
            if ((leading == END) | (leading == PAD)).all():  # sums only fall: what leads and has ended stays
                break
        found = []
        for text, places_seen in zip(tokens[::beams, 1:].tolist(), looked[::beams], strict=True):
            text = text[: text.index(END)] if END in text else text
            found.append(([*text, END], places_seen[: len(text)]))
        return found


# The whole


@dataclass(frozen=True)
class Config:
    """The architecture's numbers; the paper's are in ``paper_config``."""

    tower: str = "lite2"  # "lite0", "lite1", "lite2", or a trunk of timm
    width: int = 256  # of the alignment blocks
    heads: int = 32
    expansion: int = 1  # of the feed-forward
    aligned: int = 256
    text: str = "transformer"
    text_width: int = 128
    text_layers: int = 3
    text_heads: int = 4
    longest: int = 77  # tokens of a text
    captioner: int = 192  # width
    modalities: str = "both"  # what the score is made of: "image", "text" or "both"


def paper_config(tower: str) -> Config:
    """The paper's architecture around a trunk of timm."""
    return Config(tower, 2048, 32, 4, 1024, "transformer", 512, 12, 8, 77, 512)


class BmqaNetwork(nn.Module):
    """Both towers, their alignment, the probes and the captioner."""

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        super().__init__()
        if config.modalities not in ("image", "text", "both"):
            raise ValueError(f"modalities are 'image', 'text' or 'both', not {config.modalities!r}")
        self.config, self.vocabulary = config, vocabulary
        self.tower = CompactTower(config.tower) if config.tower.startswith("lite") else TimmTower(config.tower)
        self.center: Tensor
        self.scale: Tensor
        self.register_buffer("center", torch.zeros(self.tower.width))
        self.register_buffer("scale", torch.ones(self.tower.width))
        align = (config.width, config.heads, config.expansion, config.aligned)
        self.image_alignment = Alignment(self.tower.width, *align, places=1 + GRID * GRID)
        self.text_tower = TextTower(
            config.text, len(vocabulary), config.text_width, config.text_layers, config.text_heads, config.longest
        )
        self.text_alignment = Alignment(config.text_width, *align)
        self.temperature = nn.Parameter(torch.tensor(0.07).log())  # the logarithm; learned, as CLIP's
        self.probe = nn.Linear(2 * config.aligned, 1)
        self.text_probe = nn.Linear(config.aligned, 1)  # people's scores of pictures that it never saw, by words alone
        self.captioner = Captioner(self.tower.width, len(vocabulary), config.captioner)

    def features(self, x: Tensor) -> Tensor:
        """Standardized features (N, 1 + GRID^2, F) of pictures (N, 3, H, W) in [0, 1]."""
        return (self.tower(x) - self.center) / self.scale  # type: ignore[no-any-return]

    def image(self, features: Tensor) -> Tensor:
        """Aligned vectors (N, aligned) of ``features``."""
        return self.image_alignment(features)  # type: ignore[no-any-return]

    def text(self, tokens: Tensor) -> Tensor:
        """Aligned vectors (N, aligned) of tokens (N, T)."""
        mask = F.pad(tokens != PAD, (1, 0), value=True)
        return self.text_alignment(self.text_tower(tokens), mask)  # type: ignore[no-any-return]

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        """Raw scores (N,) of aligned vectors (eq. 10), on no particular scale."""
        if self.config.modalities == "image":
            text = torch.zeros_like(text)
        if self.config.modalities == "text":
            image = torch.zeros_like(image)
        return self.probe(torch.cat([image, text], 1))[:, 0]  # type: ignore[no-any-return]

    def caption(self, features: Tensor) -> list[tuple[list[int], Tensor]]:
        """Captions of ``features`` as tokens, and where each word was found, (words, 1 + GRID^2)."""
        return self.captioner.search(features.detach())


_SOURCE = "BMQA, IJCV 2024, doi 10.1007/s11263-024-02239-9; captioner: show, attend and tell, arXiv 1502.03044"
_GRADIENT = (
    "through the image alone: the caption is constant where its words do not change, and the score may jump there"
)
_ORIGIN = "your own training: `lowlight-iqa train bmqa --stage pretrain` (align, score, caption)"


def _paper_card(name: str, tower: str, trunk: str) -> Card:
    return Card(
        name=name,
        summary=f"BMQA with the paper's towers, {trunk} and Transformer; nobody published weights, train your own.",
        source=_SOURCE,
        lower_better=False,
        score_range=(0.0, 1.0),
        license="your own weights; the paper published none",
        gradient=_GRADIENT,
        learned=True,
        preprocessing="resized to 224x224, bilinear, antialiased",
        origin=f"{_ORIGIN} with --tower {tower} writes RUN/{name}",
    )


@register(
    Card(
        name="bmqa",
        summary="BMQA's method on a compact trunk, of this project's own training; not the authors' weights.",
        source=f"{_SOURCE}; trunk EfficientNet-Lite, narrower, docs/bmqa.md",
        lower_better=False,
        score_range=(0.0, 1.0),
        license="research use; training data without a stated license (BIQ2021, MLE); trunk Apache-2.0; notice in "
        "weights/NOTICE.bmqa",
        gradient=_GRADIENT,
        learned=True,
        commercial=False,
        preprocessing=f"shorter side reduced to {SHORT_SIDE} where it is larger, bilinear, antialiased",
        blind_spots="it says what was measured, not what was meant: a low-key picture is 'dim'; names no objects",
        trained_on="2,445 pictures of BIQ2021's training list with people's scores (MOS) and descriptions of them made "
        "by measuring; 650 descriptions of MLE with their scores; trunk that of leiq",
        datasets=("BIQ2021", "MLE", "LOL"),
        base_model="timm/tf_efficientnet_lite2.in1k",
        reached={
            "SRCC, BIQ2021 test split, 2000 pictures": "0.841 [0.826, 0.855]",
            "PLCC (raw), BIQ2021 test split, 2000 pictures": "0.859 [0.844, 0.872]",
            "SRCC, BIQ2021 test split, 409 dark pictures (mean luma < 70)": "0.908 [0.888, 0.924]",
            "LOL, dark picture below its normal-light one": "37 of 37 pairs",
            "right words and BLEU-4, top-5 accuracy, captions of 277 held-out pictures": "brightness 0.97, "
            "contrast 0.90, noise 0.98, exposure 0.92, appearance 0.92; 77.1, 100.0",
            "words that follow a change, 100 held-out pictures": "darker 0.98, brighter 0.98 (exposure: 0.87), "
            "noise 1.00, less color 0.97",
            "SRCC from MLE's descriptions alone, held-out scenes": "0.56",
        },
        weights="bmqa.safetensors",
        sha256="f344ddcc21e3696a95f4b4c34568a542e2326020485d473b6301b37ed44bb7c5",
    ),
    _paper_card("bmqa-rn50", "resnet50", "ResNet-50"),
    _paper_card("bmqa-vitb32", "vit_base_patch32_224", "ViT-B/32"),
    _paper_card("bmqa-convnext", "convnext_base", "ConvNeXt-B"),
)
class Bmqa(Metric):
    """Score on BIQ2021's 0..1 from a picture and a description of it: the caller's, or the captioner's own."""

    def __init__(self, card: Card, weights: str | Path | None = None, captioner: str = "learned") -> None:
        """Load it.

        Args:
            card: its card.
            weights: as for every metric.
            captioner: who finds the words of ``metric(img)``: "learned", the network's; or "rules", by measuring: each
                slot's word follows from a number (``measure``) and its thresholds, the appearance from the score at
                the other words.

        Raises:
            ValueError: there is no such captioner.
        """
        if captioner not in CAPTIONERS:
            raise ValueError(f"the captioners are {' and '.join(map(repr, CAPTIONERS))}, not {captioner!r}")
        loaded = load(card, weights)
        super().__init__(loaded.card)
        self._adopt(
            BmqaNetwork(Config(**loaded.config["network"]), Vocabulary(loaded.config["words"])),
            loaded.config["mapping"],
            loaded.config["rules"],
            captioner,
        )
        load_strictly(self, loaded.tensors)

    @classmethod
    def from_network(
        cls, card: Card, network: BmqaNetwork, mapping: Sequence[float], rules: Mapping[str, Sequence[float]]
    ) -> Bmqa:
        """A metric around a trained network, for saving it; ``rules`` are the thresholds of each slot's words."""
        metric = cls.__new__(cls)
        Metric.__init__(metric, card)
        metric._adopt(network, mapping, rules)
        return metric

    def _adopt(
        self,
        network: BmqaNetwork,
        mapping: Sequence[float],
        rules: Mapping[str, Sequence[float]],
        captioner: str = CAPTIONERS[0],
    ) -> None:
        self.network, self.mapping, self.captioner = network, list(mapping), captioner
        self.rules = {name: list(values) for name, values in rules.items()}
        self.eval().requires_grad_(False)

    def weight_config(self) -> dict[str, Any]:
        """Architecture, vocabulary, mapping and thresholds."""
        return {
            "network": asdict(self.network.config),
            "words": list(self.network.vocabulary.words),
            "mapping": self.mapping,
            "rules": self.rules,
        }

    def forward(
        self, img: Pictures, reference: Pictures | None = None, *, text: str | Sequence[str] | None = None
    ) -> Tensor:
        """Score pictures.

        Args:
            img: as for every metric.
            reference: refused, as by every no-reference metric.
            text: what somebody says of the pictures' quality, in English: one for all, or one for each. None: what
                the captioner says. Unknown words are read as unknown; their sense is not guessed.

        Returns:
            Scores (N,), differentiable with respect to tensor input at the text as it is.

        Raises:
            TypeError, ValueError, OSError: unusable input. A text is so if it is empty, too long, or if less than a
                third of its words is known; the message says which.
        """
        if text is None or reference is not None:
            return super().forward(img, reference)
        pictures = as_list(img)
        texts = [text] * len(pictures) if isinstance(text, str) else list(text)
        if len(texts) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures but {len(texts)} texts; give one text, or one for each")
        tokens = [self.network.vocabulary.read(each, self.network.config.longest) for each in texts]
        batches = [(check_batch(img, self.card.min_size, self.device), tokens)] if isinstance(img, Tensor) else [
            (self._single(picture), [each]) for picture, each in zip(pictures, tokens, strict=True)
        ]  # fmt: skip
        with torch.autocast(self.device.type, enabled=False):
            return torch.cat([self._fused(self._features(x), said).to(x.dtype) for x, said in batches])

    def _features(self, x: Tensor) -> Tensor:
        return self.network.features(x.to(self.network.center.dtype))

    def _fused(self, features: Tensor, tokens: Sequence[Sequence[int]]) -> Tensor:
        text = self.network.text(padded(tokens, features.device))
        return logistic(self.network.fuse(self.network.image(features), text), self.mapping)  # type: ignore[no-any-return]

    def score_batch(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """MOS (N,) on 0..1, by the captioner's words."""
        features = self._features(x)
        return self._fused(features, [tokens for tokens, _ in self._captions(x, features)])

    @torch.no_grad()
    def caption(self, img: Pictures) -> list[str]:
        """What ``metric(img)`` says of each picture; ``metric(img, text=metric.caption(img))`` is the same score."""
        singles = [self._single(picture) for picture in as_list(img)]
        captions = [self._captions(x, self._features(x))[0][0] for x in singles]
        return [self.network.vocabulary.decode(tokens) for tokens in captions]

    @torch.no_grad()
    def _captions(self, x: Tensor, features: Tensor) -> list[tuple[list[int], Tensor]]:
        """Tokens for each picture, and where each word was found; by rules the words come from no place."""
        if self.captioner == "learned":
            return self.network.caption(features)
        found = []
        for row in range(len(x)):
            levels = levels_of(x[row : row + 1], self.rules)
            score = self._fused(features[row : row + 1], [self.network.vocabulary.encode(plain_sentence(levels))])
            levels["appearance"] = int((score > score.new_tensor(self.rules["appearance"])).sum())
            found.append((self.network.vocabulary.encode(plain_sentence(levels)), features.new_zeros(0, 1)))
        return found

    def explain(self, x: Tensor) -> Assessment:
        """Score, the caption, and, of a learned one, where each of its words was found."""
        features = self._features(x)
        ((tokens, looked),) = self._captions(x, features)
        score = self._fused(features, [tokens])
        vocabulary = self.network.vocabulary
        if self.captioner == "rules":
            return Assessment(score=score.item(), description=vocabulary.decode(tokens))
        # A share of the attention may lie on the picture as a whole, the first place: it is spread over all places.
        places = looked[:, 1:] + looked[:, :1] / (GRID * GRID)
        maps = F.interpolate(
            places.unflatten(1, (1, GRID, GRID)), size=x.shape[2:], mode="bilinear", align_corners=False
        )
        return Assessment(
            score=score.item(),
            description=vocabulary.decode(tokens),
            words=tuple((vocabulary.word(token), seen) for token, seen in zip(tokens[:-1], maps[:, 0], strict=True)),
        )
