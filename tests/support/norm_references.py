"""The formula of every normalizer at evaluation, written again in numpy (float64) from its
publication.

REFERENCES: name -> function(state, x, options). `state`: the arrays of the module's state_dict;
`x`: (B, T, C), or (B, C, H, W) for `_2d` names; `options`: those that the test gave to
`create_norm`. Only the names in the state come from the module.
OPTIONS: name -> options that the contract test gives at 8 channels, 6 tokens; needed where the
default does not fit.
VARIANTS: further (name, options) whose formula is tested.
BREAKS: names whose training or evaluation torch.compile cannot take as one graph, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[np.float64]
State = dict[str, NDArray[Any]]
Reference = Callable[[State, Array, dict[str, Any]], Array]


def affine(state: State, z: Array) -> Array:
    return state.get("weight", 1.0) * z + state.get("bias", 0.0)


def eps(options: dict[str, Any], default: float = 1e-5) -> float:
    return options.get("eps", default)


def layer_norm(state: State, x: Array, options: dict[str, Any]) -> Array:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return affine(state, (x - mean) / np.sqrt(var + eps(options)))


def rms_norm(state: State, x: Array, options: dict[str, Any]) -> Array:
    return affine(state, x / np.sqrt((x**2).mean(-1, keepdims=True) + eps(options)))


def batch_norm(state: State, x: Array, options: dict[str, Any]) -> Array:
    return affine(state, (x - state["running_mean"]) / np.sqrt(state["running_var"] + eps(options)))


def instance_norm(state: State, x: Array, options: dict[str, Any]) -> Array:
    tokens = x.shape[1]
    mean = x.sum(1, keepdims=True) / tokens
    var = ((x - mean) ** 2).sum(1, keepdims=True) / (tokens - options["unbiased"])
    return affine(state, (x - mean) / np.sqrt(var + eps(options)))


def group_norm(state: State, x: Array, options: dict[str, Any]) -> Array:
    z = np.empty_like(x)
    size = x.shape[-1] // options["num_heads"]
    for image in range(len(x)):
        for start in range(0, x.shape[-1], size):
            block = x[image, :, start : start + size]
            z[image, :, start : start + size] = (block - block.mean()) / np.sqrt(
                block.var() + eps(options)
            )
    return affine(state, z)


def scale_norm(state: State, x: Array, options: dict[str, Any]) -> Array:
    return state["weight"] * x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), eps(options))


def learnable_scaler(state: State, x: Array, options: dict[str, Any]) -> Array:
    return state["weight"] * x + state["bias"]


def dyt(state: State, x: Array, options: dict[str, Any]) -> Array:
    return affine(state, np.tanh(state["alpha"] * x))


def derf(state: State, x: Array, options: dict[str, Any]) -> Array:
    return affine(state, erf(state["alpha"] * x + state["shift"]))


def dyisru(state: State, x: Array, options: dict[str, Any]) -> Array:
    return affine(state, np.sqrt(x.shape[-1]) * x / np.sqrt(state["beta"] + x**2))


def feature_norm(state: State, x: Array, options: dict[str, Any]) -> Array:
    if options.get("method") == "zscore":
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(
            x.var(-1, keepdims=True) + eps(options, 1.0)
        )
    low, high = x.min(-1, keepdims=True), x.max(-1, keepdims=True)
    return (x - low) / (high - low + eps(options, 1.0))


def rep_batch_norm(state: State, x: Array, options: dict[str, Any]) -> Array:
    rep = batch_norm(state, x, options) + state["eta"] * x
    if "decay_steps" not in state:
        return rep
    share = state["steps_left"] / state["decay_steps"]
    layer = {"weight": state["layer_weight"], "bias": state["layer_bias"]}
    return share * layer_norm(layer, x, options) + (1 - share) * rep


def power_norm(state: State, x: Array, options: dict[str, Any]) -> Array:
    u = scaled_by_heads(x, options["num_heads"], 1e-5)
    return affine(state, u / np.sqrt(state["running_phi"].reshape(-1) + eps(options)))


def unified_norm(state: State, x: Array, options: dict[str, Any]) -> Array:
    return affine(state, x / np.sqrt(state["running_var"] + eps(options)))


def switch_norm(state: State, x: Array, options: dict[str, Any]) -> Array:
    means, variances = [x.mean(1, keepdims=True)], [x.var(1, keepdims=True, ddof=1)]
    mean_of_squares = (variances[0] + means[0] ** 2).mean(-1, keepdims=True)
    means.append(means[0].mean(-1, keepdims=True))
    variances.append(mean_of_squares - means[1] ** 2)
    if options.get("using_bn", True):
        means.append(state["running_mean"].reshape(-1))
        variances.append(state["running_var"].reshape(-1))
    shares = [
        np.exp(state[name]) / np.exp(state[name]).sum() for name in ("mean_weight", "var_weight")
    ]
    mean, var = (
        sum(w * v for w, v in zip(*pair, strict=True))
        for pair in ((shares[0], means), (shares[1], variances))
    )
    return affine(state, (x - mean) / np.sqrt(var + eps(options)))


def dtn(state: State, x: Array, options: dict[str, Any]) -> Array:
    """Token by token, with no more than the sums of the paper."""
    heads, (height, width), k = (
        options["num_heads"],
        options["grid"],
        options.get("prefix_tokens", 0),
    )
    u, size = scaled_by_heads(x, heads, eps(options)), x.shape[-1] // heads
    ln = u.mean(-1, keepdims=True), u.var(-1, keepdims=True, ddof=1)
    mean, var = (np.broadcast_to(value, u.shape).copy() for value in ln)
    places = [(row, column) for row in range(height) for column in range(width)]
    for h in range(heads):
        block, (a, b, c) = slice(h * size, (h + 1) * size), state["pos_proj.weight"][h]
        l_mean, l_var = (
            1 / (1 + np.exp(-state[name][h])) if name in state else 1.0 for name in DTN_LOGITS
        )
        for j, (row, column) in enumerate(places):
            delta = [(column - q, row - r) for r, q in places]
            weights = np.exp([a * dx + b * dy + c * (dx**2 + dy**2) for dx, dy in delta])
            weights /= weights.sum()
            near = np.tensordot(weights, u[:, k:, block], (0, 1))
            spread = np.tensordot(weights, u[:, k:, block] ** 2, (0, 1)) - near**2
            mean[:, k + j, block] = (1 - l_mean) * near + l_mean * ln[0][:, k + j]
            var[:, k + j, block] = (1 - l_var) * spread + l_var * ln[1][:, k + j]
    return affine(state, (u - mean) / np.sqrt(var + eps(options)))


DTN_LOGITS = ("mean_norm_weight", "var_norm_weight")


def scaled_by_heads(x: Array, heads: int, eps: float) -> Array:
    """x over its root mean square per token and head."""
    blocks = x.reshape(*x.shape[:-1], heads, -1)
    return (blocks / np.sqrt((blocks**2).mean(-1, keepdims=True) + eps)).reshape(x.shape)


def on_images(tokens: Reference) -> Reference:
    """The same formula on (B, C, H, W): pixels are the tokens."""

    def reference(state: State, x: Array, options: dict[str, Any]) -> Array:
        y = tokens(state, x.reshape(*x.shape[:2], -1).transpose(0, 2, 1), options)
        return y.transpose(0, 2, 1).reshape(x.shape)

    return reference


REFERENCES: dict[str, Reference] = {
    "layer_norm": layer_norm,
    "layer_norm_2d": on_images(layer_norm),
    "rms_norm": rms_norm,
    "rms_norm_2d": on_images(rms_norm),
    "batch_norm": batch_norm,
    "batch_norm_2d": on_images(batch_norm),
    "instance_norm": instance_norm,
    "instance_norm_2d": on_images(instance_norm),
    "group_norm": group_norm,
    "group_norm_2d": on_images(group_norm),
    "scale_norm": scale_norm,
    "scale_norm_2d": on_images(scale_norm),
    "power_norm": power_norm,
    "unified_norm": unified_norm,
    "switch_norm": switch_norm,
    "switch_norm_2d": on_images(switch_norm),
    "dtn": dtn,
    "learnable_scaler": learnable_scaler,
    "learnable_scaler_2d": on_images(learnable_scaler),
    "dyt": dyt,
    "dyt_2d": on_images(dyt),
    "derf": derf,
    "derf_2d": on_images(derf),
    "dyisru": dyisru,
    "dyisru_2d": on_images(dyisru),
    "feature_norm": feature_norm,
    "rep_batch_norm": rep_batch_norm,
    "rep_batch_norm_2d": on_images(rep_batch_norm),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "instance_norm": {"unbiased": True},
    "instance_norm_2d": {"unbiased": False},
    "group_norm": {"num_heads": 2},
    "group_norm_2d": {"num_heads": 4},
    "power_norm": {"num_heads": 2, "warmup": 2},
    "unified_norm": {"window": 2, "warmup": 3},
    "dtn": {"num_heads": 4, "grid": (2, 3)},
}

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("layer_norm", {"eps": 0.3, "affine": False}),
    ("layer_norm_2d", {"eps": 0.3, "bias": False}),
    ("rms_norm", {"eps": 0.3}),
    ("batch_norm", {"eps": 0.3, "bias": False, "momentum": 0.4}),
    ("instance_norm", {"eps": 0.3, "unbiased": False}),
    ("instance_norm_2d", {"unbiased": True}),
    ("group_norm", {"eps": 0.3, "num_heads": 8}),
    ("group_norm_2d", {"num_heads": 1}),
    ("scale_norm", {"per_channel": False, "eps": 4.0}),
    ("scale_norm_2d", {"per_channel": False}),
    ("power_norm", {"num_heads": 8, "eps": 0.3, "affine": False}),
    ("unified_norm", {"window": (2, 3), "eps": 0.3, "bias": False, "filter_outliers": True}),
    ("switch_norm", {"eps": 0.3, "using_bn": False}),
    ("switch_norm_2d", {"affine": False, "momentum": 0.5}),
    ("dtn", {"grid": (3, 2), "num_heads": 1, "eps": 0.3}),
    ("dtn", {"grid": (6, 1), "num_heads": 8, "local_init": False, "affine": False}),
    ("dtn", {"grid": (2, 2), "prefix_tokens": 2, "only_var": True}),
    ("learnable_scaler", {"init": "ones"}),
    ("dyt", {"affine": False}),
    ("derf", {"bias": False, "shift_init": 0.4}),
    ("dyisru", {"beta_init": 3.0}),
    ("feature_norm", {"eps": 0.1}),
    ("feature_norm", {"method": "zscore"}),
    ("feature_norm", {"method": "zscore", "eps": 0.1}),
    ("rep_batch_norm", {"decay_steps": 8}),
    ("rep_batch_norm", {"decay_steps": 2}),
    ("rep_batch_norm_2d", {"decay_steps": 8, "warmup": 1}),
]

BREAKS: dict[str, str] = {
    "power_norm": "the published backward pass moves buffers, so training steps run outside the "
    "graph",
    "unified_norm": "the published backward pass moves buffers, so training steps run outside the "
    "graph",
}
