"""Imports go to a lower rank only, and some parts stay free of some libraries: the table of the design, held against the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe

ROOT = Path(probe.__file__).parent

RANKS = [
    {"errors", "records", "bins", "values"},
    {"stats", "curves", "norms", "data", "store", "plots", "html", "engines"},
    {"models"},
    {"pipeline"},
    {"training"},
    {"cli"},
]
RANK = {part: rank for rank, parts in enumerate(RANKS) for part in parts}

NEVER_IMPORTS = {
    "errors": {"torch", "numpy", "pandas"},
    "records": {"torch", "numpy", "pandas"},
    "bins": {"torch", "pandas"},
    "values": {"torch", "numpy", "pandas"},
    "curves": {"torch", "timm", "torchvision", "pyarrow", "matplotlib"},
    "store": {"torch", "timm", "torchvision", "matplotlib"},
    "plots": {"torch", "timm", "torchvision", "pyarrow", "scipy"},
    "norms": {"timm", "torchvision", "numpy", "pandas", "pyarrow"},
    "stats": {"timm", "torchvision", "pandas", "pyarrow", "matplotlib", "PIL"},
    "html": {"torch", "timm", "torchvision", "pyarrow", "matplotlib"},
    "engines": {"timm", "torchvision", "pandas", "pyarrow", "matplotlib"},
}

Edge = tuple[str, str]


def modules() -> Iterator[tuple[str, str, ast.Module]]:
    """(dotted name, part, tree) of each module but the entry points `probe` and `probe.__main__`."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("probe", *path.relative_to(ROOT).with_suffix("").parts)
        if parts[1] not in ("__init__", "__main__"):
            yield ".".join(parts), parts[1], ast.parse(path.read_text(encoding="utf-8"))


def imports(module: str, tree: ast.Module) -> Iterator[str]:
    """Dotted names that a module imports anywhere: inside functions, under TYPE_CHECKING, relatively."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                [*module.split(".")[: -node.level], *([node.module] if node.module else [])]
                if node.level
                else [node.module or ""]
            )
            yield from (".".join([*base, alias.name]) for alias in node.names)


def upward_edges(sources: dict[str, ast.Module]) -> list[Edge]:
    """Imports between parts that do not go to a lower rank. The version number has none."""
    wrong = []
    for module, tree in sources.items():
        part = module.split(".")[1]
        for target in imports(module, tree):
            other = (target.split(".") + [""])[1] if target.split(".")[0] == "probe" else part
            if target != "probe.__version__" and other != part and not (other in RANK and RANK[other] < RANK[part]):
                wrong.append((module, target))
    return wrong


SOURCES = {module: tree for module, _, tree in modules()}


def test_every_part_has_a_rank() -> None:
    assert {module.split(".")[1] for module in SOURCES} <= set(RANK)


def test_imports_go_to_a_lower_rank_only() -> None:
    assert upward_edges(SOURCES) == []


@pytest.mark.parametrize("part", sorted(NEVER_IMPORTS))
def test_a_part_stays_free_of_libraries_it_has_no_business_with(part: str) -> None:
    found = {
        (module, target.split(".")[0])
        for module, tree in SOURCES.items()
        if module.split(".")[1] == part
        for target in imports(module, tree)
    }
    assert not {(module, library) for module, library in found if library in NEVER_IMPORTS[part]}


def test_only_models_registers_hooks() -> None:
    registering = {
        module
        for module, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("register_") and node.attr.endswith("hook")
    }
    assert {module.split(".")[1] for module in registering} <= {"models"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("probe.store.run", "from probe.models.load import Model"),
        ("probe.store.run", "def f():\n    import probe.curves.varpro"),
        ("probe.curves.varpro", "from ..plots import style"),
        ("probe.records", "from probe.errors import ProbeError"),
        ("probe.plots.style", "from probe import stats"),
        ("probe.models.load", "if TYPE_CHECKING:\n    from probe.pipeline.capture import capture"),
        ("probe.pipeline.fit_run", "import probe"),
        ("probe.pipeline.fit_run", "from probe import nothing_known"),
    ],
)
def test_a_wrong_import_is_seen_wherever_it_stands(module: str, source: str) -> None:
    assert [edge[0] for edge in upward_edges({module: ast.parse(source)})] == [module]


@pytest.mark.parametrize(
    "source", ["from . import schema", "from probe.errors import ProbeError", "import numpy", "from probe.store import run"]
)
def test_imports_within_a_part_and_downward_are_allowed(source: str) -> None:
    assert upward_edges({"probe.store.run": ast.parse(source)}) == []
