"""Pictures come in rightly or not at all."""

import io
import os
import random
import struct
import time
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lowlight_iqa import images, read_image
from lowlight_iqa.images import MAX_PIXELS, check_batch

CPU = torch.device("cpu")
OWN = (TypeError, ValueError, OSError)


def ramp(height=24, width=32, seed=0):
    """A picture (H, W, 3) uint8 without symmetry."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def png16(values, interlace=False, key=None):
    """A 16-bit PNG file of (H, W) or (H, W, 2 to 4) uint16, each row by another filter."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    samples = values.reshape(height, width, channels).astype(">u2")

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    passes = [(0, 0, 1, 1)]  # first row, first column, row step, column step
    if interlace:
        passes = [
            (0, 0, 8, 8),
            (0, 4, 8, 8),
            (4, 0, 8, 4),
            (0, 2, 4, 4),
            (2, 0, 4, 2),
            (0, 1, 2, 2),
            (1, 0, 2, 1),
        ]
    rows = []
    for top, left, down, right in passes:
        part = samples[top::down, left::right]
        above = np.zeros(part.shape[1] * channels * 2, np.uint8)
        for number, row in enumerate(part if part.size else []):
            line = np.frombuffer(row.tobytes(), np.uint8)
            before = np.concatenate([np.zeros(channels * 2, np.uint8), line[: -channels * 2]])
            kind = number % 3  # none, sub, up
            rows.append(bytes([kind]) + (line - (0, before, above)[kind]).astype(np.uint8).tobytes())
            above = line
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, int(interlace))
    chunks = [chunk(b"IHDR", header)]
    if key is not None:
        chunks.append(chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))
    chunks += [chunk(b"IDAT", zlib.compress(b"".join(rows))), chunk(b"IEND", b"")]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def tiff16(values, big_endian=False, planar=1, photometric=None):
    """An uncompressed 16-bit TIFF file of (H, W) or (H, W, 3) uint16."""
    order = ">" if big_endian else "<"
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else 3
    data = (values if planar == 1 else np.moveaxis(values, 2, 0)).astype(order + "u2").tobytes()
    photometric = photometric if photometric is not None else (1 if channels == 1 else 2)
    strips = channels if planar == 2 else 1
    size = len(data) // strips
    tags = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [16] * channels),
        (259, "H", [1]),
        (262, "H", [photometric]),
        (273, "I", [8 + i * size for i in range(strips)]),
        (277, "H", [channels]),
        (278, "I", [height]),
        (279, "I", [size] * strips),
        (284, "H", [planar]),
    ]
    directory, extra = b"", b""
    after = 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, kind, numbers in tags:
        body = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(body) > 4:
            extra, body = extra + body, struct.pack(order + "I", after + len(extra))
        directory += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[kind], len(numbers)) + body.ljust(4, b"\0")
    head = (b"MM\0*" if big_endian else b"II*\0") + struct.pack(order + "I", 8 + len(data))
    return io.BytesIO(head + data + struct.pack(order + "H", len(tags)) + directory + bytes(4) + extra)


def same(picture, array, top=255):
    expected = torch.from_numpy(array.astype(np.float32) / top).permute(2, 0, 1)
    assert picture.dtype == torch.float32
    torch.testing.assert_close(picture, expected, rtol=0, atol=1e-7)


# Sources


def test_every_source_gives_the_same_picture(tmp_path):
    array = ramp()
    path = tmp_path / "picture.png"
    Image.fromarray(array).save(path)
    with path.open("rb") as file:
        pictures = [
            read_image(source) for source in (path, str(path), Image.open(path), Image.fromarray(array), array, file)
        ]
    for picture in pictures:
        same(picture, array)
    tensor = read_image(pictures[0])
    assert torch.equal(tensor, pictures[0])


