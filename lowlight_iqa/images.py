"""Read and check pictures: the only module that turns files, images and arrays into tensors (3, H, W) in [0, 1].

Pillow reduces 16-bit color to 8 bits and has no other reader for it, so such files are decoded twice here, once for the
high and once for the low bytes.
"""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, Union

import torch
from einops import rearrange
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

Picture: TypeAlias = Union[str, "os.PathLike[str]", BinaryIO, "Image", "np.ndarray[Any, Any]", Tensor]

Check: TypeAlias = Literal["strict", "fast"]  # of a loss: "fast" does not inspect values

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 150_000_000  # a larger file is refused as a decompression bomb; Pillow's own limit is 179 million
SLACK = 0.01  # samples this far outside [0, 1] are clamped
OVERSHOOT = 0.1  # the same for the output of a network in training
LOOK_AHEAD = 8  # bytes beyond the data that the decoder of a complete JPEG may request
ORIENTATION = 0x0112  # EXIF tag
TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_PLANAR = 258, 262, 284

# A decoder that drops the low byte of 16-bit samples returns that byte when given the opposite byte order.
LOW_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


_SILENT = logging.NullHandler()


class _RefusedError(ValueError):
    """A message without its subject: the picture's name is put in front of it."""


def read_image(source: Picture) -> Tensor:
    """Read one picture as RGB.

    EXIF orientation is applied. 16-bit PNG and TIFF files are read at full depth, and so is a PIL image of one if it is
    not decoded yet. Gray, palette, CMYK and 1-bit pictures become RGB. Samples are taken as sRGB: an embedded ICC
    profile is ignored. Of a stereo or gain-map JPEG (MPO) the first picture is read. A fully opaque alpha channel is
    dropped.

    Args:
        source: a path; a binary file; a PIL image (mode I is 16-bit gray, mode F gray in [0, 1]); an ndarray
            (H, W), (H, W, 1) or (H, W, 3) of uint8, uint16 (full scale 65535) or floats in [0, 1]; or a float
            tensor (3, H, W) in [0, 1], which is checked and returned.

    Returns:
        (3, H, W) in [0, 1], float32 (a float64 tensor stays float64).

    Raises:
        TypeError: another type or dtype of source.
        ValueError: transparency, several frames, more than ``MAX_PIXELS``, values outside [0, 1], another shape.
        OSError: missing, unreadable, truncated or not a picture; the message names the file.

    Example:
        >>> import numpy as np
        >>> read_image("samples/coffee_dark.png").dtype
        torch.float32
        >>> read_image(np.full((64, 48), 65535, np.uint16)).mean((1, 2))
        tensor([1., 1., 1.])
    """
    import numpy as np
    from PIL import Image

    if isinstance(source, Tensor):
        if source.ndim != 3:
            raise ValueError(f"one picture is a tensor (3, H, W), not {tuple(source.shape)}; pass them one by one")
        return check_batch(source, 1, source.device)[0]
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(source)
    if callable(getattr(source, "read", None)):
        if not isinstance(source.read(0), bytes):
            raise TypeError("the file is open in text mode; open it with mode 'rb'")
        seekable = source if source.seekable() else io.BytesIO(source.read())
        return _from_file(seekable, str(getattr(source, "name", "the file")))

    advice = "wrap it in io.BytesIO" if isinstance(source, (bytes, bytearray)) else "convert it to one of these"
    raise TypeError(
        "a picture is a path, a binary file, a PIL image, an ndarray or a tensor, "
        f"not {type(source).__name__}; {advice}"
    )


def _from_path(path: str | os.PathLike[str]) -> Tensor:
    if os.path.isdir(path):
        raise IsADirectoryError(f"{os.fspath(path)} is a folder; give the pictures inside it")
    if not os.path.exists(path):
        raise FileNotFoundError(f"{os.fspath(path)} does not exist; check the path")
    if not os.path.isfile(path):
        raise OSError(f"{os.fspath(path)} is a pipe or a device, which may never end; save it as a file")
    with open(path, "rb") as file:
        return _from_file(file, os.fspath(path))


