"""Write an explanation as one figure, for a paper or a slide."""

import math
import textwrap
from pathlib import Path

from ..wholefile import replacing
from .explain import Explanation, colored

COLUMNS = 4


def write_png(explanation: Explanation, path: str | Path) -> None:
    """Write the picture, the maps over it, score, attributes and sentence as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers = [None, *explanation.layers]
    rows = math.ceil(len(layers) / COLUMNS)
    columns = min(COLUMNS, len(layers))
    height, width = explanation.picture.shape[:2]
    panel = 3.0
    size = (panel * columns, (panel * height / width + 0.35) * rows + 0.9)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)

    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, layer in zip(axes, layers, strict=False):
        axis.imshow(explanation.picture)
        title = "picture"
        if layer is not None:
            axis.imshow(colored(layer.badness))
            title = layer.name.replace("_", " ") + ("" if layer.value is None else f"  {layer.value:.3g}")
        axis.set_title(title, fontsize=9, parse_math=False)
    for axis in figure.axes:
        axis.axis("off")

    text = f"{explanation.card.name} {explanation.result.score:.3g}.  {explanation.result.description}"
    lines = [explanation.name, *textwrap.wrap(text, 32 * columns)]
    figure.suptitle("\n".join(lines), fontsize=9, x=0.01, ha="left", parse_math=False)
    with replacing(Path(path)) as new:
        figure.savefig(new, format="png", metadata={"Title": explanation.name})
