"""The one training loop: a schedule, averaged weights, checkpoints to resume from, torchrun."""

from __future__ import annotations

import copy
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..distributed import Ranks

log = logging.getLogger("lowlight_iqa.training")

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW, warm-up and cosine; a subclass may have it otherwise."""

    epochs: int
    steps_per_epoch: int
    warmup: int  # steps
    weight_decay: float
    average: float  # decay of the averaged weights, the ones that are kept; 0 keeps the last ones
    seed: int

    optimizer: ClassVar[Callable[..., torch.optim.Optimizer]] = torch.optim.AdamW

    def factor(self, step: int) -> float:
        """What the learning rates are multiplied by at a step."""
        part = min(1, step / (self.epochs * self.steps_per_epoch))
        return min(1.0, (step + 1) / self.warmup) * (0.5 + 0.5 * math.cos(math.pi * part))


def train(
    network: N,
    rates: Sequence[tuple[Sequence[nn.Parameter], float]],
    batch_loss: Callable[[N, np.random.Generator, Ranks], tuple[Tensor, Mapping[str, float]]],
    schedule: Schedule,
    out: Path,
    *,
    resume: bool = False,
    validate: Callable[[N], Mapping[str, float]] | None = None,
    stateful: Sequence[Any] = (),
    stop: Callable[[Mapping[str, float]], bool] | None = None,
    ranks: Ranks,
) -> N:
    """Train a network and return its averaged weights as a network.

    The batch of a step depends on the seed and the step's number alone, so a resumed run takes the same steps.

    Args:
        network: what is trained, in place.
        rates: groups of parameters with their learning rates.
        batch_loss: (network, generator of the step, ranks) -> scalar of the whole batch and figures to log.
        schedule: epochs, optimizer, learning rates, averaging, seed.
        out: folder for ``train.log`` and ``checkpoint.pt``.
        resume: go on from ``checkpoint.pt``.
        validate: called on the averaged network after each epoch, on rank 0; its figures are logged.
        stateful: what else a resumed run must find as it was, each with ``state_dict`` and ``load_state_dict``.
        stop: called with the mean of each figure over an epoch; true ends the training there.
        ranks: this process among others.

    Raises:
        FileNotFoundError: nothing to resume from.
        ValueError: the checkpoint is of another schedule.
        FloatingPointError: the loss is not finite.
    """
    from tqdm import tqdm

    optimizer = schedule.optimizer(
        [{"params": list(parameters), "lr": rate} for parameters, rate in rates],
        weight_decay=schedule.weight_decay,
    )
    total = schedule.epochs * schedule.steps_per_epoch
    decline = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule.factor(step))
    average = copy.deepcopy(network).requires_grad_(False) if schedule.average else network
    kept = (network, average, optimizer, decline, *stateful)
    checkpoint, start = out / "checkpoint.pt", 0
    if resume:
        start = _restore(checkpoint, schedule, *kept)
        log.info("resumed at step %d of %d", start, total)

    bar = tqdm(total=total, initial=start, unit="step", disable=None if ranks.rank == 0 else True)
    means: Counter[str] = Counter()  # of the figures, over the epoch
    for step in range(start, total):
        torch.manual_seed((schedule.seed * total + step) * ranks.world + ranks.rank)  # dropout's numbers
        loss, figures = batch_loss(network, np.random.default_rng([schedule.seed, step]), ranks)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.sum_gradients(network)
        optimizer.step()
        decline.step()
        decay = min(schedule.average, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)  # nothing happens where they are the same
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
        if (step + 1) % 20 == 0:
            parts = " ".join(f"{name} {value:.4f}" for name, value in figures.items())
            log.info("step %d loss %.4f %s", step + 1, loss.item(), parts)
        for name, value in figures.items():
            means[name] += value / schedule.steps_per_epoch  # type: ignore[assignment]
        if (step + 1) % schedule.steps_per_epoch:
            continue
        if ranks.rank == 0:
            if validate is not None:
                parts = " ".join(f"{name} {value:.4f}" for name, value in validate(average).items())
                log.info("epoch %d of %d: %s", (step + 1) // schedule.steps_per_epoch, schedule.epochs, parts)
            _save(checkpoint, schedule, step + 1, *kept)
        if stop is not None and stop(means):
            log.info("stopped after epoch %d", (step + 1) // schedule.steps_per_epoch)
            break
        means.clear()
    bar.close()
    ranks.barrier()
    return average


def _save(path: Path, schedule: Schedule, step: int, *stateful: Any) -> None:
    new = path.with_suffix(".new")
    torch.save({"schedule": vars(schedule), "step": step, "states": [each.state_dict() for each in stateful]}, new)
    new.replace(path)  # a run killed here leaves the old checkpoint whole


def _restore(path: Path, schedule: Schedule, *stateful: Any) -> int:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; there is nothing to resume, start without --resume")
    saved = torch.load(path, weights_only=True, map_location="cpu")
    if saved["schedule"] != vars(schedule):
        raise ValueError(f"{path} is of another run ({saved['schedule']}); resume with the same settings or start anew")
    for each, state in zip(stateful, saved["states"], strict=True):
        each.load_state_dict(state)
    return int(saved["step"])


def start_log(out: Path, ranks: Ranks) -> None:
    """Write the log to ``out/train.log`` (rank 0 alone) and warnings to the terminal."""
    out.mkdir(parents=True, exist_ok=True)
    log.setLevel(logging.INFO)
    log.handlers.clear()
    if ranks.rank == 0:
        handler = logging.FileHandler(out / "train.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
