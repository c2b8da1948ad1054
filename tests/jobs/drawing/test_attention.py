"""Attention of several runs in one figure, and the maps and the rollout of one image; what cannot
be drawn is named.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from probe import plots
from probe.errors import ProbeError, UsageError
from probe.jobs.drawing import attention as attention_figures
from probe.jobs.drawing.attention import draw_attention, draw_runs
from probe.models.loading.load import Model
from support import stored_runs
from support.stored_runs import attention_data

MEAN, STD = (0.5, 0.25, 0.1), (0.5, 0.2, 0.3)


class Normalized:
    """A transform to 32 x 32 pixels with a normalization, as those of torchvision say it."""

    mean, std = MEAN, STD

    def __call__(self, image: Image.Image) -> torch.Tensor:
        pixels = torch.from_numpy(np.asarray(image.resize((32, 32))).copy()).permute(2, 0, 1) / 255
        return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def model(module: torch.nn.Module) -> Model:
    return Model(module.eval(), "tiny", "timm", "random", Normalized(), (3, 32, 32), 0, "sha256:0")


def vit() -> Model:
    torch.manual_seed(0)
    return model(
        VisionTransformer(
            img_size=32, patch_size=8, embed_dim=16, depth=5, num_heads=2, num_classes=2
        )
    )


def swin() -> Model:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 4, "window_size": 4, "num_classes": 2}
    return model(SwinTransformer(**sizes, embed_dim=8, depths=(2, 2), num_heads=(1, 2)))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Every figure that is saved, by its name."""
    kept: dict = {}
    save = attention_figures.save

    def keep(figure, stem, put):
        kept[stem.name] = figure
        return save(figure, stem, put, ("svg",))

    monkeypatch.setattr(attention_figures, "save", keep)
    return kept


def texts(figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


def test_runs_stand_side_by_side_in_one_figure_with_one_scale(
    tmp_path: Path, figures: dict
) -> None:
    a = stored_runs.store_attention(tmp_path / "ln", attention_data.make("vit_s"))
    b = stored_runs.store_attention(
        tmp_path / "dtn", attention_data.make("vit_s", 1), weights="random"
    )
    paths = draw_runs([a, b.path], tmp_path / "out")
    assert [path.name for path in paths] == ["attention.csv", "attention_distance.svg"]
    figure = figures["attention_distance"]
    left, right = figure.axes[:2]
    assert (left.get_title(), right.get_title()) == ("ln", "dtn")
    assert left.get_ylim() == right.get_ylim()
    assert "DTN: RANDOM WEIGHTS" in texts(figure)
    table = pd.read_csv(paths[0])
    assert table.groupby("run", sort=False).size().to_dict() == {"ln": 72, "dtn": 72}
    np.testing.assert_allclose(
        table[table["run"] == "dtn"]["distance_px"], b.attention()["distance_px"]
    )


def test_runs_of_the_same_folder_name_are_told_by_their_paths(
    tmp_path: Path, figures: dict
) -> None:
    runs = [
        stored_runs.store_attention(tmp_path / name / "run", attention_data.make("one"))
        for name in "ab"
    ]
    draw_runs(runs, tmp_path / "out")
    titles = [ax.get_title().replace("\n", "") for ax in figures["attention_distance"].axes[:2]]
    assert titles[0] != titles[1]


def test_a_run_without_attention_is_one_line_before_anything_is_written(tmp_path: Path) -> None:
    run = stored_runs.store(
        tmp_path / "run", stored_runs.figure_data.make(["curved"]), fitted=False
    )
    with pytest.raises(UsageError, match="has no attention table"):
        draw_runs([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_has_a_map_per_layer_and_a_rollout(
    tmp_path: Path, photo: Path, figures: dict
) -> None:
    drawn = draw_attention(vit(), photo, tmp_path / "out", query=(1, 2))
    names = [f"attention_map_blocks.{block}.attn" for block in (0, 1, 3, 4)] + ["attention_rollout"]
    assert [path.stem for path in drawn.paths] == names == list(figures)
    assert drawn.left_out == {}
    assert all("RANDOM WEIGHTS" in texts(figure) for figure in figures.values())
    assert "patch in row 1, column 2" in texts(figures[names[0]])
    assert "blocks.3.attn" in texts(figures["attention_map_blocks.3.attn"])


def test_layers_are_chosen_by_name_or_glob(tmp_path: Path, photo: Path, figures: dict) -> None:
    draw_attention(vit(), photo, tmp_path / "out", layers=["blocks.2.*", "blocks.4.attn"])
    assert list(figures) == [
        "attention_map_blocks.2.attn",
        "attention_map_blocks.4.attn",
        "attention_rollout",
    ]
    assert "class token" in texts(figures["attention_rollout"])


def test_layers_with_windows_are_left_out_by_name(
    tmp_path: Path, photo: Path, figures: dict
) -> None:
    drawn = draw_attention(swin(), photo, tmp_path / "out")
    assert list(figures) == [
        "attention_map_layers.1.blocks.0.attn",
        "attention_map_layers.1.blocks.1.attn",
    ]
    assert list(drawn.left_out) == ["rollout"]
    assert "layers.0.blocks.0.attn has 4 windows" in drawn.left_out["rollout"]
    with pytest.raises(
        ProbeError,
        match=r"no attention map of timm:tiny can be drawn: layers\.0\.blocks\.0\.attn: 4 windows",
    ):
        draw_attention(swin(), photo, tmp_path / "none", layers=["layers.0.blocks.0.attn"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": (4, 0)}, r"query patch \(4, 0\)"),
        (
            {"layers": ["blocks.9.attn"]},
            r"--layers 'blocks.9.attn' matches none of the 5 attention layers \(nearest: blocks\.",
        ),
        ({"image": "none.png"}, "--image none.png is no file"),
        ({"image": __file__}, r"--image .* cannot be read: not an image"),
        ({"grid": (3, 3)}, r"grid=\(3, 3\) does not fit"),
    ],
)
def test_wrong_arguments_get_one_line(
    options: dict, message: str, tmp_path: Path, photo: Path
) -> None:
    image = options.pop("image", photo)
    with pytest.raises(UsageError, match=message) as error:
        draw_attention(vit(), image, tmp_path / "out", **options)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "out").glob("*"))


def test_a_model_without_attention_or_transform_is_one_line(tmp_path: Path, photo: Path) -> None:
    plain = torch.nn.Conv2d(3, 4, 4)
    with pytest.raises(ProbeError, match="timm:tiny has no attention"):
        draw_attention(model(plain), photo, tmp_path / "out")
    with pytest.raises(UsageError, match="has no transform for an image file"):
        draw_attention(plain, photo, tmp_path / "out")


def test_the_picture_is_what_the_model_saw_with_its_normalization_undone(
    tmp_path: Path, photo: Path, monkeypatch
) -> None:
    shown: list = []

    def rollout(picture, *args, **options):
        shown.append(picture)
        return plots.layout.blank(1, 1)

    monkeypatch.setattr(attention_figures.plots, "rollout", rollout)
    draw_attention(vit(), photo, tmp_path / "out", layers=["blocks.0.attn"])
    np.testing.assert_allclose(shown[0], np.asarray(Image.open(photo)) / 255, atol=1e-6)
