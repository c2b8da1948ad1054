"""The attention table of a run: written with its types, read as pandas, verified, and one line
where there is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from probe.errors import ProbeError, UsageError
from probe.store import RunWriter, open_run, verify_run
from probe.store.schema import TABLES
from support.manifests import change_manifest

MODEL = {"name": "timm:vit_tiny", "origin": "timm"}


def table(**changes: Any) -> pd.DataFrame:
    """Two layers of three heads on a 14x14 grid."""
    rows = [
        {
            "layer": f"blocks.{depth}.attn",
            "head": head,
            "depth": depth,
            "distance_px": 60.0 + head,
            "distance_px_raw": 58.0 + head,
        }
        for depth in range(2)
        for head in range(3)
    ]
    same = {
        "distance_patches": 4.0,
        "distance_px_std": 1.5,
        "prefix_mass": 0.1,
        "entropy": 4.5,
        "token_stride": 16.0,
    }
    same |= {"grid": "14x14", "uniform_px": 116.49, "images": 8, "windows": 1, "prefix_tokens": 1}
    return pd.DataFrame(rows).assign(**same).assign(**changes)


def write(out: Path, frame: pd.DataFrame | None, **manifest: Any) -> Path:
    """A run whose job was attention."""
    with RunWriter(out) as writer:
        if frame is not None:
            writer.write_table("attention", frame)
        return writer.finish({"job": "attention", "model": MODEL, "layers": [], **manifest})


def test_the_table_comes_back_with_the_types_of_the_design(tmp_path: Path) -> None:
    path = write(tmp_path / "run", table())
    expected = table()[TABLES["attention"].names]
    pd.testing.assert_frame_equal(
        open_run(path).attention(), expected, check_dtype=False, check_exact=True
    )
    schema = pq.read_schema(path / "attention.parquet")
    assert [
        str(schema.field(name).type)
        for name in ("head", "images", "depth", "windows", "prefix_tokens", "entropy", "grid")
    ] == [
        "int32",
        "int64",
        "int32",
        "int32",
        "int32",
        "double",
        "string",
    ]


def test_the_same_table_has_the_same_bytes(tmp_path: Path) -> None:
    a, b = (write(tmp_path / name, table()) / "attention.parquet" for name in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_a_run_of_attention_alone_is_sound(tmp_path: Path) -> None:
    assert verify_run(write(tmp_path / "run", table())) == []


def test_a_missing_number_is_no_problem(tmp_path: Path) -> None:
    """Without the size of the image there are patches and no pixels."""
    assert (
        verify_run(
            write(tmp_path / "run", table(distance_px=float("nan"), uniform_px=float("nan")))
        )
        == []
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"distance_patches": 18.5},
            "attention: a distance lies outside its grid (6 rows; blocks.0.attn, blocks.1.attn)",
        ),
        ({"distance_px": -1.0}, "attention: a distance lies outside its grid (6 rows"),
        ({"prefix_mass": 1.1}, "attention: prefix mass outside 0 to 1, or entropy below 0 (6 rows"),
        ({"entropy": -0.1}, "attention: prefix mass outside 0 to 1, or entropy below 0 (6 rows"),
        (
            {"head": [0, 1, 2, 0, 2, 2]},
            "attention: a head is missing or there twice (1 rows; blocks.1.attn)",
        ),
    ],
)
def test_numbers_that_cannot_be_are_named(
    changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    (found,) = verify_run(write(tmp_path / "run", table(**changes)))
    assert found.startswith(problem)


def test_a_changed_table_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "run", table())
    size = (path / "attention.parquet").stat().st_size
    table(distance_px=1.0).to_parquet(path / "attention.parquet")
    now = (path / "attention.parquet").stat().st_size
    assert verify_run(path) == [
        f"attention.parquet: the content changed ({now} bytes, the manifest says {size})"
    ]
    (path / "attention.parquet").unlink()
    assert verify_run(path) == [
        "attention.parquet: missing or unreadable (No such file or directory)"
    ]
    with pytest.raises(ProbeError, match=r"is damaged: attention\.parquet: missing"):
        open_run(path).attention()


def test_a_run_of_attention_without_its_table_is_named(tmp_path: Path) -> None:
    assert verify_run(write(tmp_path / "run", None)) == ["attention.parquet: never written"]


def test_a_whole_run_may_hold_the_table_and_is_verified_with_it(tmp_path: Path, kit: Any) -> None:
    layers = kit.populations()
    for name, frame, problems in (("good", table(), 0), ("bad", table(prefix_mass=2.0), 1)):
        with RunWriter(tmp_path / name) as writer:
            kit.fill(writer, layers)
            writer.write_table("attention", frame)
            path = writer.finish(kit.manifest(layers))
        assert len(verify_run(path)) == problems
        assert len(open_run(path).attention()) == 6


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (
            None,
            r"it was captured without; `probe-norms attention --model timm:vit_tiny --out DIR` "
            r"measures it$",
        ),
        ({"status": "off"}, "it was captured without"),
        ({"status": "none"}, "no attention was seen in its model$"),
        (
            {
                "status": "unreadable",
                "unreadable": {"a": "linear attention", "b": "channel attention"},
            },
            r"none of its model's attention can be read \(a: linear attention; b: channel "
            r"attention\)$",
        ),
    ],
)
def test_a_run_without_the_table_says_why_and_what_to_do(
    attention: Any, message: str, run_path: Path
) -> None:
    change_manifest(run_path, lambda manifest: manifest.update(attention=attention, model=MODEL))
    with pytest.raises(UsageError, match=message) as error:
        open_run(run_path).attention()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["moments", "profile", "rows", "fits", "channel_fits", "alphas"])
def test_a_run_of_attention_alone_has_no_other_table_and_says_so(name: str, tmp_path: Path) -> None:
    run = open_run(write(tmp_path / "run", table()))
    message = (
        rf"holds attention distances only, no {name}: `probe-norms --model timm:vit_tiny` "
        "makes a whole run"
    )
    with pytest.raises(UsageError, match=message):
        getattr(run, name)()
