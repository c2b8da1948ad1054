"""What the tap hands on: the right values, whatever the layout, the mode and what follows in
place.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
import timm
import timm.layers as tl
import torch
from torch import nn
from torch.nn import functional as F

from probe.models.reading.layers import affine_of, norm_modules
from probe.models.reading.observe import BatchContext
from probe.models.reading.tap import tap
from probe.norms import BatchNorm, Derf, DyT
from probe.stats.observed import PlaneNorm, TokenNorm


def seen(module, x, layers="*", prefix=0, valid=None, run=None):
    """{(name, call): (x, z, y, observed)} of one forward pass, (B, P, C) arrays copied inside the
    hook.
    """
    found = {}

    def receive(name, call, observed):
        rows = observed.as_given_rows()
        if isinstance(rows.norm, TokenNorm):
            wide = rows.x.double()
            mean = wide.mean(-1, keepdim=True) if rows.norm.centered else 0.0
            z = (wide - mean) / torch.sqrt(
                (wide - mean).square().mean(-1, keepdim=True) + rows.norm.eps
            )
        else:
            z = rows.norm.z
        found[name, call] = (rows.x.clone(), z.clone(), rows.y.clone(), observed)

    with tap(module, layers, receive) as hooks, torch.no_grad():
        hooks.begin(BatchContext(np.arange(len(x)), np.arange(len(x)) % 16, prefix, valid))
        (run or module)(x)
    return found


def trained(module):
    """A norm with statistics and affine that are not the initial ones."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point():
                positive = "var" in name or "weight" in name
                draw = torch.rand if positive else torch.randn
                value.copy_(draw(value.shape, generator=rng) + 0.5 * positive)
    return module


TOKENS, IMAGES, VECTORS = (3, 11, 8), (3, 8, 5, 4), (6, 8)
CASES = [
    (nn.LayerNorm(8), TOKENS),
    (nn.LayerNorm(8), (3, 5, 4, 8)),
    (nn.LayerNorm(8), VECTORS),
    (nn.LayerNorm((5, 4)), IMAGES),
    (nn.LayerNorm(8, elementwise_affine=False), TOKENS),
    (nn.RMSNorm(8), TOKENS),
    (nn.RMSNorm(8, eps=0.1), TOKENS),
    (tl.RmsNorm(8), TOKENS),
    (tl.RmsNorm2d(8), IMAGES),
    (tl.LayerNorm2d(8), IMAGES),
    (tl.SimpleNorm(8), TOKENS),
    (tl.SimpleNorm2d(8), IMAGES),
    (nn.GroupNorm(2, 8), IMAGES),
    (nn.GroupNorm(2, 8), VECTORS),
    (tl.GroupNorm1(8), IMAGES),
    (nn.BatchNorm1d(8), VECTORS),
    (nn.BatchNorm1d(8), (3, 8, 7)),
    (nn.BatchNorm2d(8), IMAGES),
    (nn.BatchNorm2d(8, affine=False), IMAGES),
    (nn.BatchNorm2d(8, track_running_stats=False), IMAGES),
    (nn.BatchNorm3d(8), (3, 8, 2, 3, 4)),
    (nn.InstanceNorm1d(8), (3, 8, 7)),
    (nn.InstanceNorm2d(8, affine=True), IMAGES),
    (nn.InstanceNorm2d(8, affine=True, track_running_stats=True), IMAGES),
    (tl.FrozenBatchNormAct2d(8), IMAGES),
    (tl.BatchNormAct2d(8), IMAGES),
    (tl.GroupNormAct(8, 2), IMAGES),
    (tl.LayerNormAct(8), TOKENS),
    (tl.LayerNormAct2d(8), IMAGES),
    (tl.RmsNormAct2d(8), IMAGES),
    (DyT(8), TOKENS),
    (DyT(8, channels_last=False), IMAGES),
    (Derf(8), TOKENS),
]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    ("module", "shape", "memory"),
    [
        (m, s, f)
        for m, s in CASES
        for f in (torch.contiguous_format, torch.channels_last)[: 2 if len(s) == 4 else 1]
    ],
    ids=lambda value: (
        type(value).__name__ if isinstance(value, nn.Module) else str(value).removeprefix("torch.")
    ),
)
def test_weight_times_normalized_plus_bias_is_the_output(module, shape, memory, training):
    module = nn.Sequential(trained(module)).train(training)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 1
    x = x.to(memory_format=memory)
    ((x_seen, z, y, _),) = seen(module, x).values()
    weight, bias = affine_of(module[0], x_seen.shape[-1])
    assert x_seen.shape[0] == len(x)
    assert x_seen.numel() == x.numel()
    torch.testing.assert_close(
        weight * z + bias, y.double(), rtol=0, atol=1e-5 * max(1.0, float(y.abs().max()))
    )


