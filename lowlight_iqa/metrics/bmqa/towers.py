"""The image towers, the text towers and the alignment block that follows each of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...functional.exportable import cell_means, exporting
from ...functional.resize import SHORT_SIDE, reduce
from .vocabulary import END, PAD

TEXT_TOWERS = ("transformer", "rnn", "bow")
GRID = 7  # the alignment and the captioner attend to a grid of 7x7 cells


class Attention(nn.Module):
    """Scaled dot-product attention with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} is not a multiple of {heads} heads; change either")
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from queries x (N, Q, C) to tokens (N, T, C) where the mask (N, 1, Q or 1, T) is true."""
        q, k, v = (
            rearrange(layer(inputs), "n t (heads c) -> n heads t c", heads=self.heads)
            for layer, inputs in ((self.query, x), (self.key, tokens), (self.value, tokens))
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(rearrange(attended, "n heads q c -> n q (heads c)"))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A Transformer layer with norms before attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Transform (N, T, C)."""
        normed = self.norms[0](x)
        x = x + self.attention(normed, normed, mask)
        return x + self.mlp(self.norms[1](x))  # type: ignore[no-any-return]


class TextTower(nn.Module):
    """BMQA's F_txt: "transformer" (causal), "rnn" (GRU) or "bow" (bag of words).

    ``layers`` and ``heads`` are of the Transformer alone; ``longest`` is the maximal number of tokens of a text.
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
        """Return features (N, 1 + T, width) of tokens (N, T): of the whole text first, then of each word."""
        x = self.words(tokens)
        if self.kind == "bow":
            mask = (tokens != PAD).to(x.dtype)[..., None]  # (N, T, 1)
            return torch.cat([(x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True), x], 1)

        if self.kind == "transformer":
            x = x + self.positions[: tokens.shape[1]]
            causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=x.device).tril()
            for block in self.blocks:
                x = block(x, causal)
            x = self.norm(x)
        else:
            x = self.rnn(x)[0]

        last = (tokens == END).int().argmax(1)  # the only token that attends to every word
        return torch.cat([x[torch.arange(x.shape[0], device=x.device), last][:, None], x], 1)


class CompactTower(nn.Module):
    """EfficientNet-Lite, pooled to mean and deviation of the picture's and every stage's channels, whole and by cell.

    The early stages' deviations respond to noise, which the last stage's maps do not show.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        from ...backbones import CompactTrunk

        self.trunk: nn.Module = CompactTrunk(name)
        self.width = 2 * (3 + sum(self.trunk.widths))

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 1 + GRID^2, width) of pictures (N, 3, H, W): of the whole, then of cells, row by row."""
        x = reduce(x, SHORT_SIDE)
        whole: list[Tensor] = []
        cells: list[Tensor] = []
        for stage in (x, *self.trunk(x)):
            stage = stage.to(x.dtype)
            center = stage.mean((2, 3), keepdim=True)
            centered = stage - center  # (N, C, h, w): without it, a large mean loses the variance to rounding
            squares = centered.square()
            pool = cell_means if exporting() else F.adaptive_avg_pool2d
            for pooled, size in ((whole, 1), (cells, GRID)):
                mean = pool(centered, size)
                variance = pool(squares, size) - mean.square()
                pooled += [mean + center, (variance.relu() + 1e-6).sqrt()]
        columns = [rearrange(torch.cat(pooled, 1), "n f h w -> n f (h w)") for pooled in (whole, cells)]
        return torch.cat(columns, 2).mT


class TimmTower(nn.Module):
    """A trunk of timm on pictures of 224x224, as in the paper: mean of the last map, then its positions."""

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
        """Stay in evaluation mode if every parameter is frozen, so that batch norms do not change their statistics."""
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 1 + GRID^2, width) of pictures (N, 3, H, W)."""
        x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        x = self.trunk.forward_features((x - self.mean) / self.std)  # type: ignore[operator]
        if x.ndim == 3:  # a ViT, whose class token is dropped
            x = rearrange(x[:, -GRID * GRID :], "n (h w) f -> n f h w", h=GRID)
        cells = rearrange(F.adaptive_avg_pool2d(x, GRID), "n f h w -> n (h w) f")
        return torch.cat([x.mean((2, 3))[:, None], cells], 1)


class Alignment(nn.Module):
    """BMQA's eq. 7 and 8: attention pooling, residual and layer norm; feed-forward, residual and layer norm.

    It maps tokens of ``inputs`` features to ``aligned`` ones; ``places`` tokens get a learned position, 0: none.
    """

    def __init__(self, inputs: int, width: int, heads: int, expansion: int, aligned: int, places: int = 0) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.positions = nn.Parameter(0.01 * torch.randn(places, width)) if places else None
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.leave = nn.Linear(width, aligned)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return vectors (N, aligned) of tokens (N, T, inputs) with mask (N, T); the first token is the whole."""
        x = self.enter(tokens)
        if self.positions is not None:
            x = x + self.positions
        whole = x[:, :1]
        pooled = self.attention(whole, x, None if mask is None else mask[:, None, None])
        whole = self.norms[0](pooled + whole)
        whole = self.norms[1](self.mlp(whole) + whole)
        return self.leave(whole[:, 0])  # type: ignore[no-any-return]