def test_a_file_that_cannot_seek():
    class Pipe(io.RawIOBase):
        name = "pipe"

        def __init__(self, content):
            self.content = io.BytesIO(content)

        def read(self, size=-1):
            return self.content.read(size)

        def seekable(self):
            return False

    same(read_image(Pipe(encoded(Image.fromarray(ramp())).getvalue())), ramp())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_float_arrays(dtype):
    array = (ramp() / 255).astype(dtype)
    same(read_image(array), array, top=1)


def test_gray_and_16_bit_arrays():
    gray = ramp()[..., 0].astype(np.uint16) * 200 + 3
    for array in (gray, gray[..., None]):
        same(read_image(array), np.repeat(gray[..., None], 3, 2), top=65535)
    same(read_image(ramp()[::-1, ::-1]), ramp()[::-1, ::-1])  # negative strides


def test_reading_changes_neither_array_nor_tensor():
    array = np.array([[[-0.005, 0.5, 1.005]]], np.float32)
    kept, tensor = array.copy(), torch.from_numpy(array.copy()).permute(2, 0, 1)
    assert read_image(array).min() == 0
    assert read_image(tensor).max() == 1
    assert np.array_equal(array, kept)
    assert tensor.max() > 1


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (None, TypeError, "NoneType"),
        (7, TypeError, "int"),
        (b"\x89PNG", TypeError, "io.BytesIO"),
        (io.StringIO("text"), TypeError, "'rb'"),
        (ramp().astype(np.int64), TypeError, "int64.*uint8"),
        (ramp() > 3, TypeError, "bool"),
        (ramp().transpose(2, 0, 1), ValueError, r"\(3, 24, 32\).*transpose\(1, 2, 0\)"),
        (np.zeros((8, 8, 4), np.uint8), ValueError, r"\(8, 8, 4\)"),
        (np.zeros(8, np.uint8), ValueError, r"\(8,\)"),
        (np.zeros((0, 8, 3), np.uint8), ValueError, r"\(0, 8, 3\)"),
        (ramp().astype(np.float32), ValueError, "divide by 255"),
        (np.full((8, 8), np.nan), ValueError, "NaN"),
        (torch.zeros(2, 3, 8, 8), ValueError, "one picture"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), TypeError, r"float\(\) / 255"),
    ],
)
def test_unusable_sources(source, error, words):
    with pytest.raises(error, match=words):
        read_image(source)


def test_unusable_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(IsADirectoryError, match=r"\w is a folder"):
        read_image(str(tmp_path))
    whole = encoded(Image.fromarray(ramp(64, 64))).getvalue()
    for name, content in {
        "empty.png": b"",
        "text.jpg": b"no picture at all" * 9,
        "short.png": whole[: len(whole) // 2],
        "short.jpg": encoded(Image.fromarray(ramp(64, 64)), "JPEG").getvalue()[:900],
        "head.png": whole[:20],
        "page.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OSError, match=name):
            read_image(tmp_path / name)


# Layouts


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGB", "YCbCr", "RGBX", "HSV"])
def test_modes_become_rgb(mode):
    image = Image.fromarray(ramp()).convert(mode)
    same(read_image(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("RGB", "BMP"),
    ],
)
def test_files_become_rgb(mode, kind):
    image = Image.fromarray(ramp()).convert(mode)
    file = encoded(image, kind)
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    same(read_image(file), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation(orientation, kind, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned"
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(ramp()).save(path, kind, exif=exif, **options)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert expected.shape[0] == (24 if orientation < 5 else 32)
    same(read_image(path), expected)
    same(read_image(Image.open(path)), expected)


def test_a_senseless_orientation_is_none():
    exif = Image.Exif()
    exif[0x0112] = 42
    same(read_image(encoded(Image.fromarray(ramp()), exif=exif)), ramp())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])  # Pillow before 12.1 loses PA's transparency
def test_alpha(mode):
    opaque = Image.fromarray(ramp()).convert("RGBA")
    same(read_image(opaque.convert(mode)), np.asarray(opaque.convert(mode).convert("RGB")))
    opaque.putpixel((3, 4), (9, 9, 9, 254))
    with pytest.raises(ValueError, match=r"transparent.*background"):
        read_image(opaque.convert(mode))


def test_declared_transparency():
    image = Image.fromarray(ramp()).quantize(16)
    with pytest.raises(ValueError, match="transparent"):
        read_image(encoded(image, transparency=3))
    unused = Image.fromarray(np.full((8, 8, 3), 60, np.uint8))
    same(read_image(encoded(unused, transparency=(1, 2, 3))), np.asarray(unused))
    with pytest.raises(ValueError, match="transparent"):
        read_image(encoded(unused, transparency=(60, 60, 60)))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_are_refused(kind):
    frames = [Image.fromarray(ramp(seed=seed)) for seed in range(3)]
    with pytest.raises(ValueError, match="3 frames"):
        read_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))


