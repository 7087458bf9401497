"""A quality metric as a ``torchmetrics.Metric``: the mean over all pictures of an epoch (extra ``torchmetrics``).

>>> from lowlight_iqa.torchmetrics import QualityMetric  # doctest: +SKIP
>>> quality = QualityMetric("leiq")  # doctest: +SKIP
>>> for batch in loader: quality.update(network(batch))  # doctest: +SKIP
>>> quality.compute()  # doctest: +SKIP
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .backbones import import_torchvision
from .metric import Metric as QualityModule
from .registry import create_metric

import_torchvision()  # torchmetrics imports it, which fails beside a CPU build of torch
try:
    import torchmetrics
except ImportError as error:
    raise ImportError(
        'lowlight_iqa.torchmetrics needs torchmetrics: pip install "lowlight_iqa[torchmetrics]"'
    ) from error


class QualityMetric(torchmetrics.Metric):
    """Mean score of a metric, given by name or made, over all pictures given to ``update``, on all processes together.

    Further ``options`` are those of ``create_metric``, such as ``weights``, and of ``torchmetrics.Metric``. Every
    picture has the same weight, however they were batched. The state dict does not contain the metric's weights.
    """

    is_differentiable = True
    full_state_update = False
    total: Tensor
    count: Tensor
    metric: QualityModule

    def __init__(self, metric: str | QualityModule = "leiq", **options: Any) -> None:
        own = {name: options.pop(name) for name in list(options) if name in _TORCHMETRICS_OPTIONS}
        super().__init__(**own)
        if isinstance(metric, str):
            metric = create_metric(metric, **options)
        elif not isinstance(metric, QualityModule):
            raise TypeError(f"metric is a name such as 'leiq' or a metric of this library, not {type(metric).__name__}")
        elif options:
            raise TypeError(
                f"{', '.join(map(repr, options))} belong to create_metric; give them when the metric is made"
            )
        self.metric = cast(QualityModule, metric)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """Whether a higher score is better."""
        return not self.metric.card.lower_better

    @property
    def plot_lower_bound(self) -> float:  # type: ignore[override]
        """The lower end of the metric's scale."""
        return self.metric.card.score_range[0]

    @property
    def plot_upper_bound(self) -> float:  # type: ignore[override]
        """The upper end of the metric's scale."""
        return self.metric.card.score_range[1]

    def update(self, img: Any, reference: Any = None) -> None:
        """Add pictures: whatever ``metric(img)`` takes; ``reference`` for a metric that needs the dark input."""
        scores = self.metric(img, reference)
        self.total = self.total + scores.to(self.total.dtype).sum()
        self.count = self.count + len(scores)

    def compute(self) -> Tensor:
        """Return the mean score of all pictures, of which there must be one."""
        if not int(self.count):
            raise ValueError(f"no picture was given to {self.metric.card.name}; call update(img) before compute()")
        return (self.total / self.count).float()

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot one value or several over time, between the ends of the metric's scale (needs matplotlib)."""
        return self._plot(val, ax)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the running sums, if they are persistent; never the metric's weights."""
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        states: dict[str, Any] = super().state_dict(*args, **kwargs)
        for key in [key for key in states if key.startswith(f"{prefix}metric.")]:
            del states[key]
        return states


_TORCHMETRICS_OPTIONS = (
    "compute_on_cpu",
    "dist_sync_on_step",
    "process_group",
    "dist_sync_fn",
    "distributed_available_fn",
    "sync_on_compute",
    "compute_with_cache",
)
