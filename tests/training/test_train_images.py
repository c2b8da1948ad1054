"""What images an update sees, and that this is a function of seed, epoch and image alone."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch.nn import functional as F

from probe.training.augment import Look, Mixing, training_transform
from probe.training.batches import Shares, kept
from probe.training.choice import PLAIN
from probe.training.images import open_labelled
from probe.training.order import Order, parts
from support.tiny_training import colour_folders

LOOK = Look((16, 16), (0.5,) * 3, (0.25,) * 3, "bicubic", 1.0)
STRONG = replace(PLAIN, auto_augment="rand-m9-mstd0.5-inc1", reprob=0.5, crop="padded")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    data = colour_folders(tmp_path_factory.mktemp("data"))
    return kept(open_labelled(str(data / "train")), lambda *a: None)


def epoch(images, first=0, number=3, **options):
    order = Order(len(images), 8, True, 0, seed=1)
    shares = Shares(images, training_transform(STRONG, LOOK), order, **options)
    return list(shares.epoch(number, first))


def test_an_epoch_is_the_same_whatever_reads_it(images):
    here, there = epoch(images), epoch(images, workers=2)
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    later = epoch(images, first=4)
    assert torch.equal(later[0].images, here[4].images)
    assert not torch.equal(epoch(images, number=4)[0].images, here[0].images)


def test_the_shares_of_two_processes_are_the_batch(images):
    whole = epoch(images)[0]
    halves = [epoch(images, rank=rank, processes=2)[0] for rank in (0, 1)]
    together = torch.cat([half.images for half in halves])
    assert len(halves[0].labels) == len(halves[1].labels) == 4
    places = np.concatenate(parts(8, 2))
    assert torch.equal(together, whole.images[places])


def test_reading_leaves_the_callers_random_numbers_alone(images):
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    epoch(images)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected  # noqa: NPY002


@pytest.mark.parametrize("length", range(1, 23))
@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_parts_hold_every_place_once_and_each_beside_its_mirror(length, number):
    each = parts(length, number)
    assert sorted(np.concatenate(each).tolist()) == list(range(length))
    for places in each:
        assert (places + places[::-1] == length - 1).all()


@pytest.mark.parametrize("length", [8, 9, 3])
@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1}])
def test_a_batch_is_mixed_alike_however_it_is_cut(length, number, options):
    mixing = Mixing(replace(PLAIN, smoothing=0.1, **options), classes=5)
    images, labels = torch.rand(length, 3, 8, 8), torch.arange(length) % 5
    whole_images, whole_targets = mixing(images, labels, step=7)
    for places in parts(length, number):
        index = torch.from_numpy(places)
        if len(index):
            mixed, targets = mixing(images[index], labels[index], step=7)
            torch.testing.assert_close(mixed, whole_images[index])
            torch.testing.assert_close(targets, whole_targets[index])


def test_mixing_is_timms(monkeypatch):
    from timm.data.mixup import Mixup

    from probe.training.randomness import Stream, seeded

    images, labels = torch.rand(6, 3, 8, 8), torch.arange(6) % 5
    with seeded(PLAIN.seed, Stream.MIX, 3):
        theirs = Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=5)(images.clone(), labels)
    ours = Mixing(replace(PLAIN, mixup=0.8, cutmix=1.0, smoothing=0.1), 5)(images, labels, 3)
    assert torch.equal(theirs[0], ours[0])
    assert torch.equal(theirs[1], ours[1])


def test_the_loss_is_timms():
    logits, labels = torch.randn(6, 5), torch.arange(6) % 5
    smoothed = F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="sum") / 6
    torch.testing.assert_close(smoothed, LabelSmoothingCrossEntropy(0.1)(logits, labels))
    shares = torch.rand(6, 5).softmax(1)
    soft = F.cross_entropy(logits, shares, reduction="sum") / 6
    torch.testing.assert_close(soft, SoftTargetCrossEntropy()(logits, shares))


def test_repeated_augmentation_shows_an_image_several_times_in_an_epoch(images):
    order = Order(len(images), 6, True, repeats=3, seed=0)
    places = order.of(0)
    assert len(places) == len(images) == 48
    assert np.bincount(places[:, 0]).max() == 3
    assert {tuple(row) for row in places[:3].tolist()} == {(places[0, 0], c) for c in (0, 1, 2)}
    shares = Shares(images, training_transform(STRONG, LOOK), order)
    first = next(iter(shares.epoch(0)))
    assert not torch.equal(first.images[0], first.images[1])  # copies differ


def test_the_strongest_posterize_of_timm_is_a_black_image():
    transform = training_transform(replace(STRONG, auto_augment="rand-m10-inc1"), LOOK)
    policy = next(step for step in transform.transforms if hasattr(step, "ops"))
    step = next(each for each in policy.ops if each.name == "PosterizeIncreasing")
    step.prob = 1.0
    image = Image.new("RGB", (4, 4), (200, 100, 50))
    assert not np.asarray(step(image)).any()
