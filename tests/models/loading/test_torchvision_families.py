"""Every network of torchvision takes photographs: detection as a list, video as a clip that stands,
optical flow as two equal frames; and its checkpoints come back exactly.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

from probe.jobs.capturing.capture import capture
from probe.models.loading import hub
from probe.models.loading.feed import Feed
from probe.models.loading.load import load_model
from probe.models.loading.origins.torchvision_models import _resolve

DETECTION = "ssdlite320_mobilenet_v3_large"


def test_detection_runs_end_to_end_with_lists_of_images_of_any_size(tmp_path: Path) -> None:
    for name, size in (("a", (90, 60)), ("b", (64, 96)), ("c", (70, 70))):
        Image.effect_noise(size, 60).convert("RGB").save(tmp_path / f"{name}.png")
    model = load_model(f"torchvision:{DETECTION}", weights="random", device="cpu")
    assert (model.feed, model.input_size) == (Feed.LIST, ())
    sizes: list[list[tuple[int, ...]]] = []
    model.module.register_forward_pre_hook(
        lambda module, args: sizes.append([tuple(image.shape) for image in args[0]])
    )
    files = [str(tmp_path / f"{name}.png") for name in "abc"]
    run = capture(model, files, out=tmp_path / "r", batch_size=2, samples=8, tail=4)
    assert sizes == [[(3, 60, 90), (3, 96, 64)], [(3, 70, 70)]]
    assert run.manifest["images_seen"] == 3
    assert {layer["status"] for layer in run.manifest["layers"]} == {"captured"}


def test_batches_of_a_detection_loader_reach_the_module_as_lists(tmp_path: Path) -> None:
    class Lists(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.LayerNorm(4)

        def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
            return self.norm(torch.stack([image.mean((0, 1))[:4] for image in images])[:, None])

    batch = ([torch.randn(3, 5, 6), torch.randn(3, 7, 4)], [{"boxes": 1}, {"boxes": 2}])
    run = capture(Lists(), [batch, batch], out=tmp_path / "r")
    assert run.manifest["images_seen"] == 4


def test_a_photograph_becomes_a_clip_that_stands() -> None:
    model = load_model("torchvision:r3d_18", weights="random", device="cpu")
    assert (model.feed, model.input_size) == (Feed.STACKED, (3, 16, 112, 112))
    assert model.transform is not None
    clip = pickle.loads(pickle.dumps(model.transform))(
        Image.effect_noise((200, 150), 60).convert("RGB")
    )
    assert all(torch.equal(clip[:, 0], clip[:, t]) for t in range(1, 16))
    assert not torch.equal(clip[0], clip[0].flip(-1))


def test_optical_flow_gets_the_photograph_twice() -> None:
    model = load_model("torchvision:raft_small", weights="random", device="cpu")
    assert (model.feed, model.input_size) == (Feed.TWICE, (3, 256, 256))
    images = torch.zeros(2, 3, 8, 8)
    first, second = model.feed.arguments(images)
    assert first is images
    assert second is images


def test_segmentation_follows_the_photograph() -> None:
    name = "torchvision:lraspp_mobilenet_v3_large"
    model = load_model(name, weights="random", device="cpu")
    assert (model.feed, model.input_size) == (Feed.STACKED, ())
    assert model.transform is not None
    pixels = model.transform(Image.new("RGB", (300, 200)))
    with torch.inference_mode():
        assert model.module(pixels[None, :, :64, :64])["out"].isfinite().all()


def test_quantizable_networks_come_in_floating_point_with_those_weights() -> None:
    name, entry = _resolve("quantized_shufflenet_v2_x0_5")
    assert str(entry) == "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
    module = load_model(f"torchvision:{name}", weights="random", device="cpu").module
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_random_weights_need_no_download_for_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refused)
    monkeypatch.setattr(hub, "url_file", refused)
    load_model(f"torchvision:{DETECTION}", weights="random", device="cpu")


@pytest.mark.parametrize("frozen", [False, True])
def test_a_checkpoint_says_whether_its_batch_norms_are_frozen(tmp_path: Path, frozen: bool) -> None:
    name = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"
    state = load_model(name, weights="random", seed=5, device="cpu").module.state_dict()
    if frozen:
        state = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "net.th")
    module = load_model(name, weights=tmp_path / "net.th", device="cpu").module
    loaded = module.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[n], value) for n, value in state.items())
    kinds = {type(child).__name__ for child in module.backbone.modules()}
    assert ("FrozenBatchNorm2d" in kinds, "BatchNorm2d" in kinds) == (frozen, not frozen)


@pytest.mark.slow
def test_the_whole_job_runs_on_a_detection_network(tmp_path: Path) -> None:
    from probe.jobs.analyze import analyze

    out = tmp_path / "r"
    run = analyze(f"torchvision:{DETECTION}", out=out, weights="random", num_images=2, device="cpu")
    assert len(run.alphas()) == len(run.layers) > 50
    assert (run.path / "report.html").is_file()


WITHOUT_NORMS = {"ssd300_vgg16"}
FAMILIES = ("detection", "segmentation", "video", "optical_flow", "quantization")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_network_of_a_family_is_captured(tmp_path: Path, family: str) -> None:
    names = torchvision.models.list_models(module=getattr(torchvision.models, family))
    for name in sorted(set(names) - WITHOUT_NORMS):
        model = load_model(f"torchvision:{name}", weights="random", device="cpu")
        run = capture(model, out=tmp_path / name, num_images=1, samples=8, tail=4)
        assert "captured" in {layer["status"] for layer in run.manifest["layers"]}, name
