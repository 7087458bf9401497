"""Train a network with a metric as its loss in Lightning: the mean of each epoch is logged, weights are averaged.

python examples/train_lightning.py --pictures lol/train/low
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import lightning
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from train_plain import Dark, Gain, loss_of

import lowlight_iqa
from lowlight_iqa.torchmetrics import QualityMetric


class Enhancement(lightning.LightningModule):
    """The network, its moving average, the loss, and the mean scores of both."""

    def __init__(self, metric_name: str = "leiq", rate: float = 1e-3) -> None:
        super().__init__()
        self.rate = rate
        self.network = Gain()
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        self.metric = lowlight_iqa.create_metric(metric_name)
        self.quality = QualityMetric(self.metric)
        self.average_quality = QualityMetric(self.metric)

    def training_step(self, dark: Tensor, index: int) -> Tensor:
        """Loss of a batch; Lightning computes and resets the logged metric at the epoch's end, over all processes."""
        enhanced = self.network(dark)
        self.quality.update(enhanced.detach())
        self.log("quality", self.quality, on_step=False, on_epoch=True)
        return loss_of(self.metric, enhanced, dark)

    def on_train_batch_end(self, *unused: object) -> None:
        """Move the average after each step."""
        self.average.update_parameters(self.network)

    def validation_step(self, dark: Tensor, index: int) -> None:
        """Score what the averaged network makes."""
        self.average_quality.update(self.average(dark))
        self.log("average_quality", self.average_quality, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The network alone moves: the metric is frozen."""
        return torch.optim.AdamW(self.network.parameters(), self.rate)


def train(folder: Path, metric_name: str = "leiq", epochs: int = 2, size: int = 128) -> dict[str, float]:
    """Train and return what was logged in the end."""
    lightning.seed_everything(0, verbose=False)
    model = Enhancement(metric_name)
    trainer = lightning.Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, log_every_n_steps=1, num_sanity_val_steps=0
    )
    pictures = Dark(folder, size)
    trainer.fit(model, DataLoader(pictures, batch_size=4, shuffle=True), DataLoader(pictures, batch_size=4))
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--metric", default="leiq")
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args(arguments)
    print(train(args.pictures, args.metric, args.epochs))


if __name__ == "__main__":
    main()
