"""The training loop of all recipes: a schedule, averaged weights, checkpoints to resume from, torchrun."""

import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..distributed import Ranks
from ..wholefile import make_folder, replacing

log = logging.getLogger("lowlight_iqa.training")

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Schedule:
    """Optimizer and learning-rate schedule: AdamW, warm-up, cosine; subclasses may override both."""

    epochs: int
    steps_per_epoch: int
    warmup: int  # steps
    weight_decay: float
    average: float  # decay of the averaged weights, which are returned; 0 returns the last weights
    seed: int
    made_from: Mapping[str, Any] = field(default_factory=dict)  # recipe and data, which a resumed run must share

    optimizer: ClassVar[Callable[..., torch.optim.Optimizer]] = torch.optim.AdamW

    @property
    def steps(self) -> int:
        """Number of steps of all epochs."""
        return self.epochs * self.steps_per_epoch

    def factor(self, step: int) -> float:
        """Return the factor of the learning rates at a step."""
        progress = min(1, step / max(1, self.steps))
        return min(1.0, (step + 1) / max(1, self.warmup)) * (0.5 + 0.5 * math.cos(math.pi * progress))


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
    """Train a network in place and return the network of its averaged weights, in evaluation mode.

    The batch of a step depends only on the seed and the step's number, so a run resumed from ``out/checkpoint.pt``
    takes the same steps.

    ``rates`` are groups of parameters with their learning rates. ``batch_loss`` is given the network, the step's
    generator and the ranks; it returns the loss of the whole batch and figures to log. ``validate`` is called on the
    averaged network after each epoch, on rank 0; ``stop`` on the mean figures of an epoch: true ends the training.
    ``stateful`` objects with ``state_dict`` and ``load_state_dict`` are restored on resuming.

    Raises:
        FileNotFoundError: nothing to resume from.
        ValueError: the checkpoint is damaged or was made with other settings.
        FloatingPointError: the loss is not finite.
    """
    learner = Learner(network, rates, schedule)
    checkpoint = Checkpoint(out / "checkpoint.pt", schedule, [*learner.stateful, *stateful])
    start, stopped = checkpoint.restore() if resume else (0, False)
    if resume:
        log.info("resumed at step %d of %d", start, schedule.steps)
    learner.start(start)

    with progress_bar(schedule, start, ranks) as bar:
        for epoch in range(start // schedule.steps_per_epoch, schedule.epochs):
            if stopped:
                break
            figures = run_epoch(learner, batch_loss, epoch, bar, ranks)
            stopped = stop is not None and stop(figures)
            if ranks.rank == 0:
                report_epoch(learner.average, validate, schedule, epoch + 1, stopped)
                checkpoint.save((epoch + 1) * schedule.steps_per_epoch, stopped)
                network.train()

    ranks.barrier()
    return learner.average.eval()


def progress_bar(schedule: Schedule, start: int, ranks: Ranks) -> Any:
    """Return a progress bar of steps, visible on rank 0 in a terminal."""
    from tqdm import tqdm

    return tqdm(total=schedule.steps, initial=start, unit="step", disable=None if ranks.rank == 0 else True)


class Learner(Generic[N]):
    """A network with its optimizer, its learning-rate schedule and its averaged weights."""

    def __init__(self, network: N, rates: Sequence[tuple[Sequence[nn.Parameter], float]], schedule: Schedule) -> None:
        parameters = [{"params": list(members), "lr": rate} for members, rate in rates]
        self.network, self.schedule = network, schedule
        self.optimizer = schedule.optimizer(parameters, weight_decay=schedule.weight_decay)
        self.rate = torch.optim.lr_scheduler.LambdaLR(self.optimizer, schedule.factor)
        self.averaged = average_of(network, schedule.average) if schedule.average else None

    @property
    def average(self) -> N:
        """The network of averaged weights, or the trained one if nothing is averaged."""
        return self.network if self.averaged is None else cast("N", self.averaged.module)

    @property
    def stateful(self) -> list[Any]:
        """The objects that a checkpoint stores."""
        return [self.network, self.average, self.optimizer, self.rate]

    def start(self, step: int) -> None:
        """Prepare for training from a step on."""
        if self.averaged is not None:
            self.averaged.n_averaged.fill_(step + 1)  # the initial network counts as the first
        self.network.train()

    def step(self, loss: Tensor, step: int, ranks: Ranks) -> None:
        """Update the weights by the gradient of the whole batch's loss, which must be finite."""
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}; lower the learning rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.sum_gradients(self.network)
        ranks.average_statistics(self.network)
        self.optimizer.step()

        self.rate.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)


