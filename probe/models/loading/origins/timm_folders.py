"""timm networks that are described by a config.json instead of timm's own registry:
`hf-hub:OWNER/NAME[@REVISION]` in a hub repository, `local-dir:FOLDER` in a folder.

https://huggingface.co/docs/timm/models: both are names of timm's own. A repository is brought into
the cache first, by our own download, which gives up within seconds; timm then reads the folder.
"""

from __future__ import annotations

import json
from pathlib import Path

from probe.errors import UsageError
from probe.models.loading.hub import FOLDER_INSTEAD, hub_file
from probe.models.loading.origins.names import ACCEPTED
from probe.paths import user_path

HUB, FOLDER = "hf-hub", "local-dir"
ALIASES = {"hf_hub": HUB}  # timm still takes the older spelling
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the names that timm itself writes


def prefix_of(name: str) -> str | None:
    """`hf-hub` or `local-dir` where the name begins with one of them, else None."""
    prefix = name.partition(":")[0].lower()
    prefix = ALIASES.get(prefix, prefix)
    return prefix if ":" in name and prefix in (HUB, FOLDER) else None


def folder_of(name: str, offline: bool) -> Path:
    """The folder that holds the config.json of such a name. Raises UsageError where there is none,
    ProbeError without network.
    """
    place = name.partition(":")[2]
    if prefix_of(name) == HUB:
        if place.partition("@")[0].count("/") != 1:
            raise UsageError(f"model {name!r} is no OWNER/NAME of the hub; accepted: {ACCEPTED}")
        return hub_file(place, [CONFIG], offline, CONFIG, FOLDER_INSTEAD).parent
    folder = user_path(place)
    if not (folder / CONFIG).is_file():
        raise UsageError(f"model {name!r}: {folder} is no folder with a {CONFIG} of timm")
    return folder


def classifiers_in(name: str) -> str | tuple[str, ...]:
    """Paths of the classifying layers that the config.json of `local-dir:FOLDER` names."""
    known = json.loads((Path(name.partition(":")[2]) / CONFIG).read_bytes())
    heads = known.get("pretrained_cfg", known).get("classifier") or ()
    return heads if isinstance(heads, str) else tuple(heads)


def weights_in(name: str, folder: Path, offline: bool) -> Path:
    """The checkpoint beside the config.json. Raises UsageError or ProbeError where there is
    none.
    """
    if prefix_of(name) == HUB:
        return hub_file(name.partition(":")[2], WEIGHTS, offline)
    found = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if found is None:
        raise UsageError(
            f"model {name!r}: {folder} holds none of {', '.join(WEIGHTS)}; give --weights FILE or "
            "--weights random"
        )
    return found


__all__ = ["FOLDER", "HUB", "classifiers_in", "folder_of", "prefix_of", "weights_in"]
