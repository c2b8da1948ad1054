"""Networks that timm lacks are timm models: sizes, options, loading, attention distances."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import probe
from probe.errors import ProbeError, UsageError
from probe.models.architectures import OWN_MODELS, takes_norm
from probe.models.architectures.norm_vit import NormViT
from probe.norms.dtn import DTN
from probe.norms.registry import norm_name

# networks of each kind with little in them
SMALL: dict[str, dict[str, Any]] = {
    "vit_norm_ti_star": {"depth": 3, "class_token_from": 2, "embed_dim": 32},
    "pvt_norm_tiny": {"depths": (1, 1, 1, 1)},
    "vit_s_cifar": {"depth": 2, "embed_dim": 48},
    "t2t_vit_s_cifar": {"depth": 2, "embed_dim": 48},
    "vit_learnable_scaler_embed_dim120_patch32_head3_depth12": {"depth": 2},
}
# (network, norm): millions of parameters, as its source or a count of its published code says
COUNTS = {
    ("vit_norm_ti_star", "dtn"): 5.711,
    ("vit_norm_s", "dtn"): 22.037,
    ("vit_norm_s_star", "dtn"): 27.778,
    ("vit_norm_b", "dtn"): 86.541,
    ("vit_norm_b_star", "dtn"): 86.541,
    ("vit_norm_ti_star", "layer_norm"): 5.710,
    ("vit_norm_s", "layer_norm"): 22.036,
    ("vit_norm_s_star", "layer_norm"): 27.777,
    ("vit_norm_b", "layer_norm"): 86.539,
    ("vit_norm_b_star", "layer_norm"): 86.539,
    ("pvt_norm_tiny", "dtn"): 13.23,
    ("vit_s_ln_cifar", None): 21.66,
    ("vit_s_bn_cifar", None): 21.66,
    ("vit_s_un_cifar", None): 21.66,
    ("vit_s_dtn_cifar", None): 21.66,
    ("t2t_vit_s_ln_cifar", None): 22.05,
    ("t2t_vit_s_bn_cifar", None): 22.05,
    ("t2t_vit_s_un_cifar", None): 21.46,
    ("t2t_vit_s_dtn_cifar", None): 25.59,
    ("vit_learnable_scaler_embed_dim192_patch16_head3_depth24", None): 11.06,
    ("vit_learnable_scaler_embed_dim192_patch16_head3_depth36", None): 16.39,
    ("vit_learnable_scaler_embed_dim288_patch16_head6_depth24", None): 24.55,
    ("vit_learnable_scaler_embed_dim288_patch32_head6_depth24", None): 25.17,
    ("vit_learnable_scaler_embed_dim288_patch32_head6_depth36", None): 37.16,
    ("vit_embed_dim192_patch16_head3_depth24", None): 11.06,
}


def small(name: str, **options: Any) -> Any:
    return timm.create_model(name, img_size=64, num_classes=7, **SMALL[name], **options)


@pytest.mark.parametrize(("name", "norm"), COUNTS)
def test_number_of_parameters_is_the_published_one(name: str, norm: str | None) -> None:
    with torch.device("meta"):
        module = timm.create_model(name, norm=norm)
    millions = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    digits = len(str(COUNTS[name, norm]).partition(".")[2])
    assert round(millions, digits) == COUNTS[name, norm]


@pytest.mark.parametrize("name", SMALL)
def test_a_network_takes_the_options_of_timm_and_learns(name: str) -> None:
    module = small(name, drop_path_rate=0.1, drop_rate=0.1).train()
    logits = module(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 7)
    nn.functional.cross_entropy(logits, torch.tensor([1, 2])).backward()
    without = [
        n for n, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert without == []
    assert {"cls_token"} < module.no_weight_decay()
    module.reset_classifier(3)
    assert module.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("norm", ["layer_norm", "batch_norm", "unified_norm", "dtn", "dyt", "derf"])
def test_every_norm_can_be_chosen_by_name(name: str, norm: str) -> None:
    module = small(name, norm=norm)
    assert norm in {norm_name(child) for child in module.modules()}
    assert module(torch.randn(2, 3, 64, 64)).isfinite().all()


def test_an_unknown_norm_and_a_norm_that_does_not_fit_are_one_line() -> None:
    with pytest.raises(UsageError, match="did you mean"):
        probe.load_model("vit_norm_s", weights="random", norm="dtm")
    with pytest.raises(UsageError, match="num_heads=5"):
        probe.load_model("vit_norm_s", weights="random", norm="dtn", norm_options={"num_heads": 5})


@pytest.mark.parametrize("name", ["vit_norm_ti_star", "pvt_norm_tiny"])
def test_the_local_start_of_dtn_survives_the_initialization_of_the_network(name: str) -> None:
    layers = [m for m in small(name).modules() if isinstance(m, DTN)]
    lost = [
        m for m in small(name, norm_options={"local_init": False}).modules() if isinstance(m, DTN)
    ]
    assert len(layers) == len(lost) == (4 if name.startswith("vit") else 6)
    for kept, random in zip(layers, lost, strict=True):
        assert kept.pos_proj.weight[0].tolist() == [-1.0, -1.0, -1.0]  # k = 2: offset (-1/2, -1/2)
        assert random.pos_proj.weight.abs().max() < 0.1


@pytest.mark.parametrize("name", SMALL)
def test_attention_distances_are_there_or_refused_by_name(name: str) -> None:
    module, images = small(name).eval(), torch.rand(1, 3, 64, 64)
    if name.startswith("t2t"):
        with pytest.raises(ProbeError, match=r"blocks\.0\.attn: its tokens have no known place"):
            probe.attention_distance(module, [images])
        return
    table = probe.attention_distance(module, [images])
    blocks = [n for n, m in module.named_modules() if re.search("attn$", n)]
    assert list(table["layer"].unique()) == blocks
    assert table["distance_px"].between(16, 48).all()


def test_moving_a_patch_moves_the_query_that_the_grid_says() -> None:
    """Before the class token joins, when it does, and after."""
    module = NormViT(
        img_size=64, embed_dim=32, num_heads=2, depth=4, class_token_from=2, norm="dtn"
    )
    table = probe.check_attention_grid(module)
    assert list(table["layer"]) == [f"blocks.{i}.attn" for i in range(4)]
    assert table["agrees"].all()


@pytest.mark.slow
def test_late_class_token_has_distances_in_every_block_from_the_command_line(tmp_path) -> None:
    from typer.testing import CliRunner

    from probe.cli.main import app

    arguments = ["attention", "--model", "vit_norm_ti_star", "--weights", "random"]
    result = CliRunner().invoke(
        app, [*arguments, "--num-images", "1", "--out", str(tmp_path / "a")]
    )
    assert result.exit_code == 0, result.output
    assert "blocks.11.attn" in result.output


def test_only_layers_behind_the_class_token_have_a_prefix_token(tmp_path) -> None:
    module = small("vit_norm_ti_star", norm="dyt").eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    run = probe.capture(module, [images], out=tmp_path / "run", layers="blocks.[12].*,norm")
    assert run.layers.set_index("layer")["prefix_tokens"].to_dict() == {
        "blocks.1.norm1": 0,
        "blocks.1.norm2": 0,
        "blocks.2.norm1": 1,
        "blocks.2.norm2": 1,
        "norm": 1,
    }


def test_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    module = small("pvt_norm_tiny")
    save_file(module.state_dict(), tmp_path / "mine.safetensors")
    loaded = probe.load_model(
        "pvt_norm_tiny",
        weights=tmp_path / "mine.safetensors",
        img_size=64,
        **SMALL["pvt_norm_tiny"],
    )
    x = torch.randn(1, 3, 64, 64)
    np.testing.assert_array_equal(loaded.module(x).detach(), module.eval()(x).detach())


def test_own_networks_are_known_by_name() -> None:
    assert takes_norm("timm:vit_norm_s")
    assert not takes_norm("vit_small_patch16_224")
    assert set(timm.list_models("pvt_norm_*")) < set(OWN_MODELS)
    with pytest.raises(UsageError, match="vit_norm_s_star"):
        probe.load_model("vit_norm_s_stat", weights="random")
