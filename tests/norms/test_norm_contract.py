"""What every normalizer of the registry promises. A new entry needs its formula in
`norm_references.REFERENCES` and no test code.
"""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from probe.errors import UsageError
from probe.norms import create_norm, list_norms
from probe.norms.base import Norm
from probe.norms.registry import NORMS, norm_name, norm_options
from support.norm_cases import CHANNELS, inputs, laid_out, made, ready, state_arrays, trained
from support.norm_references import BREAKS, OPTIONS, REFERENCES, VARIANTS

EVERY = pytest.mark.parametrize("name", list_norms())
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
LINES = {
    "batch_norm",
    "learnable_scaler",
    "unified_norm",
    "rep_batch_norm",
}  # affine per channel at evaluation


def close(actual, expected, dtype=torch.float64):
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 3e-2}[dtype]
    scale = max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=tolerance * scale)


def formula(name, norm, x, options):
    reference = REFERENCES.get(name)
    assert reference is not None, (
        f"{name} is registered without its formula: add it to tests/norms/norm_references.py"
    )
    return torch.from_numpy(
        reference(state_arrays(norm), x.numpy(), {**OPTIONS.get(name, {}), **options})
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in list_norms()] + VARIANTS,
    ids=lambda value: (
        ",".join(f"{k}={v}" for k, v in value.items()) or "default"
        if isinstance(value, dict)
        else value
    ),
)
def test_the_output_at_evaluation_is_the_published_formula(name, options):
    norm, x = ready(name, **options), inputs(name, seed=9)
    close(norm(x), formula(name, norm, x, options))


def test_no_formula_is_left_over():
    assert set(REFERENCES) | set(OPTIONS) | set(BREAKS) | {name for name, _ in VARIANTS} <= set(
        list_norms()
    )


@MODES
@EVERY
def test_weight_times_normalized_plus_bias_is_the_output(name, training):
    norm, x = trained(made(name), name).train(training), inputs(name, seed=9)
    y, z = norm(x), norm.normalized(x)
    weight, bias = (norm.on_channels(value, x) for value in norm.output_affine())
    assert z.shape == x.shape
    close(y, weight * z + bias)


@EVERY
def test_normalized_changes_no_state(name):
    norm, x = trained(made(name), name), inputs(name, seed=9)
    before = copy.deepcopy(norm.state_dict())
    norm.normalized(x)
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())


@EVERY
def test_evaluation_changes_no_state_and_repeats_itself(name):
    norm, x = ready(name), inputs(name, seed=9)
    before = copy.deepcopy(norm.state_dict())
    assert torch.equal(norm(x), norm(x))
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())


@EVERY
def test_an_image_is_evaluated_alone_as_among_others(name):
    norm, x = ready(name), inputs(name, seed=9)
    close(norm(x)[1:2], norm(x[1:2]))


@EVERY
def test_the_affine_map_at_evaluation_is_exact_where_there_is_one(name):
    norm, x = ready(name), inputs(name, seed=9)
    affine = norm.eval_affine()
    assert (affine is not None) == (name.removesuffix("_2d") in LINES)
    if affine is not None:
        scale, shift = affine
        assert scale.dtype == shift.dtype == torch.float64
        assert scale.shape == shift.shape == (CHANNELS,)
        close(norm(x), norm.on_channels(scale, x) * x + norm.on_channels(shift, x))


@EVERY
def test_the_line_of_z_and_that_of_the_output_belong_together(name):
    norm, x = ready(name), inputs(name, seed=9)
    line = norm.eval_line()
    assert (line is None) == (norm.eval_affine() is None)
    if line is not None:
        close(norm.normalized(x), norm.on_channels(line[0], x) * x + norm.on_channels(line[1], x))


@MODES
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16], ids=["float32", "float64", "bfloat16"]
)
@EVERY
def test_dtype_and_shape_stay_and_the_values_are_right_to_its_precision(name, dtype, training):
    norm = trained(made(name), name).to(dtype).train(training)
    exact = copy.deepcopy(norm).double()
    x = inputs(name, seed=9, dtype=dtype)
    y = norm(x)
    assert (y.dtype, y.shape) == (dtype, x.shape)
    close(y, exact(x.double()), dtype)


@MODES
@EVERY
def test_a_large_mean_costs_no_more_than_rounding_in_half_precision(name, training):
    norm = trained(made(name), name).to(torch.bfloat16).train(training)
    exact, x = copy.deepcopy(norm).double(), (64 + 4 * inputs(name, seed=9)).bfloat16()
    close(norm.normalized(x), exact.normalized(x.double()), torch.bfloat16)


@pytest.mark.parametrize("name", [name for name in list_norms() if f"{name}_2d" in list_norms()])
def test_images_are_normalized_as_tokens_are(name):
    options = OPTIONS.get(name, {})
    tokens = ready(name)
    images = made(f"{name}_2d", **options).double().eval()
    images.load_state_dict(tokens.state_dict())
    x = inputs(name, seed=9)
    close(images(laid_out(f"{name}_2d", x)), laid_out(f"{name}_2d", tokens(x)))


@pytest.mark.parametrize("name", [name for name in list_norms() if name.endswith("_2d")])
def test_memory_format_does_not_matter(name):
    norm, x = ready(name), inputs(name, seed=9)
    close(norm(x.to(memory_format=torch.channels_last)), norm(x))


