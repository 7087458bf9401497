"""Make docs/img/first_screen.png, the README's picture: a dark photograph, what leiq says of it, the report page.

The page's screenshot is docs/img/compare.png, made by tools/make_compare_picture.py.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

from lowlight_iqa import create_metric

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "samples" / "astronaut_dark.png"


def main() -> None:
    """Draw it."""
    result = create_metric("leiq").assess(PICTURE)
    fig, axes = plt.subplot_mosaic(
        [["photo", "page"], ["bars", "page"]],
        figsize=(14, 4.9),
        width_ratios=(1, 2.9),
        height_ratios=(1.9, 1),
        layout="constrained",
    )
    axes["photo"].imshow(Image.open(PICTURE))
    axes["photo"].set_title(f"leiq {result.score:.1f} of 10", loc="left", fontsize=11, weight="bold")
    axes["photo"].set_axis_off()

    names = [name.replace("_", " ") for name in result.attributes]
    ratings = list(result.attributes.values())
    axes["bars"].barh(names, [rating - 1 for rating in ratings], left=1, color="#3f51b5", height=0.6)
    axes["bars"].set(xlim=(1, 5), xticks=range(1, 6))
    axes["bars"].invert_yaxis()
    axes["bars"].tick_params(labelsize=8, length=0)
    axes["bars"].spines[["top", "right", "left"]].set_visible(False)
    axes["bars"].set_title("\n".join(textwrap.wrap(result.description, 46)), loc="left", fontsize=8)

    axes["page"].imshow(Image.open(ROOT / "docs" / "img" / "compare.png"))
    axes["page"].set_title("lowlight-iqa compare", loc="left", fontsize=11, family="monospace")
    axes["page"].set_axis_off()
    fig.savefig(ROOT / "docs" / "img" / "first_screen.png", dpi=90)


if __name__ == "__main__":
    main()