def test_the_first_picture_of_a_stereo_jpeg():
    flat = [Image.new("RGB", (16, 16), (40 * i, 9, 9)) for i in (1, 2)]
    picture = read_image(encoded(flat[0], "MPO", save_all=True, append_images=flat[1:]))
    assert picture[0].mean() == pytest.approx(40 / 255, abs=0.01)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [12_500, 20_000, 60_000])
def test_decompression_bombs(side, tmp_path):
    file = png16(np.zeros((1, 1), np.uint16)).getvalue()
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(file[:12] + header + struct.pack(">I", zlib.crc32(header)) + file[33:])
    assert side**2 > MAX_PIXELS
    with pytest.raises(ValueError, match=rf"bomb\.png.*{side**2} pixels"):
        read_image(path)


# 16 bits


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 2), (7, 9, 3), (7, 9, 4)])
@pytest.mark.parametrize("interlace", [False, True])
def test_16_bit_png_keeps_its_depth(shape, interlace, tmp_path):
    values = np.random.default_rng(1).integers(0, 65536, shape, dtype=np.uint16)
    if shape[2:] in ((2,), (4,)):
        values[..., -1] = 65535
    path = tmp_path / "deep.png"
    path.write_bytes(png16(values, interlace).getvalue())
    colors = values if values.ndim == 2 else values[..., : 3 if shape[2] > 2 else 1]
    expected = np.broadcast_to(colors.reshape(7, 9, -1), (7, 9, 3))
    same(read_image(path), expected, top=65535)
    same(read_image(Image.open(path)), expected, top=65535)
    with path.open("rb") as file:
        same(read_image(file), expected, top=65535)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_a_dark_16_bit_png_is_dark(shape):
    first, second = (read_image(png16(np.full(shape, value, np.uint16))) for value in (300, 301))
    assert first.max() == pytest.approx(300 / 65535)
    assert (second - first).min() == pytest.approx(1 / 65535, rel=1e-2)  # far below one 8-bit step


def test_16_bit_alpha():
    values = np.full((8, 8, 4), 65535, np.uint16)
    values[2, 3, 3] = 65534  # opaque once reduced to 8 bits
    with pytest.raises(ValueError, match="transparent"):
        read_image(png16(values))
    gray = np.arange(64, dtype=np.uint16).reshape(8, 8)
    with pytest.raises(ValueError, match="transparent"):
        read_image(png16(gray, key=(5,)))
    assert read_image(png16(gray, key=(500,))).max() == pytest.approx(63 / 65535)
    color = np.stack([gray] * 3, 2)
    with pytest.raises(ValueError, match="transparent"):
        read_image(png16(color, key=(5, 5, 5)))
    assert read_image(png16(color, key=(5, 5, 6))).shape == (3, 8, 8)


