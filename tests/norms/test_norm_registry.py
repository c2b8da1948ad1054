"""Names, classes and partials; the state of the originals goes into our modules."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from probe.errors import UsageError
from probe.norms import BatchNorm, DyT, LayerNorm, ScaleNorm, create_norm, list_norms
from probe.norms.registry import norm_name, norm_options


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    with pytest.raises(UsageError) as caught:
        create_norm("layernorm", 8)
    message = str(caught.value)
    assert message.startswith("norm 'layernorm' is unknown (did you mean layer_norm")
    assert all(name in message for name in list_norms())


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("dyt", DyT),
        (DyT, DyT),
        (partial(DyT, alpha_init=0.2), DyT),
        (nn.LayerNorm, nn.LayerNorm),
        (partial(nn.BatchNorm2d, eps=1e-3), nn.BatchNorm2d),
    ],
)
def test_a_name_a_class_or_a_partial_makes_the_module(norm, expected):
    assert type(create_norm(norm, 6)) is expected


def test_options_go_to_the_constructor():
    assert create_norm("dyt", 6, alpha_init=0.25).alpha.item() == 0.25
    assert create_norm(partial(DyT, alpha_init=0.25), 6, channels_last=False).channels_last is False
    assert create_norm("layer_norm_2d", 6, eps=1e-3).eps == 1e-3


@pytest.mark.parametrize(
    ("norm", "option", "message"),
    [
        ("dyt", "eps", "dyt takes no option eps; it takes alpha_init, affine, bias, device, dtype"),
        (
            "layer_norm_2d",
            "channels_last",
            "layer_norm_2d takes no option channels_last; it takes eps, ",
        ),
        (
            LayerNorm,
            "alpha",
            "LayerNorm takes no option alpha; it takes eps, affine, bias, channels_last, ",
        ),
        (
            partial(ScaleNorm, eps=1e-3),
            "bias",
            "ScaleNorm takes no option bias; it takes eps, per_channel, ",
        ),
    ],
)
def test_an_option_that_the_norm_does_not_take_is_one_line(norm, option, message):
    with pytest.raises(UsageError) as caught:
        create_norm(norm, 6, **{option: 1})
    assert str(caught.value).startswith(message)


def test_a_maker_that_takes_anything_is_not_asked():
    def anything(channels, **options):
        return nn.LayerNorm(channels, **options)

    assert norm_options(anything) is None
    assert create_norm(anything, 6, eps=0.5).eps == 0.5


def test_modules_of_others_have_no_name_and_subclasses_have_that_of_their_class():
    assert norm_name(nn.LayerNorm(4)) is None
    assert norm_name(type("Mine", (DyT,), {})(4)) == "dyt"
    assert norm_name(DyT(4, channels_last=False)) == "dyt_2d"


C = 4
VALUES = torch.arange(1.0, C + 1)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("scale_norm", {"scale": VALUES}, {"weight": VALUES}),
        ("learnable_scaler", {"a": VALUES, "b": -VALUES}, {"weight": VALUES, "bias": -VALUES}),
        ("learnable_scaler_2d", {"a": VALUES, "b": -VALUES}, {"weight": VALUES, "bias": -VALUES}),
        (
            "dyt",
            {"alpha": torch.tensor(0.7), "weight": VALUES, "bias": -VALUES},
            {"alpha": torch.tensor([0.7])},
        ),
        (
            "dyt_2d",
            {"alpha": torch.tensor([0.7]), "weight": VALUES, "bias": -VALUES},
            {"alpha": torch.tensor([0.7])},
        ),
        (
            "derf",
            {
                "alpha": torch.tensor(0.7),
                "shift": torch.tensor(0.1),
                "weight": VALUES,
                "bias": -VALUES,
            },
            {"alpha": torch.tensor([0.7]), "shift": torch.tensor([0.1])},
        ),
        (
            "batch_norm",
            {
                "weight": VALUES,
                "bias": -VALUES,
                "bn.running_mean": VALUES / 2,
                "bn.running_var": VALUES * 2,
                "bn.num_batches_tracked": torch.tensor(7),
            },
            {
                "running_mean": VALUES / 2,
                "running_var": VALUES * 2,
                "num_batches_tracked": torch.tensor(7),
            },
        ),
        ("batch_norm_2d", nn.BatchNorm2d(C).state_dict(), {"running_var": torch.ones(C)}),
        ("layer_norm", {"weight": VALUES.view(1, 1, C), "bias": VALUES}, {"weight": VALUES}),
        (
            "group_norm_2d",
            {"weight": VALUES.view(1, C, 1, 1), "bias": VALUES.view(1, C, 1, 1)},
            {"bias": VALUES},
        ),
        (
            "rep_batch_norm",
            {"alpha": torch.tensor([0.3])}
            | {f"bn.{key}": value for key, value in nn.BatchNorm1d(C).state_dict().items()},
            {"eta": torch.tensor([0.3])},
        ),
    ],
)
def test_the_keys_and_shapes_of_the_originals_load(name, given, expected):
    norm = create_norm(name, C, **({"num_heads": 2} if "group" in name else {}))
    model = nn.ModuleDict({"norm": norm})
    state = {f"norm.{key}": value for key, value in given.items()}
    kept = dict(state)
    model.load_state_dict(state)
    assert state.keys() == kept.keys()  # the caller's mapping is left alone
    for key, value in expected.items():
        assert torch.equal(norm.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scale": VALUES, "weight": VALUES}, "Unexpected key.*scale"),
        ({"wait": VALUES}, "Missing key.*weight"),
        ({"scale": torch.ones(C + 1)}, "size mismatch for weight"),
        ({"scale": torch.ones(2, 2)}, "size mismatch for weight"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(given, message):
    with pytest.raises(RuntimeError, match=f"(?s){message}"):
        ScaleNorm(C).load_state_dict(given)


def test_a_module_prints_what_it_is():
    assert repr(BatchNorm(4)) == "BatchNorm(4, eps=1e-05, channels_last=True, momentum=0.1)"
    assert repr(DyT(4)) == "DyT(4, channels_last=True)"
