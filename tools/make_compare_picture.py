"""Make docs/img/compare.png: the comparison page of the sample pictures, photographed in headless Chromium.

    python tools/make_compare_picture.py [FILE]

Needs pip install ".[test]" and Debian's packages chromium and chromium-driver. All pictures are those of samples/.
"""

import base64
import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tests")]

import make_enhanced  # noqa: E402
from support.browser import chromium  # noqa: E402

import lowlight_iqa  # noqa: E402
from lowlight_iqa.comparison.figures import COLORS as FIGURE_COLORS  # noqa: E402

WIDTH, HEIGHT = 1180, 900
COLORS = 256  # of the file's palette

WAIT = """
const done = arguments[0];
const seen = [...document.images].filter((image) => {
  const box = image.getBoundingClientRect();
  return image.src && image.checkVisibility() && box.top < innerHeight && box.bottom > 0;
});
seen.forEach((image) => { image.loading = "eager"; });
Promise.all(seen.map((image) => image.decode())).then(() => setTimeout(done, 300));
"""


def compare_samples(folder):
    """Compare three methods on the samples; return the page."""
    for source in (ROOT / "samples").iterdir():
        kind = {".png": "input", ".jpg": "reference"}.get(source.suffix)
        if kind:
            (folder / kind).mkdir(exist_ok=True)
            shutil.copy(source, folder / kind)
    make_enhanced.main(folder / "input", folder / "enhanced")
    lowlight_iqa.compare(
        [folder / "enhanced" / name for name in make_enhanced.METHODS],
        inputs=folder / "input",
        references=folder / "reference",
        out=folder / "out",
    )
    return folder / "out" / "index.html"


def photograph(page, profile):
    """The page's first screen and one strip of pictures, side by side."""
    shots = []
    with chromium(profile, WIDTH, HEIGHT) as driver:
        driver.get(page.as_uri())
        driver.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
        for place in ("header", "#strips .strip:nth-child(2)"):
            driver.execute_script("document.querySelector(arguments[0]).scrollIntoView()", place)
            driver.execute_async_script(WAIT)
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"]
            shots.append(Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB"))
    both = Image.new("RGB", (2 * WIDTH, HEIGHT), "white")
    for place, shot in enumerate(shots):
        both.paste(shot, (place * WIDTH, 0))
    return both.resize((WIDTH * 4 // 3, HEIGHT * 2 // 3), Image.Resampling.LANCZOS)


def reduce_colors(picture):
    """The picture with a palette that keeps the methods' colors, which are few pixels, apart."""
    methods = [int(color[i : i + 2], 16) for color in FIGURE_COLORS for i in (1, 3, 5)]
    count = COLORS - len(FIGURE_COLORS)
    usual = picture.quantize(count, kmeans=2, dither=Image.Dither.NONE).getpalette()[: 3 * count]
    palette = Image.new("P", (1, 1))
    palette.putpalette(usual + methods)
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def main(file):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = photograph(compare_samples(folder), folder / "profile")
    reduce_colors(picture).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "img" / "compare.png")