def _from_file(file: BinaryIO, name: str) -> Tensor:
    from PIL import Image

    Image.init()
    formats = [kind for kind in FORMATS if kind in Image.OPEN]  # AVIF depends on how Pillow was built

    def reopen() -> ImageFile:
        return Image.open(file, formats=formats)

    def decode() -> np.ndarray[Any, Any]:
        image = reopen()
        if image.format == "TIFF":
            _silence_libtiff()
        return _samples(_strict_jpeg(image, file) if image.format == "JPEG" else image, reopen)

    return _guarded(decode, name)


def _from_pil(image: Image) -> Tensor:
    name = str(getattr(image, "filename", "") or "the PIL image")
    file = getattr(image, "fp", None)
    if _deep_mode(image) and file is not None:  # not decoded yet, so the low bytes can still be read
        return _from_file(io.BytesIO(_read_all(file)), name)
    return _guarded(lambda: _samples(image, None), name)


def _guarded(decode: Callable[[], np.ndarray[Any, Any]], name: str) -> Tensor:
    """Run a decoder; every error becomes a ValueError or OSError with the picture's name."""
    from PIL import Image, UnidentifiedImageError

    logging.getLogger("PIL").addHandler(_SILENT)  # without a handler, Pillow's messages would reach the terminal
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        samples = decode()
    except _RefusedError as error:
        raise ValueError(f"{name} {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name} is refused: {error} Scale it down first") from error
    except MemoryError as error:
        raise _too_large(name) from error
    except Exception as error:  # Pillow reports damage as SyntaxError, struct.error, KeyError, ...
        unknown = isinstance(error, UnidentifiedImageError)  # which names the file object, address in memory and all
        reason = "of no known format" if unknown else error or type(error).__name__
        raise OSError(
            f"{name} is damaged, cut short or not a picture ({reason}); download it again or convert it to PNG"
        ) from error

    try:
        return _from_array(samples)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    except (MemoryError, RuntimeError) as error:  # torch reports a lack of memory as a RuntimeError
        raise _too_large(name) from error


@functools.cache
def _silence_libtiff() -> None:
    """Keep libtiff from writing to stderr; Pillow raises what went wrong."""
    from PIL import _imaging

    with suppress(OSError, AttributeError):  # where Pillow was built with libtiff inside, its lines stay
        library = ctypes.CDLL(_imaging.__file__)  # symbols of the libraries it was linked to are found through it
        library.TIFFSetErrorHandler.argtypes = [ctypes.c_void_p]
        library.TIFFSetErrorHandler.restype = ctypes.c_void_p
        library.TIFFSetErrorHandler(None)


def _too_large(name: str) -> ValueError:
    return ValueError(f"{name} does not fit into the available memory; scale it down first")


def _read_all(file: BinaryIO) -> bytes:
    """Read a file from its start and restore its position."""
    position = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(position)
    return content


