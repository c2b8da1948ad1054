"""timm dataset names as image sources: `hfds/PATH_OR_NAME`, `torch/cifar10`, with options behind a
question mark.

Options: `split` (default: the first of validation, test, train that exists), `root` (where
torchvision datasets lie, the cache of Hugging Face ones), `input_key` (column of the images;
default: the first image column), `target_key` (column of the labels;
default: `label`). Example: `hfds/data/cifar10?split=train`, `torch/cifar10?root=data`. timm names:
https://huggingface.co/docs/timm
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from PIL import Image

from probe.data.images import BadImage, read_image, to_rgb
from probe.data.network import unreachable
from probe.data.source import ImageSource, choose, describe
from probe.errors import ProbeError, UsageError, first_line, unknown

SPLITS = ("validation", "val", "test", "train")
OPTIONS = ("split", "root", "input_key", "target_key")


@dataclass(frozen=True)
class DatasetReader:
    """Reads images of a timm or torchvision dataset by index."""

    dataset: Any
    rows: tuple[int, ...]

    def __call__(self, index: int) -> Image.Image:
        row = self.rows[index]
        reader = getattr(self.dataset, "reader", None)
        if reader is None:  # torchvision: (PIL image, target)
            return self._decoded(row)
        try:
            # timm's own __getitem__ would answer a broken image with the next one
            file = reader[row][0]
        except Exception as error:
            raise BadImage(f"cannot be read: {error}") from error
        with file:
            return read_image(file)

    def _decoded(self, row: int) -> Image.Image:
        try:
            return to_rgb(self.dataset[row][0])
        except BadImage:
            raise
        except Exception as error:
            raise BadImage(f"cannot be read: {error}") from error


def open_dataset(uri: str, num_images: int | None, seed: int) -> ImageSource:
    """Images of a timm dataset URI. Raises UsageError for one that timm cannot open, ProbeError
    without library or network.
    """
    name, _, query = uri.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in OPTIONS:
            raise unknown("dataset option", option, OPTIONS)
    kind = name.split("/", 1)[0].lower()
    if kind == "hfds":
        dataset, split = _hugging_face(name, options)
    elif kind == "torch":
        dataset, split = _torchvision(name, options)
    else:
        raise UsageError(
            f"data {uri!r} is a stream without a fixed order, which goes with a capture only, as "
            "hfids/...; accepted here: hfds/..., torch/..., or a folder"
        )
    if not len(dataset):
        raise UsageError(f"data {uri!r} holds no image in split {split!r}")
    rows = choose(len(dataset), num_images, seed)
    width = len(str(len(dataset) - 1))
    ids = tuple(f"{name}:{split}#{row:0{width}d}" for row in rows)
    described = describe("dataset", name, [(i, None) for i in ids], len(dataset), split=split)
    return ImageSource(ids, ids, described, DatasetReader(dataset, tuple(map(int, rows))))


def _hugging_face(name: str, options: dict[str, str]) -> tuple[Any, str]:
    datasets = datasets_library(name)
    from timm.data.dataset_factory import create_dataset

    path, root = name.split("/", 1)[1], options.get("root")
    if not os.path.exists(path):
        need_hub(name)
    try:
        split = options.get("split") or first_split(datasets.get_dataset_split_names(path), name)
        features = datasets.load_dataset(path, split=split, cache_dir=root).features
        key = options.get("input_key") or next(
            (k for k, f in features.items() if isinstance(f, datasets.Image)), None
        )
        if key not in features:
            given = f"input_key {key!r}" if key else "no image column"
            raise UsageError(
                f"data {name!r}: {given}; its columns: {', '.join(features)}; name one by "
                "?input_key=COLUMN"
            )
        target = options.get("target_key", "label")
        if "target_key" in options and target not in features:
            raise UsageError(
                f"data {name!r}: target_key {target!r}; its columns: {', '.join(features)}"
            )
        return create_dataset(name, root=root, split=split, input_key=key, target_key=target), split
    except ProbeError:
        raise
    except Exception as error:  # the datasets library raises many types for what it cannot find
        raise UsageError(f"data {name!r} cannot be opened: {first_line(error)}") from error


def datasets_library(name: str) -> Any:
    """The package `datasets`. Raises ProbeError where it is not installed."""
    try:
        import datasets
    except ImportError:
        raise ProbeError(
            f"data {name!r} needs the package `datasets`: install the extra, pip install "
            "'probe-norms[hub]'"
        ) from None
    return datasets


def need_hub(name: str) -> None:
    """Raises ProbeError at once where the hub does not answer: the datasets library retries for
    half a minute.
    """
    from huggingface_hub import constants

    reason = None if constants.HF_HUB_OFFLINE else unreachable(constants.ENDPOINT)
    if reason:
        hint = (
            f"give a local folder ({name.split('/')[0]}/FOLDER, or FOLDER), or set "
            "HF_HUB_OFFLINE=1 if the dataset is in the cache"
        )
        raise ProbeError(
            f"data {name!r} is not a local folder and {constants.ENDPOINT} does not answer "
            f"({reason}); {hint}"
        )


def _torchvision(name: str, options: dict[str, str]) -> tuple[Any, str]:
    from timm.data.dataset_factory import create_dataset

    if "root" not in options:
        raise UsageError(f"data {name!r} needs to know where it lies: {name}?root=FOLDER")
    split = options.get("split", "validation")
    try:
        return create_dataset(name, root=options["root"], split=split, download=False), split
    except Exception as error:  # torchvision raises RuntimeError, timm asserts
        raise UsageError(
            f"data {name!r} with root {options['root']!r} cannot be opened: {first_line(error)}"
        ) from error


def first_split(present: list[str], name: str) -> str:
    for split in SPLITS:
        if split in present:
            return split
    raise UsageError(
        f"data {name!r} has the splits {', '.join(present)}; name one by {name}?split=NAME"
    )


__all__ = [
    "OPTIONS",
    "DatasetReader",
    "datasets_library",
    "first_split",
    "need_hub",
    "open_dataset",
]
