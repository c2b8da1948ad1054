"""The formula of every normalizer at evaluation, written again in numpy (float64) from its publication.

name -> function(state, x, options): `state` the arrays of the module's state_dict, `x` (B, ..., C), or (B, C, H, W) for `_2d`
names, `options` those that the contract test gave to `create_norm`. Only the names of the state come from the module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

State = dict[str, NDArray[Any]]
Reference = Callable[[State, NDArray[np.float64], dict[str, Any]], NDArray[np.float64]]


def dyt(state: State, x: NDArray[np.float64], options: dict[str, Any]) -> NDArray[np.float64]:
    return state["weight"] * np.tanh(state["alpha"] * x) + state["bias"]


def derf(state: State, x: NDArray[np.float64], options: dict[str, Any]) -> NDArray[np.float64]:
    return state["weight"] * erf(state["alpha"] * x + state["shift"]) + state["bias"]


def on_images(tokens: Reference) -> Reference:
    """The same formula on (B, C, H, W): pixels are the tokens."""

    def reference(state: State, x: NDArray[np.float64], options: dict[str, Any]) -> NDArray[np.float64]:
        y = tokens(state, x.reshape(*x.shape[:2], -1).transpose(0, 2, 1), options)
        return y.transpose(0, 2, 1).reshape(x.shape)

    return reference


REFERENCES: dict[str, Reference] = {
    "dyt": dyt,
    "dyt_2d": on_images(dyt),
    "derf": derf,
    "derf_2d": on_images(derf),
}
