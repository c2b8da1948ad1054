"""Every kind of image file becomes upright 8-bit RGB, or a stated reason; never another exception,
never a warning.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngImageFile

from probe.data import images, load_batch, open_images
from probe.data.images import BadImage, read_image

RED = (200, 30, 10)


def encoded(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def plain(mode: str = "RGB", color: object = RED, size: tuple[int, int] = (12, 8)) -> Image.Image:
    return Image.new(mode, size, color)


def palette(transparency: int | bytes | None = None) -> io.BytesIO:
    image = Image.new("P", (12, 8), 1)
    image.putpalette([0, 0, 0, *RED])
    return encoded(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


def grey16(value: int, kind: str, mode: str = "I;16") -> io.BytesIO:
    dtype = ">u2" if mode.endswith("B") else "<u2"
    return encoded(Image.frombytes(mode, (12, 8), np.full((8, 12), value, dtype).tobytes()), kind)


def rgb16_png(values: tuple[int, int, int]) -> io.BytesIO:
    """A PNG of 16 bits per channel, which PIL can read but not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = (b"\0" + struct.pack(">3H", *values) * 12) * 8
    header = struct.pack(">IIBBBBB", 12, 8, 16, 2, 0, 0, 0)
    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def animated(kind: str) -> io.BytesIO:
    frames = [plain(), plain(color=(0, 0, 255)), plain(color=(0, 255, 0))]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)


