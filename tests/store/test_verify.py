"""verify_run finds what is wrong with a run, and nothing wrong with a good one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from probe.errors import ProbeError, UsageError
from probe.store import RunWriter, open_run, verify_run, write_alphas
from probe.store.files import entry_of
from probe.store.results import Results
from probe.store.schema import TABLES
from support.manifests import change_manifest


def test_a_good_run_has_no_problems(run_path: Path) -> None:
    assert verify_run(run_path) == []


def test_what_is_no_run_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run"):
        verify_run(tmp_path)


def test_a_changed_byte_a_missing_file_and_an_extra_file_are_named(run_path: Path) -> None:
    data = bytearray((run_path / "moments.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (run_path / "moments.parquet").write_bytes(data)
    (run_path / "samples" / "000-stem_norm.parquet").unlink()
    (run_path / "samples" / "009-more.parquet").write_bytes(b"")
    assert verify_run(run_path) == [
        "moments.parquet: the content changed (sha256 differs from the manifest)",
        "samples/000-stem_norm.parquet: missing or unreadable (No such file or directory)",
        "samples/009-more.parquet: not in the manifest",
    ]


def test_a_wrong_number_of_rows_is_named(run_path: Path) -> None:
    change_manifest(run_path, lambda manifest: manifest["files"]["rows.parquet"].update(rows=2))
    assert verify_run(run_path) == ["rows.parquet: 1 rows, the manifest says 2"]


def test_a_table_that_was_never_written_is_named(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run") as writer:
        path = writer.finish({"layers": []})
    assert verify_run(path) == [
        f"{name}.parquet: never written" for name in ("moments", "profile", "rows")
    ]


def set_cell(column: str, value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[0, column] = value
        return frame

    return change


def drop_first(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[1:]


BROKEN_TABLES = [
    (
        "moments",
        set_cell("mean_output", np.nan),
        "moments: the output statistics are not finite (1 rows; blocks.0.norm1)",
    ),
    (
        "moments",
        set_cell("var_input", -1.0),
        "moments: min <= mean <= max or var >= 0 does not hold for the input (1 rows; "
        "blocks.0.norm1)",
    ),
    (
        "moments",
        set_cell("mean_input", 99.0),
        "moments: min <= mean <= max or var >= 0 does not hold for the input (1 rows; "
        "blocks.0.norm1)",
    ),
    (
        "moments",
        set_cell("max_input", 1.0),
        "layer blocks.0.norm1: samples of the input lie outside the exact range in the moments",
    ),
    (
        "moments",
        set_cell("count", 199),
        "layer blocks.0.norm1: the moments saw 1199 elements, the manifest says 1200",
    ),
    (
        "moments",
        drop_first,
        "layer blocks.0.norm1: the moments have 5 channels, the manifest says 6",
    ),
    (
        "profile",
        set_cell("sum_normalized_sq", np.inf),
        "profile: a cell is empty or not finite (1 rows; blocks.0.norm1)",
    ),
    (
        "profile",
        set_cell("count", 0),
        "profile: a cell is empty or not finite (1 rows; blocks.0.norm1)",
    ),
    ("profile", set_cell("count", 1000), "layer blocks.0.norm1: the profile saw "),
]


def write(
    out: Path,
    kit: Any,
    name: str = "",
    change: Any = None,
    samples: Any = None,
    status: str = "captured",
) -> Path:
    """A run of one layer with one table changed."""
    layer = kit.populations()[1]
    with RunWriter(out) as writer:
        rows = {"uniform": layer.uniform(), "prefix": layer.prefix(), "tail": layer.tail()}
        writer.write_samples(layer.depth, layer.name, **(samples(rows) if samples else rows))
        for table in ("moments", "profile"):
            frame = getattr(layer, table)()
            writer.write_table(table, change(frame) if table == name else frame)
        writer.write_table("rows", pd.DataFrame(columns=TABLES["rows"].names))
        manifest = kit.manifest([layer])
        manifest["layers"][0]["status"] = status
        return writer.finish(manifest)


@pytest.mark.parametrize(("name", "change", "problem"), BROKEN_TABLES)
def test_statistics_that_cannot_be_are_named(
    tmp_path: Path, kit, name: str, change: Any, problem: str
) -> None:
    problems = verify_run(write(tmp_path / "run", kit, name, change))
    assert any(line.startswith(problem) for line in problems), problems


def test_a_layer_that_saw_infinities_may_have_them(tmp_path: Path, kit) -> None:
    path = write(
        tmp_path / "run", kit, "moments", set_cell("mean_output", np.nan), status="not_finite"
    )
    assert verify_run(path) == []


def test_samples_that_are_not_finite_are_named(tmp_path: Path, kit) -> None:
    def spoil(rows: dict[str, Any]) -> dict[str, Any]:
        rows["uniform"]["normalized"][3, 2] = np.nan
        return rows

    assert verify_run(write(tmp_path / "run", kit, samples=spoil)) == [
        "layer blocks.0.norm1: samples are not finite"
    ]


def test_too_few_uniform_samples_are_named(tmp_path: Path, kit) -> None:
    def shorten(rows: dict[str, Any]) -> dict[str, Any]:
        rows["uniform"] = {name: array[:-1] for name, array in rows["uniform"].items()}
        return rows

    expected = ["layer blocks.0.norm1: 31 uniform samples in each channel, 32 are due"]
    assert verify_run(write(tmp_path / "run", kit, samples=shorten)) == expected


def test_skipped_images_may_cost_uniform_samples(tmp_path: Path, kit) -> None:
    """Rows are drawn before it is known which images can be read; too many, or not the same in all
    channels, stay a problem.
    """

    def shorten(rows: dict[str, Any]) -> dict[str, Any]:
        rows["uniform"] = {name: array[:-1] for name, array in rows["uniform"].items()}
        return rows

    path = write(tmp_path / "run", kit, samples=shorten)
    change_manifest(
        path,
        lambda manifest: manifest.update(
            data={"skipped": [{"image": "a.png", "reason": "broken"}]}
        ),
    )
    assert verify_run(path) == []
    change_manifest(path, lambda manifest: manifest["plan"].update(samples=30))
    assert verify_run(path) == [
        "layer blocks.0.norm1: 31 uniform samples in each channel, 30 are due"
    ]


def test_a_layer_that_batches_skip_may_have_few_uniform_samples(tmp_path: Path, kit) -> None:
    def shorten(rows: dict[str, Any]) -> dict[str, Any]:
        rows["uniform"] = {name: array[:-1] for name, array in rows["uniform"].items()}
        return rows

    path = write(tmp_path / "run", kit, samples=shorten)
    change_manifest(path, lambda manifest: manifest.update(images_seen=21))  # it saw 20
    assert verify_run(path) == []
    change_manifest(path, lambda manifest: manifest.update(images_seen=20))
    assert verify_run(path) == [
        "layer blocks.0.norm1: 31 uniform samples in each channel, 32 are due"
    ]


def as_an_older_version_wrote_it(path: Path) -> None:
    """The profile without its second moments of the input, and a manifest that knows this file."""
    table = pq.read_table(path / "profile.parquet").drop_columns(["sum_input_sq", "sum_product"])
    pq.write_table(table, path / "profile.parquet")
    entry = entry_of((path / "profile.parquet").read_bytes())
    change_manifest(path, lambda manifest: manifest["files"]["profile.parquet"].update(entry))


OLDER = (
    "no column sum_input_sq, sum_product, which this version needs (an older one wrote it): "
    "capture the run again"
)


def test_a_run_of_an_older_version_is_told_in_one_line(run_path: Path) -> None:
    as_an_older_version_wrote_it(run_path)
    assert verify_run(run_path) == [f"profile.parquet: {OLDER}"]
    with pytest.raises(ProbeError, match=re.escape(f"profile.parquet: {OLDER}")):
        open_run(run_path).profile()


def test_fits_of_an_older_version_ask_for_a_new_fit(run_path: Path) -> None:
    frame = pd.DataFrame({"layer": ["blocks.0.norm1"], "family": ["tanh"]})
    with Results(run_path) as results:
        results.put(run_path / "fits.parquet", frame.to_parquet())
    (problem,) = verify_run(run_path)
    assert problem.startswith("fits.parquet: unreadable (")
    assert problem.endswith("`probe-norms fit` makes it anew)")


def test_derived_tables_are_checked_too(run_path: Path, alphas: pd.DataFrame) -> None:
    write_alphas(alphas, run_path / "alpha.csv")
    with Results(run_path) as results:
        results.put(run_path / "fits.parquet", b"PAR1")
    problems = verify_run(open_run(run_path))
    assert problems[0].startswith("fits.parquet: unreadable (")
    assert problems[1] == "alpha.csv: layers that the run does not have: 1.5, NaN, null"
