"""The folder of a training: its files by name, and opening it again.

training.json                    what was asked, of what data, status
epochs.parquet  epochs.csv       a row per epoch
norms.parquet   norms.csv        a row per epoch, layer and quantity
model.safetensors                the weights that were evaluated
last/                            weights, averaged weights and state, to continue from
checkpoints/epoch_NNN.safetensors    with keep_every
probes/epoch_NNN/                with probe_every: runs
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probe.errors import ProbeError, UsageError
from probe.formatting import json_bytes
from probe.store.disk import writing
from probe.store.journal import settle
from probe.store.outputs import OVERWRITE, on_this_machine

FORMAT = "probe-training"
VERSION = 1
RECORD = "training.json"
MODEL = "model.safetensors"
LAST = ("last/model.safetensors", "last/ema.safetensors", "last/state.pt")
FOLDERS = ("last", "checkpoints", "probes", "figures", "tensorboard")
FILES = (
    *(RECORD, "epochs.parquet", "epochs.csv", "norms.parquet", "norms.csv"),
    *(MODEL, "report.html"),
)


def checkpoint_name(epoch: int) -> str:
    """Of the weights after an epoch, which are numbered from 1."""
    return f"checkpoints/epoch_{epoch:03d}.safetensors"


def probe_name(epoch: int) -> str:
    """Of the run that was captured after an epoch."""
    return f"probes/epoch_{epoch:03d}"


def record_bytes(record: Mapping[str, Any]) -> bytes:
    return json_bytes({"format": FORMAT, "version": VERSION, **record})


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """training.json of a folder. Raises UsageError where there is none that can be read."""
    path = Path(folder).expanduser()
    settle(path)
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no training: there is no {RECORD} in it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path / RECORD} cannot be read ({error})") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UsageError(f"{path / RECORD} is no record of a training")
    if not isinstance(record.get("version"), int) or record["version"] > VERSION:
        raise UsageError(
            f"{folder} was written by a newer version: this one reads up to {VERSION}; update "
            "probe-norms"
        )
    return record


def own_record(path: Path, format: str, version: int, noun: str) -> dict[str, Any]:
    """The JSON that a tracking or a comparison keeps of itself. Raises UsageError for a folder that
    holds none, and for one of a newer version.
    """
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("format") != format:
        raise UsageError(f"{path.parent} is no {noun}: it holds no {path.name} of one")
    written = record.get("version")
    if type(written) is not int or written > version:
        raise UsageError(
            f"{path} has version {str(written)[:20]}; this version reads up to {version}: update "
            "probe-norms"
        )
    return record


def training_folder(out: str | os.PathLike[str], overwrite: bool) -> Path:
    """The folder to train into: new, empty, or that of a training, whose files go with
    `overwrite`. Raises UsageError for one that holds anything else.
    """
    folder = on_this_machine(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        settle(folder)
        names = sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    if names and RECORD not in names:
        raise UsageError(
            f"--out {out} holds files and no training ({', '.join(names[:3])}); give a new folder"
        )
    if names and overwrite:
        read_record(folder)
        _empty(folder, names)
    return folder


def _empty(folder: Path, names: list[str]) -> None:
    foreign = [name for name in names if name not in (*FILES, *FOLDERS)]
    if foreign:
        raise UsageError(
            f"{folder} holds files that are no part of a training ({', '.join(foreign[:3])}); move "
            f"them before {OVERWRITE}"
        )
    with writing(folder):
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_same(record: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raises UsageError where a folder holds another training than the one that is asked for."""
    differences = [
        f"{name} is {_short(now[group][name])}, was {_short(record[group].get(name))}"
        for group in ("recipe", "model", "data")
        for name in now[group]
        if now[group][name] != record.get(group, {}).get(name)
    ]
    if differences:
        more = f"; and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise UsageError(
            f"{folder} holds another training: {'; '.join(differences[:4])}{more}. Give another "
            f"--out, or {OVERWRITE}"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class Interrupted(ProbeError):
    """A training was interrupted; the same command continues it."""
