"""What PowerNorm and UnifiedNorm promise about their training steps: one backward pass each, and z
as this very call used it.
"""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.checkpoint import checkpoint

from probe.errors import UsageError
from probe.norms import PowerNorm, UnifiedNorm

C = 6
MAKERS = {
    "PowerNorm": partial(PowerNorm, C, num_heads=2, warmup=2),
    "UnifiedNorm": partial(UnifiedNorm, C, window=2, warmup=3, filter_outliers=True),
}
BOTH = pytest.mark.parametrize("name", list(MAKERS))


def layer(name, **options):
    return MAKERS[name](dtype=torch.float64, **options)


def batch(seed):
    return torch.randn(
        3, 4, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).requires_grad_()


def step(norm, seed):
    x = batch(seed)
    norm(x).square().sum().backward()
    return x.grad


def same_state(first, second):
    return all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def one_line(caught, name):
    message = str(caught.value)
    assert message.startswith(f"{name}: backward of")
    assert "not the last one" in message
    assert "\n" not in message


@BOTH
def test_a_layer_called_twice_before_the_backward_pass_is_an_error(name):
    norm = layer(name)
    with pytest.raises(RuntimeError) as caught:
        norm(norm(batch(0))).sum().backward()
    one_line(caught, name)


@BOTH
def test_the_backward_pass_of_an_earlier_forward_pass_is_an_error_and_moves_nothing(name):
    norm = layer(name)
    first, second = norm(batch(0)), norm(batch(1))
    second.sum().backward()
    before = copy.deepcopy(norm)
    with pytest.raises(RuntimeError) as caught:
        first.sum().backward()
    one_line(caught, name)
    assert same_state(norm, before)


@BOTH
def test_a_second_backward_pass_through_one_forward_pass_is_an_error(name):
    norm = layer(name)
    y = norm(batch(0)).sum()
    y.backward(retain_graph=True)
    with pytest.raises(RuntimeError) as caught:
        y.backward()
    one_line(caught, name)


@BOTH
def test_checkpointing_that_runs_the_forward_pass_again_is_an_error(name):
    norm = layer(name)
    y = checkpoint(norm, batch(0), use_reentrant=False)
    with pytest.raises(RuntimeError) as caught:
        y.sum().backward()
    one_line(caught, name)


@BOTH
def test_after_the_error_training_goes_on(name):
    norm = layer(name)
    first, _ = norm(batch(0)), norm(batch(1))
    with pytest.raises(RuntimeError):
        first.sum().backward()
    assert step(norm, 2).isfinite().all()


@BOTH
def test_a_forward_pass_whose_output_is_dropped_does_not_bar_the_next(name):
    norm = layer(name)
    norm(batch(0))
    assert step(norm, 1).isfinite().all()


@pytest.mark.parametrize("quiet", [torch.no_grad, torch.inference_mode])
@BOTH
def test_forward_passes_without_gradients_count_as_steps_and_await_no_backward(name, quiet):
    norm, twin = layer(name), layer(name)
    with quiet():
        for seed in range(3):
            norm(batch(seed))
    for seed in range(3):
        twin(batch(seed))
    assert norm.iters.item() == 3
    assert norm.normalized(batch(5)).requires_grad
    assert same_state(norm, twin)
    assert torch.equal(step(norm, 5), step(twin, 5))


@BOTH
def test_a_forward_pass_without_gradients_in_between_leaves_the_gradient_as_it_is(name):
    norm, twin = layer(name), layer(name)
    first, second = batch(0), batch(0)
    y, expected = norm(first), twin(second)
    with torch.no_grad():
        norm(batch(1))
    y.square().sum().backward()
    expected.square().sum().backward()
    assert torch.equal(first.grad, second.grad)


@BOTH
def test_evaluation_between_forward_and_backward_disturbs_nothing(name):
    norm, twin = layer(name), layer(name)
    y, expected = norm(batch(0)), twin(batch(0))
    norm.eval()(batch(1))
    norm.train()
    y.sum().backward()
    expected.sum().backward()
    assert same_state(norm, twin)


@BOTH
def test_a_hook_gets_the_z_of_its_call_at_every_step_although_the_buffers_have_moved(name):
    norm, seen = layer(name), []
    norm.register_forward_hook(
        lambda module, args, output: seen.append((module.normalized(args[0]), output))
    )
    with torch.no_grad():
        norm.weight.fill_(2)
        norm.bias.fill_(1)
    for seed in range(7):
        step(norm, seed)
    norm.eval()(batch(9))
    assert len(seen) == 8
    for z, y in seen:
        torch.testing.assert_close(2 * z + 1, y, rtol=0, atol=1e-12)


