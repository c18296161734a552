"""One image file, decoded with Pillow."""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from robustgen.errors import DataError

Pixels = npt.NDArray[np.float32]
GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"}
QUARTER_TURNS = (5, 6, 7, 8)
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Look:
    """What an image file's header says: the size as seen (height, width), and whether it is grey."""

    size: tuple[int, int]
    grey: bool


def look(path: Path) -> Look:
    """Read an image's header only. Raises `DataError` with the reason if it is not a usable image."""
    with _image(path) as image:
        width, height = image.size
        costly = image.format == "PNG" and "exif" not in image.info  # Pillow would decode all of it in search of one
        turned = not costly and image.getexif().get(ORIENTATION) in QUARTER_TURNS
        return Look((width, height) if turned else (height, width), image.mode in GREY_MODES)


def decode(path: Path, shape: tuple[int, ...]) -> Pixels:
    """An image as (channels, height, width) in [0, 1], turned upright, on white, resized (bilinear, antialiased).

    Raises `DataError` with the reason if it is unreadable, cut short or suspiciously large.
    """
    channels, height, width = shape
    with _image(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            grey = np.asarray(_resized(_deep_grey(image), width, height), np.float32)
            return np.repeat(np.clip(grey, 0, 1)[None], channels, 0)
        if image.mode in ("LA", "La", "PA", "RGBa") or image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = _resized(image.convert("L" if channels == 1 else "RGB"), width, height)
        pixels = np.asarray(image, np.float32) / np.float32(255)
        return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def _deep_grey(image: Image.Image) -> Image.Image:
    """More than 8 bits of grey as floats: integers up to 65,535 are white at that, floats at 1."""
    values = np.asarray(image).astype(np.float32)
    if image.mode != "F":
        values /= 65_535
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise DataError("its greys are out of range: integers must be in [0, 65535], floats in [0, 1]")
    return Image.fromarray(values)


@contextlib.contextmanager
def _image(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong with it in the block becomes a `DataError` with the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                yield image
    except FileNotFoundError as error:
        raise DataError("it does not exist any more") from error
    except PermissionError as error:
        raise DataError("no permission to read it") from error
    except UnidentifiedImageError as error:
        raise DataError("it is not an image that Pillow knows") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"it is too large: {error}") from error
    except (
        OSError,
        EOFError,
        ValueError,
        SyntaxError,
        TypeError,
        KeyError,
        IndexError,
        OverflowError,
        struct.error,
        MemoryError,
        ZeroDivisionError,
    ) as error:
        raise error if isinstance(error, DataError) else DataError(f"it is damaged: {error}") from error
