"""Image files -> RGB images -> the tensor that the vision tower was trained on.

The preprocessing is LLaVA's, to the byte: pad to a square with the mean colour (or, where the
checkpoint says so, resize the shortest edge), bicubic resize, centre crop, rescale, normalise.
"""

from __future__ import annotations

import errno
import io
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from PIL import Image, UnidentifiedImageError

from cof.errors import DataError, cut
from cof.exif import Exif, as_stored, orientation, stored_size, upright
from cof.files import DiskError, Member, regular

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 178_956_970
"""Largest image that is opened, in pixels; beyond it Pillow itself suspects an attack."""

MAX_DOWNLOAD = 64 * 2**20
"""Largest file that is fetched from a URL, in bytes."""

EXACT_SIDE = 10_000
"""Longest edge in pixels that is padded as it is; a longer image is shrunk to it first, since its
square would take gigabytes."""

EXACT_RATIO = 100
"""Longest : shortest edge up to which a centre crop resizes the whole image; of a longer one only
the middle is resized, since nothing else is kept."""

# `load_image` checks the size itself and says so in one line.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)
_DEEP_RANGES = {"I;16": (65535,), "I": (255, 65535), "F": (1, 255, 65535)}


def load_image(
    path: str | Path | Member,
    *,
    exif: Exif = "apply",
    allow_url: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """An image file as RGB.

    Anything that Pillow opens (of an animation the first frame). Alpha is dropped and not
    composited (as published), 16-bit and float greys are scaled to 8 bit.

    Args:
        path: a file, one inside another, or with `allow_url` an http(s) address.
        exif: `apply` turns the picture upright, as people see it; `ignore` leaves it as it is
            stored, as the published code does and as benchmarks annotate it.
        allow_url: fetch a URL; refused otherwise.
        max_pixels: refuse larger images before decoding them.

    Raises:
        DataError: missing, a folder, empty, truncated, not an image, too large, or a URL that was
            not asked for; one line that names the file and says what to do.
        DiskError: the machine has no more open files to give; the image may be whole.
        MemoryError: it does not fit into memory; likewise.
    """
    url = None if isinstance(path, Member) else _URL.match(str(path))
    if url and not allow_url:
        raise DataError(
            f"image {str(path)!r} is a URL and is not fetched unless asked; "
            "download it, or allow it (--allow-url; load_image(url, allow_url=True))"
        )
    source = _fetch(str(path)) if url else _file(path)
    try:
        with Image.open(source) as image:
            _check_pixels(image.size, max_pixels)
            return to_rgb(upright(image) if exif == "apply" else as_stored(image))
    except Exception as error:
        raise _blame(path, error) from error


def header(path: str | Path | Member) -> tuple[tuple[int, int], int]:
    """Size (width, height) in pixels as stored, and EXIF orientation (1 to 8); nothing is decoded.

    Raises:
        DataError, DiskError: see `load_image`.
    """
    try:
        with Image.open(_file(path)) as image:
            return stored_size(image), orientation(image)
    except DataError:
        raise
    except Exception as error:
        raise _blame(path, error) from error


def _file(path: str | Path | Member) -> Path | BinaryIO:
    """The file, if it can hold an image."""
    if isinstance(path, Member):
        return path.open()
    try:
        file = regular(Path(path))
        if file.stat().st_size:
            return file
        problem = "is empty (0 bytes); fetch it again"
    except DiskError as error:
        problem = str(error).removeprefix(f"{Path(path)}: ")
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            problem = "does not exist; check the path"
    raise DataError(f"image {str(path)!r} {problem}")


def _fetch(url: str) -> BinaryIO:
    """The bytes behind an http(s) address."""
    from urllib.request import Request, urlopen

    if not url.lower().startswith(("http://", "https://")):
        raise DataError(f"image {url!r}: only http and https addresses can be fetched")
    try:
        with urlopen(Request(url, headers={"User-Agent": "cof"}), timeout=30) as reply:
            data = reply.read(MAX_DOWNLOAD + 1)
    except Exception as error:  # urllib, http.client, ssl and socket errors share no base
        raise DataError(f"image {url!r} cannot be fetched ({_one_line(error)})") from error
    if len(data) > MAX_DOWNLOAD:
        raise DataError(f"image {url!r} is larger than {MAX_DOWNLOAD} bytes; download it yourself")
    return io.BytesIO(data)


def _check_pixels(size: tuple[int, int], limit: int) -> None:
    """Refuse an image by the size in its header."""
    if size[0] * size[1] > limit:
        raise Image.DecompressionBombError(
            f"{size[0]} x {size[1]} pixels, the limit is {limit} pixels"
        )


_FULL = (errno.EMFILE, errno.ENFILE)
"""The system's own limits: the next image would fail as well."""


def _blame(path: str | Path | Member, error: Exception) -> Exception:
    """What a failure while an image is opened and decoded is to be reported as.

    Decoders raise whatever a damaged file makes them trip over, so what is left when the machine's
    own troubles are sorted out is the file's.
    """
    if isinstance(error, MemoryError):
        return MemoryError(f"image {str(path)!r} does not fit into memory")
    number = error.errno if isinstance(error, OSError) else None  # Pillow's own have none
    if number == errno.ENOMEM:
        return MemoryError(f"image {str(path)!r} does not fit into memory")
    if number in _FULL:
        return DiskError(f"image {str(path)!r} cannot be opened ({_one_line(error)})")
    if number is not None:
        return DataError(f"image {str(path)!r} cannot be read ({_one_line(error)})")
    return DataError(f"image {str(path)!r} {_reason(error)}")


def _reason(error: Exception) -> str:
    """What a decoder's error means to the owner of the file."""
    if isinstance(error, UnidentifiedImageError):
        return "is not an image that Pillow can read; convert it to PNG or JPEG"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"is too large ({_one_line(error)}); scale it down first"
    return f"is damaged or cut off ({_one_line(error)}); fetch it again"


def _one_line(error: Exception) -> str:
    """An exception's text without line breaks, its type where it has none."""
    return cut(str(error), 200) or type(error).__name__


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB; alpha is dropped, deep greys are scaled."""
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    if mode in _DEEP_RANGES:
        return _eight_bit(image.convert("F"), _DEEP_RANGES[mode]).convert("RGB")
    return image.convert("RGB")


def _eight_bit(image: Image.Image, ranges: Sequence[int]) -> Image.Image:
    """Scale greys from the first range [0, top] that holds them all, else from their own range."""
    low, high = cast("tuple[float, float]", image.getextrema())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"grey values from {low} to {high}")
    tops = [top for top in ranges if low >= 0 and high <= top]
    bottom, span = (0.0, float(tops[0])) if tops else (low, high - low or 1.0)
    scale = 255 / span
    return image.point(lambda value: value * scale + (0.5 - bottom * scale)).convert("L")


def to_model_frame(
    image: Image.Image, size: int, fill: tuple[int, int, int], *, pad: bool = True
) -> Image.Image:
    """The 8-bit picture that the vision tower sees, before it becomes numbers.

    Args:
        image: RGB, any size from 1 x 1.
        size: edge of the model's input in pixels.
        fill: colour of the padding.
        pad: put the image on a square at floor offsets (LLaVA-1.5), instead of cutting off the
            ends of its longer edge (`image_aspect_ratio` other than `pad`).
    Returns: RGB, size x size.
    """
    return _padded(image, size, fill) if pad else _cropped(image, size)


def _padded(image: Image.Image, size: int, fill: tuple[int, int, int]) -> Image.Image:
    """The whole image in the middle of a square, resized."""
    if max(image.size) > EXACT_SIDE:
        scale = EXACT_SIDE / max(image.size)
        width, height = (max(1, round(edge * scale)) for edge in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    side = max(image.size)
    square = Image.new("RGB", (side, side), fill)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((size, size), Image.Resampling.BICUBIC)


def _cropped(image: Image.Image, size: int) -> Image.Image:
    """The middle square of the image, resized by its shortest edge."""
    short, long = min(image.size), max(image.size)
    if long > EXACT_RATIO * short:
        image = _middle(image, min(image.width, short * 3), min(image.height, short * 3))
        long = max(image.size)
    resized = int(size * long / short)
    shape = (resized, size) if image.width > image.height else (size, resized)
    return _middle(image.resize(shape, Image.Resampling.BICUBIC), size, size)


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    """The centre of an image, at floor offsets."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def preprocess(
    image: Image.Image, size: int, mean: Sequence[float], std: Sequence[float], *, pad: bool = True
) -> Tensor:
    """An RGB image as the vision tower's input: `frame_bytes`, then `normalised`.

    Returns: float32 [3, size, size], (value / 255 - mean) / std.
    """
    return normalised(frame_bytes(image, size, mean, pad=pad), mean, std)


