"""Run: pandas read-outs of a finished run, and one line for whatever cannot be read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probe.errors import ProbeError, UsageError
from probe.store import open_run, run_names, write_alphas
from probe.store.schema import ALPHAS, LAYERS, TABLES
from support.manifests import change_manifest


def edit_manifest(run_path: Path, **changes: object) -> None:
    change_manifest(run_path, lambda manifest: manifest.update(changes))


def one_line(error: Exception) -> str:
    message = str(error)
    assert "\n" not in message
    return message


def test_layers_come_in_execution_order_with_every_column(run_path: Path, kit) -> None:
    run = open_run(run_path)
    assert list(run.layers.columns) == list(LAYERS)
    assert list(run.layers["layer"]) == list(kit.names)
    assert (run.layers["status"] == "captured").all()
    assert run.layers["eps"].isna().all()
    assert [run.layers[name].dtype.kind for name in ("depth", "affine", "sigma_cv")] == [
        "i",
        "b",
        "f",
    ]


def test_a_run_without_layers_still_has_the_columns_and_empty_samples(
    tmp_path: Path, run_path: Path
) -> None:
    edit_manifest(run_path, layers=[])
    run = open_run(run_path)
    assert list(run.layers.columns) == list(LAYERS)
    assert run.samples().empty


def test_runs_are_named_by_their_folders_or_by_whole_paths_where_these_are_alike(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = open_run(run_path), open_run(shutil.copytree(run_path, tmp_path / "second"))
    assert run_names([first, second]) == [run_path.name, "second"]
    same = open_run(shutil.copytree(run_path, tmp_path / "elsewhere" / run_path.name))
    assert run_names([first, same]) == [str(first.path), str(same.path)]
    monkeypatch.chdir(second.path)
    assert run_names([open_run(".")]) == ["second"]


def test_a_run_says_which_tables_it_has(run_path: Path) -> None:
    run = open_run(run_path)
    assert [run.has(name) for name in ("moments", "fits", "attention")] == [True, False, False]


@pytest.mark.parametrize("name", ["moments", "profile"])
def test_tables_come_back_as_they_were_written(run_path: Path, kit, name: str) -> None:
    expected = pd.concat(
        [getattr(layer, name)() for layer in kit.populations()], ignore_index=True
    )[TABLES[name].names]
    got = getattr(open_run(run_path), name)()
    pd.testing.assert_frame_equal(
        got.astype({"layer": "str"}),
        expected.astype({"layer": "str"}),
        check_dtype=False,
        check_exact=True,
    )


@pytest.mark.parametrize("name", ["moments", "profile"])
def test_tables_of_one_layer(run_path: Path, kit, name: str) -> None:
    run = open_run(str(run_path))
    assert set(getattr(run, name)(kit.names[2])["layer"]) == {kit.names[2]}


def test_samples_hold_the_elements_of_the_population(run_path: Path, kit) -> None:
    layer = kit.populations()[1]
    samples = open_run(run_path).samples(layer.name)
    for name in kit.values:
        assert samples[name].dtype == np.float32
        row = samples["image"] * 10 + samples["position"]
        np.testing.assert_array_equal(samples[name], layer.values[name][row, samples["channel"]])


def test_samples_by_layer_channel_and_stratum(run_path: Path, kit) -> None:
    run = open_run(run_path)
    assert list(run.samples()["layer"].cat.categories) == list(kit.names)
    assert set(run.samples(kit.names[:2])["layer"]) == set(kit.names[:2])
    part = run.samples(kit.names[0], channels=[5, 0, 5], stratum="uniform")
    assert list(part["channel"].unique()) == [0, 5]
    assert set(part["stratum"]) == {"uniform"}
    assert len(part) == 2 * kit.samples
    assert set(run.samples(kit.names[0], stratum=["prefix", "tail"])["stratum"]) == {
        "prefix",
        "tail",
    }
    assert run.samples(channels=[]).empty


def test_a_layer_that_was_never_called_has_no_samples(run_path: Path, kit) -> None:
    layers = [layer.record() for layer in kit.populations()] + [
        {"layer": "aux", "depth": 3, "channels": 2, "status": "not_called"}
    ]
    edit_manifest(run_path, layers=layers)
    samples = open_run(run_path).samples("aux")
    assert samples.empty
    assert list(samples.columns) == [
        "layer",
        "image",
        "position",
        "channel",
        *kit.values,
        "stratum",
    ]


def test_an_unknown_layer_names_the_nearest(run_path: Path) -> None:
    for ask in (open_run(run_path).samples, open_run(run_path).moments):
        with pytest.raises(UsageError) as caught:
            ask("blocks.0.norm2")
        assert "nearest: blocks.0.norm1" in one_line(caught.value)
    with pytest.raises(
        UsageError, match=r"known: stem/norm, blocks\.0\.norm1, blocks\.0\.norm1#2$"
    ):
        open_run(run_path).profile("zzz")


def test_an_unknown_channel_stratum_or_column_is_one_line(run_path: Path, kit) -> None:
    with pytest.raises(UsageError, match="channel 6 does not exist: stem/norm has channels 0 to 5"):
        open_run(run_path).samples(kit.names[0], channels=[2, 6])
    with pytest.raises(UsageError, match="channel -1 does not exist"):
        open_run(run_path).samples(channels=[-1])
    with pytest.raises(
        UsageError, match="stratum 'tails' is unknown; known: uniform, prefix, tail"
    ):
        open_run(run_path).samples(stratum="tails")
    with pytest.raises(UsageError, match=r"column 'inputs' is unknown.*; known: layer, image"):
        open_run(run_path).samples(columns=["inputs"])


def test_columns_are_read_alone(run_path: Path) -> None:
    run = open_run(run_path)
    part = run.samples(columns=["input", "stratum"], channels=[1])
    pd.testing.assert_frame_equal(part, run.samples(channels=[1])[["input", "stratum"]])


@pytest.mark.parametrize(
    ("table", "command"), [("fits", "fit"), ("channel_fits", "fit"), ("alphas", "export")]
)
def test_a_table_that_does_not_exist_yet_names_the_command_that_makes_it(
    run_path: Path, table: str, command: str
) -> None:
    with pytest.raises(UsageError) as caught:
        getattr(open_run(run_path), table)()
    assert f"`probe-norms {command} {run_path}`" in one_line(caught.value)


def fits(alpha: float) -> pd.DataFrame:
    frame = pd.DataFrame({field.name: [None] * 2 for field in TABLES["fits"]})
    frame[["layer", "family", "scope", "weighting", "tokens", "status"]] = "a"
    frame[["depth", "groups", "count"]] = 1
    return frame.assign(
        layer=["stem/norm", "blocks.0.norm1"], best=[True, False], alpha=[alpha, None]
    )


def test_saved_fits_come_back_and_are_replaced(run_path: Path) -> None:
    run = open_run(run_path)
    for alpha in (0.25, 0.5):
        run.save_table("fits", fits(alpha))
        got = run.fits()
        assert got["alpha"].iloc[0] == alpha
        assert np.isnan(got["alpha"].iloc[1])
        assert got["best"].dtype == bool
    assert not [path for path in run_path.iterdir() if path.name.startswith(".")]


def test_alphas_come_back_exactly(run_path: Path, alphas: pd.DataFrame) -> None:
    write_alphas(alphas, run_path / "alpha.csv")
    got = open_run(run_path).alphas()
    assert list(got.columns) == list(ALPHAS)
    pd.testing.assert_frame_equal(got, alphas[list(ALPHAS)], check_dtype=False, check_exact=True)


def test_a_run_opens_itself(run_path: Path) -> None:
    run = open_run(run_path)
    assert open_run(run) is run


def test_a_missing_path_a_file_and_a_plain_folder_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, problem in [
        (tmp_path / "none", "does not exist"),
        (tmp_path / "file", "is a file"),
        (tmp_path, "holds no manifest.json"),
    ]:
        with pytest.raises(UsageError, match=problem) as caught:
            open_run(path)
        assert str(path) in one_line(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "other"}', "\x00"])
def test_a_foreign_or_damaged_manifest_is_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match="is no run"):
        open_run(tmp_path)


def test_an_unfinished_or_newer_run_is_refused(run_path: Path) -> None:
    edit_manifest(run_path, status="running")
    with pytest.raises(UsageError, match="unfinished run"):
        open_run(run_path)
    edit_manifest(run_path, status="finished", version=99)
    with pytest.raises(UsageError, match="run format 99; this version reads up to 2: update"):
        open_run(run_path)


def test_damaged_and_missing_files_are_one_line(run_path: Path, kit) -> None:
    run = open_run(run_path)
    (run_path / "moments.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(
        ProbeError, match="moments.parquet: the content changed .*probe-norms verify"
    ) as caught:
        run.moments()
    one_line(caught.value)
    (run_path / "profile.parquet").unlink()
    with pytest.raises(
        ProbeError, match="is damaged: profile.parquet: missing .*capture the run again"
    ):
        run.profile()


def test_the_notebook_view_is_escaped_and_short(run_path: Path) -> None:
    html = open_run(run_path)._repr_html_()
    assert "toy &lt;b&gt;" in html
    assert "toy <b>" not in html
    assert "blocks.0.norm1#2" in html
    assert "<th>seed</th><td>11</td>" in html
    assert repr(open_run(run_path)) == f"Run({str(run_path)!r}, 3 layers)"


@pytest.mark.parametrize("path", ["y" * 5000, "a\0b"])
def test_a_path_that_cannot_be_one_is_refused_in_one_line(path: str) -> None:
    with pytest.raises(UsageError, match="cannot be opened") as caught:
        open_run(path)
    one_line(caught.value)
