"""The list of the files of a run, `files` in its manifest: size and checksum of each, and for what
a later job made, of which content it was made.

    {"moments.parquet": {"rows": 25, "bytes": 9120, "sha256": "..."},
     "fits.parquet": {"bytes": 4711, "sha256": "...", "from": {"capture": "..."}},
     "report.html": {"bytes": 90210, "sha256": "...", "from": {"capture": "...",
                                                              "fits.parquet": "...", ...}}}

`from` holds checksums of content, not times: fitting again to the same numbers leaves the figures
as good as they were, other numbers make them stale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from probe.store.schema import ATTENTION, CAPTURED, FIGURES, IMAGES, RESULTS, SAMPLES

Entries = Mapping[str, Mapping[str, Any]]

CAPTURE = "capture"  # in `from`: all that the capture wrote, as one
FITTED = ("fits.parquet", "channel_fits.parquet", "alpha.csv")


def listed(manifest: Mapping[str, Any]) -> Entries:
    """Name of each file of the run -> its entry."""
    return manifest.get("files") or {}


def has_list_of_results(manifest: Mapping[str, Any]) -> bool:
    """Runs of the first version list what the capture wrote, and nothing that was made later."""
    return int(manifest["version"]) > 1


def is_result(name: str) -> bool:
    """Is this the name of something that a job after the capture puts into a run?"""
    return name in RESULTS or name.startswith(f"{FIGURES}/")


def belongs(name: str) -> bool:
    """Is this the name of a file that must be in the list if it is there?"""
    tables = {f"{table}.parquet" for table in (*CAPTURED, ATTENTION, IMAGES)}
    return is_result(name) or name in tables or name.startswith(f"{SAMPLES}/")


def sources(name: str, entries: Entries) -> dict[str, str]:
    """What a result is made of, with the checksum of each: `from` in its entry."""
    of_fits = name not in (*FITTED, "alpha.json") and not name.startswith(f"{FIGURES}/{ATTENTION}")
    now = generation(entries)
    return now if of_fits else {CAPTURE: now[CAPTURE]}


def generation(entries: Entries) -> dict[str, str]:
    """What a run holds now, with the checksum of each: all that was captured, and its fits."""
    fitted = {part: entries[part]["sha256"] for part in FITTED if part in entries}
    return {CAPTURE: capture_checksum(entries), **fitted}


def capture_checksum(entries: Entries) -> str:
    """One checksum of all that the capture wrote."""
    captured = sorted(name for name, entry in entries.items() if "from" not in entry)
    lines = "".join(f"{entries[name]['sha256']}  {name}\n" for name in captured)
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


def stale(entries: Entries) -> Iterator[tuple[str, list[str]]]:
    """Results that were made of other content than the run holds now, and which content."""
    for name, entry in entries.items():
        if "from" in entry:
            now = sources(name, entries)
            changed = [
                part
                for part in {**now, **entry["from"]}
                if now.get(part) != entry["from"].get(part)
            ]
            if changed:
                yield name, changed


def remedy(name: str, run: str) -> str:
    """What to do about a file that is damaged, missing or stale."""
    if name == "alpha.safetensors":
        return f"`probe-norms export {run} --to {run}/{name}` makes it anew"
    if name == "report.html":
        return f"`probe-norms report {run}` makes it anew"
    if name.startswith(f"{FIGURES}/"):
        return f"`probe-norms plot {run}` draws it anew"
    return f"`probe-norms fit {run}` makes it anew" if is_result(name) else "capture the run again"
