"""The image towers, the text towers and the alignment block that follows either."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...functional.resize import SHORT_SIDE, reduce
from .vocabulary import END, PAD

TEXT_TOWERS = ("transformer", "rnn", "bow")
GRID = 7  # cells on a side of the grid that the alignment and the captioner attend to


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
        if kind not in TEXT_TOWERS:
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

    def train(self, mode: bool = True) -> TimmTower:
        """Stay in evaluation mode where every parameter is frozen: batch norms then keep the statistics they have."""
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))

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