@BOTH
def test_before_any_forward_pass_z_is_what_the_next_one_would_use(name):
    norm = layer(name)
    for seed in range(4):
        step(norm, seed)
    fresh = layer(name)
    fresh.load_state_dict(norm.state_dict())
    z = fresh.normalized(batch(7))
    assert torch.equal(z, fresh(batch(7)))


@BOTH
def test_copies_in_the_middle_of_training_go_on_as_the_original(name):
    norm = layer(name)
    for seed in range(4):
        step(norm, seed)
    pending = norm(batch(4))
    for twin in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        assert torch.equal(twin.normalized(batch(4)), norm.normalized(batch(4)))
        assert step(twin, 5).isfinite().all()
    pending.sum().backward()


@BOTH
def test_training_in_half_precision_keeps_moments_in_single_precision(name):
    """A second moment over 70,000 would overflow in float16; the gradient stays near the exact
    one.
    """
    norm, exact = layer(name).half(), layer(name)
    x = (300 * batch(0).detach()).half()
    leaf, wide = x.requires_grad_(), x.detach().double().requires_grad_()
    y, expected = norm(leaf), exact(wide)
    gradient = torch.linspace(-1, 1, C, dtype=torch.float64).expand_as(expected)
    y.backward(gradient.half())
    expected.backward(gradient)
    assert y.dtype == leaf.grad.dtype == torch.float16
    torch.testing.assert_close(y.double(), expected, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(leaf.grad.double(), wide.grad, rtol=2e-2, atol=1e-5)


@BOTH
def test_autocast_trains_in_single_precision(name):
    norm = layer(name).float()
    model = nn.Sequential(nn.Linear(C, C), norm)
    for seed in range(5):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = model(batch(seed).float())
        assert y.dtype == torch.float32
        y.square().sum().backward()
    assert model[0].weight.grad.isfinite().all()
    assert norm.ema_gz.isfinite().all()


@BOTH
def test_frozen_or_absent_parameters_get_no_gradient_and_the_input_still_does(name):
    frozen, bare = layer(name), layer(name, affine=False)
    frozen.weight.requires_grad_(False)
    for norm in (frozen, bare):
        assert step(norm, 0).isfinite().all()
    assert frozen.weight.grad is None
    assert frozen.bias.grad is not None
    assert (bare.ema_gz != 0).any()


@BOTH
def test_channels_on_the_second_axis_train_as_those_on_the_last(name):
    norm, images = layer(name), layer(name, channels_last=False)
    for seed in range(5):
        x = batch(seed).detach().transpose(1, 2).reshape(3, C, 2, 2).requires_grad_()
        images(x).square().sum().backward()
        torch.testing.assert_close(
            x.grad.flatten(2).transpose(1, 2), step(norm, seed), rtol=0, atol=1e-12
        )
    for first, second in zip(norm.state_dict().values(), images.state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


@BOTH
def test_a_mask_of_another_shape_is_refused(name):
    with pytest.raises(
        UsageError, match=r"pad_mask of shape \(3, 5\) given; \(3, 4\) is needed, True at padding"
    ):
        layer(name)(batch(0), torch.zeros(3, 5, dtype=torch.bool))


def unreduced(state, bucket):
    done = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


@BOTH
def test_buffers_written_over_in_place_before_a_forward_pass_are_taken_up(name):
    """What data-parallel training does before each step."""
    norm, other = layer(name), layer(name)
    for seed in range(4):
        step(norm, seed)
    step(other, 9)
    for buffer, given in zip(other.buffers(), norm.buffers(), strict=True):
        buffer.copy_(given)
    assert torch.equal(step(norm, 5), step(other, 5))
    assert same_state(norm, other)


@BOTH
def test_distributed_data_parallel_trains_it_as_it_is(name):
    """With a process group that sends nothing and starts no thread."""
    norm, twin = layer(name), layer(name)
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        wrapped = nn.parallel.DistributedDataParallel(norm)
        wrapped.register_comm_hook(None, unreduced)
        gradients = [step(wrapped, seed) for seed in range(5)]
    finally:
        torch.distributed.destroy_process_group()
    assert all(torch.equal(gradient, step(twin, seed)) for seed, gradient in enumerate(gradients))
    assert same_state(norm, twin)
