"""No damage of any file of a run goes unseen: `verify` names the file, and no job computes from it.

The runs are small ones with everything in them; docs/trust.md shows the table of these trials.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import probe
from probe.errors import ProbeError
from probe.jobs.drawing.draw import plot
from probe.store import open_run, verify_run
from support import damage
from support.captures import Everything, token_batches

PAGE = Path(__file__).parents[2] / "docs" / "trust.md"
FIGURES = ("s_curves_selected", "attention_distance")


def make(out: Path, scale: float) -> Path:
    """A run with every kind of file, of 40 images of scaled tokens."""
    batches = [scale * batch for batch in token_batches(positions=12)]
    run = probe.capture(
        Everything(),
        batches,
        out=out,
        attention=True,
        grid=(1, 11),
        prefix_tokens=1,
        patch_size=1,
        samples=32,
        tail=20,
    )
    probe.fit(run)
    probe.export_alphas(run, run.path / "alpha.safetensors")
    plot(run, kinds=FIGURES)
    probe.report(run)
    return run.path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("sound") / "run", scale=1.0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("other") / "run", scale=1.5)


def kinds_of_files(run: Path) -> dict[str, str]:
    """Name of a file -> its kind; of the samples and the figures two of each are enough."""
    samples = sorted((run / "samples").iterdir())[:2]
    files = {f"samples/{path.name}": "samples" for path in samples}
    files |= {
        f"figures/{FIGURES[0]}.{ending}": f"figure, {ending.upper()}" for ending in ("png", "svg")
    }
    return files | {path.name: path.name for path in sorted(run.iterdir()) if path.is_file()}


def named(run: Path, name: str) -> bool:
    """Does verify say that this very file is damaged?"""
    try:
        return any(line.startswith(f"{name}: ") for line in verify_run(run))
    except ProbeError as error:
        return name == "manifest.json" and name in str(error)


def test_a_sound_run_has_no_problem(sound: Path) -> None:
    assert verify_run(sound) == []


def test_every_damage_of_every_kind_of_file_is_named_and_the_page_shows_how_many(
    sound: Path, other: Path, tmp_path: Path
) -> None:
    done: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    missed = []
    for trial in damage.trials(kinds_of_files(sound)):
        run = tmp_path / "run"
        shutil.copytree(sound, run)
        damage.do(trial, run, other)
        done[trial.kind] += 1
        if named(run, trial.name):
            seen[trial.kind] += 1
        else:
            missed.append(trial)
        shutil.rmtree(run)
    assert not missed
    assert sum(done.values()) >= 104
    assert table(done, seen) in PAGE.read_text(encoding="utf-8"), table(done, seen)


def table(done: Counter[str], seen: Counter[str]) -> str:
    """As the page shows it."""
    rows = [f"| {kind} | {done[kind]} | {seen[kind]} |" for kind in sorted(done)]
    total = f"| **all** | **{sum(done.values())}** | **{sum(seen.values())}** |"
    return "\n".join(["| file | damages | named by `verify` |", "|---|---|---|", *rows, total])


JOBS: dict[str, Callable[[Path, Path], Any]] = {
    "fit": lambda run, out: probe.fit(run, save=False).to_csv().encode(),
    "export alpha.csv": lambda run, out: read(probe.export_alphas(run, out / "alpha.csv")),
    "export safetensors": lambda run, out: read(
        probe.export_alphas(run, out / "alpha.safetensors")
    ),
    "export of a layer": lambda run, out: read(
        probe.export_alphas(run, out / "alpha.safetensors", scope="layer")
    ),
    **{
        f"plot {kind}": lambda run, out, kind=kind: b"".join(
            map(read, plot(run, kinds=[kind], formats=["svg"], out=out))
        )
        for kind in (
            "s_curves_selected",
            "by_position",
            "alpha_vs_inverse_std",
            "attention_distance",
        )
    },
    "report": lambda run, out: b"".join(map(read, probe.report(run, out=out / "report.html"))),
    "compare": lambda run, out: probe.compare(run, run).to_csv().encode(),
}


def read(path: Path) -> bytes:
    return path.read_bytes()


TABLES = (
    "samples",
    "moments.parquet",
    "profile.parquet",
    "rows.parquet",
    "attention.parquet",
    "fits.parquet",
    "channel_fits.parquet",
    "alpha.csv",
    "manifest.json",
)


LONG = ("report", "plot by_position", "compare")  # seconds for each damaged file


@pytest.mark.parametrize(
    "job", [pytest.param(job, marks=pytest.mark.slow if job in LONG else ()) for job in JOBS]
)
def test_no_job_computes_from_a_damaged_file(
    job: str, sound: Path, other: Path, tmp_path: Path
) -> None:
    """It names the file, or gives what it gave before the damage: then it never looked at it."""
    work, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(sound, work)
    out.mkdir()
    expected = JOBS[job](work, out)
    refused = set()
    for name, kind in kinds_of_files(sound).items():
        if kind not in TABLES:
            continue
        for way in ("deleted", damage.SWAPPED):
            damage.do(damage.Trial(kind, way, name, 0), work, other)
            result = result_or_error(lambda: JOBS[job](work, out))
            shutil.copyfile(sound / name, work / name)
            if isinstance(result, ProbeError):
                # the files do not fit the manifest of another run
                assert name in str(result) or (name, way) == ("manifest.json", damage.SWAPPED)
                assert "\n" not in str(result)
                refused.add(name)
            else:
                assert result == expected, (name, way)
    assert "manifest.json" in refused
    assert len(refused) > 1


def result_or_error(job: Callable[[], bytes]) -> bytes | ProbeError:
    try:
        return job()
    except ProbeError as error:
        return error


def test_a_flipped_bit_in_the_profile_stops_the_export(sound: Path, tmp_path: Path) -> None:
    run = shutil.copytree(sound, tmp_path / "run")
    for name in ("fits.parquet", "channel_fits.parquet", "alpha.csv", "alpha.json"):
        (run / name).unlink()
    damage.do(damage.Trial("", "bit flipped", "profile.parquet", 0), run, run)
    with pytest.raises(ProbeError, match=r"alpha\.csv: missing"):
        probe.export_alphas(run, tmp_path / "alpha.csv")
    with pytest.raises(ProbeError, match=r"profile\.parquet: the content changed"):
        probe.fit(open_run(run))
    assert not (tmp_path / "alpha.csv").exists()


@pytest.mark.parametrize("name", ["alpha.csv", "alpha.json", "alpha.safetensors"])
@pytest.mark.parametrize("way", ["bit flipped", damage.SWAPPED])
def test_norms_are_not_replaced_by_damaged_alphas(
    name: str, way: str, sound: Path, other: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(sound, tmp_path / "run")
    damage.do(damage.Trial("", way, name, 0), run, other)
    with pytest.raises(ProbeError, match=rf"{name}: the content changed"):
        probe.replace_norms(Everything(), "dyt", alphas=run / name)
    shutil.copyfile(sound / name, run / name)
    probe.replace_norms(Everything(), "dyt", alphas=run / name)
