"""`import probe` is light, and offers each public name when it is first used."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import probe
from probe.jobs.analyze import SHARED

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "pandas",
    "pyarrow",
    "numpy",
    "scipy",
    "numba",
    "matplotlib",
    "PIL",
    "typer",
    "rich",
)
# what takes long to import, and no job on a bundled model needs
ELSEWHERE = ("torchvision", "timm", "torch._dynamo", "seaborn", "scipy.stats", "matplotlib.pyplot")
PARTS = {path.name for path in Path(probe.__file__).parent.iterdir() if path.is_dir()}


def loaded_by(code: str, names: tuple[str, ...] = HEAVY) -> set[str]:
    """Which of these modules are imported after `code` in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(*(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code", ["import probe", "import probe; dir(probe); probe.UsageError; probe.__version__"]
)
def test_importing_probe_pulls_in_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


@pytest.mark.parametrize(
    "code",
    [
        "from probe import open_run",
        "import probe.store",
        "import probe.curves.varpro",
        "import probe.plots",
    ],
)
def test_reading_fitting_and_drawing_need_no_torch(code: str) -> None:
    assert "torch" not in loaded_by(code)


def test_the_second_process_of_a_job_needs_no_torch_and_no_terminal() -> None:
    code = f"import importlib\nfor name in {SHARED!r}: importlib.import_module(name)"
    assert not loaded_by(code, ("torch", "rich", "typer", "ipywidgets", *ELSEWHERE))


def test_a_bundled_model_is_listed_and_captured_without_what_other_models_need() -> None:
    code = """
import sys
from probe.cli.main import main
assert main(["layers", "--quiet"]) == 0
assert not {"pandas", "numba", "scipy", "matplotlib", "jinja2"} & set(sys.modules)
import probe.jobs.analyze"""
    assert not loaded_by(code, ELSEWHERE)


@pytest.mark.parametrize("name", sorted(set(probe.__all__) - {"__version__", "norms", "plots"}))
def test_each_public_name_resolves_to_what_it_says(name: str) -> None:
    assert getattr(probe, name).__name__ == name
    assert name in dir(probe)


@pytest.mark.parametrize("name", ["norms", "plots"])
def test_these_are_the_sub_packages(name: str) -> None:
    assert getattr(probe, name).__name__ == f"probe.{name}"


def test_no_public_function_is_called_like_a_sub_package() -> None:
    assert set(probe.__all__) & PARTS == {"norms", "plots"}


def test_the_version_is_that_of_the_distribution() -> None:
    assert probe.__version__ == importlib.metadata.version("probe-norms")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'probe' has no attribute 'captures'"):
        probe.captures  # noqa: B018
