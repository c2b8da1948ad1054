"""Any image file to 8-bit RGB, or a stated reason why not.

Pixels are turned upright by their EXIF orientation, transparency is composed on white (what a page
would show), an animated or multi-page file gives its first frame, 16-bit grey is scaled (value *
255 / 65535), never clipped. Floating-point and 32-bit pixels have no stated range, so they are
refused rather than guessed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from probe.errors import ProbeError, first_line, named_first_line

_SUFFIXES = (
    "jpg jpeg jpe jfif mpo png apng bmp dib gif tif tiff webp avif jp2 j2k jpx ppm pgm pbm pnm tga"
)
SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split(" "))
# Readers of raster formats only: some others of PIL start a program (EPS) or need one.
FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "BMP",
    "DIB",
    "GIF",
    "TIFF",
    "WEBP",
    "AVIF",
    "JPEG2000",
    "PPM",
    "TGA",
)
# a thinner strip would grow to gigabytes when its short side is resized to the model's input
MAX_ASPECT = 64


# decoded and turned upright, more would take gigabytes
MAX_PIXELS = 64_000_000


class BadImage(ProbeError):
    """This one image cannot be used; `reason` says why, in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_image(file: Path | IO[bytes]) -> Image.Image:
    """An image file, or its open bytes, as an RGB image. Raises BadImage for whatever is wrong with
    it, and nothing else.
    """
    try:
        with _strict(), Image.open(file, formats=_known_formats()) as image:
            _check_pixels(image)
            image.load()
            return to_rgb(_upright(image), image.format)
    except BadImage:
        raise
    except Exception as error:  # decoders raise some ten different types on broken bytes
        raise BadImage(_reason(error)) from None


def to_rgb(image: Image.Image, kind: str | None = None) -> Image.Image:
    """A decoded image of any mode as 8-bit RGB. kind: the format of its file. Raises BadImage."""
    width, height = image.size
    if max(width, height) > MAX_ASPECT * max(1, min(width, height)):
        raise BadImage(f"{width} x {height} pixels: thinner than 1 to {MAX_ASPECT}")
    if image.mode.startswith("I"):
        return Image.fromarray(_scale_16_bit(image, kind)).convert("RGB")
    if image.mode == "F":
        raise BadImage("floating-point pixels without a stated range")
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _check_pixels(image: Image.Image) -> None:
    """Raises BadImage for more than MAX_PIXELS, from the header alone."""
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(
            f"{image.width} x {image.height} pixels: more than {MAX_PIXELS // 10**6} million"
        )


@contextmanager
def _strict() -> Iterator[None]:
    """No warnings (PIL warns of odd EXIF, palettes and sizes; what matters is raised), and no grey
    fill for missing pixels.
    """
    # some libraries switch it on for all
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; unreadable EXIF leaves the image as it lies, as viewers do."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF raises many types; the pixels themselves were decoded
        return image


def _scale_16_bit(image: Image.Image, kind: str | None) -> np.ndarray:
    """16-bit grey (H, W) to uint8. The 32-bit mode `I` is accepted where the format says that it
    holds 16 bits.
    """
    if image.mode == "I" and kind not in ("PNG", "PPM"):
        raise BadImage("32-bit integer pixels without a stated range")
    grey = np.asarray(image).astype(np.uint32)
    return ((grey * 255 + 32767) // 65535).astype(np.uint8)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, rgb, "LAB", "RGB"))
    if converted is None:
        raise BadImage("LAB colours that cannot be converted")
    return converted


def _on_white(image: Image.Image) -> Image.Image:
    background = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(background, image).convert("RGB")


def _reason(error: Exception) -> str:
    """One line for an exception of PIL or of the file system, without the path (the image's id is
    told beside it).
    """
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of no format that can be read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return first_line(error) if isinstance(error, OSError) else named_first_line(error)


__all__ = ["SUFFIXES", "BadImage", "read_image", "to_rgb"]
