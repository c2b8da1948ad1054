"""Every published figure is drawn by one command, and the page beside them says how."""

from __future__ import annotations

from pathlib import Path

import pytest

from probe.jobs import published
from probe.jobs.published import FIGURES, published_figures
from probe.models.loading.load import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published")
    published_figures(out, num_images=8)
    return out


def test_every_figure_is_there_and_nothing_else(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        *(f"{name}.png" for name in FIGURES),
        "README.md",
    }
    assert all((folder / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in FIGURES)


def test_the_page_names_models_images_and_a_command_for_each(folder: Path) -> None:
    page = (folder / "README.md").read_text()
    assert (
        "bundled:vit_cifar10 (`vit`) and bundled:resnet_cifar10 (`resnet`), 8 images, seed 0"
        in page
    )
    assert all(f"| `{name}.png` |" in page for name in FIGURES)


def test_only_the_bundled_networks_are_called_toys(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "The bundled networks are toys" in (folder / "README.md").read_text()
    monkeypatch.setattr(published, "FIGURES", {})  # the page alone
    published_figures(tmp_path, vit=load_model("test_vit", weights="random"), num_images=2)
    page = (tmp_path / "README.md").read_text()
    vit = "timm:test_vit with weights random (`vit`)"
    assert f"{vit} and bundled:resnet_cifar10 (`resnet`), 2 images" in page
    assert "toys" not in page


def test_the_commands_on_the_page_exist() -> None:
    from probe.cli.main import app
    from probe.jobs.drawing.draw import KINDS

    names = {command.callback.__name__ for command in app.registered_commands}
    for one in FIGURES.values():
        command, *rest = one.command.split()
        assert command in names
        assert "--kind" not in rest or rest[rest.index("--kind") + 1] in KINDS
