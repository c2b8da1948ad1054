"""Swapping the normalization layers of real architectures, cut down to a few channels."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import timm
import timm.layers as tl
import torch
import torchvision
import transformers
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from probe.curves import StandIn
from probe.errors import UsageError
from probe.models.reading.layers import list_norm_layers
from probe.models.replacing.build import NormAct
from probe.models.replacing.swap import swap
from probe.norms import Derf, DyT
from probe.norms.registry import NORMS, create_norm, list_norms, norm_options


def vit(name="vit_tiny_patch16_224", **options):
    return timm.create_model(
        name, img_size=32, patch_size=8, embed_dim=24, num_classes=5, **options
    )


# name -> (model, pixels, number of layers, of these on images)
MODELS = {
    "vit_tiny": (vit, 32, 25, 0),
    "deit": (lambda: vit("deit_tiny_distilled_patch16_224"), 32, 25, 0),
    "swin_t": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=64, window_size=2, embed_dim=12, num_classes=5
        ),
        64,
        29,
        0,
    ),
    "swin_t of torchvision": (
        lambda: torchvision.models.SwinTransformer(
            [4, 4], 12, [2, 2, 6, 2], [1, 2, 3, 4], [2, 2], num_classes=5
        ),
        64,
        29,
        0,
    ),
    "convnext_tiny": (
        lambda: timm.create_model("convnext_tiny", dims=(32, 32, 32, 32), num_classes=5),
        64,
        23,
        5,
    ),
    "resnet18": (
        lambda: timm.create_model("resnet18", channels=(64, 32, 32, 32), num_classes=5),
        64,
        20,
        20,
    ),
    "resnet50": (
        lambda: timm.create_model("resnet50", channels=(32, 32, 32, 32), num_classes=5),
        64,
        53,
        53,
    ),
    "resnet50 of torchvision": (
        lambda: torchvision.models.resnet50(width_per_group=32, num_classes=5),
        32,
        53,
        53,
    ),
}
PLAIN = [name for name in list_norms() if not name.endswith("_2d")]


def built(name):
    """The model and an input, its affines and running statistics drawn so that nothing is an
    identity by chance.
    """
    make, size, *_ = MODELS[name]
    torch.manual_seed(0)
    return randomized(make()).eval(), torch.randn(2, 3, size, size)


def randomized(module):
    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm | nn.BatchNorm2d | nn.GroupNorm):
            for tensor, low, high in (
                (layer.weight, 0.5, 1.5),
                (layer.bias, -0.2, 0.2),
                (getattr(layer, "running_mean", None), -0.2, 0.2),
                (getattr(layer, "running_var", None), 0.5, 1.5),
            ):
                if tensor is not None:
                    nn.init.uniform_(tensor, low, high)
    return module


def output(module, x):
    with torch.no_grad():
        return module(x)


def storages(module):
    tensors = (*module.parameters(), *module.buffers())
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}


def modules_at(module, done):
    """The modules at the paths that were replaced."""
    return [
        module.get_submodule(outcome.layer)
        for outcome in done.outcomes
        if outcome.status == "replaced"
    ]


@pytest.mark.parametrize("model", MODELS)
def test_the_layers_of_each_architecture_are_counted_as_published(model):
    module, _ = built(model)
    done = swap(module, "dyt")
    _, _, count, images = MODELS[model]
    assert done.report["new"].value_counts().to_dict() == {
        name: n for name, n in {"dyt": count - images, "dyt_2d": images}.items() if n
    }
    kinds = [type(child) for child in module.modules()]
    assert kinds.count(DyT) == count
    assert not set(kinds) & {nn.LayerNorm, nn.BatchNorm2d, tl.LayerNorm2d}


@pytest.mark.parametrize("model", [model for model in MODELS if "torchvision" not in model])
@pytest.mark.parametrize("name", PLAIN)
def test_every_norm_of_the_registry_can_be_swapped_in_and_out(name, model):
    """All layers of the fitting layout are replaced, the forward pass is finite, nothing is shared,
    undo is bit-equal.
    """
    module, x = built(model)
    before, originals, state = output(module, x), dict(module.named_modules()), storages(module)
    _, _, count, images = MODELS[model]
    expected = (count - images) + (images if f"{name}_2d" in NORMS else 0)
    if not expected or ("grid" in norm_options(name) and not hasattr(module, "num_prefix_tokens")):
        reason = (
            f"{name} has no form for images" if not expected else "needs the grid of its tokens"
        )
        with pytest.raises(UsageError, match=f"no layer was replaced by {name}: .*{reason}"):
            swap(module, name)
    else:
        # the head of ConvNeXt normalizes one pooled position, which has no variance between
        # positions
        layers = "stem.*,stages.*" if (name, model) == ("switch_norm", "convnext_tiny") else "*"
        done = swap(
            module, name, init="ones" if name == "learnable_scaler" else "default", layers=layers
        )
        assert [outcome.status for outcome in done.outcomes].count("replaced") == expected - (
            layers != "*"
        )
        assert len(done.outcomes) == count - (layers != "*")
        after = output(module, x)
        assert torch.isfinite(after).all()
        assert not torch.equal(after, before)
        assert not set().union(*map(storages, modules_at(module, done))) & state
        done.undo()
    assert torch.equal(output(module, x), before)
    assert all(found is originals[path] for path, found in module.named_modules())


@pytest.mark.parametrize("model", ["vit_tiny", "convnext_tiny", "resnet18"])
def test_the_replaced_layers_are_listed_and_learn(model):
    module, x = built(model)
    done = swap(module.train(), "dyt")
    assert {layer.kind for layer in list_norm_layers(module)} <= {"dyt", "dyt_2d"}
    module(x).square().sum().backward()
    assert all(
        parameter.grad is not None
        for child in modules_at(module, done)
        for parameter in child.parameters()
    )


AFFINE = ("learnable_scaler", "batch_norm", "unified_norm", "rep_batch_norm")
AFFINE_MODELS = {
    "BatchNorm2d": lambda: built("resnet18")[0],
    "BatchNormAct2d": lambda: randomized(timm.create_model("mobilenetv3_small_050", num_classes=5)),
    "FrozenBatchNorm2d": lambda: nn.Sequential(nn.Conv2d(3, 8, 1), frozen_batch_norm()),
}


def match_keeps_the_function(module, name, x):
    before = output(module.eval(), x)
    done = swap(module, name, init="match")
    assert set(done.report["reason"]) <= {
        "the same function at evaluation",
        "weights and statistics copied",
    }
    torch.testing.assert_close(
        output(module, x), before, atol=1e-4 * before.abs().max().item(), rtol=1e-4
    )


@pytest.mark.parametrize("name", [name for name in AFFINE if f"{name}_2d" in NORMS])
@pytest.mark.parametrize("make", AFFINE_MODELS.values(), ids=AFFINE_MODELS)
def test_match_keeps_the_function_of_a_layer_that_is_affine_at_evaluation(name, make):
    """Also with the activation of a norm+activation module, which stays."""
    torch.manual_seed(0)
    match_keeps_the_function(make(), name, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("name", AFFINE)
def test_match_keeps_the_function_of_a_batch_norm_on_tokens(name):
    match_keeps_the_function(tokens_with_batch_norm(), name, torch.randn(2, 6, 3))


def frozen_batch_norm():
    norm = FrozenBatchNorm2d(8)
    norm.load_state_dict(
        {name: torch.rand(8) + 0.5 for name in ("weight", "bias", "running_mean", "running_var")}
    )
    return norm


def tokens_with_batch_norm():
    norm = create_norm("batch_norm", 8)
    for name in ("weight", "bias", "running_mean", "running_var"):
        nn.init.uniform_(getattr(norm, name), 0.5, 1.5)
    return nn.Sequential(nn.Linear(3, 8), norm)


@pytest.mark.parametrize("model", ["vit_tiny", "convnext_tiny"])
def test_match_with_the_same_norm_is_the_same_function(model):
    """eps is taken over, too."""
    module, x = built(model)
    before = output(module, x)
    swap(module, "layer_norm", init="match")
    torch.testing.assert_close(output(module, x), before, atol=1e-5, rtol=1e-5)


def test_match_takes_over_the_groups_and_the_momentum():
    module, x = (
        nn.Sequential(randomized(nn.GroupNorm(2, 8, eps=1e-2)), nn.BatchNorm2d(8, momentum=0.4)),
        torch.randn(4, 8, 3, 3),
    )
    original = copy.deepcopy(module)
    swap(module, "group_norm", layers="0", init="match")
    swap(module, "batch_norm", layers="1", init="match")
    torch.testing.assert_close(module(x), original(x))
    torch.testing.assert_close(module[1].running_var, original[1].running_var)


def test_match_keeps_statistics_apart_from_the_affine_where_the_new_norm_has_both():
    module, _ = built("resnet18")
    old = module.bn1
    swap(module, "batch_norm", init="match")
    for name in ("weight", "bias", "running_mean", "running_var"):
        torch.testing.assert_close(getattr(module.bn1, name), getattr(old, name))


def test_match_fills_the_affine_of_a_class_from_elsewhere():
    module = nn.Sequential(randomized(nn.LayerNorm(6)))
    weight = module[0].weight
    swap(module, nn.RMSNorm, init="match")
    assert isinstance(module[0], nn.RMSNorm)
    assert torch.equal(module[0].weight, weight)


@pytest.mark.parametrize("name", ["learnable_scaler", "batch_norm", "rep_batch_norm"])
def test_match_folds_the_statistics_of_a_layer_without_affine(name):
    module = nn.Sequential(nn.BatchNorm2d(8, affine=False))
    nn.init.uniform_(module[0].running_mean, 0.5, 1.5)
    nn.init.uniform_(module[0].running_var, 0.5, 1.5)
    match_keeps_the_function(module, name, torch.randn(2, 8, 3, 3))


@pytest.mark.parametrize(
    ("name", "init", "copied"), [("dyt", "match", True), ("dyt", "default", False)]
)
def test_match_copies_the_affine_and_default_does_not(name, init, copied):
    old = randomized(nn.LayerNorm(6))
    module = nn.Sequential(old)
    swap(module, name, init=init)
    assert torch.equal(module[0].weight, old.weight) is copied
    assert torch.equal(module[0].bias, old.bias) is copied
    assert module[0].alpha.item() == 0.5


def test_match_says_what_finds_no_place():
    module = nn.Sequential(randomized(nn.LayerNorm(6)), nn.LayerNorm(6))
    report = swap(module, "rms_norm", init="match").report
    assert report["reason"].tolist() == [
        "its bias has no place in the new norm",
        "weight and bias copied",
    ]
    module = nn.Sequential(randomized(nn.LayerNorm(6)))
    assert (
        swap(module, "feature_norm", init="match").report["reason"][0]
        == "its weight and bias has no place in the new norm"
    )


def test_match_of_a_norm_of_the_same_class_is_the_layer_itself():
    old = Derf(6, alpha_init=0.3, shift_init=0.1)
    module = nn.Sequential(old)
    done = swap(module, "derf", init="match")
    assert module[0] is not old
    assert all(
        torch.equal(module[0].state_dict()[name], value) for name, value in old.state_dict().items()
    )
    assert done.report["reason"][0] == "weights and statistics copied"


@pytest.mark.parametrize("init", ["default", "match"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["dyt", "batch_norm", "learnable_scaler"])
def test_dtype_and_mode_are_kept(name, init, dtype, training):
    module = (
        randomized(timm.create_model("resnet18", channels=(64, 8, 8, 8))).to(dtype).train(training)
    )
    done = swap(module, name, init=init)
    for child in modules_at(module, done):
        assert child.training is training
        floating = [
            tensor
            for tensor in (*child.parameters(), *child.buffers())
            if tensor.is_floating_point()
        ]
        assert {tensor.dtype for tensor in floating} == {dtype}


def test_the_device_is_kept():
    with torch.device("meta"):
        module = timm.create_model("resnet18")
    swap(module, "dyt")
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}


def test_a_layer_without_tensors_gets_those_of_the_model():
    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4, elementwise_affine=False)).double()
    swap(module, "dyt")
    assert module[1].alpha.dtype == torch.float64


def test_a_layer_without_affine_gets_a_norm_without_one_unless_asked_for():
    layers = [nn.LayerNorm(4, elementwise_affine=False) for _ in range(2)]
    module = nn.Sequential(*layers)
    swap(module, "dyt", layers="0")
    swap(module, "dyt", layers="1", affine=True)
    assert module[0].weight is None
    assert module[1].weight.shape == (4,)


def test_what_was_frozen_stays_frozen():
    module = nn.Sequential(
        nn.LayerNorm(4),
        nn.LayerNorm(4),
        frozen_batch_norm(),
        nn.LayerNorm(4, elementwise_affine=False),
    )
    module[0].requires_grad_(False)
    module[1].bias.requires_grad_(False)
    swap(module, "dyt")
    trainable = [
        {name for name, value in child.named_parameters() if value.requires_grad}
        for child in module
    ]
    assert trainable == [set(), {"alpha", "weight"}, set(), {"alpha"}]


class Many(nn.Module):
    """A norm in every kind of place, one of them shared."""

    def __init__(self):
        super().__init__()
        shared = nn.LayerNorm(4)
        self.norm = shared
        self.again = shared
        self.line = nn.Sequential(nn.Linear(4, 4), shared, nn.LayerNorm(4))
        self.listed = nn.ModuleList([nn.LayerNorm(4), shared])
        self.named = nn.ModuleDict({"a": nn.LayerNorm(4)})

    def forward(self, x):
        x = self.line(self.norm(x)) + self.again(x)
        for layer in (*self.listed, self.named["a"]):
            x = layer(x)
        return x


def test_norms_are_replaced_in_every_place_and_shared_ones_stay_shared():
    module, x = randomized(Many()), torch.randn(2, 3, 4)
    before, originals = output(module, x), list(module.modules())
    done = swap(module, "dyt")
    assert done.report["layer"].tolist() == ["norm", "line.2", "listed.0", "named.a"]
    assert module.norm is module.again is module.line[1] is module.listed[1]
    assert not any(isinstance(child, nn.LayerNorm) for child in module.modules())
    done.undo()
    assert list(module.modules()) == originals
    assert torch.equal(output(module, x), before)


def test_globs_choose_the_layers_and_the_report_names_these_only():
    module, _ = built("vit_tiny")
    done = swap(module, "dyt", layers="blocks.0.*,norm")
    assert done.report["layer"].tolist() == ["blocks.0.norm1", "blocks.0.norm2", "norm"]
    assert sum(isinstance(child, DyT) for child in module.modules()) == 3


@pytest.mark.parametrize(
    ("norm", "x"),
    [
        (tl.BatchNormAct2d(8, act_layer=nn.SiLU), torch.randn(2, 8, 4, 4)),
        (tl.BatchNormAct2d(8, act_layer=nn.PReLU, inplace=False), torch.randn(2, 8, 4, 4)),
        (tl.GroupNormAct(8, 2), torch.randn(2, 8, 4, 4)),
        (tl.LayerNormAct2d(8, act_layer=nn.GELU), torch.randn(2, 8, 4, 4)),
        (tl.LayerNormAct(8), torch.randn(2, 4, 8)),
        (tl.BatchNormAct2d(8, apply_act=False), torch.randn(2, 8, 4, 4)),
        (tl.BatchNormAct2d(8, drop_layer=nn.Dropout), torch.randn(2, 8, 4, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_norm_with_activation_keeps_its_drop_and_activation(norm, x):
    module = nn.Sequential(randomized(norm)).eval()
    before = output(module, x)
    done = swap(module, "dyt", init="match")
    new = module[0]
    assert isinstance(new, NormAct)
    assert (type(new.drop), type(new.act)) == (type(norm.drop), type(norm.act))
    assert not storages(new) & storages(norm)
    torch.testing.assert_close(output(module, x), norm.act(output(new.norm, x)))
    assert torch.equal(new.weight, norm.weight)
    assert torch.equal(new.bias, norm.bias)
    assert new.num_features == 8
    done.undo()
    assert torch.equal(output(module, x), before)


def test_a_model_with_activations_can_be_swapped_again_and_pickled():
    module, x = (
        timm.create_model("mobilenetv3_small_050", num_classes=5).eval(),
        torch.randn(2, 3, 32, 32),
    )
    swap(module, "dyt")
    again = swap(module, "derf")
    assert len(again.outcomes) == 34
    assert not any(isinstance(child, DyT) for child in module.modules())
    assert torch.equal(output(pickle.loads(pickle.dumps(module)), x), output(module, x))
    assert torch.equal(output(copy.deepcopy(module), x), output(module, x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: (
            transformers.ViTModel(
                transformers.ViTConfig(
                    hidden_size=16,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    intermediate_size=16,
                    image_size=32,
                    patch_size=8,
                )
            ),
            5,
            0,
        ),
        lambda: (
            transformers.ConvNextModel(
                transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])
            ),
            9,
            4,
        ),
        lambda: (
            transformers.ResNetModel(
                transformers.ResNetConfig(
                    embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic"
                )
            ),
            6,
            6,
        ),
    ],
    ids=["ViT", "ConvNeXt", "ResNet"],
)
def test_models_of_transformers_are_swapped_like_those_of_timm(make):
    module, count, images = make()
    module, x = module.eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = module(x).last_hidden_state
        done = swap(module, "dyt")
        assert done.report["new"].tolist().count("dyt_2d") == images
        assert set(done.report["status"]) == {"replaced"}
        assert len(done.report) == count
        assert torch.isfinite(module(x).last_hidden_state).all()
        done.undo()
        assert torch.equal(module(x).last_hidden_state, before)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ["dyt", "rms_norm"])
def test_the_fused_kernel_of_torchs_encoder_does_not_bypass_the_new_norms(name, padded):
    """It would compute a LayerNorm with the weights of whatever stands there."""
    torch.manual_seed(0)
    module, x = (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval(),
        torch.randn(2, 5, 16),
    )
    options = {"src_key_padding_mask": torch.arange(5).expand(2, 5) > 3} if padded else {}
    with torch.inference_mode():
        before = module(x, **options)
        done = swap(module, name)
        fast = module(x, **options)
    torch.testing.assert_close(fast.clone(), module(x, **options).detach())
    done.undo()
    with torch.inference_mode():
        assert torch.equal(module(x, **options), before)


def test_a_with_block_undoes_at_its_end():
    module, x = built("vit_tiny")
    before = output(module, x)
    with swap(module, "dyt") as done:
        assert repr(done) == "Swap(VisionTransformer, 25 of 25 layers replaced)"
        assert not torch.equal(output(module, x), before)
    assert torch.equal(output(module, x), before)
    done.undo()
    assert torch.equal(output(module, x), before)


def test_originals_follow_the_mode_and_dtype_of_their_replacements():
    module = nn.Sequential(nn.BatchNorm2d(4)).train()
    done = swap(module, "dyt")
    module.eval().double()
    done.undo()
    assert not module[0].training
    assert module[0].weight.dtype == torch.float64


def test_swaps_are_undone_from_the_last_to_the_first():
    module, x = built("vit_tiny")
    before = output(module, x)
    first, second = swap(module, "dyt"), swap(module, "derf", layers="norm")
    between = output(module, x)
    with pytest.raises(
        UsageError,
        match="norm of VisionTransformer was replaced again after this swap: undo that "
        "replacement first",
    ):
        first.undo()
    assert torch.equal(output(module, x), between)
    second.undo()
    first.undo()
    assert torch.equal(output(module, x), before)


def test_a_layer_that_cannot_be_replaced_is_kept_with_the_reason():
    module = nn.Sequential(
        nn.LayerNorm((3, 4, 4)), nn.LayerNorm(4), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
    )
    report = swap(module, "feature_norm").report
    assert report["status"].tolist() == ["kept", "replaced", "kept"]
    assert report["new"].tolist() == ["", "feature_norm", ""]
    assert "normalizes over 3 axes at once" in report["reason"][0]
    assert (
        report["reason"][2]
        == "the layer works on images (B, C, H, W) and feature_norm has no form for images"
    )
    assert report.columns.tolist() == [
        "layer",
        "old",
        "new",
        "channels",
        "init",
        "status",
        "reason",
    ]


def test_an_option_that_fails_for_some_layers_keeps_these():
    module = nn.Sequential(nn.LayerNorm(6), nn.LayerNorm(8))
    report = swap(module, "group_norm", num_heads=3).report
    assert report["status"].tolist() == ["replaced", "kept"]
    assert report["reason"][1] == "num_heads=3 does not divide 8 channels"
    assert module[0].num_heads == 3


def test_the_name_for_images_leaves_token_layers():
    module, _ = built("convnext_tiny")
    report = swap(module, "dyt_2d").report
    assert report["status"].value_counts().to_dict() == {"kept": 18, "replaced": 5}
    assert (
        report.query("status == 'kept'")["reason"].str.contains("dyt is the one for tokens").all()
    )


def test_a_class_can_be_given_instead_of_a_name():
    module, x = built("convnext_tiny")
    done = swap(module, DyT, alpha_init=0.8)
    assert set(done.report["new"]) == {"DyT"}
    assert all(child.alpha.item() == pytest.approx(0.8) for child in modules_at(module, done))
    assert torch.isfinite(output(module, x)).all()


def test_the_token_grid_and_prefix_come_from_the_model():
    module, x = built("deit")
    swap(module, "dtn", layers="blocks.0.*")
    assert module.blocks[0].norm1.prefix_tokens == 2
    assert torch.isfinite(output(module, x)).all()


def fitted(family, name, alpha=0.7, shift=0.0, **options):
    """A LayerNorm of 5 channels replaced by the stand-in (family, alpha, shift); its weight and
    bias.
    """
    weight, bias = np.linspace(-1, 2, 5), np.linspace(0, 1, 5)
    module = nn.Sequential(nn.LayerNorm(5))
    done = swap(
        module,
        name,
        init="fitted",
        stand_ins={"0": StandIn("0", family, alpha, shift, weight, bias)},
        **options,
    )
    return module, done, torch.from_numpy(weight), torch.from_numpy(bias)


CURVES = {
    "tanh": torch.tanh,
    "erf": torch.erf,
    "erf_shift": torch.erf,
    "isru": lambda u: u / (1 + u * u).sqrt(),
    "linear": lambda u: u,
}


@pytest.mark.parametrize(
    ("family", "name", "shift"),
    [
        ("tanh", "dyt", 0),
        ("erf", "derf", 0),
        ("erf_shift", "derf", 0.4),
        ("isru", "dyisru", 0),
        ("linear", "learnable_scaler", 0),
    ],
)
def test_a_fitted_norm_is_the_curve_of_its_stand_in(family, name, shift):
    module, done, weight, bias = fitted(family, name, shift=shift)
    x = torch.linspace(-4, 4, 40).reshape(2, 4, 5)
    expected = weight * CURVES[family](0.7 * x.double() + shift) + bias
    torch.testing.assert_close(output(module, x), expected.float(), atol=2e-6, rtol=1e-5)
    assert done.report[["init", "reason"]].values.tolist() == [["fitted", ""]]


def test_a_class_starts_as_the_curve_of_its_name():
    module, *_ = fitted("tanh", DyT)
    assert module[0].alpha.item() == pytest.approx(0.7)


@pytest.mark.parametrize("name", ["dyt", "derf", "dyisru"])
def test_each_curve_holds_a_line_within_its_straight_part(name):
    module, done, weight, bias = fitted("linear", name, alpha=0.01)
    x = torch.linspace(-5, 5, 40).reshape(2, 4, 5)
    torch.testing.assert_close(
        output(module, x).double(), weight * 0.01 * x.double() + bias, atol=0.05 * 2 * 2e-3, rtol=0
    )
    assert done.report["reason"][0] == "line: the layer has no alpha"


@pytest.mark.parametrize(
    ("stand_ins", "left_out", "reason"),
    [
        ({}, {"0": "constant"}, "no stand-in: constant"),
        (
            {"other": "tanh"},
            {},
            r"no stand-in: the alphas do not name the layer \(they name other\)",
        ),
        ({"0#1": "tanh", "0#2": "tanh"}, {}, "the layer is called 2 times in a forward pass"),
        ({"0": "erf"}, {}, "its stand-in is a curve of family erf; dyt is one of tanh"),
    ],
)
def test_a_layer_without_a_fitting_stand_in_is_kept(stand_ins, left_out, reason):
    found = {
        name: StandIn(name, family, 1.0, 0.0, np.ones(3), np.zeros(3))
        for name, family in stand_ins.items()
    }
    with pytest.raises(UsageError, match=f"no layer was replaced by dyt: .*{reason}"):
        swap(
            nn.Sequential(nn.LayerNorm(3)), "dyt", init="fitted", stand_ins=found, left_out=left_out
        )


def test_a_stand_in_that_overflows_in_half_precision_is_not_used():
    module = nn.Sequential(nn.LayerNorm(5)).half()
    stand_in = StandIn("0", "linear", 1e-4, 0.0, np.ones(5), np.zeros(5))
    with pytest.raises(UsageError, match="its stand-in is not finite in float16: beta"):
        swap(module, "dyisru", init="fitted", stand_ins={"0": stand_in})


def test_an_error_leaves_the_model_as_it_was():
    module = nn.Sequential(nn.LayerNorm(5), nn.LayerNorm(5))
    originals = list(module.modules())
    good, bad = (StandIn("", "tanh", 1.0, 0.0, np.ones(n), np.zeros(n)) for n in (5, 7))
    with pytest.raises(
        UsageError, match="the alphas are of another model: 1 has 5 channels, its stand-in 7"
    ):
        swap(module, "dyt", init="fitted", stand_ins={"0": good, "1": bad})
    assert list(module.modules()) == originals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "dity"}, r"norm 'dity' is unknown \(did you mean dyt.*known: "),
        ({"init": "best"}, "init 'best' is unknown.*known: default, match, fitted"),
        ({"init": "fitted"}, "init 'fitted' needs fitted curves: give alphas="),
        (
            {"init": "match", "stand_ins": {}},
            "alphas are given, but init 'match' does not use them",
        ),
        (
            {"name": "rms_norm", "init": "fitted", "stand_ins": {}},
            "init 'fitted' is for dyt, .*; rms_norm takes 'default' or 'match'",
        ),
        (
            {"init": "fitted", "stand_ins": {}, "affine": False},
            "init 'fitted' needs a weight and a bias; leave affine= and bias= out",
        ),
        (
            {"layers": "blocks.*"},
            r"--layers 'blocks.\*' matches none of the 2 normalization layers",
        ),
        (
            {"num_heads": 2},
            r"no layer was replaced by dyt: dyt takes no option num_heads; it takes "
            r"alpha_init.*\(2 layers\)",
        ),
        (
            {"name": "dyt_2d"},
            "the layer works on tokens .* and dyt_2d on images; dyt is the one for tokens",
        ),
    ],
)
def test_wrong_replacements_get_one_line(options, message):
    module = nn.Sequential(nn.LayerNorm(3), nn.LayerNorm(3))
    with pytest.raises(UsageError, match=message):
        swap(module, **{"name": "dyt"} | options)


def test_a_model_that_is_a_norm_itself_is_refused():
    with pytest.raises(
        UsageError,
        match="the model itself is this layer and has no parent; put it into nn.Sequential",
    ):
        swap(nn.LayerNorm(3), "dyt")


def test_a_model_without_norms_is_refused():
    with pytest.raises(UsageError, match="Linear has no normalization layer"):
        swap(nn.Linear(3, 3), "dyt")


def test_the_own_inits_of_a_norm_are_inits():
    module = nn.Sequential(nn.LayerNorm(64))
    assert swap(module, "learnable_scaler", init="ones").report["init"][0] == "ones"
    assert torch.equal(module[0].weight.detach(), torch.ones(64))
    swap(module, "learnable_scaler")
    assert 0.5 < module[0].weight.std().item() < 1.5


def test_a_dyt_model_takes_another_dyt():
    module = nn.Sequential(DyT(4, alpha_init=0.2), DyT(4, channels_last=False))
    done = swap(module, "dyt", alpha_init=0.9)
    assert done.report["old"].tolist() == done.report["new"].tolist() == ["dyt", "dyt_2d"]
    assert [child.alpha.item() for child in module] == pytest.approx([0.9, 0.9])
