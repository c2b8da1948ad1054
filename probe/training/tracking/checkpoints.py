"""Which files are the checkpoints of a training, and when in it each was written.

A folder is one of checkpoint files, one with a folder per checkpoint (`checkpoint-500/`), or a
finished training of this package, whose weights lie in its `checkpoints/`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors

from probe.errors import UsageError
from probe.models.loading.weights import PICKLES
from probe.training.folder import RECORD

SUFFIXES = (".safetensors", *PICKLES)
# what lies beside the weights in a folder of one checkpoint, by the libraries that write such
# folders
IN_A_FOLDER = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin", "model.pth")

UNITS = ("epoch", "step", "checkpoint")  # what the numbers count
_NAMED = re.compile(
    r"(?:^|[^a-z])(?:(?P<epoch>epochs?|ep|e)|(?P<step>steps?|iters?|iterations?))[-_.=]?(\d+)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Checkpoint:
    """Weights at one time of a training."""

    path: Path
    name: str  # in tables, and of its run
    epoch: int  # its number; where the checkpoints do not tell, their order from 1
    unit: str  # of UNITS: what the number counts


def find_checkpoints(
    given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> list[Checkpoint]:
    """The checkpoints that files and folders name, the earliest first.

    Numbers come from the metadata `epoch` of a safetensors file, else from the name
    (`epoch_003.safetensors`, `checkpoint-500/model.safetensors`); where one has none, or two have
    the same, all count from 1 in the order given. Raises UsageError for what is no checkpoint, and
    where there is none.
    """
    paths = [given] if isinstance(given, str | os.PathLike) else list(given)
    files = list(dict.fromkeys(file for path in paths for file in _files(Path(path).expanduser())))
    if not files:
        raise UsageError(f"no checkpoint given; give files ({', '.join(SUFFIXES)}) or a folder")
    return _in_order([Checkpoint(file, _name(file), *_number(file)) for file in files])


def _files(path: Path) -> Iterator[Path]:
    """The checkpoint files that a path means, in the order of their numbers."""
    if path.is_dir():
        inside = path / "checkpoints" if (path / RECORD).is_file() else path
        found = _weights_in(inside) if inside.is_dir() else []
        if not found:
            raise UsageError(_nothing_in(path))
        yield from sorted(found, key=lambda file: (_number(file)[0], file.name))
        return
    if not path.exists():
        raise UsageError(f"checkpoint {path} does not exist; give a file or a folder of them")
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"checkpoint {path}: suffix {path.suffix!r} is unknown; accepted: "
            f"{', '.join(SUFFIXES)}, or a folder"
        )
    yield path


def _weights_in(folder: Path) -> list[Path]:
    """Files of weights, else the one file of weights in each of its folders."""
    inside = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    files = [each for each in inside if each.is_file() and each.suffix.lower() in SUFFIXES]
    places = (each / name for each in inside if each.is_dir() for name in IN_A_FOLDER)
    return files or list({file.parent: file for file in places if file.is_file()}.values())


def _nothing_in(path: Path) -> str:
    if (path / RECORD).is_file():
        return (
            f"training {path} kept no checkpoints: train it with --keep-every K, or give files of "
            "weights"
        )
    return (
        f"folder {path} holds no checkpoint; accepted: files ending in {', '.join(SUFFIXES)}, or "
        f"folders that hold one of {', '.join(IN_A_FOLDER)}"
    )


def number_of(path: Path) -> Checkpoint:
    """A file or folder by itself, with the number in its name."""
    return Checkpoint(path, path.name, *_number(path))


def _name(file: Path) -> str:
    """The file's own name; that of its folder where every such file is called the same."""
    return file.parent.name if file.name in IN_A_FOLDER and file.parent.name else file.stem


def _number(file: Path) -> tuple[int, str]:
    """Number and unit of a checkpoint; -1 where it says none."""
    said = metadata_of(file).get("epoch", "")
    if said.isdecimal():
        return int(said), "epoch"
    name = _name(file)
    if named := _NAMED.search(name):
        return int(named[3]), "epoch" if named["epoch"] else "step"
    numbers = _NUMBER.findall(name)
    return (int(numbers[-1]), "checkpoint") if numbers else (-1, "checkpoint")


def metadata_of(file: Path) -> dict[str, str]:
    """What a safetensors file says of itself; nothing where it is another kind of file, or broken,
    which is told when its weights are read.
    """
    if file.suffix.lower() != ".safetensors":
        return {}
    try:
        with safetensors.safe_open(file, "np") as content:
            return content.metadata() or {}
    except (OSError, safetensors.SafetensorError):
        return {}


def _in_order(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """The earliest first, all numbers of one unit, every name once."""
    numbers = [checkpoint.epoch for checkpoint in checkpoints]
    if -1 in numbers or len(set(numbers)) < len(numbers):
        checkpoints = [
            replace(checkpoint, epoch=order, unit="checkpoint")
            for order, checkpoint in enumerate(checkpoints, start=1)
        ]
    units = {checkpoint.unit for checkpoint in checkpoints}
    unit = units.pop() if len(units) == 1 else "checkpoint"
    ordered = sorted(checkpoints, key=lambda checkpoint: checkpoint.epoch)
    names = _distinct([checkpoint.name for checkpoint in ordered])
    return [
        replace(checkpoint, unit=unit, name=name)
        for checkpoint, name in zip(ordered, names, strict=True)
    ]


def _distinct(names: Iterable[str]) -> list[str]:
    """Names that folders can have, each once, also where a file system folds upper and lower
    case.
    """
    plain = [re.sub(r"[^A-Za-z0-9._=-]+", "_", name).lstrip(".") or "checkpoint" for name in names]
    often = Counter(name.lower() for name in plain)
    return [
        name if often[name.lower()] == 1 else f"{place:03d}-{name}"
        for place, name in enumerate(plain, start=1)
    ]


__all__ = ["Checkpoint", "find_checkpoints", "metadata_of", "number_of"]
