"""What is wrong with a finished run: each problem one line."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from probe.errors import ProbeError, first_line, shown
from probe.paths import is_address
from probe.records import Status
from probe.store.files import Unsound, check_content, present, read_inside
from probe.store.listing import belongs, has_list_of_results, is_result, listed, remedy, stale
from probe.store.remote import fetched
from probe.store.run import Run, open_run
from probe.store.schema import ATTENTION, CAPTURED, IMAGES, MADE_BY, MANIFEST, missing_columns
from probe.store.staging import is_aside
from probe.store.verify_tables import (
    check_attention,
    check_moments,
    check_profile,
    check_samples,
)


def verify_run(path: str | os.PathLike[str] | Run) -> list[str]:
    """Problems of a run, empty where there is none. Raises UsageError where `path` is no finished
    run at all, ProbeError where its manifest is damaged.

    Checked: every file of the list is there with its bytes and rows, and no other file is in its
    place; what later jobs made was made of what the run holds now; statistics are finite and
    ordered; moments, profile, samples and the manifest agree about how much was seen; sampled
    inputs lie within the exact range of their channel; attention distances lie within their grid.
    """
    place = shown(path.path if isinstance(path, Run) else path)
    if is_address(place):
        fetched(place, anew=True)
    run = open_run(place)
    damaged = dict(_damaged(run))
    problems = [*_never_written(run), *_of_another_run(run, damaged)]
    problems += [f"{name}: {why}" for name, why in damaged.items()]
    problems += _not_listed(run)
    problems += _stale(run, damaged)
    if any(not is_result(name) for name in damaged) or any(_never_written(run)):
        return problems  # the contents of damaged files say nothing
    problems += _older(run) or [*_contents(run), *_results(run, damaged)]
    return problems


def _damaged(run: Run) -> Iterator[tuple[str, str]]:
    """Files that are not what the list says, and how; results with the command that mends them."""
    for name, entry in listed(run.manifest).items():
        try:
            check_content(run.path, name, entry)
            if "rows" in entry:
                _check_rows(run, name, int(entry["rows"]))
        except Unsound as reason:
            advice = f"; {remedy(name, str(run.path))}" if is_result(name) else ""
            yield name, f"{reason}{advice}"


def _of_another_run(run: Run, damaged: dict[str, str]) -> Iterator[str]:
    """Where most of what was captured differs, it is rather the manifest that does not belong."""
    captured = [name for name in listed(run.manifest) if not is_result(name)]
    differ = [name for name in captured if name in damaged and (run.path / name).exists()]
    if len(differ) > max(1, len(captured) // 2):
        yield (
            f"{MANIFEST}: {len(differ)} of the {len(captured)} files of the capture are not those "
            "that it lists: it may be of another run"
        )


def _check_rows(run: Run, name: str, expected: int) -> None:
    data = read_inside(run.path, name)
    try:
        rows = pq.read_metadata(pa.BufferReader(data)).num_rows
    except (OSError, pa.ArrowException) as error:
        raise Unsound(f"cannot be read ({first_line(error)})") from None
    if rows != expected:
        raise Unsound(f"{rows} rows, the manifest says {expected}")


def _never_written(run: Run) -> Iterator[str]:
    for name in (ATTENTION,) if run.attention_only else CAPTURED:
        if f"{name}.parquet" not in listed(run.manifest):
            yield f"{name}.parquet: never written"


def _not_listed(run: Run) -> Iterator[str]:
    files, whole = listed(run.manifest), has_list_of_results(run.manifest)
    for name in present(run.path):
        if name in files or name == MANIFEST or is_aside(name.split("/")[0]):
            continue
        if belongs(name) and (whole or not is_result(name)):
            advice = f"; {remedy(name, str(run.path))}, or remove it" if is_result(name) else ""
            yield f"{name}: not in the manifest{advice}"


def _stale(run: Run, damaged: dict[str, str]) -> Iterator[str]:
    for name, changed in stale(listed(run.manifest)):
        if name not in damaged:
            yield (f"{name}: older than {', '.join(changed)}: {remedy(name, str(run.path))}")


def _older(run: Run) -> list[str]:
    """Tables of another version of this package."""
    problems = []
    for name in (*CAPTURED, ATTENTION, IMAGES):
        file = f"{name}.parquet"
        if file in listed(run.manifest):
            schema = pq.read_schema(pa.BufferReader(read_inside(run.path, file)))
            if missing := missing_columns(name, schema):
                problems.append(f"{file}: {missing}")
    return problems


def _contents(run: Run) -> Iterator[str]:
    if f"{ATTENTION}.parquet" in listed(run.manifest):
        yield from check_attention(run.attention())
    if run.attention_only:
        return
    moments, profile = run.moments(), run.profile()
    captured = run.layers[run.layers["status"] == Status.CAPTURED].set_index("layer")
    yield from check_moments(moments, captured)
    yield from check_profile(profile, moments, captured)
    for layer in captured.index:
        yield from check_samples(run, layer, moments[moments["layer"] == layer])


def _results(run: Run, damaged: dict[str, str]) -> Iterator[str]:
    """Are the tables of the fits of these layers? Those of undamaged files."""
    layers = set(run.layers["layer"])
    for table in MADE_BY if not run.attention_only else ():
        file = "alpha.csv" if table == "alphas" else f"{table}.parquet"
        whole = has_list_of_results(run.manifest)
        if (
            file in damaged
            or (whole and file not in listed(run.manifest))
            or not run.has_file(file)
        ):
            continue
        try:
            strange = sorted(set(getattr(run, table)()["layer"]) - layers)
        except (ProbeError, ValueError) as error:
            yield f"{file}: unreadable ({first_line(error)})"
            continue
        if strange:
            yield f"{file}: layers that the run does not have: {', '.join(strange[:3])}"