def frame_bytes(
    image: Image.Image, size: int, mean: Sequence[float], *, pad: bool = True
) -> Tensor:
    """The bytes of `to_model_frame`; Pillow lets go of Python's lock, so threads may share this.

    Args:
        image: RGB, any size from 1 x 1.
        size: edge of the model's input in pixels.
        mean: per channel, of values in [0, 1]; the padding has the colour int(255 * mean).
        pad: see `to_model_frame`.
    Returns: uint8 [size, size, 3].
    """
    import numpy as np
    import torch

    red, green, blue = (int(255 * value) for value in mean)
    return torch.from_numpy(np.array(to_model_frame(image, size, (red, green, blue), pad=pad)))


def normalised(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Bytes as the numbers that the vision tower was trained on, on the device where they are.

    The steps of the published code, each rounded to float32, so that every device gives its bits.
    255 is a tensor of the device: CUDA divides by a number by multiplying with its reciprocal.

    Args:
        frames: uint8 [..., H, W, 3].
        mean: per channel, of values in [0, 1].
        std: per channel.
    Returns: float32 [..., 3, H, W] over the memory layout of `frames`.
    """
    import torch

    top, centre, scale = (
        torch.tensor(values, dtype=torch.float32, device=frames.device)[:, None, None]
        for values in ([255.0], mean, std)
    )
    return frames.movedim(-1, -3).float().div_(top).sub_(centre).div_(scale)
