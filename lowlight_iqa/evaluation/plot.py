"""Plot people's scores against a metric's, with the fitted logistic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..extras import require
from ..wholefile import replacing

if TYPE_CHECKING:
    from .evaluate import Evaluation


def plot(result: Evaluation, path: str | Path) -> None:
    """Draw MOS against score with the fitted logistic, as an image file; needs labels and matplotlib."""
    if not result.figures:
        raise ValueError("the labels are not public; there is nothing to draw the scores against")

    pyplot = import_pyplot()
    fig, axes = pyplot.subplots(figsize=(6, 4.5), layout="constrained")

    axes.scatter(result.scores, result.labels, s=8, alpha=0.35, linewidths=0, color="#3366aa")
    if result.mapping is not None:
        x = np.linspace(result.scores.min(), result.scores.max(), 300)
        axes.plot(x, result.mapping(x), color="#cc3311", label="4-parameter logistic")
        axes.legend(frameon=False)

    axes.set_xlabel(f"{result.card.name}, {'lower' if result.card.lower_better else 'higher'} is better")
    axes.set_ylabel("MOS")
    title = f"{result.dataset.name}, {result.dataset.split}, {len(result.scores)} pictures"
    axes.set_title(f"{title}: SRCC {result.figures['SRCC'].value:.3f}, PLCC {result.figures['PLCC'].value:.3f}")

    try:
        with replacing(Path(path)) as new:
            fig.savefig(new, dpi=150, format=Path(path).suffix[1:] or "png")
    finally:
        pyplot.close(fig)


def import_pyplot() -> Any:
    """Import matplotlib.pyplot, drawing to files."""
    require("matplotlib", "plots need matplotlib", "docs").use("Agg")
    from matplotlib import pyplot

    return pyplot
