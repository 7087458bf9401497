"""Train a network with a metric as its loss with Hugging Face Accelerate, on one device or many.

python examples/train_accelerate.py --pictures lol/train/low
accelerate launch examples/train_accelerate.py --pictures lol/train/low
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from train_plain import Dark, Gain, loss_of

import lowlight_iqa
from lowlight_iqa.torchmetrics import QualityMetric


def train(folder: Path, metric_name: str = "leiq", epochs: int = 2, size: int = 128, rate: float = 1e-3) -> list[float]:
    """Train and return the mean score of each epoch, over all processes."""
    accelerator = Accelerator()
    set_seed(0)
    network = Gain()
    network, optimizer, loader = accelerator.prepare(
        network,
        torch.optim.AdamW(network.parameters(), rate),
        DataLoader(Dark(folder, size), batch_size=4, shuffle=True),
    )
    # The metric is not prepared: it has nothing to learn, so it needs no gradients exchanged, only its device.
    metric = lowlight_iqa.create_metric(metric_name, device=accelerator.device)
    quality = QualityMetric(metric).to(accelerator.device)
    means = []
    for epoch in range(epochs):
        for dark in loader:
            with accelerator.accumulate(network):
                enhanced = network(dark)
                accelerator.backward(loss_of(metric, enhanced, dark))
                optimizer.step()
                optimizer.zero_grad()
            quality.update(enhanced.detach())
        means.append(quality.compute().item())
        quality.reset()
        accelerator.print(f"epoch {epoch}: {metric_name} {means[-1]:.4f}")
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
