"""The same patterns choose the same layers, wherever `layers=` or `--layers` stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import probe
from probe.cli.main import main
from probe.errors import UsageError
from probe.jobs.drawing.tables import FigureTables
from probe.jobs.reopen import run_model
from probe.models.loading.load import Model
from probe.store import Run

NORMS = [f"blocks.{block}.norm{part}" for block in range(8) for part in (1, 2)] + ["norm"]
HEADS = [f"blocks.{block}.attn" for block in range(8)]
FEW = {"num_images": 2, "samples": 8, "tail": 4}

Chosen = Callable[[Any, Model, Run, Path], list[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A fitted run of the bundled ViT, attention too."""
    out = tmp_path_factory.mktemp("patterns") / "run"
    run = probe.capture("bundled:vit_cifar10", out=out, attention=True, **FEW)
    probe.export_alphas(run, out / "alpha.csv")
    return run


@pytest.fixture
def model(run: Run) -> Model:
    return run_model(run)


def listed(layers: Any, model: Model, run: Run, out: Path) -> list[str]:
    return [layer.name for layer in probe.list_norm_layers(model.module, layers)]


def listed_by_command(layers: Any, model: Model, run: Run, out: Path) -> list[str]:
    from probe.models.reading import layers as module

    seen: list[list[str]] = []
    real = module.list_norm_layers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module,
            "list_norm_layers",
            lambda *args: seen.append([layer.name for layer in real(*args)]) or real(*args),
        )
        code = main(["layers", "--layers", text_of(layers), "-q", "--json"])
    if code:
        raise UsageError("the command says so on stderr")
    return seen[0]


def captured(layers: Any, model: Model, run: Run, out: Path) -> list[str]:
    return list(probe.capture(model, out=out / "run", layers=layers, **FEW).layers["layer"])


def watched_by_figures(layers: Any, model: Model, run: Run, out: Path) -> list[str]:
    return FigureTables(run, layers).names


def replaced(layers: Any, model: Model, run: Run, out: Path) -> list[str]:
    return list(probe.replace_norms(model.module, "dyt", layers=layers).report["layer"])


def converted(layers: Any, model: Model, run: Run, out: Path) -> list[str]:
    return list(probe.convert(run, model=model, layers=layers, num_images=1).table["layer"])


def folded(layers: Any, model: Model, run: Run, out: Path) -> list[str]:
    return list(dict.fromkeys(probe.fold(model.module, layers=layers).report["layer"]))


NORM_ENTRIES: list[Chosen] = [
    *(listed, listed_by_command, captured, watched_by_figures, replaced, converted, folded)
]


def drawn_heads(layers: Any, model: Model, run: Run, out: Path) -> list[str]:
    return list(FigureTables(run, layers).attention["layer"].unique())


def drawn_maps(layers: Any, model: Model, run: Run, out: Path) -> list[str]:
    from skimage import data as photographs

    image = Path(photographs.__file__).parent / "astronaut.png"
    drawn = probe.draw_attention(model, image, out, layers=layers)
    return [
        path.stem.removeprefix("attention_map_")
        for path in drawn.paths
        if path.suffix == ".png" and path.stem != "attention_rollout"
    ]


def text_of(layers: Any) -> str:
    return layers if isinstance(layers, str) else ",".join(layers)


def name_of(entry: Any) -> str:
    return entry.__name__


@pytest.mark.parametrize("entry", NORM_ENTRIES, ids=name_of)
@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        (" blocks.[01].norm?,norm ", [*NORMS[:4], "norm"]),
        (["blocks.7.*", "norm,blocks.0.norm1"], ["blocks.0.norm1", *NORMS[-3:]]),
        ("!*.norm2,blocks.[01].norm?,norm", ["blocks.0.norm1", "blocks.1.norm1", "norm"]),
        ("!blocks.*", ["norm"]),
    ],
)
def test_norm_layers_are_chosen_alike(
    entry: Chosen, layers: Any, chosen: list[str], model: Model, run: Run, tmp_path: Path
) -> None:
    assert sorted(entry(layers, model, run, tmp_path)) == sorted(chosen)


@pytest.mark.parametrize("entry", [drawn_heads, drawn_maps], ids=name_of)
@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        ("blocks.[01].attn , blocks.7.*n", [*HEADS[:2], HEADS[7]]),
        (["blocks.0.attn", HEADS[3]], [HEADS[0], HEADS[3]]),
        ("!blocks.[2-7].attn", HEADS[:2]),
    ],
)
def test_attention_layers_are_chosen_alike(
    entry: Chosen, layers: Any, chosen: list[str], model: Model, run: Run, tmp_path: Path
) -> None:
    assert entry(layers, model, run, tmp_path) == chosen


@pytest.mark.parametrize("entry", [*NORM_ENTRIES, drawn_heads, drawn_maps], ids=name_of)
def test_a_pattern_that_matches_nothing_is_refused_though_another_matches(
    entry: Chosen, model: Model, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        entry("blocks.*,block.0.norm1", model, run, tmp_path)
    told = f"{caught.value} {capsys.readouterr().err}"
    assert "--layers 'block.0.norm1' matches none of the " in told
    assert "(nearest: blocks.0." in told or "(such as blocks.0." in told
    assert "globs like 'blocks.*' work" in told


def test_a_conversion_finds_wrong_layers_before_the_model_is_loaded(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probe.jobs.converting.convert.run_model", None)
    with pytest.raises(UsageError, match="--layers 'head' matches none of the 17 layers of run"):
        probe.convert(run, layers="head")


def test_a_fold_finds_wrong_layers_before_weights_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probe.models.loading.origins.timm_models._pretrained", None)
    with pytest.raises(UsageError, match="--layers 'head' matches none of the"):
        probe.fold_model("test_resnet", out=tmp_path / "f.safetensors", layers="head")
