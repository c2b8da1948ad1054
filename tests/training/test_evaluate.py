"""Scores of networks on images, and which class of the data is which of the network."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import probe
from probe.cli.main import main
from probe.errors import UsageError
from probe.models.loading.feed import Feed
from probe.models.loading.load import Model
from probe.training.evaluate import evaluate
from support.tiny_training import ASKED, MODEL, colour_folders


class ReadsTheImage(nn.Module):
    """The logits are largest at the class that the red channel of the first pixel says."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        number = (images[:, 0, 0, 0] + 256 * images[:, 1, 0, 0]).round().long()
        distance = (torch.arange(self.classes)[None] - number[:, None]).abs()
        return -distance.float() + self.unused


def reading(classes: int) -> Model:
    return Model(
        ReadsTheImage(classes),
        "reads",
        "module",
        "as given",
        pixels,
        (3, 4, 4),
        0,
        "",
        feed=Feed.STACKED,
    )


def pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def image_of(number: int, path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (number % 256, number // 256, 0)
    Image.new("RGB", (4, 4), colour).save(path)


def test_folders_named_by_number_are_sorted_as_numbers(tmp_path):
    """As in ImageNet-V2, where a sort of texts puts 10 behind 1."""
    for number in range(1000):
        image_of(number, tmp_path / str(number) / "0.png")
    scores = evaluate(reading(1000), data=str(tmp_path)).iloc[0]
    assert scores["top1"] == 100
    assert scores["images"] == 1000


def test_some_numbered_folders_keep_their_numbers(tmp_path):
    for number in (7, 30, 212):
        image_of(number, tmp_path / str(number) / "0.png")
    assert evaluate(reading(1000), data=str(tmp_path))["top1"].item() == 100


def test_some_wordnet_folders_are_matched_by_name(tmp_path):
    from timm.data import ImageNetInfo

    names = ImageNetInfo("imagenet-1k").label_names()
    for number in (0, 217, 482, 999):
        image_of(number, tmp_path / names[number] / "0.png")
    assert evaluate(reading(1000), data=str(tmp_path))["top1"].item() == 100


@pytest.mark.parametrize(
    ("folders", "classes", "told"),
    [
        (("cat", "dog"), 1000, "the data has 2 classes .*, reads|has 1000: they cannot be matched"),
        (("n01440764", "n99999999"), 1000, "unknown: n99999999"),
        (("n01440764", "n01443537"), 7, "has 7: they cannot be matched"),
        (("0", "1000"), 1000, "up to number 1000, .* has 1000"),
    ],
)
def test_classes_that_cannot_be_matched_are_refused(folders, classes, told, tmp_path):
    for name in folders:
        image_of(0, tmp_path / name / "0.png")
    with pytest.raises(UsageError, match=told):
        evaluate(reading(classes), data=str(tmp_path))


def test_images_without_classes_are_refused(tmp_path):
    image_of(0, tmp_path / "0.png")
    with pytest.raises(UsageError, match="has no labels; classes are needed"):
        evaluate(reading(3), data=str(tmp_path))


def test_scores_are_means_over_images(tmp_path):
    """Seven images in batches of four: a mean of the means of batches would differ."""
    rng = np.random.default_rng(0)
    for index in range(7):
        image_of(int(rng.integers(0, 8)), tmp_path / str(rng.integers(0, 8)) / f"{index}.png")
    for number in range(8):
        image_of(number, tmp_path / str(number) / "same.png")
    model = reading(8)
    scores = evaluate(model, data=str(tmp_path), batch_size=4).iloc[0]
    labels, logits = [], []
    for path in sorted(tmp_path.rglob("*.png")):
        labels.append(int(path.parent.name))
        logits.append(model.module(pixels(Image.open(path))[None]))
    loss = F.cross_entropy(torch.cat(logits).double(), torch.tensor(labels))
    order = torch.cat(logits).argsort(1, descending=True)[:, :5]
    right = order == torch.tensor(labels)[:, None]
    assert scores["loss"] == pytest.approx(loss.item())
    assert scores["top1"] == pytest.approx(100 * right[:, 0].double().mean().item())
    assert scores["top5"] >= scores["top1"]
    assert scores["images"] == len(labels)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    data = str(colour_folders(tmp_path_factory.mktemp("data")))
    out = str(tmp_path_factory.mktemp("training") / "t")
    return data, probe.train(MODEL, "dyt", data=data, out=out, keep_every=1, **ASKED)


def test_a_training_is_evaluated_as_it_was_in_training(trained):
    data, training = trained
    scores = evaluate(str(training.weights), data=data, device="cpu").iloc[0]
    last = training.epochs.iloc[-1]
    assert scores["top1"] == last["top1"]
    assert scores["loss"] == pytest.approx(last["val_loss"], rel=1e-6)


def test_several_checkpoints_stand_in_one_table(trained, capsys):
    data, training = trained
    kept = sorted((training.path / "checkpoints").iterdir())
    weights = [part for path in kept for part in ("--weights", str(path))]
    command = ["evaluate", *weights, "--data", data, "--device", "cpu", "--quiet"]
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["weights"] for row in rows] == [path.name for path in kept]
    assert [row["top1"] for row in rows] == training.epochs["top1"].tolist()
    assert main(command) == 0
    assert "epoch_001.safetensors" in capsys.readouterr().out


def test_weights_of_another_network_are_refused(trained):
    data, training = trained
    with pytest.raises(UsageError, match="is of model 'timm:vit_tiny_patch16_224', not"):
        evaluate("resnet18", training.weights, data=data, device="cpu")


def test_a_trained_network_is_probed_with_its_own_norms(trained, tmp_path):
    _, training = trained
    run = probe.capture(str(training.weights), out=tmp_path / "run", num_images=8, device="cpu")
    assert set(run.layers["kind"]) == {"dyt"}
