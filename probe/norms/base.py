"""What every normalizer of the zoo has in common: one constructor, one affine at the end, one way
to ask for z.

Token layout (B, ..., C) with channels_last=True, image layout (B, C, ...) with channels_last=False.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probe.errors import UsageError


class Norm(nn.Module):
    """weight * normalized(x) + bias on the channel axis; a class of the zoo says what `normalized`
    is.

    A subclass makes its own parameters and then calls `reset_parameters`.
    """

    published_keys: ClassVar[Mapping[str, str]] = {}  # key in the original's checkpoints -> ours
    fewest_axes: ClassVar[int] = 2  # 3 where the statistics run over tokens or pixels of one image
    # Curve families (names of probe.curves) as which `init_from_curve` can start, the most general
    # first; none for a norm that is no element-wise curve.
    families: ClassVar[tuple[str, ...]] = ()

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    eps: float  # absent where nothing is divided

    def __init__(
        self,
        channels: int,
        *,
        eps: float | None = 1e-5,
        affine: bool = True,
        bias: bool = True,
        channels_last: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise UsageError(
                f"{type(self).__name__}: {channels} channels given; at least 1 is needed"
            )
        self.num_features, self.channels_last = channels, channels_last
        if eps is not None:
            self.eps = eps
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(
                name,
                nn.Parameter(torch.empty(channels, device=device, dtype=dtype)) if wanted else None,
            )

    def reset_parameters(self) -> None:
        """weight 1, bias 0."""
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def normalized(self, x: Tensor) -> Tensor:
        """z, the value before weight and bias, laid out as x.

        A pure function of x and of the state as it was when `forward` saw x, so a forward hook can
        ask for it.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """weight * z + bias."""
        self.check(x)
        return self.scaled(self.normalized(x))

    def eval_line(self) -> tuple[Tensor, Tensor] | None:
        """(slope (C,), offset (C,)), float64 on the host, if at evaluation z = slope * x + offset
        per channel; else None.
        """
        return None

    def eval_affine(self) -> tuple[Tensor, Tensor] | None:
        """(scale (C,), shift (C,)), float64 on the host, if at evaluation y = scale * x + shift per
        channel, exactly; else None.

        Follows from `eval_line`: scale = w * slope, shift = w * offset + b.
        """
        line = self.eval_line()
        if line is None:
            return None
        (slope, offset), (weight, bias) = line, self.output_affine()
        return weight * slope, weight * offset + bias

    def output_affine(self) -> tuple[Tensor, Tensor]:
        """(w (C,), b (C,)), float64 on the host, with output = w * normalized + b; ones and zeros
        where there is no parameter.
        """
        return self.on_host(self.weight, 1.0), self.on_host(self.bias, 0.0)

    def match_affine(self, weight: Tensor, bias: Tensor) -> None:
        """Make `output_affine` (weight, bias), as far as the module has a place for them."""
        with torch.no_grad():
            for own, given in ((self.weight, weight), (self.bias, bias)):
                if own is not None:
                    own.copy_(given)

    def init_from_curve(
        self, family: str, *, alpha: float, shift: float, weight: Tensor, bias: Tensor
    ) -> None:
        """Start as weight * f(alpha * x + shift) + bias, f the curve of one of `families`.

        weight, bias (C,) float64. shift is 0 unless the family has one. A norm with `families`
        says here which of its parameters hold these values; nothing else knows it.
        """
        raise NotImplementedError(f"{type(self).__name__} is no curve of family {family}")

    def assign(self, **values: Tensor | float) -> None:
        """Copy values into the parameters of these names, rounded to their dtype.

        Values too large for it become infinite: whoever asked for them checks.
        """
        with torch.no_grad():
            for name, value in values.items():
                getattr(self, name).copy_(torch.as_tensor(value, dtype=torch.float64))

    @property
    def axis(self) -> int:
        """The axis of the channels."""
        return -1 if self.channels_last else 1

    def inner_axes(self, x: Tensor) -> list[int]:
        """The axes of the tokens or pixels of one image: all but batch and channels."""
        return list(range(1, x.ndim - 1)) if self.channels_last else list(range(2, x.ndim))

    def on_channels(self, value: Tensor, x: Tensor) -> Tensor:
        """A vector (C,) in the shape that broadcasts on the channel axis of x."""
        return value if self.channels_last else value.view(-1, *[1] * (x.ndim - 2))

    def scaled(self, z: Tensor) -> Tensor:
        """weight * z + bias."""
        if self.weight is not None:
            z = self.on_channels(self.weight, z) * z
        return z if self.bias is None else z + self.on_channels(self.bias, z)

    def check(self, x: Tensor) -> None:
        """Refuse an input whose layout is not that of the module."""
        if x.ndim < self.fewest_axes or x.shape[self.axis] != self.num_features:
            between = (
                "..." if self.fewest_axes == 2 else ("T, ..." if self.channels_last else "H, ...")
            )
            layout = (
                f"(B, {between}, {self.num_features})"
                if self.channels_last
                else f"(B, {self.num_features}, {between})"
            )
            raise UsageError(
                f"{type(self).__name__}: input of shape {tuple(x.shape)} given; {layout} is needed"
            )

    def extra_repr(self) -> str:
        names = [name for name in ("eps", "channels_last") if hasattr(self, name)]
        return ", ".join(
            [str(self.num_features), *(f"{name}={getattr(self, name)}" for name in names)]
        )

    def on_host(self, value: Tensor | None, missing: float = 0.0) -> Tensor:
        """A parameter or buffer as (C,) float64 on the host; `missing` everywhere where there is
        none.
        """
        if value is None:
            return torch.full((self.num_features,), missing, dtype=torch.float64)
        return value.detach().to("cpu", torch.float64).reshape(-1).expand(self.num_features)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Takes the original's keys, and shapes that differ in axes of length 1 only: () for (1,),
        (1, C, 1, 1) for (C,).
        """
        for old, new in self.published_keys.items():
            if prefix + old in state_dict and prefix + new not in state_dict:
                state_dict[prefix + new] = state_dict.pop(prefix + old)
        for name, own in (
            *self.named_parameters(recurse=False),
            *self.named_buffers(recurse=False),
        ):
            given = state_dict.get(prefix + name)
            if (
                isinstance(given, Tensor)
                and given.shape != own.shape
                and _long(given) == _long(own)
            ):
                state_dict[prefix + name] = given.reshape(own.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


class ElementwiseNorm(Norm):
    """weight * f(x) + bias around an element-wise f: what the dynamic curves have in common. No
    statistics, so no eps.
    """

    def __init__(self, channels: int, **common: Any) -> None:
        super().__init__(channels, eps=None, **common)


def wide(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, so that sums over many elements keep their digits; others
    as they are.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def channels_per_head(channels: int, num_heads: int) -> int:
    """C / heads; refuses a number of heads that does not divide the channels."""
    if num_heads < 1 or channels % num_heads:
        raise UsageError(f"num_heads={num_heads} does not divide {channels} channels")
    return channels // num_heads


def _long(value: Tensor) -> list[int]:
    return [size for size in value.shape if size != 1]