@EVERY
def test_strided_inputs_do_not_matter(name):
    norm, x = ready(name), inputs(name, seed=9)
    strided = torch.stack([x, -x], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    close(norm(strided), norm(x))


@EVERY
def test_the_state_goes_into_a_fresh_module_and_back(name):
    norm, fresh, x = ready(name), made(name, seed=5).double().eval(), inputs(name, seed=9)
    fresh.load_state_dict(norm.state_dict())
    assert torch.equal(fresh(x), norm(x))
    assert all(
        torch.equal(value, fresh.state_dict()[key]) for key, value in norm.state_dict().items()
    )


@EVERY
def test_copies_and_pickles_compute_the_same(name):
    norm, x = ready(name), inputs(name, seed=9)
    for twin in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        assert torch.equal(twin(x), norm(x))
        assert repr(twin) == repr(norm)


@EVERY
def test_no_two_tensors_share_their_storage(name):
    norm = ready(name)
    modules = nn.ModuleList([norm, copy.deepcopy(norm), made(name)])
    every = [
        value.untyped_storage().data_ptr() for value in (*modules.parameters(), *modules.buffers())
    ]
    assert len(set(every)) == len(every)


@MODES
@EVERY
def test_gradients_reach_input_and_parameters_and_are_finite(name, training):
    norm, x = trained(made(name), name).train(training), inputs(name, seed=9).requires_grad_()
    (norm(x) * inputs(name, seed=10)).sum().backward()
    assert x.grad.isfinite().all()
    for key, parameter in norm.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@MODES
@pytest.mark.parametrize("value", [0.0, 3.0, 1e4])
@EVERY
def test_constant_inputs_give_finite_values_and_gradients(name, value, training):
    norm, x = (
        trained(made(name), name, dtype=torch.float32).train(training),
        inputs(name, dtype=torch.float32),
    )
    x = torch.full_like(x, value).requires_grad_()
    y = norm(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


@MODES
@EVERY
def test_autocast_gives_finite_values_near_those_without(name, training):
    norm = trained(made(name), name, dtype=torch.float32).train(training)
    twin, x = copy.deepcopy(norm), inputs(name, seed=9, dtype=torch.float32)
    others = copy.deepcopy(norm), copy.deepcopy(norm)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = norm(x), others[0](x.bfloat16())
        z = others[1].normalized(x.bfloat16())
    expected = twin(x)
    for y in outputs:
        assert y.isfinite().all()
        close(y, expected, torch.bfloat16)
    assert z.isfinite().all()


@MODES
@EVERY
def test_a_compiled_norm_computes_the_same(name, training):
    torch.compiler.reset()
    norm, x = trained(made(name), name).train(training), inputs(name, seed=9)
    twin = copy.deepcopy(norm)
    compiled = torch.compile(norm, backend="aot_eager", fullgraph=name not in BREAKS)
    for _ in range(2):
        a, b = (x.clone().requires_grad_() for _ in range(2))
        y, expected = compiled(a), twin(b)
        y.square().sum().backward()
        expected.square().sum().backward()
        close(y, expected)
        close(a.grad, b.grad)
    assert all(
        torch.allclose(value.double(), twin.state_dict()[key].double())
        for key, value in norm.state_dict().items()
    )


@EVERY
def test_device_and_dtype_reach_every_tensor(name):
    norm = made(name, device="meta", dtype=torch.float64)
    tensors = [*norm.parameters(), *norm.buffers()]
    assert {tensor.device.type for tensor in tensors} <= {"meta"}
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} <= {torch.float64}


@EVERY
def test_reset_parameters_brings_back_the_start(name):
    norm, fresh = trained(made(name), name, dtype=torch.float32), made(name, seed=3)
    empty = made(name, device="meta").to_empty(device="cpu")
    for module in (norm, empty):
        torch.manual_seed(3)
        module.reset_parameters()
        for (key, value), expected in zip(
            module.state_dict().items(), fresh.state_dict().values(), strict=True
        ):
            assert torch.equal(value, expected), key


@EVERY
def test_an_input_in_the_wrong_layout_is_refused_with_its_shape(name):
    norm, x = made(name).eval(), inputs(name, dtype=torch.float32)
    axis = 1 if name.endswith("_2d") else -1
    for wrong in (x.narrow(axis, 0, CHANNELS - 1), torch.zeros(CHANNELS)):
        with pytest.raises(UsageError) as caught:
            norm(wrong)
        assert str(tuple(wrong.shape)) in str(caught.value)
        assert f"{CHANNELS}" in str(caught.value)
        assert "\n" not in str(caught.value)


@EVERY
def test_channels_are_counted(name):
    assert made(name).num_features == CHANNELS
    with pytest.raises(UsageError, match="channels? given"):
        create_norm(
            name,
            0,
            **{key: value for key, value in OPTIONS.get(name, {}).items() if key != "num_heads"},
        )


@EVERY
def test_the_name_is_found_again(name):
    assert norm_name(made(name)) == name
    assert isinstance(made(name), Norm)


@EVERY
def test_an_option_it_does_not_take_is_named_with_those_it_takes(name):
    with pytest.raises(UsageError) as caught:
        create_norm(name, CHANNELS, temperature=2)
    taken = norm_options(name)
    assert str(caught.value) == f"{name} takes no option temperature; it takes {', '.join(taken)}"
    assert {"device", "dtype"} <= set(taken)
    assert "channels_last" not in taken


def test_every_registered_class_is_public():
    import probe.norms

    classes = {maker if isinstance(maker, type) else maker.func for maker in NORMS.values()}
    assert {cls.__name__ for cls in classes} <= set(probe.norms.__all__)
