"""Parts of a distillation: which images are drawn, what is lost, when it ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from probe.models.reading.block_outputs import block_names, block_outputs
from probe.training.distilling.draws import Draws, rounds_of
from probe.training.distilling.loop import best_round, rounds_without_gain
from probe.training.distilling.updating import divergence, relative_error


@pytest.mark.parametrize(
    ("steps", "rounds"), [(1, (1, 1)), (19, (19, 1)), (500, (20, 25)), (250, (21, 12))]
)
def test_rounds_hold_at_least_the_updates_that_were_asked_for(steps, rounds):
    assert rounds_of(steps) == rounds


def test_each_image_is_drawn_as_often_as_every_other():
    draws = Draws(images=6, batch_size=4, steps=3, seed=0)
    batches = [draws.batch(epoch, step) for epoch in range(2) for step in range(3)]
    drawn = np.concatenate(batches)
    assert draws.images_per_epoch == 12
    assert all(np.bincount(drawn[:, 0]) == 4)
    assert len({tuple(row) for row in drawn.tolist()}) == 24  # no image twice alike


def test_a_batch_may_hold_more_than_all_images():
    batch = Draws(images=3, batch_size=8, steps=1, seed=0).batch(0, 0)
    assert batch[:, 1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


def test_the_divergence_is_that_of_the_definition():
    wanted, logits = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    p, q = wanted.softmax(1), logits.softmax(1)
    torch.testing.assert_close(divergence(wanted, logits), (p * (p / q).log()).sum(1))
    assert not divergence(wanted, wanted + 3).abs().max() > 1e-6


def test_tokens_of_every_scale_count_alike():
    target = torch.ones(1, 2, 4) * torch.tensor([1.0, 100.0])[:, None]
    for token in (0, 1):
        output = target.clone()
        output[:, token] *= 1.1
        assert relative_error(output, target) == pytest.approx(0.005, rel=0.9)
    images = torch.ones(2, 3, 4, 4)
    assert relative_error(2 * images, images) == pytest.approx(1.0, rel=0.01)


def test_the_best_round_is_the_first_of_least_kl_and_small_gains_are_none():
    assert best_round([3.0, 1.0, 2.0, 1.0]) == 1
    assert rounds_without_gain([3.0]) == 0
    assert rounds_without_gain([3.0, 2.0, 1.999, 2.5]) == 2
    assert rounds_without_gain([3.0, float("inf"), 2.0]) == 0


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.lin = nn.LayerNorm(4), nn.Linear(4, 4)
        self.short = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))

    def forward(self, x):
        return self.short(x) + self.lin(self.norm(x))


def test_blocks_are_the_innermost_items_that_hold_norms():
    stages = nn.Sequential(nn.Sequential(Block(), Block()), nn.Sequential(Block()))
    module = nn.Sequential(nn.Linear(4, 4), stages, nn.LayerNorm(4))
    assert block_names(module) == ["1.0.0", "1.0.1", "1.1.0"]
    with block_outputs(module, block_names(module)) as seen:
        module(torch.ones(2, 4))
    assert {name: tuple(each.shape) for name, each in seen.items()} == dict.fromkeys(seen, (2, 4))
    assert len(seen) == 3
    assert not any(each._forward_hooks for each in module.modules())