def test_a_tiff_with_too_few_strips():
    file = tiff16(np.full((9, 7, 3), 9, np.uint16)).getvalue()
    height = struct.pack("<HHII", 257, 4, 1, 9)
    assert file.count(height) == 1
    with pytest.raises(ValueError, match="cut short: it holds 63 of 700 pixels"):
        read_image(io.BytesIO(file.replace(height, struct.pack("<HHII", 257, 4, 1, 100))))


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
@pytest.mark.parametrize("big_endian", [False, True])
def test_16_bit_tiff_keeps_its_depth(shape, big_endian, tmp_path):
    values = np.random.default_rng(1).integers(0, 65536, shape, dtype=np.uint16)
    path = tmp_path / "deep.tif"
    path.write_bytes(tiff16(values, big_endian).getvalue())
    expected = np.broadcast_to(values.reshape(7, 9, -1), (7, 9, 3))
    same(read_image(path), expected, top=65535)
    same(read_image(Image.open(path)), expected, top=65535)


def test_other_16_bit_files():
    gray = np.arange(64, dtype=np.uint16).reshape(8, 8)
    color = np.stack([gray] * 3, 2)
    same(read_image(tiff16(gray, photometric=0)), 65535 - color, top=65535)
    same(read_image(encoded(Image.fromarray(gray), "TIFF", compression="tiff_lzw")), color, top=65535)
    same(read_image(Image.fromarray(gray.astype(np.int32))), color, top=65535)  # mode I
    same(read_image(io.BytesIO(b"P5 8 8 65535\n" + gray.astype(">u2").tobytes())), color, top=65535)
    with pytest.raises(ValueError, match="16-bit PNG"):
        read_image(tiff16(color, planar=2))
    with pytest.raises(ValueError, match="16-bit PNG"):
        read_image(io.BytesIO(b"P6 8 8 65535\n" + color.astype(">u2").tobytes()))
    with pytest.raises(ValueError, match="-1 to 62"):
        read_image(Image.fromarray(gray.astype(np.int32) - 1))


def test_float_images():
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    assert torch.equal(read_image(encoded(Image.fromarray(values), "TIFF"))[1], torch.from_numpy(values))
    with pytest.raises(ValueError, match="divide by 255"):
        read_image(Image.fromarray(values * 200))


# Fuzz


def test_mutated_files_raise_nothing_else():
    exif = Image.Exif()
    exif[0x0112] = 6
    small = Image.fromarray(ramp(9, 7))
    originals = [
        encoded(small, exif=exif).getvalue(),
        encoded(small.quantize(8), transparency=2).getvalue(),
        encoded(small.convert("RGBA")).getvalue(),
        png16(ramp(9, 7).astype(np.uint16) * 257).getvalue(),
        png16(ramp(9, 7)[..., :2].astype(np.uint16) * 257, interlace=True, key=None).getvalue(),
        encoded(small, "JPEG", exif=exif).getvalue(),
        encoded(small.convert("CMYK"), "JPEG").getvalue(),
        encoded(small, "JPEG", progressive=True).getvalue(),
        tiff16(ramp(9, 7).astype(np.uint16) * 257).getvalue(),
        encoded(small, "TIFF", compression="tiff_lzw").getvalue(),
        encoded(small, "GIF").getvalue(),
        encoded(small, "BMP").getvalue(),
        encoded(small, "WEBP", exif=exif).getvalue(),
    ]
    draw = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for turn in range(4000):
            content = bytearray(originals[turn % len(originals)])
            for _ in range(draw.choice((1, 1, 2, 5))):
                place = draw.randrange(len(content))
                action = draw.randrange(4)
                if action == 0:
                    content[place] = draw.randrange(256)
                elif action == 1:
                    content[place] ^= 1 << draw.randrange(8)
                elif action == 2:
                    del content[place : place + draw.randrange(1, 9)]
                else:
                    content[place:place] = draw.randbytes(draw.randrange(1, 9))
                if not content:
                    break
            start = time.process_time()
            try:
                picture = read_image(io.BytesIO(bytes(content)))
            except OWN:
                outcomes["refused"] += 1
            else:
                assert picture.shape[0] == 3
                assert 0 <= picture.min() <= picture.max() <= 1
                outcomes["read"] += 1
            assert time.process_time() - start < 5
    assert min(outcomes.values()) > 200