CASES = {
    "rgb jpeg": (lambda: encoded(plain(), "JPEG", quality=95), RED),
    "grayscale": (lambda: encoded(plain("L", 77), "PNG"), (77, 77, 77)),
    "bilevel": (lambda: encoded(plain("1", 1), "PNG"), (255, 255, 255)),
    "palette": (palette, RED),
    "palette, transparent colour": (lambda: palette(1), (255, 255, 255)),
    "palette, half transparent": (lambda: palette(bytes([255, 128])), (227, 142, 132)),
    "grey, transparent colour": (
        lambda: encoded(plain("L", 77), "PNG", transparency=77),
        (255, 255, 255),
    ),
    "grey and alpha": (lambda: encoded(plain("LA", (0, 128)), "PNG"), (127, 127, 127)),
    "rgba, transparent": (lambda: encoded(plain("RGBA", (*RED, 0)), "PNG"), (255, 255, 255)),
    "rgba, opaque": (lambda: encoded(plain("RGBA", (*RED, 255)), "WEBP", lossless=True), RED),
    "16-bit grey png": (lambda: grey16(25700, "PNG"), (100, 100, 100)),
    "16-bit grey png, white": (lambda: grey16(65535, "PNG"), (255, 255, 255)),
    "16-bit grey png, under 256": (lambda: grey16(200, "PNG"), (1, 1, 1)),
    "16-bit grey tiff": (lambda: grey16(25700, "TIFF"), (100, 100, 100)),
    "16-bit grey tiff, big-endian": (lambda: grey16(25700, "TIFF", "I;16B"), (100, 100, 100)),
    "16-bit pgm": (
        lambda: io.BytesIO(b"P5 12 8 65535\n" + np.full(96, 25700, ">u2").tobytes()),
        (100, 100, 100),
    ),
    "16-bit rgb png": (lambda: rgb16_png((51400, 7710, 2570)), RED),
    "cmyk jpeg": (
        lambda: encoded(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=95),
        (255, 0, 0),
    ),
    "cmyk tiff": (lambda: encoded(plain("CMYK", (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
    "ycbcr tiff": (lambda: encoded(plain().convert("YCbCr"), "TIFF"), RED),
    # L 53, a +80, b +67
    "lab tiff": (lambda: encoded(plain("LAB", (136, 208, 195)), "TIFF"), (255, 0, 0)),
    "animated gif": (lambda: animated("GIF"), RED),
    "animated webp": (lambda: animated("WEBP"), RED),
    "animated png": (lambda: animated("PNG"), RED),
    "pages of a tiff": (
        lambda: encoded(plain(), "TIFF", save_all=True, append_images=[plain(color=(0, 0, 255))]),
        RED,
    ),
    "bmp": (lambda: encoded(plain(), "BMP"), RED),
    "jpeg 2000": (lambda: encoded(plain(), "JPEG2000"), RED),
}


LOSSY = {"jpeg": 6, "ycbcr": 2, "lab": 12}


@pytest.mark.parametrize("case", CASES)
def test_every_pixel_format_becomes_rgb_of_the_right_colour(case: str) -> None:
    make, expected = CASES[case]
    image = read_image(make())
    assert (image.mode, image.size) == ("RGB", (12, 8))
    loss = next((loss for word, loss in LOSSY.items() if word in case), 1)
    np.testing.assert_allclose(
        np.asarray(image).reshape(-1, 3), np.tile(expected, (96, 1)), atol=loss
    )


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # the top left quarter is white
    # quarter turns to the left, then a mirror
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 3, 6: 1, 7: 1, 8: 3}[orientation]
    stored = np.rot90(upright, turns)
    stored = (
        stored[:, ::-1]
        if orientation in (2, 4, 7)
        else stored[:, ::-1]
        if orientation == 5
        else stored
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(
        encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif.tobytes())
    )
    np.testing.assert_allclose(np.asarray(image, dtype=int), upright, atol=25)


def test_broken_exif_leaves_the_image_as_it_lies() -> None:
    image = read_image(encoded(plain(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffgarbage"))
    assert image.size == (12, 8)


BROKEN = {
    "empty file": (lambda: io.BytesIO(), "not an image"),
    "text": (lambda: io.BytesIO(b"this is no image, although its name may say so"), "not an image"),
    "truncated jpeg": (lambda: io.BytesIO(encoded(noise(), "JPEG").getvalue()[:-400]), "truncated"),
    "truncated png": (lambda: io.BytesIO(encoded(noise(), "PNG").getvalue()[:-400]), "truncated"),
    "truncated gif": (
        lambda: io.BytesIO(encoded(noise().convert("P"), "GIF").getvalue()[:900]),
        "truncated",
    ),
    "png with a wrong checksum": (
        lambda: io.BytesIO(encoded(noise(), "PNG").getvalue().replace(b"IDAT", b"IDAU", 1)),
        ".",
    ),
    "float tiff": (lambda: encoded(plain("F", 0.5), "TIFF"), "floating-point"),
    "32-bit tiff": (lambda: encoded(plain("I", 70000), "TIFF"), "32-bit"),
    "strip": (lambda: encoded(plain(size=(1, 1000)), "PNG"), "thinner"),
    "postscript, which would start a program": (
        lambda: io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "not an image",
    ),
}


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_image_raises_bad_image_with_one_line(case: str) -> None:
    make, reason = BROKEN[case]
    with pytest.raises(BadImage, match=reason) as caught:
        read_image(make())
    assert caught.value.reason
    assert "\n" not in caught.value.reason


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(BadImage, match="Bomb"):
        read_image(encoded(plain(), "PNG"))


def test_a_large_image_under_the_limit_gives_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    # 96 pixels: PIL warns from here, refuses from twice as many
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90)
    assert read_image(encoded(plain(), "PNG")).size == (12, 8)


def test_truncated_files_are_refused_whatever_pil_was_told_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(BadImage, match="truncated"):
        read_image(io.BytesIO(encoded(noise(), "JPEG").getvalue()[:-400]))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_an_image_of_too_many_pixels_is_skipped_from_its_header_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (101, 100)).save(tmp_path / "large.png")
    Image.new("RGB", (100, 100)).save(tmp_path / "small.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    decode = PngImageFile.load

    def load(image: PngImageFile) -> object:
        assert image.width <= 100, "decoded"
        return decode(image)

    monkeypatch.setattr(PngImageFile, "load", load)
    batch = load_batch(open_images(tmp_path), lambda image: torch.zeros(3, 1, 1), range(2))
    assert batch.indices.tolist() == [1]
    [(name, reason)] = batch.skipped
    assert name == "large.png"
    assert reason.startswith("101 x 100 pixels: more than")
