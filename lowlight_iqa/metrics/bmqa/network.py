"""The network: both towers, their alignment, the probes and the captioner, in one configuration."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .captioner import Captioner
from .towers import GRID, Alignment, CompactTower, TextTower, TimmTower
from .vocabulary import PAD, Vocabulary

MODALITIES = ("image", "text", "both")


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
    modalities: str = "both"  # inputs of the score: "image", "text" or "both"


def paper_config(tower: str) -> Config:
    """Return the paper's architecture around a trunk of timm."""
    return Config(tower, 2048, 32, 4, 1024, "transformer", 512, 12, 8, 77, 512)


class BmqaNetwork(nn.Module):
    """Both towers, their alignment, the probes and the captioner."""

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        super().__init__()
        if config.modalities not in MODALITIES:
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
        self.temperature = nn.Parameter(torch.tensor(0.07).log())  # the logarithm; learned, as in CLIP
        self.probe = nn.Linear(2 * config.aligned, 1)
        self.text_probe = nn.Linear(config.aligned, 1)  # for training on descriptions without pictures
        self.captioner = Captioner(self.tower.width, len(vocabulary), config.captioner)

    def features(self, x: Tensor) -> Tensor:
        """Return standardized features (N, 1 + GRID^2, F) of pictures (N, 3, H, W) in [0, 1]."""
        return (self.tower(x) - self.center) / self.scale  # type: ignore[no-any-return]

    def image(self, features: Tensor) -> Tensor:
        """Return aligned vectors (N, aligned) of ``features``."""
        return self.image_alignment(features)  # type: ignore[no-any-return]

    def text(self, tokens: Tensor) -> Tensor:
        """Return aligned vectors (N, aligned) of tokens (N, T)."""
        mask = F.pad(tokens != PAD, (1, 0), value=True)
        return self.text_alignment(self.text_tower(tokens), mask)  # type: ignore[no-any-return]

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        """Return raw scores (N,) of aligned vectors (eq. 10); their scale is arbitrary."""
        if self.config.modalities == "image":
            text = torch.zeros_like(text)
        if self.config.modalities == "text":
            image = torch.zeros_like(image)
        return self.probe(torch.cat([image, text], 1))[:, 0]  # type: ignore[no-any-return]

    def caption(self, features: Tensor) -> list[tuple[list[int], Tensor]]:
        """Return captions of ``features`` as tokens, with the attention of each word, (words, 1 + GRID^2)."""
        return self.captioner.search(features.detach())
