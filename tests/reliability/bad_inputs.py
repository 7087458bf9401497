"""Bad inputs of every kind, for the suite and for tools/reliability.py: files, values, command lines."""

import math
import os
import struct
import zlib

import numpy as np
import torch
from PIL import Image


def noise(height=64, width=64, channels=3):
    """Bytes of a picture that no codec compresses to nothing."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def png_chunk(kind, data):
    """A chunk of a PNG file with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_claims(width, height):
    """A PNG of a few bytes whose header promises so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(300))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def bad_files(folder):
    """Write files that are no pictures to be scored, and return their paths by kind; some do not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(noise())
    cut = {}
    for suffix in ("png", "jpg", "gif", "webp", "tiff", "bmp", "ppm"):
        whole = folder / f"whole.{suffix}"
        image.save(whole)
        cut[f"cut short: {suffix}"] = whole.read_bytes()[: whole.stat().st_size // 2]
        whole.unlink()
    image.save(folder / "whole.png")
    good = (folder / "whole.png").read_bytes()
    (folder / "whole.png").unlink()
    middle = len(good) // 2

    content = {
        **cut,
        "no bytes": b"",
        "one byte": b"\x89",
        "text": b"this is no picture\n",
        "HTML": b"<!doctype html><title>404</title>",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>',
        "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "zip": b"PK\x03\x04" + bytes(60),
        "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.",
        "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        "random bytes": noise().tobytes(),
        "PNG header alone": good[:33],
        "PNG with a flipped bit": good[:middle] + bytes([good[middle] ^ 16]) + good[middle + 1 :],
        "PNG that claims 40,000 x 40,000": png_that_claims(40_000, 40_000),
        "PNG that claims 9,000 x 9,000": png_that_claims(9_000, 9_000),
        "PNG of no width": png_that_claims(0, 64),
        "video": b"\x00\x00\x00\x18ftypmp42" + bytes(40),
        "PSD": b"8BPS\x00\x01" + bytes(40),
    }
    paths = {}
    for number, (kind, data) in enumerate(content.items()):
        suffix = kind.rpartition(" ")[2] if kind.startswith("cut") else "png"
        paths[kind] = folder / f"{number:02}.{suffix}"
        paths[kind].write_bytes(data)

    def save(kind, name, picture, **options):
        paths[kind] = folder / name
        picture.save(paths[kind], **options)

    transparent = image.copy()
    transparent.putalpha(99)
    frames = {"save_all": True, "append_images": [Image.fromarray(noise()[::-1].copy())]}
    save("alpha", "alpha.png", transparent)
    save("alpha in WebP", "alpha.webp", transparent, lossless=True)
    save("gray with alpha", "la.png", transparent.convert("LA"))
    save("animated GIF", "frames.gif", image, **frames)
    save("animated WebP", "frames.webp", image, **frames)
    save("animated PNG", "frames.png", image, **frames)
    save("pages", "pages.tiff", image, **frames)
    save("one pixel", "one.png", Image.new("RGB", (1, 1)))
    save("one row", "row.png", Image.new("RGB", (64, 1)))
    save("float TIFF with NaN", "nan.tiff", Image.fromarray(np.full((64, 64), math.nan, np.float32)))
    save("32-bit integers", "int32.tiff", Image.fromarray(np.full((64, 64), 1 << 20, np.int32)))

    for kind, name in {
        "missing": "missing.png",
        "a name too long": f"{'n' * 300}.png",
        "a line break in the name": "a\nb.png",
        "an escape sequence in the name": "a\x1b[31mb.png",
    }.items():
        paths[kind] = folder / name
    paths["a broken link"] = folder / "broken.png"
    paths["a broken link"].symlink_to(folder / "nowhere")
    paths["a link to itself"] = folder / "loop.png"
    paths["a link to itself"].symlink_to(folder / "loop.png")
    paths["an empty folder"] = folder / "nothing"
    paths["an empty folder"].mkdir()
    if hasattr(os, "mkfifo"):
        paths["a pipe without a writer"] = folder / "pipe.png"
        os.mkfifo(paths["a pipe without a writer"])
    return paths


def bad_values():
    """What is no picture although it is handed over as one, by kind."""
    x = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    spoiled = x.clone()
    spoiled[1, 2, 3] = math.nan
    array = noise()
    return {
        "uint8 tensor": (x * 255).byte(),
        "bool tensor": x > 0.5,
        "complex tensor": x.to(torch.complex64),
        "int64 tensor": (x * 255).long(),
        "0 to 255": x * 255,
        "0 to 2": x * 2,
        "-1 to 1": x * 2 - 1,
        "NaN": spoiled,
        "infinity": x + math.inf,
        "minus infinity": x - math.inf,
        "2-D": x[0],
        "1-D": x[0, 0],
        "5-D": x[None, None],
        "0-D": x[0, 0, 0],
        "gray": x[:1],
        "two channels": x[:2],
        "four channels": torch.cat([x, x[:1]]),
        "channels last": x.permute(1, 2, 0),
        "empty batch": x[None][:0],
        "no pixels": x[:, :0],
        "meta device": x.to("meta"),
        "sparse": x.to_sparse(),
        "nested": torch.nested.nested_tensor([x, x[:, :32]]),
        "quantized": torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
        "None": None,
        "number": 3.5,
        "bytes": array.tobytes(),
        "dictionary": {"image": x},
        "set": {1, 2},
        "empty list": [],
        "list of lists": [[x]],
        "batch in a list": [x[None]],
        "None in a list": [x, None],
        "empty string": "",
        "int64 array": array.astype(np.int64),
        "bool array": array > 9,
        "object array": array.astype(object),
        "NaN array": np.full((64, 64, 3), math.nan, np.float32),
        "0 to 255 as float array": array.astype(np.float32),
        "channels first array": array.transpose(2, 0, 1),
        "five channels array": np.zeros((64, 64, 5), np.uint8),
        "1-D array": np.zeros(64, np.uint8),
    }


BAD_COMMANDS = (
    [],
    ["scare"],
    ["score"],
    ["score", ""],
    ["score", "{good}", "--metric", "toi"],
    ["score", "{good}", "--metric", ""],
    ["score", "{good}", "--metric", "leiq,,niqe"],
    ["score", "{good}", "--device", "teapot"],
    ["score", "{good}", "--device", "cuda:99"],
    ["score", "{good}", "--device", "meta"],
    ["score", "{good}", "--device", ""],
    ["score", "{good}", "--format", "xml"],
    ["score", "{good}", "--weights", "{folder}/nowhere"],
    ["score", "{good}", "--weights", "hf://owner/repo"],
    ["score", "{good}", "--weights", "hf://owner/repo@main"],
    ["score", "{good}", "--weights", "hf://../..@" + "0" * 40],
    ["score", "{good}", "--weights", "{good}"],
    ["score", "{good}", "-m", "leiq-b16"],
    ["score", "{good}", "-m", "exposure,loe"],
    ["score", "{good}", "-m", "loe", "--reference", "{folder}/nowhere.png"],
    ["score", "{good}", "-m", "exposure", "--reference", "{good}"],
    ["score", "{folder}/nothing"],
    ["list", "extra"],
    ["card"],
    ["card", "toi"],
    ["card", "leiq", "niqe"],
    ["convert"],
    ["convert", "niqe", "{good}", "--install"],
    ["convert", "leiq-b16", "{folder}/nowhere", "-o", "{folder}/out"],
    ["convert", "leiq-b16", "{good}", "-o", "{folder}/out"],
    ["fetch"],
    ["fetch", "toi"],
    ["fetch", "hf://owner/repo@" + "0" * 39],
    ["push", "{folder}/nowhere", "owner/repo"],
    ["push", "{folder}", "owner/repo"],
    ["push", "{folder}", "no repo name"],
    ["evaluate", "--metric", "exposure", "--dataset", "nothing", "--root", "{folder}"],
    ["evaluate", "--metric", "exposure", "--dataset", "biq2021", "--root", "{folder}/nowhere"],
    ["evaluate", "--metric", "exposure", "--dataset", "csv", "--root", "{good}"],
    ["evaluate", "--metric", "exposure", "--dataset", "biq2021", "--root", "{folder}", "--draws", "-1"],
    ["train"],
    ["train", "niqe"],
    ["train", "leiq", "--data", "{folder}/nowhere", "--out", "{folder}/run"],
    ["train", "iaca", "--data", "{folder}/nowhere", "--out", "{folder}/run"],
)
