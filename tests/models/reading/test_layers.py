"""Which modules are normalization layers."""

from __future__ import annotations

import pytest
import timm
import timm.layers as tl
import torch
import torchvision
from torch import nn

from probe.errors import UsageError
from probe.models.reading.layers import eps_of, list_norm_layers, norm_type
from probe.norms import Derf, DyT


@pytest.mark.parametrize(
    ("name", "count", "kinds"),
    [
        ("vit_base_patch16_224", 25, {"layer_norm"}),
        ("vit_large_patch16_224", 49, {"layer_norm"}),
        ("resnet50", 53, {"batch_norm"}),
        ("convnext_base", 41, {"layer_norm", "layer_norm_2d"}),
        ("efficientnet_b0", 49, {"batch_norm"}),
        ("swin_tiny_patch4_window7_224", 29, {"layer_norm"}),
    ],
)
def test_every_norm_layer_of_a_timm_model_is_listed(name, count, kinds):
    with torch.device("meta"):
        layers = list_norm_layers(timm.create_model(name))
    assert len(layers) == count
    assert {layer.kind for layer in layers} == kinds


def test_torchvision_models_are_listed_like_timm_models():
    with torch.device("meta"):
        assert len(list_norm_layers(torchvision.models.resnet50())) == 53
        convnext = list_norm_layers(torchvision.models.convnext_base())
    assert len(convnext) == 41
    assert convnext[0].kind == "layer_norm_2d"


LlamaRMSNorm = type("LlamaRMSNorm", (nn.Module,), {})


def foreign_rms():
    module = LlamaRMSNorm()
    module.weight, module.variance_epsilon = nn.Parameter(torch.ones(7)), 1e-6
    return module


@pytest.mark.parametrize(
    ("module", "kind", "channels", "eps"),
    [
        (nn.LayerNorm(8), "layer_norm", 8, 1e-5),
        (nn.LayerNorm((3, 4, 5)), "layer_norm", 60, 1e-5),
        (nn.RMSNorm(8, eps=1e-3), "rms_norm", 8, 1e-3),
        (nn.GroupNorm(2, 8), "group_norm", 8, 1e-5),
        (nn.BatchNorm1d(8), "batch_norm", 8, 1e-5),
        (nn.BatchNorm3d(8, affine=False), "batch_norm", 8, 1e-5),
        (nn.SyncBatchNorm(8), "batch_norm", 8, 1e-5),
        (nn.InstanceNorm2d(8), "instance_norm", 8, 1e-5),
        (torchvision.ops.FrozenBatchNorm2d(8), "batch_norm", 8, 1e-5),
        (tl.LayerNorm2d(8), "layer_norm_2d", 8, 1e-6),
        (tl.RmsNorm(8), "rms_norm", 8, 1e-6),
        (tl.RmsNorm2d(8), "rms_norm_2d", 8, 1e-6),
        (tl.SimpleNorm(8), "simple_norm", 8, 1e-6),
        (tl.BatchNormAct2d(8), "batch_norm", 8, 1e-5),
        (tl.GroupNormAct(8, 2), "group_norm", 8, 1e-5),
        (tl.LayerNormAct2d(8), "layer_norm_2d", 8, 1e-5),
        (foreign_rms(), "rms_norm", 7, 1e-6),
        (DyT(8), "dyt", 8, None),
        (DyT(8, channels_last=False), "dyt_2d", 8, None),
        (Derf(8), "derf", 8, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_kind_channels_and_eps_of_a_norm_module(module, kind, channels, eps):
    (layer,) = list_norm_layers(nn.Sequential(module))
    assert (layer.kind, layer.channels, layer.eps) == (kind, channels, eps)


def test_batch_norm_is_affine_only_where_it_uses_running_statistics():
    eval_mode, train_mode = nn.BatchNorm2d(4).eval(), nn.BatchNorm2d(4)
    untracked = nn.BatchNorm2d(4, track_running_stats=False).eval()
    listed = [
        list_norm_layers(nn.Sequential(m))[0].affine
        for m in (eval_mode, train_mode, untracked, nn.LayerNorm(4))
    ]
    assert listed == [True, False, False, False]


def test_other_modules_are_no_norm_layers():
    assert all(
        norm_type(module) is None
        for module in (nn.Linear(3, 3), nn.Conv2d(3, 3, 1), nn.Dropout(), nn.ReLU())
    )


def test_the_machine_epsilon_stands_in_for_eps_none():
    assert eps_of(nn.RMSNorm(4)) == torch.finfo(torch.float32).eps


@pytest.mark.parametrize(
    ("glob", "count"), [("*", 25), ("blocks.0.*", 2), ("*.norm1,norm", 13), ("norm", 1)]
)
def test_globs_choose_layers(glob, count):
    with torch.device("meta"):
        assert len(list_norm_layers(timm.create_model("vit_tiny_patch16_224"), glob)) == count


def test_a_glob_without_match_names_layers_that_exist():
    with pytest.raises(
        UsageError, match=r"--layers 'block.0.norm1' matches none of the 2 .*0.norm1"
    ):
        list_norm_layers(
            nn.Sequential(nn.ModuleDict({"norm1": nn.LayerNorm(3), "norm2": nn.LayerNorm(3)})),
            "block.0.norm1",
        )


def test_a_module_without_norm_layers_is_refused():
    with pytest.raises(UsageError, match="Linear has no normalization layer"):
        list_norm_layers(nn.Linear(3, 3))


def test_a_compiled_model_is_unwrapped():
    assert [
        layer.name for layer in list_norm_layers(torch.compile(nn.Sequential(nn.LayerNorm(3))))
    ] == ["0"]


def test_a_model_compiled_in_place_is_refused_with_the_reason():
    module = nn.Sequential(nn.LayerNorm(3))
    module.compile()
    with pytest.raises(UsageError, match="compiled in place.*skips hooks"):
        list_norm_layers(module)


def test_a_model_with_a_compiled_part_is_refused_by_name():
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    module[1].compile()
    with pytest.raises(UsageError, match="submodule '1'"):
        list_norm_layers(module)


def test_data_parallel_wrappers_are_looked_through():
    assert [
        layer.name for layer in list_norm_layers(nn.DataParallel(nn.Sequential(nn.LayerNorm(3))))
    ] == ["0"]
