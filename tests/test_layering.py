"""Imports go downwards only: the table of the house, held against the code.

Ranks order the parts of the package; inside `models/` and `jobs/` a second list orders the rooms.
No two modules import each other, directly or in a circle.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe

ROOT = Path(probe.__file__).parent

# Parts of the package from the ground up: a part imports from the lines above its own only.
RANKS = [
    {"errors", "records", "bins", "formatting", "private", "heap", "wide_vectors", "kernel_files"},
    {"layer_names", "paths", "offline", "compiling"},
    {"stats", "curves", "norms", "data", "store", "plots", "wording", "html", "engines"},
    {"models"},
    {"jobs"},
    {"training"},
    {"cli"},
]
RANK = {part: rank for rank, parts in enumerate(RANKS) for part in parts}

# Rooms inside a part, likewise from the ground up.
ROOMS = {
    "models": [
        {"reading", "architectures"},
        {"attention", "replacing"},
        {"loading"},
        {"folding"},
    ],
    "jobs": [
        {"image_batches", "figure_file", "page_tables", "sharing"},
        {"inputs"},
        {"model_file", "reopen"},
        {"capturing"},
        {"fitting"},
        {"replacing"},
        {"speed"},
        {"folding"},
        {"converting"},
        {"drawing"},
        {"reporting"},
        {"analyze", "published"},
    ],
    "training": [
        {
            "recipe",
            "options",
            "randomness",
            "folder",
            "history",
            "images",
            "norm_values",
            "machine",
            "figure_files",
        },
        {
            "recipes",
            "schedules",
            "losses",
            "augment",
            "order",
            "launch",
            "state",
            "result",
            "portions",
        },
        {"choice", "batches", "network", "optimizer", "saving", "tracking"},
        {"flags", "plan", "update", "validation", "reporting"},
        {"survey", "evaluate"},
        {"loop"},
        {"prepare", "distilling"},
        {"probing"},
        {"train"},
        {"bundled", "card", "comparing"},
    ],
}
ROOM = {
    part: {room: rank for rank, rooms in enumerate(ranks) for room in rooms}
    for part, ranks in ROOMS.items()
}

NEVER_IMPORTS = {
    "errors": {"torch", "numpy", "pandas"},
    "records": {"torch", "numpy", "pandas"},
    "bins": {"torch", "pandas"},
    "formatting": {"torch", "numpy", "pandas"},
    "curves": {"torch", "timm", "torchvision", "pyarrow", "matplotlib"},
    "store": {"torch", "timm", "torchvision", "matplotlib"},
    "plots": {"torch", "timm", "torchvision", "pyarrow", "scipy"},
    "norms": {"timm", "torchvision", "numpy", "pandas", "pyarrow"},
    "stats": {"timm", "torchvision", "pandas", "pyarrow", "matplotlib", "PIL"},
    "wording": {"torch", "timm", "torchvision", "pandas", "pyarrow", "matplotlib", "numpy"},
    "html": {"torch", "timm", "torchvision", "pyarrow", "matplotlib"},
    "engines": {"timm", "torchvision", "pandas", "pyarrow", "matplotlib"},
}

Edge = tuple[str, str]


def modules() -> Iterator[tuple[str, ast.Module]]:
    """(dotted name, tree) of each module but the entry points `probe` and `probe.__main__`."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("probe", *path.relative_to(ROOT).with_suffix("").parts)
        if parts[1] not in ("__init__", "__main__"):
            name = ".".join(parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(module: str, tree: ast.Module) -> Iterator[str]:
    """Dotted names that a module imports anywhere: inside functions, under TYPE_CHECKING,
    relatively.
    """
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


def places(name: str) -> list[str]:
    """The part and the room of a dotted name, as far as it has them."""
    return name.split(".")[1:3]


def allowed(module: str, target: str) -> bool:
    """Does the import go down: to a lower part, or to a lower room of the same part?"""
    if target.split(".")[0] != "probe" or target == "probe.__version__":
        return True
    part, *room = places(module)
    other, *other_room = [*places(target), ""][:2]
    if other != part:
        return other in RANK and RANK[other] < RANK[part]
    rooms = ROOM.get(part)
    if rooms is None or room == other_room or not room:
        return True
    return other_room[0] in rooms and rooms[other_room[0]] < rooms[room[0]]


def upward_edges(sources: dict[str, ast.Module]) -> list[Edge]:
    """Imports that do not go down. The version number has no rank."""
    return [
        (module, target)
        for module, tree in sources.items()
        for target in imports(module, tree)
        if not allowed(module, target)
    ]


def at_import(tree: ast.Module) -> ast.Module:
    """What runs when the module is imported: not its functions, not what type checkers alone
    see.
    """

    class Outside(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if "TYPE_CHECKING" in ast.dump(node.test) else self.generic_visit(node)

    return Outside().visit(ast.parse(ast.unparse(tree)))


def circles(sources: dict[str, ast.Module]) -> list[list[str]]:
    """Groups of modules that import each other, in a circle of any length."""
    edges = {
        module: {
            other
            for target in imports(module, at_import(tree))
            for other in (target, target.rpartition(".")[0])
            if other in sources and other != module and not module.startswith(f"{other}.")
        }
        for module, tree in sources.items()
    }

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for other in edges[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    after = {module: reached(module) for module in sources}
    found = {
        tuple(sorted({module, *(o for o in after[module] if module in after[o])}))
        for module in sources
        if module in after[module]
    }
    return sorted(list(circle) for circle in found)


SOURCES = dict(modules())


def test_every_part_and_every_room_has_a_rank() -> None:
    assert {places(module)[0] for module in SOURCES} <= set(RANK)
    for part, rooms in ROOM.items():
        here = {places(module)[1] for module in SOURCES if module.startswith(f"probe.{part}.")}
        assert here == set(rooms)


def test_imports_go_down_only() -> None:
    assert upward_edges(SOURCES) == []


def test_no_modules_import_each_other() -> None:
    assert circles(SOURCES) == []


@pytest.mark.parametrize("part", sorted(NEVER_IMPORTS))
def test_a_part_stays_free_of_libraries_it_has_no_business_with(part: str) -> None:
    found = {
        (module, target.split(".")[0])
        for module, tree in SOURCES.items()
        if places(module)[0] == part
        for target in imports(module, tree)
    }
    assert not {(module, library) for module, library in found if library in NEVER_IMPORTS[part]}


def test_only_models_registers_hooks() -> None:
    registering = {
        module
        for module, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("register_")
        and node.attr.endswith("hook")
    }
    assert {module.split(".")[1] for module in registering} <= {"models"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("probe.store.run", "from probe.models.loading.load import Model"),
        ("probe.store.run", "def f():\n    import probe.curves.varpro"),
        ("probe.curves.varpro", "from ..plots import style"),
        ("probe.records", "from probe.errors import ProbeError"),
        ("probe.plots.style", "from probe import stats"),
        (
            "probe.models.loading.load",
            "if TYPE_CHECKING:\n    from probe.jobs.inputs import Stream",
        ),
        ("probe.jobs.fitting.fit", "import probe"),
        ("probe.jobs.fitting.fit", "from probe import nothing_known"),
        ("probe.jobs.fitting.fit", "from probe.jobs.reporting.report import report"),
        ("probe.jobs.inputs", "def f():\n    from probe.jobs.reopen import run_model"),
        ("probe.jobs.fitting.fit", "from probe.jobs import drawing"),
        ("probe.models.reading.tap", "from probe.models.folding.fold import fold"),
        ("probe.models.attention.probe", "from ..replacing import swap"),
    ],
)
def test_a_wrong_import_is_seen_wherever_it_stands(module: str, source: str) -> None:
    assert [edge[0] for edge in upward_edges({module: ast.parse(source)})] == [module]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("probe.store.run", "from . import schema"),
        ("probe.store.run", "from probe.errors import ProbeError"),
        ("probe.store.run", "import numpy"),
        ("probe.store.run", "from probe.store import run"),
        ("probe.jobs.fitting.fit", "from probe.jobs.fitting.tables import alpha_row"),
        ("probe.jobs.drawing.draw", "from probe.jobs.fitting.fit import fit"),
        ("probe.jobs.analyze", "from probe.jobs.drawing.draw import plot"),
    ],
)
def test_imports_within_a_room_and_downward_are_allowed(module: str, source: str) -> None:
    assert upward_edges({module: ast.parse(source)}) == []


def test_a_circle_is_seen_unless_one_of_its_imports_waits_for_a_call() -> None:
    a = ast.parse("from probe.store.b import x")
    b, late = (
        ast.parse(code) for code in ("import probe.store.c", "def f():\n    import probe.store.c")
    )
    c = ast.parse("if TYPE_CHECKING:\n    import d\nfrom probe.store import a")
    names = ["probe.store.a", "probe.store.b", "probe.store.c"]
    assert circles(dict(zip(names, (a, b, c), strict=True))) == [names]
    assert circles(dict(zip(names, (a, late, c), strict=True))) == []
