"""A name gives a network in evaluation mode with its own transform; what is wrong is one line that
says what is accepted.
"""

from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image
from torch import nn

from probe.errors import UsageError
from probe.models.loading.bundled import ARCHITECTURES, INPUT_SIZE, weights_path
from probe.models.loading.load import load_model, resolve_device, resolve_dtype, split_name
from probe.models.loading.weights import fingerprint

RANDOM = {
    "test_vit": ("timm:test_vit", (3, 160, 160), 1),
    "timm:test_resnet": ("timm:test_resnet", (3, 160, 160), 0),
    "test_vit.r160_in1k": ("timm:test_vit.r160_in1k", (3, 160, 160), 1),
    "torchvision:shufflenet_v2_x0_5": ("torchvision:shufflenet_v2_x0_5", (3, 224, 224), 0),
    "bundled:vit_cifar10": ("bundled:vit_cifar10", INPUT_SIZE, 1),
    "bundled:resnet_cifar10": ("bundled:resnet_cifar10", INPUT_SIZE, 0),
}


@pytest.mark.parametrize("name", RANDOM)
def test_every_origin_gives_a_network_that_runs_on_its_own_transform(name: str) -> None:
    full_name, input_size, prefix_tokens = RANDOM[name]
    model = load_model(name, weights="random", device="cpu")
    assert (model.full_name, model.input_size, model.prefix_tokens) == (
        full_name,
        input_size,
        prefix_tokens,
    )
    assert (model.weights, model.source, model.module.training) == ("random", "seed 0", False)
    assert model.transform is not None
    pixels = model.transform(Image.new("RGB", (300, 200), (90, 120, 30)))
    assert tuple(pixels.shape) == input_size
    with torch.inference_mode():
        assert model.module(pixels[None]).isfinite().all()
    assert pickle.loads(pickle.dumps(model.transform)) is not None  # loader workers need it


def test_torchvision_vit_has_one_prefix_token_and_takes_another_size() -> None:
    small = {"image_size": 64, "num_classes": 2}
    model = load_model("torchvision:vit_b_32", weights="random", device="cpu", **small)
    assert (model.prefix_tokens, model.input_size) == (1, (3, 64, 64))
    assert tuple(model.transform(Image.new("RGB", (99, 80))).shape) == (3, 64, 64)  # type: ignore[misc]


def test_an_img_size_option_reaches_the_transform() -> None:
    model = load_model("test_vit", weights="random", img_size=96, device="cpu")
    assert (
        tuple(model.transform(Image.new("RGB", (200, 300))).shape)
        == model.input_size
        == (3, 96, 96)
    )  # type: ignore[misc]


def test_the_transform_is_timms_evaluation_transform() -> None:
    import timm
    from timm.data import create_transform, resolve_data_config

    timms = create_transform(
        **resolve_data_config({}, model=timm.create_model("test_vit")), is_training=False
    )
    image = Image.effect_noise((210, 190), 60).convert("RGB")
    assert torch.equal(load_model("test_vit", weights="random").transform(image), timms(image))  # type: ignore[misc]


def test_random_weights_follow_the_seed_and_leave_the_callers_numbers_alone() -> None:
    before = torch.get_rng_state()
    same, again, other = (
        load_model("test_vit", weights="random", seed=s, device="cpu").fingerprint
        for s in (3, 3, 4)
    )
    assert same == again != other
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_bundled_weights_are_trained_ones_of_the_package(name: str) -> None:
    model = load_model(f"bundled:{name}", device="cpu")
    random = load_model(f"bundled:{name}", weights="random", device="cpu")
    assert (model.weights, model.source) == ("pretrained", weights_path(name).name)
    assert model.fingerprint != random.fingerprint
    assert weights_path(name).stat().st_size < 10e6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", torch.bfloat16])
def test_parameters_are_cast(dtype: str | torch.dtype) -> None:
    module = load_model("test_vit", weights="random", dtype=dtype, device="cpu").module
    assert {p.dtype for p in module.parameters()} == {resolve_dtype(dtype)}


def test_a_deprecated_timm_name_means_its_successor() -> None:
    from probe.models.loading.origins.timm_models import current_name

    assert current_name("vit_base_patch16_224_in21k") == "vit_base_patch16_224.augreg_in21k"