def _strict_jpeg(image: ImageFile, file: BinaryIO) -> ImageFile:
    """Return a JPEG that fails to load if it was cut short, even if an end marker follows its data.

    Without the end marker the decoder reports missing data instead of filling it with gray. A progressive file without
    its last scans is a complete, coarser picture, which cannot be noticed.
    """
    from PIL import Image

    content = _read_all(file)
    blocks = -(-image.width // 8) * -(-image.height // 8)
    if 8 * len(content) < blocks:  # a Huffman code has at least one bit for a block
        raise _RefusedError(
            f"is cut short: {len(content)} bytes cannot hold {image.width} x {image.height} pixels; download it again"
        )
    end = content.rfind(b"\xff\xd9")
    if end < 0 or image.info.get("progressive"):
        return image
    return Image.open(io.BytesIO(content[:end] + bytes(LOOK_AHEAD)), formats=["JPEG"])


def _samples(image: Image, reopen: Callable[[], ImageFile] | None) -> np.ndarray[Any, Any]:
    """Return the upright samples of an image, (H, W) or (H, W, 3): uint8, uint16 or floats."""
    import numpy as np

    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _RefusedError(
            f"has {width * height} pixels ({width} x {height}), more than {MAX_PIXELS}; scale it down first"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise _RefusedError(f"has {frames} frames; save the one to be scored as a picture of its own")
    _check_coverage(image)

    deep = _deep_mode(image)
    transparent = image.info.get("transparency")
    if deep and reopen is not None:
        values = _sixteen_bits(image, reopen, deep)
        if values.ndim == 3 and values.shape[2] in (2, 4):
            _check_opaque(values[..., -1], 65535)
            values = values[..., :-1]
        _check_key(values, transparent)
    elif image.mode == "F":
        values = np.asarray(image)
    elif image.mode.startswith("I"):
        values = _gray_sixteen_bits(image)
    elif image.mode in ("P", "PA", "LA", "RGBA", "RGBa") or transparent is not None:
        values = np.asarray(image.convert("RGBA"))
        _check_opaque(values[..., 3], 255)
        values = values[..., :3]
    else:
        values = np.asarray(image.convert("RGB"))
    # Read the tag last: loading a TIFF rotates the picture and resets it.
    return _upright(values, image.getexif().get(ORIENTATION, 1))


def _check_coverage(image: Image) -> None:
    """Refuse a TIFF whose strips end before the picture does; Pillow would leave the rest black."""
    if image.format == "TIFF":
        boxes = [tile[1] for tile in getattr(image, "tile", None) or []]
        covered = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
        total = image.width * image.height
        if boxes and covered < total:
            raise _RefusedError(f"is cut short: it holds {covered} of {total} pixels; download it again")


def _decoder_args(image: Image) -> tuple[Any, ...]:
    """Return the decoder's arguments, raw mode first, of an image that is not decoded yet, else ()."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ()
    args: Any = tiles[0][3]
    return args if isinstance(args, tuple) else (args,)


def _deep_mode(image: Image) -> str:
    """Return the raw mode of a file with 16-bit color that Pillow would reduce to 8 bits, else ""."""
    args = _decoder_args(image)
    raw, rest = (str(args[0]), args[1:]) if args else ("", ())
    if image.format == "PPM" and image.mode == "RGB" and rest and rest[0] > 255:
        return "PPM"

    bits = getattr(image, "tag_v2", {}).get(TIFF_BITS, ())
    wide = max(bits, default=0) > 8 or (image.format == "PNG" and ";16" in raw)
    return raw if raw and wide and image.mode[0] not in "IF" else ""


def _sixteen_bits(image: Image, reopen: Callable[[], ImageFile], raw: str) -> np.ndarray[Any, Any]:
    """Decode (H, W, C) uint16 by reading the file twice, since Pillow returns the high bytes only."""
    import numpy as np

    kind, _, order = raw.partition(";16")
    planes = getattr(image, "tag_v2", {}).get(TIFF_PLANAR) == 2
    if kind == "LA":  # four bytes a pixel, so that RGBA holds the high and low bytes of both channels
        halves = np.asarray(_with_raw_mode(image, "RGBA")).astype(np.uint16)
        return halves[..., 0::2] << 8 | halves[..., 1::2]
    if kind not in ("RGB", "RGBA", "RGBX") or planes:
        raise _RefusedError(f"has 16-bit color in a layout ({raw}) that cannot be read; save it as 16-bit PNG")

    low = np.asarray(_with_raw_mode(reopen(), f"{kind};16{LOW_BYTE[order]}"))
    samples: np.ndarray[Any, Any] = np.asarray(image).astype(np.uint16) << 8 | low
    return samples


def _with_raw_mode(image: Any, raw: str) -> Image:
    """Make an image decode as another raw mode of the same number of bits."""

    def args(old: Any) -> Any:
        return (raw, *old[1:]) if isinstance(old, tuple) else raw

    tiles = image.tile
    if hasattr(tiles[0], "_replace"):
        image.tile = [tile._replace(args=args(tile.args)) for tile in tiles]
    else:  # Pillow before 11
        image.tile = [(*tile[:3], args(tile[3])) for tile in tiles]
    return image  # type: ignore[no-any-return]


def _gray_sixteen_bits(image: Image) -> np.ndarray[Any, Any]:
    """Return samples (H, W) in [0, 1] of the modes I and I;16."""
    import numpy as np

    white = 4095 if _decoder_args(image)[:1] == ("I;12",) else 65535
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if low < 0 or high > white:
        raise _RefusedError(f"has samples of {low} to {high}, not of 16 bits; save it as 16-bit PNG")
    _check_key(values, image.info.get("transparency"))

    # Pillow honors "white is zero" for 8 bits only.
    white_is_zero = getattr(image, "tag_v2", {}).get(TIFF_PHOTOMETRIC) == 0
    samples: np.ndarray[Any, Any] = (white - values if white_is_zero else values) / np.float32(white)
    return samples


def _check_opaque(alpha: np.ndarray[Any, Any], opaque: int) -> None:
    if (alpha != opaque).any():
        raise _RefusedError("has transparent pixels; composite it on a background first")


def _check_key(values: np.ndarray[Any, Any], key: object) -> None:
    """Refuse a 16-bit picture with pixels of the color that its file declares transparent."""
    if key is not None and (values == key).reshape(*values.shape[:2], -1).all(-1).any():
        raise _RefusedError("has transparent pixels; composite it on a background first")


def _upright(values: np.ndarray[Any, Any], orientation: object) -> np.ndarray[Any, Any]:
    """Undo an EXIF orientation of 1 to 8; anything else counts as 1."""
    import numpy as np

    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = np.flip(values, 1)
    if orientation in (3, 4, 7, 8):
        values = np.flip(values, 0)
    return values


def _from_array(values: np.ndarray[Any, Any]) -> Tensor:
    """Convert (H, W), (H, W, 1) or (H, W, 3) to (3, H, W) float32."""
    import numpy as np

    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3) or not values.size:
        channels_first = values.ndim == 3 and values.shape[0] == 3
        advice = "use .transpose(1, 2, 0)" if channels_first else "give (H, W) or (H, W, 3)"
        raise ValueError(f"an array of shape {values.shape} is not one picture; {advice}")
    if values.dtype.kind != "f" and values.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"an array of {values.dtype} has no known white; give uint8, uint16 or floats in [0, 1]")

    native = np.require(values, values.dtype.newbyteorder("="), ["C", "W"])  # torch needs native byte order
    x = rearrange(torch.from_numpy(native), "h w c -> c h w")
    x = x.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if values.dtype.kind != "f":
        x /= float(np.iinfo(values.dtype).max)
    return _check_values(x.expand(3, -1, -1).contiguous())


def check_output(x: Tensor, min_size: int, device: torch.device, check: Check) -> tuple[Tensor, Tensor]:
    """Check and clamp the batch that a loss is computed on; see ``check_batch``.

    With "strict", values up to ``OVERSHOOT`` outside [0, 1] are clamped if x requires a gradient, up to ``SLACK`` if
    not; with "fast" all are clamped, and none is inspected. Also return the mean distance (N,) of each picture from
    [0, 1].
    """
    x = _check_tensor(x, min_size, device)
    if check == "strict" and not x.requires_grad:
        x = _check_values(x)
    elif check == "strict":
        x = _check_values(x, OVERSHOOT, clamp=False)
    inside = x.clamp(0, 1)
    return inside, (x - inside).abs().flatten(1).mean(1)


def check_batch(x: Tensor, min_size: int, device: torch.device) -> Tensor:
    """Check the input of a metric and return it as a batch.

    Values up to ``SLACK`` outside [0, 1] are clamped; inside, 0 and 1 included, the gradient passes unchanged.

    Args:
        x: (N, 3, H, W) or (3, H, W), RGB in [0, 1], of any floating dtype and any strides.
        min_size: the shortest side accepted, in pixels.
        device: where the metric computes.

    Returns:
        (N, 3, H, W) in [0, 1], float64 for float64 input, else float32.

    Raises:
        TypeError: not a dense floating tensor.
        ValueError: another shape, an empty batch, too small, NaN, infinity, outside [0, 1], another device.
    """
    return _check_values(_check_tensor(x, min_size, device))


def _check_tensor(x: Tensor, min_size: int, device: torch.device) -> Tensor:
    """Check everything but the values and return a batch (N, 3, H, W), float64 for float64 input, else float32."""
    if not isinstance(x, Tensor):
        raise TypeError(f"expected a tensor, not {type(x).__name__}; lowlight_iqa.read_image makes one of it")
    if x.is_nested:
        raise TypeError("pictures are a dense tensor, not a nested one; give a list of pictures, x.unbind()")
    if not x.is_floating_point() or x.layout is not torch.strided:
        advice = "x.float() / 255" if x.dtype == torch.uint8 else "a dense float tensor in [0, 1]"
        what = x.dtype if x.layout is torch.strided else x.layout
        raise TypeError(f"pictures are floats in [0, 1], not {what}; give {advice}")
    _check_shape(tuple(x.shape), min_size)
    if x.device != device:
        raise ValueError(
            f"the picture is on {x.device} and the metric on {device}; use x.to('{device}') or metric.to('{x.device}')"
        )
    x = x if x.ndim == 4 else x[None]
    return x if x.dtype == torch.float64 else x.float()


def _check_shape(shape: tuple[int, ...], min_size: int) -> None:
    if len(shape) not in (3, 4):
        advice = "reshape it"
        if len(shape) == 2:
            advice = "use x.expand(3, -1, -1) for gray"
        elif len(shape) == 5:
            advice = "use x.flatten(0, 1) for video"
        raise ValueError(f"pictures are (N, 3, H, W) or (3, H, W), not {shape}; {advice}")

    channels = shape[-3]
    if channels != 3:
        if shape[-1] == 3:
            advice = f"channels come first: use x.permute({'2, 0, 1' if len(shape) == 3 else '0, 3, 1, 2'})"
        elif channels == 1:
            advice = f"use x.expand({'' if len(shape) == 3 else '-1, '}3, -1, -1) for gray"
        elif channels == 4:
            advice = "composite it on a background and drop alpha"
        else:
            advice = "give RGB"
        raise ValueError(f"a picture of shape {shape} has {channels} channels, not 3; {advice}")

    if shape[0] == 0:
        raise ValueError(f"the batch of shape {shape} is empty; give at least one picture")
    if min(shape[-2:]) < min_size:
        raise ValueError(
            f"a picture of {shape[-2]} x {shape[-1]} is too small, its shortest side must be {min_size}; "
            "score a larger one or interpolate it"
        )


def _check_values(x: Tensor, slack: float = SLACK, clamp: bool = True) -> Tensor:
    """Refuse values more than ``slack`` outside [0, 1] and clamp the others; a compiled graph clamps all of them."""
    if torch.compiler.is_compiling():
        return x.clamp(0, 1) if clamp else x

    low, high = (bound.item() for bound in x.detach().aminmax())
    if low >= 0 and high <= 1:
        return x
    if low >= -slack and high <= 1 + slack:
        return x.clamp(0, 1) if clamp else x

    which = "the picture"
    if len(x) > 1:  # find the picture of the batch
        bounds = [[bound.item() for bound in each.aminmax()] for each in x.detach()]
        index = next(i for i, (a, b) in enumerate(bounds) if not (a >= -slack and b <= 1 + slack))
        which = f"picture {index + 1} of {len(x)}"
        x, (low, high) = x[index], bounds[index]

    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise ValueError(f"{which} holds NaN or infinity ({low} to {high}); find out where they come from")
    whole = bool((x.detach() == x.detach().round()).all())
    if low >= -slack and (high > 2 or whole):
        advice = f"divide by {255 if high <= 256 else 65535}"
    elif low >= -1 - SLACK and low < -0.1 and high <= 1 + SLACK:
        advice = "if it lies in [-1, 1] use (x + 1) / 2, else clamp to [0, 1]"
    else:
        advice = "clamp to [0, 1]"
    raise ValueError(f"pictures lie in [0, 1], {which} in [{low:.4g}, {high:.4g}]; {advice}")
