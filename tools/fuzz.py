"""Give the library mutated pictures, weight folders and label lists; only documented errors may come out, in time.

    python tools/fuzz.py --long      # 3,000 pictures, 1,000 weight folders, 500 labels

Prints what broke a promise: another exception, more than 5 s of processor time, or more memory than four times what the
whole file takes and the allowance. The seed is fixed.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from lowlight_iqa import create_metric, read_image
from lowlight_iqa.data import load

OWN = (TypeError, ValueError, OSError)  # WeightsNotFound is an OSError
SECONDS = 5.0
TIMES, ALLOWANCE = 4, 64 << 20  # memory: times what the whole file takes, and bytes, as the whole files here are tiny
PROC = Path("/proc/self")


def mutate(content: bytes, draw: random.Random, start: int = 0) -> bytes:
    """Change a few bytes, cut, double or insert."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        place = draw.randrange(min(start, len(changed) - 1), len(changed))
        kind = draw.randrange(6)
        if kind < 3:
            changed[place] = draw.randrange(256)
        elif kind == 3:
            changed[place] ^= 1 << draw.randrange(8)
        elif kind == 4:
            changed[place:place] = draw.choice((b"\xff" * 4, b"\0" * 8, b"{", b'"', b"1e999", b"\xff\xfe", b","))
        else:
            del changed[place : place + draw.choice((1, 4, len(changed) // 3 + 1))]
        if not changed:
            return b""
    return bytes(changed)


def judge(what: str, call: Callable[[], object]) -> Iterator[str]:
    """Yield what a call broke: a foreign exception, or the time."""
    start, base = time.process_time(), resident()
    try:
        call()
    except OWN as error:
        if not str(error):
            yield f"{what}: {type(error).__name__} without a word"
    except Exception as error:
        yield f"{what}: {type(error).__name__}: {str(error)[:200]}"
    if time.process_time() - start > SECONDS:
        yield f"{what}: {time.process_time() - start:.1f} s"
    more = resident("VmHWM") - base
    Peak.most = max(Peak.most, more)
    if more > TIMES * Peak.honest + ALLOWANCE:
        yield f"{what}: {more >> 20} MB more memory"


class Peak:
    """Bytes of memory that calls have added: those of whole files, and the most of any."""

    honest = most = 0

    @classmethod
    def measure(cls, *calls: Callable[[], object]) -> None:
        """Learn what the whole files take."""
        cls.honest = cls.most = 0
        for call in calls:
            base = resident()
            call()
            cls.honest = max(cls.honest, resident("VmHWM") - base)


def resident(key: str = "VmRSS") -> int:
    """Bytes that this process has in memory now; with "VmHWM" the most since it was last asked for what it has now."""
    if not (PROC / "clear_refs").exists():
        return 0
    if key == "VmRSS":
        (PROC / "clear_refs").write_text("5")
    lines = (PROC / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) << 10


def pictures(count: int, seed: int = 0) -> Iterator[str]:
    """Mutate pictures of all kinds and read them."""
    draw = random.Random(seed)
    noise = np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    image, whole = Image.fromarray(noise), []
    for kind, options in (("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("GIF", {}), ("BMP", {}),
                          ("WEBP", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {})):  # fmt: skip
        file = io.BytesIO()
        image.save(file, kind, **options)
        whole.append((kind, file.getvalue()))
    Peak.measure(*(lambda content=content: read_image(io.BytesIO(content)) for _, content in whole))  # type: ignore[misc]
    for number in range(count):
        kind, content = whole[number % len(whole)]
        mutated = mutate(content, draw)
        yield from judge(f"{kind} {number}", lambda mutated=mutated: read_image(io.BytesIO(mutated)))  # type: ignore[misc]


def weights(count: int, seed: int = 0) -> Iterator[str]:
    """Mutate the config or the file of saved weights, half of them with the hash set right, and load them."""
    import hashlib

    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        names = ("niqe", "brisque", "leiq", "iaca", "bmqa")
        saved = {name: create_metric(name).save_pretrained(Path(place) / name) for name in names}
        Peak.measure(*(lambda name=name: create_metric(name, weights=saved[name]) for name in names))  # type: ignore[misc]
        for number in range(count):
            name = names[number % 2] if number % 10 else names[number // 10 % 5]
            folder = saved[name]
            files = {file: (folder / file).read_bytes() for file in ("config.json", "model.safetensors")}
            tensors = bytearray(files["model.safetensors"])
            header = 8 + int.from_bytes(tensors[:8], "little")
            if number % 3:  # the header, in which the config stands, or its length
                tensors[:header] = mutate(bytes(tensors[:header]), draw)
                facts = json.loads(files["config.json"])
                facts["card"]["sha256"] = hashlib.sha256(tensors).hexdigest()
                (folder / "model.safetensors").write_bytes(tensors)
                (folder / "config.json").write_text(json.dumps(facts))
            else:
                (folder / "config.json").write_bytes(mutate(files["config.json"], draw))
            yield from judge(f"{name} {number}", lambda name=name, folder=folder: create_metric(name, weights=folder))  # type: ignore[misc]
            for file, content in files.items():
                (folder / file).write_bytes(content)


def labels(count: int, seed: int = 0) -> Iterator[str]:
    """Mutate lists of scores in all their formats and read them."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        files = _lists(Path(place))
        Peak.measure(*(lambda name=name, root=root: load(name, root, pictures=False) for name, root, _ in files))  # type: ignore[misc]
        for number in range(count):
            name, root, path = files[number % len(files)]
            content = path.read_bytes()
            path.write_bytes(mutate(content, draw, 100 if path.suffix == ".mat" else 0))
            yield from judge(f"{name} {number}", lambda name=name, root=root: load(name, root, pictures=False))  # type: ignore[misc]
            path.write_bytes(content)


def _lists(place: Path) -> list[tuple[str, Path, Path]]:
    """Write small data sets; (name, root, the list that is mutated)."""
    mine = place / "mine.csv"
    with mine.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mos"), *((f"{k}.png", 57.5 + k) for k in range(9))])
    (place / "name_mos.txt").write_text("".join(f"low{k:05}_CRM_0.png\t0.{k}\n" for k in range(1, 9)))
    (place / "mos512_with_names.txt").write_text("0.25\tD2_IC07_img3_512.jpg\n")
    (place / "MLE-training.json").write_text(
        json.dumps([{"id": f"b_{k}_A", "file": f"{k}.png", "mos": 4.5, "light": 3} for k in range(4)])
    )
    (place / "Data").mkdir()
    cells = np.empty((9, 1), object)
    cells[:, 0] = [f"{k}.bmp" for k in range(9)]
    savemat(place / "Data" / "AllImages_release.mat", {"AllImages_release": cells})
    savemat(place / "Data" / "AllMOS_release.mat", {"AllMOS_release": np.arange(9.0)[None]})
    found = [
        ("csv", mine, mine),
        ("square_lol", place, place / "name_mos.txt"),
        ("mle", place, place / "MLE-training.json"),
        ("live_challenge", place, place / "Data" / "AllImages_release.mat"),
        ("live_challenge", place, place / "Data" / "AllMOS_release.mat"),
    ]
    try:
        import openpyxl
    except ImportError:
        return found
    book = openpyxl.Workbook()
    heads = ("Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")
    for row in (heads, ("1.jpg", 35.2, 60, 56, 40, 60, 30)):
        book.active.append(row)
    (place / "Annotations").mkdir()
    path = place / "Annotations" / "MOS and Image attribute scores.xlsx"
    book.save(path)
    with zipfile.ZipFile(path) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    with zipfile.ZipFile(path, "w") as plain:  # so that mutations reach the sheet
        for name, content in parts.items():
            plain.writestr(name, content)
    return [*found, ("spaq", place, path)]


def main() -> int:
    """Run all three and print what broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="ten times as many as the tests")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    broken = 0
    for fuzz, count in ((pictures, 3000), (weights, 1000), (labels, 500)):
        count = count if args.long else count // 10
        start, found = time.process_time(), list(fuzz(count, args.seed))
        spent, more = time.process_time() - start, Peak.most >> 20
        print(
            f"{fuzz.__name__}: {count} tried, {len(found)} broke a promise, {spent:.0f} s, {more} MB more at the most"
        )
        print("".join(f"  {line}\n" for line in found), end="", flush=True)
        broken += len(found)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
