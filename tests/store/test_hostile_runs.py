"""A stranger's run: nothing outside of its folder is opened, and a manifest of another shape
ends in one line that names the field.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from probe.errors import ProbeError, UsageError
from probe.store import open_run, verify_run
from probe.store.outputs import output_run
from support.manifests import change_manifest

Manifest = dict[str, Any]
FILE = "moments.parquet"


@pytest.fixture(autouse=True)
def _never_waits() -> Iterator[None]:
    """A reader that blocks at a pipe fails after ten seconds."""
    signal.alarm(10)
    yield
    signal.alarm(0)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../secret",
        "samples/../../secret",
        "/dev/zero",
        "./moments.parquet",
        "samples//a.parquet",
        "C:secret",
        "..\\secret",
        "nul\0",
        "",
        ".",
        "..",
    ],
)
def test_names_that_lead_out_of_the_run_are_refused_unread(name: str, run_path: Path) -> None:
    def rename(manifest: Manifest) -> None:
        manifest["files"][name] = manifest["files"].pop(FILE)

    change_manifest(run_path, rename)
    with pytest.raises(ProbeError, match="files names .* which is no path inside of the run"):
        verify_run(run_path)


def as_a_link(path: Path) -> None:
    outside = path.parents[2] / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)


def as_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_a_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def as_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_a_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


NOT_REGULAR = [as_a_link, as_a_pipe, as_a_device, as_a_folder, as_a_circle]


@pytest.mark.parametrize("put", NOT_REGULAR)
@pytest.mark.parametrize("name", [FILE, "manifest.json", "samples/000-stem_norm.parquet"])
def test_only_regular_files_are_opened(
    put: Callable[[Path], None], name: str, run_path: Path
) -> None:
    put(run_path / name)
    if name == "manifest.json":
        with pytest.raises(ProbeError, match=r"manifest\.json cannot be read"):
            open_run(run_path)
        with pytest.raises(UsageError):
            output_run(run_path, overwrite=True)
        return
    assert any(line.startswith(f"{name}: ") for line in verify_run(run_path))
    read = {FILE: "moments"}.get(name, "samples")
    with pytest.raises(ProbeError, match=name) as error:
        getattr(open_run(run_path), read)()
    assert "\n" not in str(error.value)


def test_a_folder_that_is_a_link_is_no_way_out(run_path: Path, tmp_path: Path) -> None:
    shutil.move(run_path / "samples", tmp_path / "elsewhere")
    (run_path / "samples").symlink_to(tmp_path / "elsewhere")
    assert "samples/000-stem_norm.parquet: is a link that leads out of the run" in verify_run(
        run_path
    )


def test_a_run_may_lie_behind_a_link_itself(run_path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run_path)
    assert verify_run(tmp_path / "link") == []


def at(*path: Any, value: Any) -> Callable[[Manifest], None]:
    """Puts `value` at the end of a path of keys."""

    def change(manifest: Manifest) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
        place[path[-1]] = value

    return change


def without(*path: Any) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


HUGE, DEEP = 10**30, json.loads("[" * 400 + "]" * 400)
MALFORMED: list[tuple[str, Callable[[Manifest], Any]]] = [
    *(
        (f"{field} is", at(field, value=value))
        for field in ("layers", "files")
        for value in (3, "x", True)
    ),
    *(
        (f"{field} is", at(field, value=value))
        for field in ("model", "data", "plan")
        for value in (3, "x", [1])
    ),
    *(
        (f"{field} is", at(field, value=[]))
        for field in ("attention", "versions", "times", "not_captured")
    ),
    ("files is missing", without("files")),
    ("files is None", at("files", value=None)),
    ("layers is {}", at("layers", value={})),
    ("layers[0] is 3", at("layers", 0, value=3)),
    ("layers[0] is None", at("layers", 0, value=None)),
    ("layers[1].layer is missing", without("layers", 1, "layer")),
    ("layers[1].layer is 3", at("layers", 1, "layer", value=3)),
    ("layers[1].depth is missing", without("layers", 1, "depth")),
    ("layers[2].depth is 'deep'", at("layers", 2, "depth", value="deep")),
    ("layers[2].depth is -1", at("layers", 2, "depth", value=-1)),
    ("layers[2].depth is True", at("layers", 2, "depth", value=True)),
    ("layers[2].depth is 1.5", at("layers", 2, "depth", value=1.5)),
    ("layers[2].depth is None", at("layers", 2, "depth", value=None)),
    ("layers has depth 0 twice", at("layers", 1, "depth", value=0)),
    ("layers has layer 'stem/norm' twice", at("layers", 1, "layer", value="stem/norm")),
    ("layers[0].kind is 1", at("layers", 0, "kind", value=1)),
    ("layers[0].channels is 'six'", at("layers", 0, "channels", value="six")),
    ("layers[0].channels is 100000", at("layers", 0, "channels", value=HUGE)),
    ("layers[0].channels is [", at("layers", 0, "channels", value=DEEP)),
    ("layers[0].eps is 'small'", at("layers", 0, "eps", value="small")),
    ("layers[0].affine is 'no'", at("layers", 0, "affine", value="no")),
    ("layers[0].affine is 1", at("layers", 0, "affine", value=1)),
    ("layers[0].positions is {}", at("layers", 0, "positions", value={})),
    ("layers[0].prefix_tokens is '1'", at("layers", 0, "prefix_tokens", value="1")),
    ("layers[0].status is 'odd'", at("layers", 0, "status", value="odd")),
    ("layers[0].status is []", at("layers", 0, "status", value=[])),
    ("layers[0].not_finite is 0.5", at("layers", 0, "not_finite", value=0.5)),
    ("layers[0].count is '1200'", at("layers", 0, "count", value="1200")),
    ("layers[0].sigma_mean is 'x'", at("layers", 0, "sigma_mean", value="x")),
    ("layers[0].sigma_cv is []", at("layers", 0, "sigma_cv", value=[])),
    ("layers[0].inverse_sigma_mean is {}", at("layers", 0, "inverse_sigma_mean", value={})),
    ("model.name is 3", at("model", "name", value=3)),
    ("model.name is ['a']", at("model", "name", value=["a"])),
    ("model.origin is 3", at("model", "origin", value=3)),
    ("model.weights is {}", at("model", "weights", value={})),
    ("model.fingerprint is 3", at("model", "fingerprint", value=3)),
    ("model.prefix_tokens is 'x'", at("model", "prefix_tokens", value="x")),
    ("model.parameters is 'many'", at("model", "parameters", value="many")),
    ("model.input_size is 224", at("model", "input_size", value=224)),
    ("model.input_size[0] is 'x'", at("model", "input_size", value=["x"])),
    ("model.dtype is 32", at("model", "dtype", value=32)),
    ("data.kind is 3", at("data", "kind", value=3)),
    ("data.location is {}", at("data", "location", value={})),
    ("data.images is 'many'", at("data", "images", value="many")),
    ("data.images[0] is 1", at("data", "images", value=[1])),
    ("data.groups is 3", at("data", "groups", value=3)),
    ("data.groups[1] is 'x'", at("data", "groups", value=[0, "x"])),
    ("data.groups[0] is 16", at("data", "groups", value=[16])),
    ("data.groups[0] is -1", at("data", "groups", value=[-1])),
    ("data.skipped is 'none'", at("data", "skipped", value="none")),
    ("data.skipped[0] is 'a.png'", at("data", "skipped", value=["a.png"])),
    ("data.skipped[0].reason is missing", at("data", "skipped", value=[{"image": "a.png"}])),
    ("plan.samples is 'x'", at("plan", "samples", value="x")),
    ("plan.samples is -1", at("plan", "samples", value=-1)),
    ("plan.seed is 'x'", at("plan", "seed", value="x")),
    ("plan.images is []", at("plan", "images", value=[])),
    ("plan.batch_size is 0.5", at("plan", "batch_size", value=0.5)),
    ("attention.status is 3", at("attention", "status", value=3)),
    ("attention.unreadable is 'x'", at("attention", "unreadable", value="x")),
    ("attention.unreadable['a'] is 3", at("attention", "unreadable", value={"a": 3})),
    ("not_captured['a'] is 'x'", at("not_captured", value={"a": "x"})),
    ("job is 'other'", at("job", value="other")),
    ("times.seconds is 'x'", at("times", "seconds", value="x")),
    (f"files['{FILE}'] is 3", at("files", FILE, value=3)),
    (f"files['{FILE}'].bytes is missing", without("files", FILE, "bytes")),
    (f"files['{FILE}'].bytes is -1", at("files", FILE, "bytes", value=-1)),
    (f"files['{FILE}'].sha256 is 3", at("files", FILE, "sha256", value=3)),
    (f"files['{FILE}'].sha256 is 'abc'", at("files", FILE, "sha256", value="abc")),
    (f"files['{FILE}'].rows is 'x'", at("files", FILE, "rows", value="x")),
    (f"files['{FILE}'].from is 3", at("files", FILE, "from", value=3)),
    (f"files['{FILE}'].from['a'] is 3", at("files", FILE, "from", value={"a": 3})),
]


def test_the_table_of_malformed_manifests_is_long_enough() -> None:
    assert len(MALFORMED) >= 65


@pytest.mark.parametrize(("problem", "change"), MALFORMED, ids=[each[0] for each in MALFORMED])
def test_a_malformed_manifest_is_one_line_that_names_the_field(
    problem: str, change: Callable[[Manifest], Any], run_path: Path
) -> None:
    change_manifest(run_path, change)
    for read in (open_run, verify_run):
        with pytest.raises(ProbeError, match=r"manifest\.json is damaged: ") as error:
            read(run_path)
        message = str(error.value)
        assert message.partition("is damaged: ")[2].startswith(problem)
        assert "\n" not in message
        assert len(message.replace(str(run_path), "")) < 300


@pytest.mark.parametrize("version", ["2", 2.0, None, [], 0, -1, True, HUGE, 3])
def test_another_version_is_one_line(version: Any, run_path: Path) -> None:
    change_manifest(run_path, at("version", value=version))
    with pytest.raises(UsageError, match="has run format .* reads up to 2") as error:
        open_run(run_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["\x1b[2J\r\n", "a\x07", "\u202eevil", "x" * 5000])
def test_what_a_manifest_says_is_not_echoed_raw(text: str, run_path: Path) -> None:
    for change in (at("status", value=text), at("job", value=text), at("files", text, value=text)):
        other = shutil.copytree(run_path, run_path.with_name("other"), dirs_exist_ok=True)
        change_manifest(other, change)
        with pytest.raises(ProbeError) as error:
            open_run(other)
        message = str(error.value).replace(str(other), "")
        assert message.isprintable()
        assert len(message) < 300


def test_nesting_without_end_is_one_line(run_path: Path) -> None:
    (run_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match="is damaged or of another kind"):
        open_run(run_path)
