"""Write an explanation as one page: a single file that opens from disk and loads nothing from the network."""

import base64
import io
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..extras import fill_template
from ..wholefile import write_whole
from .explain import Explanation, colored

MAP_SIDE = 480  # pixels of a map's longer side; maps are smooth


def write_html(explanation: Explanation, path: str | Path) -> None:
    """Write the page; every string that comes from a file or a metric is escaped."""
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    low, high = explanation.card.score_range
    page = fill_template(
        template,
        e=explanation,
        card=explanation.card,
        result=explanation.result,
        picture=_data_url(explanation.picture, "jpeg", quality=90),
        layers=[(layer, _data_url(colored(layer.badness), "png", MAP_SIDE)) for layer in explanation.layers],
        words=[(layer, _data_url(colored(layer.badness), "png", MAP_SIDE)) for layer in explanation.words],
        share=100 * min(1.0, max(0.0, (explanation.result.score - low) / (high - low))),
        attributes=[(name.replace("_", " "), value) for name, value in explanation.result.attributes.items()],
    )
    write_whole(Path(path), page)


def _data_url(pixels: np.ndarray, kind: str, side: int | None = None, **options: Any) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    if side is not None:
        image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), **options)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