UNKNOWN = {
    "resnet5O": "model 'resnet5O' is not in timm; did you mean resnet50,",
    "ResNet50": "did you mean resnet50, torchvision:resnet50",
    "vit_b_16": "did you mean torchvision:vit_b_16,",
    "torchvision:vit_b16": "is not in torchvision; did you mean torchvision:vit_b_16",
    "torchvision:fasterrcnn_resnet5_fpn": "did you mean torchvision:fasterrcnn_resnet50_fpn",
    "bundled:vit": "did you mean bundled:vit_cifar10, bundled:resnet_cifar10",
    "zzzzzz": "is not in timm; accepted: NAME or timm:NAME, torchvision:NAME, bundled:NAME",
    "resnet50.a1_in2k": r"weights tag of timm's resnet50 'a1_in2k' is unknown \(did you mean "
    r"a1_in1k",
    "torchvision:resnet50.IMAGENET1K_V3": "known: IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT",
    "keras:vgg": "model 'keras:vgg' is unknown; accepted: NAME or timm:NAME",
    "org/model": "is not in timm",
    "timm:": "is unknown",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_name_lists_the_nearest(name: str) -> None:
    with pytest.raises(UsageError, match=UNKNOWN[name]) as caught:
        load_model(name, weights="random")
    assert "\n" not in str(caught.value)


WRONG = {
    "device of another machine": (
        {"device": "cuda:63"},
        "--device 'cuda:63' is not available here; available: cpu",
    ),
    "device that is none": ({"device": "gpu"}, "--device 'gpu' is not available here"),
    "device without float64": (
        {"device": "mps"},
        "--device 'mps' has no float64, in which statistics are summed; available: cpu",
    ),
    "device without values": ({"device": "meta"}, "--device 'meta' is not available here"),
    "dtype": ({"dtype": "int8"}, "dtype 'int8' is unknown; accepted: float32, float16, bfloat16"),
    "dtype of torch": ({"dtype": torch.int8}, "dtype 'torch.int8' is unknown"),
    "weights": (
        {"weights": "pretraind"},
        "weights 'pretraind' is not a file; accepted: pretrained, random, or a",
    ),
    "option": (
        {"bogus": 1},
        "model 'test_vit' cannot be built: .*unexpected keyword argument 'bogus'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_is_one_line(case: str) -> None:
    options, message = WRONG[case]
    with pytest.raises(UsageError, match=message) as caught:
        load_model("test_vit", **{"weights": "random", **options})
    assert "\n" not in str(caught.value)


def test_bundled_networks_take_no_options() -> None:
    with pytest.raises(UsageError, match="takes no options; given: img_size"):
        load_model("bundled:vit_cifar10", img_size=64)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what is absent")
def test_cuda_asked_for_and_absent_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--device 'cuda' is not available here; available: cpu"):
        resolve_device("cuda")
    assert resolve_device(None) == torch.device("cpu")


def test_a_plain_name_is_timms() -> None:
    assert split_name("resnet50") == ("timm", "resnet50")
    assert split_name("torchvision:resnet50") == ("torchvision", "resnet50")


def test_the_fingerprint_sees_names_types_shapes_and_every_bit() -> None:
    def of(**tensors: torch.Tensor) -> str:
        module = nn.Module()
        for name, value in tensors.items():
            module.register_buffer(name, value)
        return fingerprint(module)

    a = torch.arange(6.0)
    ulp = a.clone()
    ulp[5] = torch.nextafter(ulp[5], torch.tensor(9.0))
    variants = [
        of(a=a),
        of(b=a),
        of(a=a.view(2, 3)),
        of(a=a.double()),
        of(a=a.bfloat16()),
        of(a=ulp),
        of(a=-a),
        of(a=a[0], b=a[1:]),
    ]
    assert len(set(variants)) == len(variants)
    assert of(a=a, b=a[:2]) == of(b=a[:2].clone(), a=a)  # neither order nor storage matters
    assert of(a=a.view(2, 3).T) == of(a=a.view(2, 3).T.contiguous())
    assert variants[0].startswith("sha256:")
