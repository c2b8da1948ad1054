"""Learning rates against timm's schedulers and against published formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.scheduler import CosineLRScheduler, StepLRScheduler

from probe.errors import UsageError
from probe.training.recipe import Recipe
from probe.training.schedules import SCHEDULES, base_rate, learning_rate

STEPS = 7  # updates of an epoch


def recipe(**fields: Any) -> Recipe:
    return replace(Recipe("mine", "nowhere", "none"), **fields)


def rates(of: Recipe) -> list[float]:
    return [learning_rate(of, step, STEPS) for step in range(of.epochs * STEPS)]


def timm_rates(scheduler_class: type, of: Recipe, **options: Any) -> list[float]:
    """What timm sets before each update of all epochs."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=of.lr)
    per_epoch = of.step_per == "epoch"
    unit = 1 if per_epoch else STEPS
    scheduler = scheduler_class(
        optimizer,
        warmup_t=int(of.warmup_epochs * unit),
        warmup_lr_init=of.warmup_lr,
        warmup_prefix=of.warmup_prefix,
        t_in_epochs=per_epoch,
        **{name: value * unit for name, value in options.pop("times").items()},
        **options,
    )
    result = []
    for update in range(of.epochs * STEPS):
        if per_epoch:
            scheduler.step(update // STEPS)
        else:
            scheduler.step_update(update)
        result.append(optimizer.param_groups[0]["lr"])
    return result


@pytest.mark.parametrize("step_per", ["epoch", "update"])
@pytest.mark.parametrize("prefix", [False, True])
def test_cosine_with_warm_up_and_cooldown_is_that_of_timm(step_per: str, prefix: bool) -> None:
    mine = recipe(
        lr=0.02,
        epochs=30,
        warmup_epochs=5,
        warmup_lr=1e-6,
        warmup_prefix=prefix,
        min_lr=1e-5,
        cooldown_epochs=4,
        step_per=step_per,
    )
    times = {"t_initial": 30 - 4 - (5 if prefix else 0)}
    expected = timm_rates(CosineLRScheduler, mine, lr_min=1e-5, times=times)
    assert rates(mine) == pytest.approx(expected, rel=1e-12)
    assert rates(mine)[-4 * STEPS :] == [1e-5] * (4 * STEPS)


@pytest.mark.parametrize("step_per", ["epoch", "update"])
def test_step_is_that_of_timm(step_per: str) -> None:
    mine = recipe(sched="step", lr=0.1, epochs=12, decay_every=4, decay_rate=0.3, step_per=step_per)
    times = {"decay_t": 4}
    expected = timm_rates(StepLRScheduler, mine, decay_rate=0.3, times=times)
    assert rates(mine) == pytest.approx(expected, rel=1e-12)


def test_constant_is_the_base_rate_scaled_to_the_batch() -> None:
    mine = recipe(sched="constant", lr=5e-4, lr_base_batch=512, batch_size=1024, epochs=3)
    assert base_rate(mine) == pytest.approx(1e-3)
    assert set(rates(mine)) == {base_rate(mine)}


def test_two_phases_meet_the_published_values() -> None:
    mine = recipe(sched="two_phase", lr=1.0, epochs=300)
    at = {epoch: learning_rate(mine, epoch * STEPS, STEPS) for epoch in range(300)}
    assert at[0] == pytest.approx(0.8)
    assert at[75] == pytest.approx(0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert at[150] == pytest.approx(0.4)
    assert at[174] == pytest.approx((0.4 + at[198]) / 2)
    assert at[198] == pytest.approx(0.2591, abs=5e-5)
    assert at[250] == pytest.approx((1 + math.cos(math.pi * 250 / 300)) / 2)


def test_two_phases_without_room_for_the_line_are_refused() -> None:
    with pytest.raises(UsageError, match=r"epoch_threshold=0\.66 given; under 0\.66"):
        learning_rate(recipe(sched="two_phase", epoch_threshold=0.66), 0, STEPS)


def test_the_published_fault_goes_up_and_down_every_two_t_max_updates() -> None:
    mine = recipe(sched="cosine_per_batch", lr=1e-3, min_lr=1e-5, epochs=1200, step_per="update")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    torch_cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1200, eta_min=1e-5)
    for update in range(5000):
        assert learning_rate(mine, update, 391) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-6
        )
        optimizer.step()
        torch_cosine.step()
    lowest, highest = learning_rate(mine, 1200, 391), learning_rate(mine, 2400, 391)
    assert (lowest, highest) == (pytest.approx(1e-5), pytest.approx(1e-3))


def test_cosine_per_epoch_is_that_of_torch() -> None:
    """The recipe of the ResNet-50 notebooks: 0.05 in epoch 1 of 30, 0.000137 in the last."""
    mine = recipe(lr=0.05, epochs=30)
    assert learning_rate(mine, 0, STEPS) == pytest.approx(0.05)
    assert learning_rate(mine, 29 * STEPS + 3, STEPS) == pytest.approx(0.000137, abs=5e-7)


def test_unknown_names_and_epochs_too_few_are_one_line() -> None:
    with pytest.raises(UsageError, match="cosin"):
        learning_rate(recipe(sched="cosinus"), 0, STEPS)
    with pytest.raises(UsageError, match="step_per"):
        learning_rate(recipe(step_per="batch"), 0, STEPS)
    with pytest.raises(UsageError, match="epochs=3 leaves none between 0 of warm-up and 10"):
        learning_rate(recipe(epochs=3, cooldown_epochs=10), 0, STEPS)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_stays_between_its_limits(name: str) -> None:
    mine = recipe(sched=name, lr=1.0, min_lr=0.25, warmup_lr=0.3, warmup_epochs=2, epochs=20)
    assert all(0.25 <= rate <= 1.0 for rate in rates(mine))