@pytest.mark.parametrize(
    ("module", "shape", "bound"),
    [
        (nn.LayerNorm(8), TOKENS, 7**0.5),
        (nn.RMSNorm(8), TOKENS, 8**0.5),
        (nn.GroupNorm(2, 8), IMAGES, (4 * 20 - 1) ** 0.5),
        (nn.InstanceNorm2d(8), IMAGES, 19**0.5),
    ],
    ids=["LN", "RMS", "GN", "IN"],
)
def test_normalized_stays_within_its_bound_and_reaches_it(module, shape, bound):
    x = torch.zeros(shape)
    x.flatten(1)[:, 0] = 1e4  # one element alone
    ((_, z, _, _),) = seen(nn.Sequential(module), x).values()
    assert float(z.abs().max()) <= bound * (1 + 1e-6)
    assert float(z.abs().max()) >= bound * 0.999


@pytest.mark.parametrize(
    "name", ["resnet50", "resnet18", "vit_tiny_patch16_224", "convnext_atto", "efficientnet_b0"]
)
def test_outputs_equal_a_clone_taken_inside_the_hook(name):
    torch.manual_seed(0)
    module = timm.create_model(name, **({"img_size": 64} if "vit" in name else {})).eval()
    x = torch.randn(2, 3, 64, 64)
    clones = {}

    def cloning(path):
        return lambda _, args, output=None: clones.__setitem__(
            path, (args[0] if output is None else output).clone()
        )

    with ExitStack() as stack, torch.no_grad():
        for path, child, _ in norm_modules(module):
            with_act = hasattr(child, "drop") and hasattr(child, "act")
            register = (
                child.drop.register_forward_pre_hook if with_act else child.register_forward_hook
            )
            stack.callback(register(cloning(path)).remove)
        expected = module(x)
    found = {}
    with (
        tap(module, "*", lambda name, call, o: found.__setitem__(name, o.y.clone())) as hooks,
        torch.no_grad(),
    ):
        hooks.begin(BatchContext(np.arange(2), np.arange(2)))
        logits = module(x)
    assert torch.equal(logits, expected)
    assert found.keys() == clones.keys()
    for path, y in found.items():
        clone = clones[path]
        planes = clone.ndim == 4 and y.shape[1] != clone.shape[1]  # NCHW observed channels-last
        assert torch.equal(
            y, clone.flatten(2).transpose(1, 2) if planes else clone.reshape(y.shape)
        ), path


