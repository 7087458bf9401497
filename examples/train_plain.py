"""Train a network that brightens dark pictures with a metric as its loss, in plain PyTorch.

    python examples/train_plain.py --pictures lol/train/low

The loss is what makes a picture good (``metric.loss``, 0 at its best) and what keeps it the same picture: colors that
are the input's up to one gain. The mean score of an epoch is kept by ``QualityMetric``. A real training has more
pictures, more steps and priors; see ``train_enhancer.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import lowlight_iqa
from lowlight_iqa.torchmetrics import QualityMetric


class Dark(Dataset[Tensor]):
    """Square crops from the middle of every picture of a folder."""

    def __init__(self, folder: Path, size: int) -> None:
        self.paths = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        picture = lowlight_iqa.read_image(self.paths[index])  # (3, H, W)
        top, left = ((side - self.size) // 2 for side in picture.shape[1:])
        return picture[:, top : top + self.size, left : left + self.size]


class Gain(nn.Module):
    """Brighten each pixel by a gain of its own, at least 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, H, W) in [0, 1]."""
        return 1 - (1 - x) ** (1 + nn.functional.softplus(self.layers(x) + 1))


def loss_of(metric: lowlight_iqa.Metric, enhanced: Tensor, dark: Tensor, weight: float = 1.0) -> Tensor:
    """Quality, and the proportions of red, green and blue that the dark picture has."""
    kept = nn.functional.cosine_similarity(enhanced, dark + 1e-3, dim=1)
    return weight * metric.loss(enhanced) + (1 - kept).mean()


def train(folder: Path, metric_name: str = "leiq", epochs: int = 2, size: int = 128, rate: float = 1e-3) -> list[float]:
    """Train and return the mean score of each epoch."""
    torch.manual_seed(0)
    metric = lowlight_iqa.create_metric(metric_name)
    quality = QualityMetric(metric)
    network = Gain()
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    means = []
    for epoch in range(epochs):
        for dark in DataLoader(Dark(folder, size), batch_size=4, shuffle=True):
            enhanced = network(dark)
            optimizer.zero_grad()
            loss_of(metric, enhanced, dark).backward()
            optimizer.step()
            quality.update(enhanced.detach())
        means.append(quality.compute().item())
        quality.reset()
        print(f"epoch {epoch}: {metric_name} {means[-1]:.4f}")
    return means


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--metric", default="leiq")
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args(arguments)
    train(args.pictures, args.metric, args.epochs)


if __name__ == "__main__":
    main()
