"""Reads a finished run: pandas tables by name. No method needs the model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from probe.errors import ProbeError, UsageError, first_line, nearest, shown, unknown
from probe.paths import is_address, user_path
from probe.records import STRATA
from probe.store.alphas import alpha_bytes, parse_alphas
from probe.store.disk import ELSEWHERE
from probe.store.encode import table_bytes
from probe.store.files import Unsound, read_inside
from probe.store.journal import settle
from probe.store.listing import capture_checksum, has_list_of_results, listed, remedy
from probe.store.manifest import model_option, read_manifest, why_no_attention
from probe.store.notebook_view import notebook_view
from probe.store.remote import fetched
from probe.store.results import Results
from probe.store.schema import (
    ATTENTION,
    IMAGES,
    LAYERS,
    MADE_BY,
    SAMPLE_SCHEMA,
    SAMPLES,
    missing_columns,
    sample_name,
)
from probe.store.staging import bring_back, is_hidden


def open_run(path: str | os.PathLike[str] | Run) -> Run:
    """Opens a finished run: a folder, or an address in a storage that fsspec opens
    (`s3://BUCKET/runs/vit`), whose run is fetched into a copy on this machine, `path` of the run.
    What jobs put into the run is sent there.

    Raises UsageError for a folder that is none, that is unfinished or that a newer version wrote.
    """
    if isinstance(path, Run):
        return path
    folder = fetched(str(path)) if is_address(path) else user_path(path)
    try:
        with suppress(OSError):  # what cannot be written needs nothing of it
            bring_back(Path(os.path.realpath(folder)))
        os.stat(folder)
        problem = "" if folder.is_dir() else "is a file"
    except FileNotFoundError:
        problem = "does not exist"
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        problem = f"cannot be opened ({getattr(error, 'strerror', None) or first_line(error)})"
    if problem:
        raise UsageError(f"{path} {problem}; give the folder of a run (--out of a capture)")
    if is_hidden(folder):
        raise UsageError(f"{path} is an unfinished run: capture it again")
    settle(folder)
    return Run(folder, read_manifest(folder))


def run_names(runs: Sequence[Run]) -> list[str]:
    """What tables and figures call the runs: their folders, or whole paths where two folders have
    one name.
    """
    names = [os.path.basename(os.path.abspath(run.path)) for run in runs]  # also of "." and "a/.."
    return names if len(set(names)) == len(names) else [shown(run.path) for run in runs]


class Run:
    """A finished run, as `open_run` opens it.

        run = probe.open_run("runs/vit_b")
        run.layers  # one row per layer
        run.alphas()  # the fitted alphas, what they should be read with beside them
        run.samples("blocks.3.norm1", channels=[0, 5], stratum="uniform")

    Tables are read anew at each call, and compared with their checksums; every one has a column
    `layer`. Raises ProbeError for a file that is missing or damaged, or that is not of this run.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @cached_property
    def layers(self) -> pd.DataFrame:
        """One row per layer in execution order: columns of schema.LAYERS."""
        records = sorted(self.manifest.get("layers", ()), key=lambda record: record["depth"])
        values = {
            name: [_default(record.get(name), value) for record in records]
            for name, value in LAYERS.items()
        }
        return pd.DataFrame(
            {name: pd.Series(column, dtype=type(LAYERS[name])) for name, column in values.items()}
        )

    def moments(self, layer: str | None = None) -> pd.DataFrame:
        """Exact statistics, one row per layer and channel."""
        return self._table("moments", layer)

    def profile(self, layer: str | None = None) -> pd.DataFrame:
        """Non-empty cells of the streaming histogram: layer x tokens x group x bin."""
        return self._table("profile", layer)

    def rows(self, layer: str | None = None) -> pd.DataFrame:
        """Mean and sigma of the sampled rows of layers with statistics per token."""
        return self._table("rows", layer)

    def images(self) -> pd.DataFrame:
        """Name and jackknife group of each image, one row per image in the order of their indices;
        empty where batches were captured.
        """
        if self.has(IMAGES):
            return self._table(IMAGES, None)
        data = self.manifest.get("data") or {}
        names, groups = data.get("images") or [], data.get("groups") or []
        if not isinstance(names, list) or len(groups) != len(names):
            names = groups = []
        return pd.DataFrame({"image": range(len(names)), "name": names, "group": groups})

    def fits(self, layer: str | None = None) -> pd.DataFrame:
        """Fitted curves, one row per layer, family, scope, weighting and tokens."""
        return self._table("fits", layer)

    def channel_fits(self, layer: str | None = None) -> pd.DataFrame:
        """Curves of scope `channel`, one row per layer and channel."""
        return self._table("channel_fits", layer)

    def has(self, table: str) -> bool:
        """Is the table there, or due (`fits`, `attention`, ...)? Some come only with later jobs."""
        return self.has_file(f"{table}.parquet")

    @property
    def attention_only(self) -> bool:
        """Is this a run of `attention_distance`, which looks at no normalization layer?"""
        return self.manifest.get("job") == ATTENTION

    def attention(self) -> pd.DataFrame:
        """Attention distance, one row per attention layer and head in execution order: columns of
        schema.TABLES.

        Raises UsageError where the run has none, with the reason.
        """
        if not self.has(ATTENTION):
            raise UsageError(
                f"run {self.path} has no attention table: {why_no_attention(self.manifest)}"
            )
        return self._table(ATTENTION, None)

    def alphas(self) -> pd.DataFrame:
        """The exported table: one row per layer."""
        name = self._existing("alphas", "alpha.csv")
        try:
            return parse_alphas(self._content(name))
        except (ValueError, IndexError) as error:
            raise self._damaged(name, f"cannot be read as a table ({first_line(error)})") from error

    def samples(
        self,
        layer: str | Sequence[str] | None = None,
        channels: Iterable[int] | None = None,
        stratum: str | Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Stored elements sorted by layer, channel, stratum, image, position; `layer` and `stratum`
        are categories. columns: those to read (None: all), as reading them is most of the time.

        Only stratum `uniform` may be used for estimates. Raises UsageError for an unknown layer,
        channel, stratum or column.
        """
        for name in columns or ():
            if name not in SAMPLE_SCHEMA.names:
                raise unknown("column", name, SAMPLE_SCHEMA.names)
        known = dict(zip(self.layers["layer"], self.layers["depth"], strict=True))
        chosen = (
            list(known)
            if layer is None
            else [self._known(name) for name in ([layer] if isinstance(layer, str) else layer)]
        )
        files = [f"{SAMPLES}/{sample_name(known[name], name)}" for name in chosen]
        filters = self._channel_filter(channels, chosen) + _stratum_filter(stratum)
        parts = [self._read(file, filters, columns) for file in files if self.has_file(file)]
        if not parts:
            return SAMPLE_SCHEMA.empty_table().select(columns or SAMPLE_SCHEMA.names).to_pandas()
        return pa.concat_tables(parts).to_pandas()

    def save_table(self, name: str, frame: pd.DataFrame) -> Path:
        """Writes or replaces a table (`fits`, `channel_fits`) in one step."""
        with self.results() as results:
            return results.put(self.path / f"{name}.parquet", table_bytes(name, frame))

    def save_fits(
        self,
        tables: Mapping[str, pd.DataFrame],
        alphas: pd.DataFrame,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Writes or replaces what a fit gives, in one step: the tables, with `metadata` in their
        files, alpha.csv, alpha.json.
        """
        with self.results() as results:
            for name, table in tables.items():
                data = table_bytes(name, table, metadata)
                results.put(self.path / f"{name}.parquet", data)
            for ending in (".csv", ".json"):
                results.put(self.path / f"alpha{ending}", alpha_bytes(alphas, ending))

    def results(self, instead: str = ELSEWHERE) -> Results:
        """A block in which a job puts its files into the run, all of them at its end. instead: what
        to do where the run cannot be written, which entering the block finds out.
        """
        return Results(self.path, instead)

    def _known(self, layer: str) -> str:
        names = list(self.layers["layer"])
        if layer in names:
            return layer
        close = nearest(layer, names)
        hint = (
            f"nearest: {close}"
            if close
            else f"known: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        )
        raise UsageError(f"layer {layer!r} is not in run {self.path}; {hint}")

    def _channel_filter(
        self, channels: Iterable[int] | None, chosen: list[str]
    ) -> list[tuple[str, str, Any]]:
        if channels is None:
            return []
        wanted = sorted({int(channel) for channel in channels})
        widest = self.layers.loc[self.layers["layer"].isin(chosen), "channels"].max()
        outside = [channel for channel in wanted if not 0 <= channel < widest]
        if outside:
            raise UsageError(
                f"channel {outside[0]} does not exist: {', '.join(chosen[:3])} has channels 0 to "
                f"{widest - 1}"
            )
        return [("channel", "in", wanted)]

    def _table(self, name: str, layer: str | None) -> pd.DataFrame:
        file = self._existing(name, f"{name}.parquet")
        filters = None if layer is None else [("layer", "==", self._known(layer))]
        table = self._read(file, filters)
        if missing := missing_columns(name, table.schema):
            raise ProbeError(f"{self.path / file}: {missing}")
        return table.to_pandas()

    def _existing(self, table: str, file: str) -> str:
        if self.has_file(file):
            return file
        if self.attention_only and table != ATTENTION:
            model = model_option(self.manifest)
            raise UsageError(
                f"run {self.path} holds attention distances only, no {table}: `probe-norms "
                f"{model}` makes a whole run"
            )
        if table in MADE_BY:
            raise UsageError(
                f"run {self.path} has no {table} yet: `probe-norms {MADE_BY[table]} {self.path}` "
                "makes them"
            )
        raise ProbeError(f"run {self.path} is damaged: {file} is missing; capture it again")

    def has_file(self, file: str) -> bool:
        """Is a file there, or in the list? To do without one that is gone would be to be wrong."""
        return file in listed(self.manifest) or os.path.lexists(self.path / file)

    def _read(
        self,
        file: str,
        filters: list[tuple[str, str, Any]] | None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        source = pa.BufferReader(self._content(file))
        try:
            return pq.read_table(
                source,
                columns=None if columns is None else list(columns),
                filters=filters or None,
                partitioning=None,
                page_checksum_verification=True,
            )
        except (OSError, pa.ArrowException) as error:
            hint = f"`probe-norms verify {self.path}` lists what is damaged"
            raise ProbeError(
                f"{self.path / file} cannot be read ({first_line(error)}): {hint}"
            ) from error

    def _content(self, file: str) -> bytes:
        """The bytes of a file that equal what the list says; another job may have changed both."""
        try:
            return self._checked(file)
        except Unsound:
            settle(self.path)  # waits for the job that does so right now
            self._reload()
        try:
            return self._checked(file)
        except Unsound as reason:
            raise self._damaged(file, str(reason)) from None

    def _checked(self, file: str) -> bytes:
        entry = listed(self.manifest).get(file)
        if entry is None and has_list_of_results(self.manifest):
            raise Unsound("is not in the list of files of this run")
        return read_inside(self.path, file, entry)

    def _reload(self) -> None:
        """Takes over a list that was changed since the run was opened, by a job, not a capture."""
        manifest = read_manifest(self.path)
        if capture_checksum(listed(manifest)) == capture_checksum(listed(self.manifest)):
            self.manifest["files"] = listed(manifest)

    def _damaged(self, file: str, reason: str) -> ProbeError:
        return ProbeError(
            f"run {self.path} is damaged: {file}: {reason}; {remedy(file, str(self.path))} "
            f"(`probe-norms verify {self.path}` lists all damages)"
        )

    def __repr__(self) -> str:
        return f"Run({shown(self.path)!r}, {len(self.layers)} layers)"

    def _repr_html_(self) -> str:
        return notebook_view(shown(self.path), self.manifest, self.layers)


def _default(value: Any, default: Any) -> Any:
    return default if value is None else value


def _stratum_filter(stratum: str | Sequence[str] | None) -> list[tuple[str, str, Any]]:
    if stratum is None:
        return []
    wanted = [stratum] if isinstance(stratum, str) else list(stratum)
    strange = [name for name in wanted if name not in STRATA]
    if strange:
        raise UsageError(f"stratum {strange[0]!r} is unknown; known: {', '.join(STRATA)}")
    return [("stratum", "in", wanted)]
