"""BatchNorm over several training steps, and RepBN on its way from LayerNorm."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from probe.errors import UsageError
from probe.norms import create_norm
from support.norm_cases import CHANNELS, inputs, made, ready, state_arrays, trained
from support.norm_references import layer_norm, rep_batch_norm


def rows_of(x, name):
    return (
        x.flatten(0, 1) if not name.endswith("_2d") else x.flatten(2).transpose(1, 2).flatten(0, 1)
    )


@pytest.mark.parametrize("momentum", [0.1, 0.6])
@pytest.mark.parametrize("name", ["batch_norm", "batch_norm_2d"])
def test_a_sequence_of_training_steps_follows_the_published_recursion(name, momentum):
    """Outputs from the biased variance of the batch, buffers with the unbiased one, evaluation from
    the buffers.
    """
    norm = made(name, momentum=momentum).double()
    mean, var = np.zeros(CHANNELS), np.ones(CHANNELS)
    for step in range(4):
        x = inputs(name, seed=step)
        rows = rows_of(x, name).numpy()
        expected = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
        assert np.allclose(rows_of(norm(x), name).detach().numpy(), expected, rtol=0, atol=1e-12)
        mean = (1 - momentum) * mean + momentum * rows.mean(0)
        var = (1 - momentum) * var + momentum * rows.var(0, ddof=1)
        assert np.allclose(norm.running_mean.numpy(), mean, rtol=0, atol=1e-12)
        assert np.allclose(norm.running_var.numpy(), var, rtol=0, atol=1e-12)
        assert norm.num_batches_tracked == step + 1
    x = inputs(name, seed=9)
    expected = (rows_of(x, name).numpy() - mean) / np.sqrt(var + 1e-5)
    assert np.allclose(rows_of(norm.eval()(x), name).detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "other"), [("batch_norm", nn.BatchNorm1d), ("batch_norm_2d", nn.BatchNorm2d)]
)
def test_training_equals_that_of_torch_step_by_step(name, other):
    """Parameters, buffers and outputs of both under the same optimizer; tokens go to torch as (B,
    C, T).
    """
    ours, theirs = made(name).double(), other(CHANNELS).double()
    turned = (lambda t: t.transpose(1, 2)) if name == "batch_norm" else (lambda t: t)
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1) for module in (ours, theirs)]
    for step in range(4):
        x, target = inputs(name, seed=step), inputs(name, seed=step + 100)
        outputs = ours(x), turned(theirs(turned(x)))
        torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
        for output, optimizer in zip(outputs, optimizers, strict=True):
            optimizer.zero_grad()
            (output - target).square().mean().backward()
            optimizer.step()
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=0, atol=1e-12)


def test_the_class_token_takes_part_in_the_statistics():
    norm, x = made("batch_norm", momentum=1.0).double(), inputs("batch_norm")
    norm(x)
    torch.testing.assert_close(norm.running_mean, x.mean((0, 1)))


@pytest.mark.parametrize("name", ["batch_norm", "rep_batch_norm"])
def test_asking_for_normalized_in_training_counts_no_batch(name):
    norm, x = trained(made(name), name), inputs(name, seed=9)
    counted, mean = norm.num_batches_tracked.item(), norm.running_mean.clone()
    norm.normalized(x)
    assert norm.num_batches_tracked.item() == counted
    assert torch.equal(norm.running_mean, mean)


@pytest.mark.parametrize("name", ["rep_batch_norm", "rep_batch_norm_2d"])
def test_rep_batch_norm_is_batch_norm_plus_eta_x(name):
    rep, plain, x = (
        ready(name),
        made(name.removeprefix("rep_")).double().eval(),
        inputs(name, seed=9),
    )
    plain.load_state_dict({key: value for key, value in rep.state_dict().items() if key != "eta"})
    torch.testing.assert_close(rep(x), plain(x) + rep.eta * x, rtol=0, atol=1e-12)


def shares(norm, x, steps):
    """Share of LayerNorm in each training step, read off the outputs: LN has gain 1, RepBN a
    constant 5.
    """
    found = []
    for _ in range(steps):
        y, z = norm(x), norm.normalized(x)
        torch.testing.assert_close(y, z)
        layer = torch.from_numpy(layer_norm({}, x.numpy(), {}))
        found.append(float(((y - 5) / (layer - 5)).detach().median()))
    return found


def constant(norm):
    """RepBN(x) = 5 for every x."""
    with torch.no_grad():
        for parameter, value in ((norm.eta, 0), (norm.weight, 0), (norm.bias, 5)):
            parameter.fill_(value)
    return norm.double()


@pytest.mark.parametrize(
    ("warmup", "steps", "expected"),
    [(0, 4, [1, 0.75, 0.5, 0.25, 0, 0]), (2, 2, [1, 1, 1, 0.5, 0, 0]), (0, 1, [1, 0, 0, 0, 0, 0])],
)
def test_the_share_of_layer_norm_falls_in_equal_steps(warmup, steps, expected):
    norm = constant(made("rep_batch_norm", warmup=warmup, decay_steps=steps))
    assert np.allclose(shares(norm, inputs("rep_batch_norm"), 6), expected)


def test_batch_statistics_are_not_kept_in_the_warm_up():
    norm = made("rep_batch_norm", warmup=2, decay_steps=2)
    counts = []
    for step in range(4):
        norm(inputs("rep_batch_norm", seed=step, dtype=torch.float32))
        counts.append(norm.num_batches_tracked.item())
    assert counts == [0, 0, 1, 2]


def test_a_fresh_one_with_a_schedule_evaluates_as_layer_norm():
    norm, x = made("rep_batch_norm", decay_steps=10).double().eval(), inputs("rep_batch_norm")
    torch.testing.assert_close(norm(x), made("layer_norm").double()(x), rtol=0, atol=1e-12)
    assert norm.eval_affine() is None


def test_evaluation_moves_no_schedule():
    norm = made("rep_batch_norm", decay_steps=10).eval()
    for _ in range(3):
        norm(inputs("rep_batch_norm", dtype=torch.float32))
    assert norm.steps_left == 10


def test_it_is_affine_from_the_end_of_the_schedule_on():
    norm = made("rep_batch_norm", decay_steps=3).double()
    lines = []
    for step in range(4):
        norm(inputs("rep_batch_norm", seed=step))
        lines.append(norm.eval_affine() is not None)
    assert lines == [False, False, True, True]
    x = inputs("rep_batch_norm", seed=9)
    scale, shift = norm.eval_affine()
    torch.testing.assert_close(norm.eval()(x), scale * x + shift, rtol=0, atol=1e-12)


def test_the_schedule_goes_on_after_loading():
    norm, other = made("rep_batch_norm", decay_steps=4), made("rep_batch_norm", decay_steps=9)
    for _ in range(3):
        norm(inputs("rep_batch_norm", dtype=torch.float32))
    other.load_state_dict(norm.state_dict())
    x = inputs("rep_batch_norm", seed=9, dtype=torch.float32)
    assert torch.equal(other(x), norm(x))
    assert torch.equal(other.eval()(x), norm.eval()(x))


def test_the_state_of_the_published_code_loads():
    """norm1 is its LayerNorm, norm2 its RepBN; warm, iter and total_step count down."""
    state = {
        f"norm1.{key}": torch.full((CHANNELS,), value)
        for key, value in (("weight", 1.5), ("bias", 0.5))
    }
    state |= {
        f"norm2.bn.{key}": value for key, value in nn.BatchNorm1d(CHANNELS).state_dict().items()
    }
    state |= {
        "norm2.alpha": torch.tensor([0.3]),
        "warm": torch.tensor(0),
        "iter": torch.tensor(30),
        "total_step": torch.tensor(40),
    }
    norm = made("rep_batch_norm", decay_steps=1)
    norm.load_state_dict(state)
    norm.double().eval()
    x = inputs("rep_batch_norm", seed=9)
    own = state_arrays(norm)
    expected = 0.75 * layer_norm({"weight": 1.5, "bias": 0.5}, x.numpy(), {})
    expected += 0.25 * rep_batch_norm(
        {key: own[key] for key in own if key != "decay_steps"}, x.numpy(), {}
    )
    assert own["eta"] == pytest.approx(0.3)
    assert np.allclose(norm(x).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_both_branches_take_the_affine_of_another_norm():
    norm = made("rep_batch_norm", decay_steps=4)
    weight, bias = torch.rand(CHANNELS), torch.rand(CHANNELS)
    norm.match_affine(weight, bias)
    assert torch.equal(norm.weight, weight)
    assert torch.equal(norm.layer_weight, weight)
    assert torch.equal(norm.layer_bias, bias)


def test_a_compiled_schedule_runs_as_the_plain_one():
    torch.compiler.reset()
    norm = made("rep_batch_norm", warmup=1, decay_steps=2)
    twin = copy.deepcopy(norm)
    compiled = torch.compile(norm, backend="eager")
    for step in range(5):
        x = inputs("rep_batch_norm", seed=step, dtype=torch.float32)
        torch.testing.assert_close(compiled(x), twin(x))
    assert norm.steps_left == twin.steps_left == 0


def test_a_warm_up_without_a_decay_after_it_is_refused():
    with pytest.raises(UsageError, match="warmup=3 needs decay_steps"):
        create_norm("rep_batch_norm", CHANNELS, warmup=3)
