"""The formula of every normalizer at evaluation, written again in numpy (float64) from its publication.

REFERENCES: name -> function(state, x, options). `state`: the arrays of the module's state_dict; `x`: (B, T, C), or (B, C, H, W) for
`_2d` names; `options`: those that the test gave to `create_norm`. Only the names in the state come from the module.
OPTIONS: name -> options that the contract test gives at 8 channels, 6 tokens; needed where the default does not fit.
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
            z[image, :, start : start + size] = (block - block.mean()) / np.sqrt(block.var() + eps(options))
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
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps(options, 1.0))
    low, high = x.min(-1, keepdims=True), x.max(-1, keepdims=True)
    return (x - low) / (high - low + eps(options, 1.0))


def rep_batch_norm(state: State, x: Array, options: dict[str, Any]) -> Array:
    rep = batch_norm(state, x, options) + state["eta"] * x
    if "decay_steps" not in state:
        return rep
    share = state["steps_left"] / state["decay_steps"]
    layer = {"weight": state["layer_weight"], "bias": state["layer_bias"]}
    return share * layer_norm(layer, x, options) + (1 - share) * rep


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

BREAKS: dict[str, str] = {}