def unfreeze(network: nn.Module, *parts: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    """Unfreeze only ``parts``; return their parameters."""
    network.requires_grad_(False)
    trained = []
    for part in parts:
        trained += [part] if isinstance(part, nn.Parameter) else list(part.parameters())
    for parameter in trained:
        parameter.requires_grad_(True)
    return trained


def average_of(network: N, decay: float) -> AveragedModel:
    """Return a running average of a network's parameters and buffers, such as a batch norm's statistics."""

    def mixed(average: Tensor, now: Tensor, count: Tensor | int) -> Tensor:
        if not average.is_floating_point():  # the batch count of a batch norm
            return now
        steps = int(count)  # at first the average forgets its start faster
        return average.lerp(now, 1 - min(decay, steps / (steps + 9)))

    averaged = AveragedModel(network, avg_fn=mixed, use_buffers=True)
    averaged.requires_grad_(False).eval()
    return averaged


def run_epoch(
    learner: Learner[N],
    batch_loss: Callable[[N, np.random.Generator, Ranks], tuple[Tensor, Mapping[str, float]]],
    epoch: int,
    bar: Any,
    ranks: Ranks,
) -> Mapping[str, float]:
    """Take the steps of an epoch; return the mean of each figure."""
    schedule = learner.schedule
    means: Counter[str] = Counter()
    first = epoch * schedule.steps_per_epoch
    for step in range(first, first + schedule.steps_per_epoch):
        torch.manual_seed((schedule.seed * schedule.steps + step) * ranks.world + ranks.rank)  # for dropout
        loss, figures = batch_loss(learner.network, np.random.default_rng([schedule.seed, step]), ranks)
        learner.step(loss, step, ranks)

        bar.update()
        report_step(bar, step + 1, loss.item(), figures)
        for name, value in figures.items():
            means[name] += value / schedule.steps_per_epoch  # type: ignore[assignment]
    return cast("Mapping[str, float]", means)


def report_step(bar: Any, step: int, loss: float, figures: Mapping[str, float]) -> None:
    """Show a step's loss; log every twentieth step with its figures."""
    bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
    if step % 20 == 0:
        log.info("step %d loss %.4f %s", step, loss, listed(figures))


def report_epoch(
    average: N, validate: Callable[[N], Mapping[str, float]] | None, schedule: Schedule, epoch: int, stopped: bool
) -> None:
    """Validate after an epoch, counted from 1, and log the figures; the network is left in evaluation mode."""
    if validate is not None:
        log.info("epoch %d of %d: %s", epoch, schedule.epochs, listed(validate(average.eval())))
    if stopped:
        log.info("stopped after epoch %d", epoch)


def listed(figures: Mapping[str, float]) -> str:
    """Format figures for a line of the log."""
    return " ".join(f"{name} {value:.4f}" for name, value in figures.items())


@dataclass(frozen=True)
class Checkpoint:
    """A file with everything that a resumed run needs."""

    path: Path
    schedule: Schedule
    stateful: Sequence[Any]

    def save(self, step: int, stopped: bool) -> None:
        """Write the states after a step; if that fails, the previous file is unchanged."""
        states = [each.state_dict() for each in self.stateful]
        with replacing(self.path) as new:
            torch.save({"schedule": asdict(self.schedule), "step": step, "stopped": stopped, "states": states}, new)

    def restore(self) -> tuple[int, bool]:
        """Load the states; return their step, and whether training had stopped there."""
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path} does not exist; there is nothing to resume, start without --resume")
        remedy = "start again without --resume, in another --out if this one matters"
        try:
            saved = torch.load(self.path, weights_only=True, map_location="cpu")
            before, step, stopped, states = (saved[key] for key in ("schedule", "step", "stopped", "states"))
        except Exception as error:  # zip, pickle and torch each raise errors of their own
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"{self.path} is damaged ({reason}); {remedy}") from error

        changes = differences(before, asdict(self.schedule))
        if changes:
            raise ValueError(
                f"{self.path} was made with other settings ({', '.join(changes[:5])}); "
                f"resume with the same settings, or {remedy}"
            )
        try:
            for each, state in zip(self.stateful, states, strict=True):
                each.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is of another version of this recipe; {remedy}") from error
        return int(step), bool(stopped)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the differences of two nested mappings as "key: value before, not value now"."""
    changes = []
    for key in [*before, *(key for key in now if key not in before)]:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += differences(old, new)
        elif old != new:
            changes.append(f"{key}: {old}, not {new}")
    return changes


class _FileHandler(logging.FileHandler):
    """A log file whose errors, such as a full disk, end the run instead of printing a traceback for each line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Raise the error with the file's name."""
        error = sys.exc_info()[1]
        raise OSError(f"{self.baseFilename} cannot be written ({error}); make room and allow writing there") from error


def start_run(name: str, out: Path, recipe: Any, device: str) -> Ranks:
    """Join the other processes, log the recipe to ``out/train.log``, seed torch."""
    ranks = Ranks.join(device)
    start_log(out, ranks)
    log.info("%s, recipe %s", name, json.dumps(asdict(recipe)))
    torch.manual_seed(recipe.seed)
    return ranks


def start_log(out: Path, ranks: Ranks) -> None:
    """Start writing the log to ``out/train.log``, on rank 0."""
    make_folder(out)
    log.setLevel(logging.INFO)
    for handler in log.handlers:
        handler.close()
    log.handlers.clear()
    if ranks.rank == 0:
        try:
            handler = _FileHandler(out / "train.log")
        except OSError as error:
            raise OSError(f"{out / 'train.log'} cannot be written ({error.strerror}); choose another --out") from error
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)


def check_numbers(recipe: Any, positive: Sequence[str] = ()) -> None:
    """Refuse numbers of a recipe that are negative or not finite, and zeros among ``positive``."""
    for name, value in vars(recipe).items():
        if isinstance(value, (bool, str, tuple)):
            continue
        low = "above 0" if name in positive else "of at least 0"
        if not math.isfinite(value) or value < 0 or (name in positive and value == 0):
            raise ValueError(f"--{name.replace('_', '-')} is {value}; give a number {low}")
