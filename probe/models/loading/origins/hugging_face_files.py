"""The files of a network of transformers: in a folder, or from the hub in the cache."""

from __future__ import annotations

import json
from pathlib import Path

from probe.errors import UsageError
from probe.models.loading.hub import FOLDER_INSTEAD, hub_file
from probe.models.loading.origins.names import ACCEPTED
from probe.paths import user_path

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
INDEX = "model.safetensors.index.json"  # of weights in several files
WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin")
FOLDER_MARKS = (".", "/", "~")  # a name that begins so is a path


def is_folder(name: str) -> bool:
    """Is the name that of a folder rather than of a hub repository?"""
    return name.startswith(FOLDER_MARKS) or Path(name).is_dir()


def config_folder(name: str, offline: bool) -> Path:
    """The folder that holds the config.json of `OWNER/NAME` or of a path. Raises UsageError where
    there is none, ProbeError without network.
    """
    if not is_folder(name):
        if name.partition("@")[0].count("/") > 1:
            raise UsageError(f"model 'hf:{name}' is no OWNER/NAME of the hub; accepted: {ACCEPTED}")
        return hub_file(name, [CONFIG], offline, CONFIG, FOLDER_INSTEAD).parent
    folder = user_path(name)
    if not folder.is_dir():
        raise UsageError(f"model 'hf:{name}': {folder} is not a folder")
    if not (folder / CONFIG).is_file():
        raise UsageError(
            f"model 'hf:{name}': {folder} holds no {CONFIG}; give a folder that save_pretrained "
            "wrote"
        )
    return folder


def fetch_weights(name: str, folder: Path, offline: bool) -> None:
    """Sees to it that the weights lie in the folder. Raises UsageError or ProbeError where there
    are none.
    """
    if is_folder(name):
        if not any((folder / file).is_file() for file in WEIGHTS):
            raise UsageError(
                f"model 'hf:{name}': {folder} holds none of {', '.join(WEIGHTS)}; give --weights "
                "FILE or --weights random"
            )
        return
    file = hub_file(name, WEIGHTS, offline)
    if file.name == INDEX:
        for shard in sorted(set(json.loads(file.read_bytes())["weight_map"].values())):
            hub_file(name, [shard], offline)


__all__ = ["CONFIG", "PROCESSOR", "config_folder", "fetch_weights", "is_folder"]