# check_batch


def test_good_batches_pass_unchanged():
    x = torch.rand(2, 3, 8, 9)
    assert check_batch(x, 8, CPU) is x
    assert torch.equal(check_batch(x[0], 8, CPU), x[:1])
    wide = x.double()
    assert check_batch(wide, 8, CPU) is wide


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_become_float32(dtype):
    x = torch.rand(1, 3, 8, 8).to(dtype)
    assert torch.equal(check_batch(x, 8, CPU), x.float())


def test_slightly_outside_is_clamped_and_the_gradient_flows():
    x = torch.rand(1, 3, 8, 8)
    x[..., 0], x[..., 1], x[..., 2] = 0, 1, 1.009
    x.requires_grad_()
    y = check_batch(x, 8, CPU)
    assert (y.min(), y.max()) == (0, 1)
    y.sum().backward()
    expected = torch.ones_like(x)
    expected[..., 2] = 0
    assert torch.equal(x.grad, expected)


def test_strides_of_any_kind():
    x = torch.rand(2, 3, 16, 12)
    for view in (
        x.to(memory_format=torch.channels_last),
        x[:, :, ::2, 1:],
        x.transpose(2, 3),
        x[:1].expand(5, -1, -1, -1),
        x[:, :1].expand(-1, 3, -1, -1),
        x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    ):
        assert torch.equal(check_batch(view, 4, CPU), view)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (np.zeros((3, 8, 8)), TypeError, "ndarray.*read_image"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, r"uint8.*x.float\(\) / 255"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), TypeError, "int64"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.bool), TypeError, "bool"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), TypeError, "complex64"),
        (torch.zeros(3, 8, 8).to_sparse(), TypeError, "sparse"),
        (torch.zeros(8, 8), ValueError, r"\(8, 8\).*expand"),
        (torch.zeros(()), ValueError, r"\(\)"),
        (torch.zeros(1, 2, 3, 8, 8), ValueError, "flatten"),
        (torch.zeros(1, 8, 8), ValueError, r"1 channels.*x.expand\(3, -1, -1\)"),
        (torch.zeros(2, 1, 8, 8), ValueError, r"1 channels.*x.expand\(-1, 3, -1, -1\)"),
        (torch.zeros(2, 4, 8, 8), ValueError, "4 channels.*alpha"),
        (torch.zeros(2, 5, 8, 8), ValueError, "5 channels"),
        (torch.zeros(8, 8, 3), ValueError, r"permute\(2, 0, 1\)"),
        (torch.zeros(2, 8, 8, 3), ValueError, r"permute\(0, 3, 1, 2\)"),
        (torch.zeros(0, 3, 8, 8), ValueError, "empty"),
        (torch.zeros(1, 3, 0, 8), ValueError, "too small"),
        (torch.zeros(1, 3, 7, 8), ValueError, "7 x 8.*must be 8"),
        (torch.full((1, 3, 8, 8), torch.nan), ValueError, "NaN"),
        (torch.full((1, 3, 8, 8), torch.inf), ValueError, "infinity"),
        (torch.full((1, 3, 8, 8), -torch.inf), ValueError, "infinity"),
        (torch.full((1, 3, 8, 8), 200.0), ValueError, r"\[200, 200\].*divide by 255"),
        (torch.full((1, 3, 8, 8), 60000.0), ValueError, "divide by 65535"),
        (torch.full((1, 3, 8, 8), -0.9), ValueError, r"\(x \+ 1\) / 2"),
        (torch.full((1, 3, 8, 8), 1.02), ValueError, "clamp"),
        (torch.full((1, 3, 8, 8), -0.02), ValueError, "clamp"),
    ],
)
def test_unusable_batches(x, error, words):
    with pytest.raises(error, match=words):
        check_batch(x, 8, CPU)


