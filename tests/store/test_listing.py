"""The list of the files of a run: complete, bound to what its results were made from, and
changed by one job at a time, all at once.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from probe.errors import ProbeError, UsageError
from probe.store import open_run, verify_run, write_alphas, write_state
from probe.store.results import Results, figures_folder, put
from probe.store.schema import TABLES
from support.manifests import change_manifest

FIGURE = "figures/s_curves.svg"


def fit(run: Path, alphas: pd.DataFrame, alpha: float = 1.0) -> None:
    """What a fit leaves behind."""
    tables = {name: pd.DataFrame(columns=TABLES[name].names) for name in ("fits", "channel_fits")}
    layers = [f"layer{row}" for row in range(len(alphas))]
    open_run(run).save_fits(tables, alphas.assign(layer=layers, alpha=alpha))


def files(run: Path) -> dict[str, dict[str, object]]:
    return json.loads((run / "manifest.json").read_bytes())["files"]


def of_results(run: Path) -> list[str]:
    """Problems of the list; the layers of these tables are not those of the run."""
    return [line for line in verify_run(run) if "does not have" not in line]


def test_every_file_of_a_run_is_in_the_list(run_path: Path, alphas: pd.DataFrame) -> None:
    fit(run_path, alphas)
    write_state({"a.alpha": np.ones(1)}, {}, run_path / "alpha.safetensors")
    put(run_path / FIGURE, b"<svg/>")
    put(run_path / "report.html", b"<html>")
    there = {path.relative_to(run_path).as_posix() for path in run_path.rglob("*.*")}
    assert set(files(run_path)) == there - {"manifest.json"}
    assert of_results(run_path) == []


def test_a_fit_of_other_numbers_makes_figures_and_report_stale_by_name(
    run_path: Path, alphas: pd.DataFrame
) -> None:
    fit(run_path, alphas)
    for name in (FIGURE, "figures/attention_distance.svg", "report.html", "alpha.safetensors"):
        put(run_path / name, b"x")
    fit(run_path, alphas)  # the same numbers
    assert of_results(run_path) == []
    fit(run_path, alphas, alpha=2.0)
    run = str(run_path)
    assert sorted(of_results(run_path)) == [
        f"alpha.safetensors: older than alpha.csv: `probe-norms export {run} --to {run}/"
        "alpha.safetensors` makes it anew",
        f"{FIGURE}: older than alpha.csv: `probe-norms plot {run}` draws it anew",
        f"report.html: older than alpha.csv: `probe-norms report {run}` makes it anew",
    ]
    for name in (FIGURE, "report.html", "alpha.safetensors"):
        put(run_path / name, b"y")
    assert of_results(run_path) == []


def test_files_in_the_place_of_results_that_no_job_wrote_are_named_and_not_read(
    run_path: Path, tmp_path: Path, alphas: pd.DataFrame
) -> None:
    other = shutil.copytree(run_path, tmp_path / "other")
    fit(other, alphas)
    for name in ("fits.parquet", "alpha.csv"):
        shutil.copyfile(other / name, run_path / name)
    (run_path / "notes.txt").write_text("mine")
    problems = verify_run(run_path)
    assert [line.split(";")[0] for line in problems] == [
        "alpha.csv: not in the manifest",
        "fits.parquet: not in the manifest",
    ]
    with pytest.raises(ProbeError, match=r"fits\.parquet: is not in the list of files"):
        open_run(run_path).fits()


def test_an_error_within_a_job_leaves_the_run_as_it_was(
    run_path: Path, alphas: pd.DataFrame
) -> None:
    fit(run_path, alphas)
    before = {path: path.read_bytes() for path in run_path.rglob("*") if path.is_file()}
    with pytest.raises(ZeroDivisionError), Results(run_path) as results:
        results.put(run_path / "alpha.csv", b"other")
        raise ZeroDivisionError
    after = {path: path.read_bytes() for path in run_path.rglob("*") if path.is_file()}
    assert after == before


def test_an_interrupt_between_the_files_of_a_job_waits_for_the_last(
    run_path: Path, alphas: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(run_path, alphas)
    replace, renamed = Path.replace, []

    def interrupted(self: Path, target: Path) -> Path:
        renamed.append(target)
        if len(renamed) == 2:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(run_path, alphas, alpha=2.0)
    monkeypatch.undo()
    assert len(renamed) > 2
    assert of_results(run_path) == []
    assert set(open_run(run_path).alphas()["alpha"]) == {2.0}


def test_a_list_that_does_not_know_its_files_is_seen_by_every_reader(
    run_path: Path, alphas: pd.DataFrame
) -> None:
    fit(run_path, alphas)
    before = (run_path / "manifest.json").read_bytes()
    fit(run_path, alphas, alpha=2.0)
    (run_path / "manifest.json").write_bytes(before)
    with pytest.raises(ProbeError, match=r"alpha\.csv: the content changed .*probe-norms fit"):
        open_run(run_path).alphas()
    assert any(line.startswith("alpha.csv: the content changed") for line in verify_run(run_path))
    fit(run_path, alphas, alpha=2.0)
    assert of_results(run_path) == []


def test_a_job_whose_run_is_fitted_again_meanwhile_writes_nothing(
    run_path: Path, alphas: pd.DataFrame
) -> None:
    fit(run_path, alphas)
    with (
        pytest.raises(ProbeError, match="fitted again by another job meanwhile: nothing was"),
        Results(run_path) as results,
    ):
        results.put(run_path / "report.html", b"of the old fits")
        fit(run_path, alphas, alpha=2.0)
    assert not (run_path / "report.html").exists()
    assert of_results(run_path) == []


def test_a_run_that_is_open_reads_what_another_job_wrote_meanwhile(
    run_path: Path, alphas: pd.DataFrame
) -> None:
    run = open_run(run_path)
    for alpha in (1.0, 2.0):
        fit(run_path, alphas, alpha)
        assert set(run.alphas()["alpha"]) == {alpha}


def test_what_goes_elsewhere_is_in_no_list(run_path: Path, tmp_path: Path, alphas) -> None:
    before = (run_path / "manifest.json").read_bytes()
    write_alphas(alphas, tmp_path / "alpha.csv")
    with Results(run_path) as results:
        results.put(tmp_path / "figures" / "s_curves.svg", b"<svg/>")
        results.put(run_path / "mine.txt", b"notes")
    assert (tmp_path / "figures" / "s_curves.svg").read_bytes() == b"<svg/>"
    assert (run_path / "manifest.json").read_bytes() == before


def test_leftovers_of_killed_jobs_do_not_stand_in_the_way(
    run_path: Path, kit, alphas: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probe.store import staging

    monkeypatch.setattr(staging, "_alive", lambda pid: False)
    left = staging.aside(run_path)
    left.mkdir()
    (left / "0").write_bytes(b"half")
    assert verify_run(run_path) == []
    fit(run_path, alphas)
    assert not left.exists()
    left.mkdir()
    assert verify_run(kit.write_run(run_path, overwrite=True)) == []


def test_a_figures_link_to_elsewhere_is_refused(run_path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run_path / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"figures is a link that leads out of the run.*--out DIR"):
        figures_folder(run_path)


def test_pages_have_checksums_that_any_reader_can_verify(run_path: Path) -> None:
    """A flipped bit in a page fails even where nobody compares the whole file."""
    path = run_path / "profile.parquet"
    column = pq.read_metadata(path).row_group(0).column(5)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)


def test_a_changed_manifest_is_refused_by_its_seal(run_path: Path) -> None:
    path = run_path / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"seed": 11', '"seed": 12'))
    with pytest.raises(ProbeError, match=r"manifest\.json is damaged: the content changed"):
        open_run(run_path)


def test_a_run_of_the_first_version_is_read_as_before(run_path: Path, alphas: pd.DataFrame) -> None:
    """It has no seal, and its results are in no list."""
    change_manifest(run_path, lambda manifest: manifest.update(version=1))
    manifest = json.loads((run_path / "manifest.json").read_bytes())
    del manifest["checksum"]
    (run_path / "manifest.json").write_text(json.dumps(manifest))
    fit(run_path, alphas)
    assert set(open_run(run_path).alphas()["alpha"]) == {1.0}
    assert of_results(run_path) == []
    assert "alpha.csv" not in files(run_path)
