"""Pretrained weights as files: from the local cache, else from the network, else one line within
seconds.

A file in the cache is used without asking the server for a newer one, so a run needs no network
twice. Endpoint, cache, token and proxies are those of huggingface_hub (HF_ENDPOINT, HF_HOME,
HF_HUB_CACHE, HF_TOKEN, HTTPS_PROXY) and torch.hub (TORCH_HOME).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import torch

from probe.data.network import TIMEOUT, unreachable
from probe.errors import ProbeError, first_line

NO_NETWORK = "--model bundled:vit_cifar10, which needs no network"
INSTEAD = f"give --weights FILE, --weights random, or {NO_NETWORK}"
FOLDER_INSTEAD = f"give a folder of this machine, or {NO_NETWORK}"


def hub_file(
    repo: str,
    names: Sequence[str],
    offline: bool = False,
    what: str = "weights",
    instead: str = INSTEAD,
) -> Path:
    """The first of `names` that the hub repository `repo` (`owner/name`, `@revision` if any) has.
    Raises ProbeError that says `what` is missing and what to give `instead`.
    """
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError

    repo, _, revision = repo.partition("@")
    for name in names:
        cached = try_to_load_from_cache(repo, name, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    _need_network(repo, constants.ENDPOINT, offline or constants.HF_HUB_OFFLINE, what, instead)
    for name in names:
        try:
            try:  # asked once and without the retries of the download, which take most of a minute
                get_hf_file_metadata(
                    hf_hub_url(repo, name, revision=revision or None), timeout=TIMEOUT
                )
            except EntryNotFoundError:
                continue
            return Path(
                hf_hub_download(repo, name, revision=revision or None, etag_timeout=TIMEOUT)
            )
        except Exception as error:  # refused, gated, cut off, disk full
            raise ProbeError(
                f"{what} of {repo} cannot be downloaded: {first_line(error)}; {instead}"
            ) from error
    raise ProbeError(
        f"{what} of {repo} cannot be downloaded: it has none of {', '.join(names)}; {instead}"
    )


def url_file(url: str, offline: bool = False, name: str | None = None) -> Path:
    """The file at `url`, kept where torch.hub keeps its checkpoints. Raises ProbeError."""
    name = name or os.path.basename(urlparse(url).path)
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    _need_network(name, url, offline)
    path.parent.mkdir(parents=True, exist_ok=True)
    # torch's rule: name-<first digits of its SHA-256>.pth
    prefix = torch.hub.HASH_REGEX.search(name)
    try:
        torch.hub.download_url_to_file(
            url, str(path), prefix and prefix.group(1), progress=sys.stderr.isatty()
        )
    except Exception as error:  # refused, cut off, wrong hash, disk full
        raise ProbeError(
            f"weights {url} cannot be downloaded: {first_line(error)}; {INSTEAD}"
        ) from error
    return path


def _need_network(
    name: str, url: str, offline: bool, what: str = "weights", instead: str = INSTEAD
) -> None:
    reason = "offline mode forbids the download" if offline else None
    if reason is None and (answer := unreachable(url)):
        reason = f"{urlparse(url).hostname} does not answer ({answer})"
    if reason:
        lacking = "no pretrained weights" if what == "weights" else f"no {what}"
        raise ProbeError(f"{lacking}: {name} is not in the cache and {reason}; {instead}")


__all__ = ["FOLDER_INSTEAD", "INSTEAD", "hub_file", "url_file"]