def hooks_left(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_hooks_are_gone_afterwards_and_after_an_exception():
    module = nn.Sequential(tl.BatchNormAct2d(3), nn.Flatten(), nn.LayerNorm(3 * 4 * 4)).eval()
    seen(module, torch.randn(2, 3, 4, 4))
    assert hooks_left(module) == 0

    def fail(*_):
        raise MemoryError

    with (
        pytest.raises(MemoryError),
        tap(module, "*", fail) as hooks,
        hooks.counting_functional(module),
    ):
        hooks.begin(BatchContext(np.arange(2), np.arange(2)))
        module(torch.randn(2, 3, 4, 4))
    assert hooks_left(module) == 0


class Repeats(nn.Module):
    """One norm called three times, one never, and functional ones."""

    def __init__(self):
        super().__init__()
        self.norm, self.unused, self.inner = (
            nn.LayerNorm(8),
            nn.LayerNorm(8),
            nn.Sequential(nn.Linear(8, 8)),
        )

    def forward(self, x):
        for _ in range(3):
            x = self.norm(input=x * 2)
        return F.layer_norm(F.rms_norm(self.inner(x), (8,)), (8,))


def test_each_call_of_a_module_is_seen_apart():
    assert list(seen(Repeats(), torch.randn(2, 4, 8))) == [("norm", 1), ("norm", 2), ("norm", 3)]


def test_functional_calls_are_counted_where_they_are_made():
    module = Repeats()
    with tap(module, "*", lambda *_: None) as hooks:
        for _ in range(2):  # each block counts anew
            hooks.begin(BatchContext(np.arange(2), np.arange(2)))
            with hooks.counting_functional(module) as calls:
                module(torch.randn(2, 4, 8))
            assert calls == {": layer_norm": 1, ": rms_norm": 1}


def test_prefix_tokens_are_marked_on_token_layers_and_heads_only():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.q_norm, self.fc_norm = (
                nn.LayerNorm(8),
                nn.LayerNorm(4),
                nn.LayerNorm(8),
            )

        def forward(self, x):
            q = self.q_norm(self.norm1(x).reshape(len(x), 6, 2, 4).transpose(1, 2))
            return self.fc_norm(q.transpose(1, 2).reshape(len(x), 6, 8).mean(1))

    kinds = {
        name: o.kinds.tolist()
        for (name, _), (*_, o) in seen(Block(), torch.randn(3, 6, 8), prefix=2).items()
    }
    assert kinds == {"norm1": [1, 1, 0, 0, 0, 0], "q_norm": [1, 1, 0, 0, 0, 0] * 2, "fc_norm": [0]}


def test_a_mask_covers_the_layers_that_work_on_its_tokens():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fc_norm = nn.LayerNorm(8), nn.LayerNorm(8)

        def forward(self, x):
            return self.fc_norm(self.norm(x).mean(1))

    valid = np.array([[True, True, False], [True, False, False]])
    found = seen(Pooled(), torch.randn(2, 3, 8), valid=valid)
    assert np.array_equal(found["norm", 1][3].valid, valid)
    assert found["fc_norm", 1][3].valid is None


def test_windows_are_counted_to_their_image():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(8)

        def forward(self, x):
            return self.norm(x.reshape(-1, 4, 8))

    x = torch.randn(3, 16, 8)
    (value,) = seen(Windows(), x).values()
    assert torch.equal(value[0], x)


def test_sequence_first_tensors_are_turned():
    x = torch.randn(3, 5, 8)

    class Turned(nn.Sequential):
        def forward(self, batch):
            return super().forward(batch.transpose(0, 1))

    (value,) = seen(Turned(nn.LayerNorm(8)), x).values()
    assert torch.equal(value[0], x)


def test_running_statistics_make_a_fixed_line():
    (value,) = seen(nn.Sequential(nn.BatchNorm2d(3)).eval(), torch.randn(2, 3, 4, 4)).values()
    assert isinstance(value[3].norm, PlaneNorm)
    assert value[3].norm.fixed


@pytest.mark.parametrize("fast_path", [True, False])
def test_layers_of_torch_transformer_encoders_are_seen_despite_the_native_fast_path(fast_path):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    torch.backends.mha.set_fastpath_enabled(fast_path)
    try:
        found = seen(
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(2, 4, 8)
        )
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert len(found) == 4


@pytest.mark.parametrize("inference", [False, True])
def test_running_statistics_that_move_between_two_passes_are_read_anew(inference):
    with torch.inference_mode(inference):
        norm = trained(nn.BatchNorm2d(8)).eval()
    x = torch.randn(IMAGES, generator=torch.Generator().manual_seed(2))
    received = []

    def receive(name, call, observed):
        received.append(observed.norm.scale[0].clone())

    with tap(norm, "*", receive) as hooks, torch.no_grad():
        hooks.begin(BatchContext(np.arange(3), np.arange(3)))
        norm(x), norm(x)
        with torch.inference_mode(inference):
            norm.running_var *= 4
        norm(x)
        norm.running_var = torch.full_like(norm.running_var, 4.0)
        norm(x)
    first, again, moved, exchanged = received
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    torch.testing.assert_close(moved, first / 2, rtol=1e-4, atol=0)
    torch.testing.assert_close(exchanged, torch.full((8,), 0.5), rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", [(4, 8), (4, 5, 8), (8, 5, 8), (4, 3, 3, 8)])
def test_a_line_on_rows_stays_one_however_they_are_laid_out(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    norm, received = trained(BatchNorm(8)).eval(), []
    with tap(norm, "*", lambda *call: received.append(call[-1])) as hooks, torch.no_grad():
        hooks.begin(BatchContext(np.arange(4), np.arange(4)))
        norm(x)
    assert isinstance(received[0].norm, PlaneNorm)
    assert received[0].norm.fixed
    torch.testing.assert_close(received[0].x, x.reshape(4, -1, 8))
