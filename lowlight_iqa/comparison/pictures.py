"""The pictures of the report page: thumbnails, large views and enlarged crops, in files named by hashes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ..images import read_image
from ..wholefile import make_folder, replacing, write_whole
from .significance import Matrix

if TYPE_CHECKING:
    from PIL.Image import Image

    from .result import Comparison

Box: TypeAlias = tuple[int, int, int, int]  # x, y, width, height in pixels
Relative: TypeAlias = tuple[float, float, float, float]  # the same as shares of the picture's width and height
Pixels: TypeAlias = NDArray[np.uint8]  # (H, W, 3)

FOLDER = "images"
THUMB, LARGE = 360, 1600  # longest side in pixels
ZOOM = 4  # a crop that is chosen has this part of each side
WORKING = 640  # longest side at which methods are compared to choose it
OURS = re.compile(r"[0-9a-f]{20}-(thumb|large|crop)\.(jpg|[0-9-]+\.part)")  # .part: of a run that was killed


@dataclass(frozen=True)
class View:
    """The files of one picture, relative to the page, and its size."""

    thumb: str
    large: str
    crop: str
    width: int
    height: int


@dataclass(frozen=True)
class Strip:
    """A picture as input, by every method and as reference."""

    name: str
    views: Mapping[str, View]  # by label
    box: Relative  # of the crop


def make_strips(comparison: Comparison, out: Path, crop: Box | None) -> list[Strip]:
    """Write the missing files of every picture, and remove files that are no longer used.

    Files are named by the hash of the picture, so a second run writes nothing and an interrupted one continues. A crop
    outside a picture is a ValueError.
    """
    folder = out / FOLDER
    make_folder(folder)
    memory = folder / "index.json"
    known = _read_memory(memory)

    def make(name: str) -> tuple[str, dict[str, Any], Strip]:
        return _make_strip(comparison, name, folder, crop, known)

    strips, remembered = [], {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and encodes without the interpreter's lock
        for key, entry, strip in pool.map(make, comparison.names):
            remembered[key] = entry
            strips.append(strip)

    write_whole(memory, json.dumps(remembered))
    shown = {Path(file).name for s in strips for v in s.views.values() for file in (v.thumb, v.large, v.crop)}
    for file in folder.iterdir():
        if OURS.fullmatch(file.name) and file.name not in shown:
            file.unlink()
    return strips


def _read_memory(file: Path) -> dict[str, dict[str, Any]]:
    """Read the boxes and sizes of an earlier run, if there was one."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _make_strip(
    comparison: Comparison, name: str, folder: Path, crop: Box | None, known: Mapping[str, dict[str, Any]]
) -> tuple[str, dict[str, Any], Strip]:
    labels = comparison.labels
    files = {label: comparison.files[label][name] for label in labels}
    digests = {label: _digest(file.read_bytes()) for label, file in files.items()}
    key = _digest(json.dumps([list(digests.values()), crop, THUMB, LARGE, ZOOM]).encode())
    entry = known.get(key)
    if entry is not None:
        strip = _strip(name, entry)
        if all((folder.parent / file).is_file() for v in strip.views.values() for file in (v.thumb, v.large, v.crop)):
            return key, entry, strip

    pictures = {label: read_pixels(file) for label, file in files.items()}
    box = relative_box(pictures, comparison.methods, crop, name)
    views = {}
    for label, pixels in pictures.items():
        views[label] = _save_views(pixels, box, digests[label], _digest(f"{digests[label]} {box}".encode()), folder)
    entry = {"box": box, "views": {label: vars(view) for label, view in views.items()}}
    return key, entry, Strip(name, views, box)


def _strip(name: str, entry: Mapping[str, Any]) -> Strip:
    views = {label: View(**facts) for label, facts in entry["views"].items()}
    return Strip(name, views, cast(Relative, tuple(entry["box"])))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:20]