def test_another_device():
    with pytest.raises(ValueError, match=r"on meta.*on cpu.*x.to\('cpu'\).*metric.to\('meta'\)"):
        check_batch(torch.zeros(1, 3, 8, 8, device="meta"), 8, CPU)


DTYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.uint8,
    torch.int16,
    torch.complex64,
]


@settings(max_examples=500, deadline=None, database=None)
@given(
    shape=st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 9]), max_size=5),
    dtype=st.sampled_from(DTYPES),
    fill=st.sampled_from([0.0, 0.5, 1.0, 1.005, -0.005, 1.5, 100.0, -1.0, float("nan"), float("inf")]),
    turn=st.booleans(),
)
def test_any_tensor_is_checked_or_refused(shape, dtype, fill, turn):
    integral = not (dtype.is_floating_point or dtype.is_complex)
    x = torch.full(shape, 1 if integral else fill, dtype=dtype)
    x = x.transpose(0, -1) if turn and x.ndim else x
    try:
        y = check_batch(x, 4, CPU)
    except OWN:
        pass
    else:
        assert y.shape[-3:] == x.shape[-3:]
        assert y.dtype in (torch.float32, torch.float64)
        assert 0 <= y.min() <= y.max() <= 1


# Files that are not what they seem


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match=r"pipe\.png is a pipe or a device"):
        read_image(tmp_path / "pipe.png")


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.98])
def test_a_jpeg_cut_short_is_refused_though_an_end_marker_follows(share, subsampling):
    noise = Image.fromarray(ramp(120, 90))
    whole = encoded(noise, "JPEG", quality=90, subsampling=subsampling).getvalue()
    same(read_image(io.BytesIO(whole)), np.asarray(Image.open(io.BytesIO(whole))))
    with pytest.raises(OSError, match="cut short"):
        read_image(io.BytesIO(whole[: int(share * len(whole))] + b"\xff\xd9"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 3}])
@pytest.mark.parametrize("size", [(64, 64), (61, 35), (8, 8), (1, 1)])
@pytest.mark.parametrize("value", [0, 128, 255, None])
def test_whole_jpegs_of_all_kinds_are_read(options, size, value):
    """Flat ones too, whose data are hardly longer than their blocks are many; with bytes behind the end marker."""
    image = Image.fromarray(ramp(*size[::-1])) if value is None else Image.new("RGB", size, (value,) * 3)
    content = encoded(image, "JPEG", **options).getvalue()
    for trailer in (b"", b"\0" * 20, b"\xff\xd9 more"):
        same(read_image(io.BytesIO(content + trailer)), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_a_small_jpeg_that_claims_to_be_large_costs_no_memory():
    content = encoded(Image.new("RGB", (16, 16)), "JPEG").getvalue()
    start = content.index(b"\xff\xc0") + 5
    content = content[:start] + struct.pack(">HH", 12_000, 12_000) + content[start + 4 :]
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"cut short: .* bytes cannot hold 12000 x 12000 pixels"):
        read_image(io.BytesIO(content))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_picture_too_large_for_the_memory_is_one_of_our_errors(error, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise error

    Image.fromarray(ramp()).save(tmp_path / "large.png")
    monkeypatch.setattr(images, "_samples" if isinstance(error, MemoryError) else "_from_array", fail)
    with pytest.raises(ValueError, match=r"large\.png does not fit into the available memory; scale it down"):
        read_image(tmp_path / "large.png")


def test_pillow_adds_no_lines(tmp_path, capfd):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(ramp()), "JPEG", exif=exif).getvalue()
    place = content.index(b"Exif\0\0") + 6
    content = content[: place + 8] + b"\xff\xff" + content[place + 10 :]  # an EXIF block that ends too early
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_image(io.BytesIO(content))
    assert not caught
    assert capfd.readouterr().err == ""
