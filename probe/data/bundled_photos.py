"""Real photographs that travel inside the scikit-image wheel, cut into fixed crops: images for a
first run with no network.

Only files of the installed wheel are used (scikit-image would download others). Crops of one
photograph are not independent: all carry the photograph as their source, so that the jackknife
keeps them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from probe.data.images import read_image
from probe.errors import ProbeError

# photograph -> its files; the two views of the motorcycle show one scene
PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    "astronaut": ("astronaut.png",),
    "brick": ("brick.png",),
    "camera": ("camera.png",),
    "chelsea": ("chelsea.png",),
    "coffee": ("coffee.png",),
    "coins": ("coins.png",),
    "grass": ("grass.png",),
    "gravel": ("gravel.png",),
    "hubble": ("hubble_deep_field.jpg",),
    "ihc": ("ihc.png",),
    "moon": ("moon.png",),
    "motorcycle": ("motorcycle_left.png", "motorcycle_right.png"),
    "retina": ("retina.jpg",),
    "rocket": ("rocket.jpg",),
}
# Square crops: side as a share of the short side; centre as a share of the room left, across and
# down.
CROPS = (
    (1.0, 0.5, 0.5),
    (0.65, 0.0, 0.0),
    (0.65, 1.0, 1.0),
    (0.65, 1.0, 0.0),
    (0.65, 0.0, 1.0),
    (0.5, 0.5, 0.5),
    (0.5, 0.0, 0.5),
    (0.5, 1.0, 0.5),
)


@dataclass(frozen=True)
class Crop:
    """One crop: id `bundled/astronaut#03`, source `bundled/astronaut`."""

    photograph: str
    number: int
    file: Path

    @property
    def id(self) -> str:
        return f"{self.source}#{self.number:02d}"

    @property
    def source(self) -> str:
        return f"bundled/{self.photograph}"

    def read(self) -> Image.Image:
        """The crop as an RGB image. Raises BadImage."""
        photograph = _photograph(self.file)
        return photograph.crop(crop_box(photograph.size, self.number))


def crop_box(size: tuple[int, int], number: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom pixel of a crop of an image of `size` (width, height)."""
    share, across, down = CROPS[number]
    side = round(min(size) * share)
    left, top = round((size[0] - side) * across), round((size[1] - side) * down)
    return left, top, left + side, top + side


def bundled_crops() -> list[Crop]:
    """Every crop, interleaved: crop 0 of all photographs, then crop 1 of all, so that a short list
    still shows every photograph.

    Raises ProbeError where the wheel holds none of them.
    """
    folder = _wheel_folder()
    present = {
        name: files
        for name, files in PHOTOGRAPHS.items()
        if all((folder / file).is_file() for file in files)
    }
    if not present:
        raise ProbeError(
            f"scikit-image at {folder} holds none of the bundled photographs; give --data FOLDER"
        )
    return [
        Crop(name, number, folder / files[number % len(files)])
        for number in range(len(CROPS))
        for name, files in present.items()
    ]


def _wheel_folder() -> Path:
    spec = find_spec("skimage")  # found without importing it
    if spec is None or not spec.submodule_search_locations:
        raise ProbeError(
            "the bundled photographs need scikit-image, which is not installed; install it or "
            "give --data FOLDER"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


@lru_cache(maxsize=2)  # neighbours in the sorted list are crops of one photograph
def _photograph(file: Path) -> Image.Image:
    return read_image(file)


__all__ = ["Crop", "bundled_crops", "crop_box"]