def read_pixels(file: Path) -> Pixels:
    """Read a file as it is scored, upright, and round it to 8 bits: (H, W, 3)."""
    pixels: Pixels = (read_image(file) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return pixels


def relative_box(pictures: Mapping[str, Pixels], methods: Sequence[str], crop: Box | None, name: str) -> Relative:
    """Return the crop of one picture: the caller's, or where the methods differ most."""
    height, width = pictures[methods[0]].shape[:2]
    if crop is None:
        others = methods if len(methods) > 1 else list(pictures)  # one method is compared with input and reference
        return where_different([pictures[label] for label in others])
    x, y, w, h = crop
    if min(x, y) < 0 or min(w, h) < 1 or x + w > width or y + h > height:
        raise ValueError(
            f"the crop {','.join(map(str, crop))} lies outside picture {name!r} of {width} x {height}; "
            "give x,y,width,height inside all pictures, or leave it out"
        )
    return x / width, y / height, w / width, h / height


def where_different(pictures: Sequence[Pixels]) -> Relative:
    """Find the part, 1/``ZOOM`` of each side, in which pictures of one scene differ most.

    The mean color of each picture is subtracted first, as a difference of exposure is everywhere. Pictures that do not
    differ are cropped in the middle.
    """
    from PIL import Image

    height, width = pictures[0].shape[:2]
    scale = min(1.0, WORKING / max(height, width))
    size = max(ZOOM, round(width * scale)), max(ZOOM, round(height * scale))
    stack = np.stack([np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BOX), np.float32) for p in pictures])
    stack -= stack.mean((1, 2), keepdims=True)
    different: Matrix = stack.var(0).sum(-1).astype(np.float64)  # (h, w)

    # Sums over every window of the crop's size, by an integral image.
    h, w = max(1, different.shape[0] // ZOOM), max(1, different.shape[1] // ZOOM)
    integral = np.pad(different, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    sums = integral[h:, w:] - integral[:-h, w:] - integral[h:, :-w] + integral[:-h, :-w]
    if np.ptp(sums) <= 1e-9 * max(1.0, float(np.abs(sums).max())):
        y, x = (sums.shape[0] - 1) // 2, (sums.shape[1] - 1) // 2
    else:
        y, x = (int(index) for index in np.unravel_index(int(sums.argmax()), sums.shape))
    full_height, full_width = different.shape
    return x / full_width, y / full_height, w / full_width, h / full_height


def cut(pixels: Pixels, box: Relative) -> Pixels:
    """Return the part of a picture inside a box, at least one pixel."""
    height, width = pixels.shape[:2]
    x, y, w, h = box
    left, top = min(width - 1, round(x * width)), min(height - 1, round(y * height))
    return pixels[top : max(top + 1, round((y + h) * height)), left : max(left + 1, round((x + w) * width))]


def _save_views(pixels: Pixels, box: Relative, digest: str, crop_digest: str, folder: Path) -> View:
    from PIL import Image

    image = Image.fromarray(pixels)
    names = {kind: f"{digest}-{kind}.jpg" for kind in ("thumb", "large")}
    names["crop"] = f"{crop_digest}-crop.jpg"
    _save(_shrunk(image, LARGE), folder / names["large"], 92)
    _save(_shrunk(image, THUMB), folder / names["thumb"], 85)
    _save(Image.fromarray(np.ascontiguousarray(cut(pixels, box))), folder / names["crop"], 95)
    urls = {kind: f"{FOLDER}/{name}" for kind, name in names.items()}
    return View(urls["thumb"], urls["large"], urls["crop"], image.width, image.height)


def _shrunk(image: Image, side: int) -> Image:
    copy = image.copy()
    copy.thumbnail((side, side))  # bicubic, with antialiasing
    return copy


def _save(image: Image, file: Path, quality: int) -> None:
    """Write a JPEG with full color resolution, unless it exists."""
    if file.is_file():
        return
    part = file.with_suffix(f".{os.getpid()}-{id(image)}.part")
    with replacing(file, part) as new:
        image.save(new, "JPEG", quality=quality, subsampling=0)
