"""See attention as it is computed: the functions that a model calls, with the very q, k, mask and
scale that it gives them.

Seen are `scaled_dot_product_attention`, softmax over the last axis, and what
`multi_head_attention_forward` computes inside, where
no function mode reaches: there the operators below it are looked at. Every call runs unchanged.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from probe.models.attention.calls import Call
from probe.models.attention.dispatch import Operations

See = Callable[[Call], None]

_SOFTMAX = {F.softmax, torch.softmax, torch.special.softmax, Tensor.softmax}
_SDPA_NAMES = (
    "query",
    "key",
    "value",
    "attn_mask",
    "dropout_p",
    "is_causal",
    "scale",
    "enable_gqa",
)
_MHA_NAMES = tuple(inspect.signature(F.multi_head_attention_forward).parameters)


class AttentionFunctions(TorchFunctionMode):
    """Hands every attention-like call to `see`, before the call itself runs."""

    def __init__(self, see: See) -> None:
        super().__init__()
        self._see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self._see(_product(dict(zip(_SDPA_NAMES, args, strict=False)) | kwargs))
        elif func in _SOFTMAX:
            self._softmax(args, kwargs)
        elif func is F.multi_head_attention_forward:
            given = dict(zip(_MHA_NAMES, args, strict=False)) | kwargs
            added = int(given.get("bias_k") is not None) + int(given["add_zero_attn"])
            with _Operators(self._see, given["num_heads"], added):
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _softmax(self, args: tuple, kwargs: dict) -> None:
        scores = args[0] if args else kwargs.get("input")
        axis = args[1] if len(args) > 1 else kwargs.get("dim")
        if isinstance(scores, Tensor) and scores.ndim > 2 and axis in (-1, scores.ndim - 1):
            self._see(Call(scores=scores))


class _Operators(Operations):
    """The first attention operator of one multi_head_attention_forward; its softmax is (B * H, L,
    S).
    """

    def __init__(self, see: See, heads: int, added: int) -> None:
        super().__init__()
        self._see, self._heads, self._added, self._seen = see, heads, added, False

    def operation(self, func: Any, args: tuple, kwargs: dict) -> Any:
        name = func._schema.name.split("::")[1]
        if not self._seen and (
            name.startswith(("scaled_dot_product", "_scaled_dot_product"))
            or name.endswith("softmax")
        ):
            self._seen = True
            names = [argument.name for argument in func._schema.arguments]
            given = dict(zip(names, args, strict=False)) | kwargs
            call = (
                _product(given)
                if "query" in given
                else Call(scores=given["self"], heads=self._heads)
            )
            self._see(replace(call, added=self._added))
        return func(*args, **kwargs)


def _product(given: dict[str, Any]) -> Call:
    """From the arguments of scaled_dot_product_attention, or of an operator that computes it; scale
    None is 1 / sqrt(D).
    """
    q, scale = given["query"], given.get("scale")
    bias = given.get("attn_mask", given.get("attn_bias"))
    return Call(
        q,
        given["key"],
        bias,
        bool(given.get("is_causal")),
        1 / math.sqrt(q.shape[-1]) if scale is None else scale,
    )
