"""Write an explanation as one page: a single file that opens from disk and loads nothing from the network."""

import base64
import io
from importlib import resources
from pathlib import Path

import numpy as np

from ..wholefile import write_whole
from .explain import Explanation, Layer, colored

MAP_SIDE = 480  # pixels of a map's longer side; maps are smooth


def write_html(explanation: Explanation, path: str | Path) -> None:
    """Write the page; every string that comes from a file or a metric is escaped."""
    from jinja2 import Environment, StrictUndefined

    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    low, high = explanation.card.score_range
    page = environment.from_string(template).render(
        e=explanation,
        card=explanation.card,
        result=explanation.result,
        picture=_jpeg(explanation.picture),
        layers=[(layer, _png(layer)) for layer in explanation.layers],
        words=[(layer, _png(layer)) for layer in explanation.words],
        share=100 * min(1.0, max(0.0, (explanation.result.score - low) / (high - low))),
        attributes=[(name.replace("_", " "), value) for name, value in explanation.result.attributes.items()],
    )
    write_whole(Path(path), page)


def _jpeg(picture: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _png(layer: Layer) -> str:
    from PIL import Image

    image = Image.fromarray(colored(layer.badness), "RGBA")
    image.thumbnail((MAP_SIDE, MAP_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
