"""What is known of one tensor: for each of its elements the number of the place it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Track:
    """`numbers`: one tensor of places of the shape of the values, or, of scores between queries and
    keys, two: of the queries and of the keys. They are expanded (stride 0) along channels.

    `weights_of`: the layer whose softmax made these values; `altered_by`: the operation that has
    changed them since.
    """

    numbers: tuple[Tensor, ...]
    weights_of: str | None = None
    altered_by: str | None = None

    @property
    def shape(self) -> torch.Size:
        return self.numbers[0].shape

    @property
    def is_scores(self) -> bool:
        return len(self.numbers) == 2

    def map(self, change: Callable[[Tensor], Tensor]) -> Track:
        """The same change of shape or order for all."""
        return replace(self, numbers=tuple(change(numbers) for numbers in self.numbers))


def everywhere(number: int, shape: Iterable[int]) -> Tensor:
    """One number in a tensor of this shape, without its memory."""
    return torch.tensor(number, dtype=torch.int32).expand(tuple(shape))


def first_along(numbers: Tensor, axis: int) -> Tensor:
    """The first along an axis, which stays with size one."""
    return numbers.narrow(axis, 0, min(1, numbers.shape[axis]))


def compact(numbers: Tensor, keep: Iterable[int] = ()) -> Tensor:
    """Size one along expanded axes, but those to keep."""
    kept = {axis % max(numbers.ndim, 1) for axis in keep}
    for axis in range(numbers.ndim):
        if numbers.stride(axis) == 0 and numbers.shape[axis] > 1 and axis not in kept:
            numbers = numbers.narrow(axis, 0, 1)
    return numbers


def constant_along(numbers: Tensor, axis: int) -> bool:
    """Is every element along the axis at the same place?"""
    if numbers.shape[axis] < 2 or numbers.stride(axis) == 0:
        return True
    small = compact(numbers)
    return bool((small == first_along(small, axis)).all())


def settled(numbers: Tensor, axis: int, free: int) -> Tensor | None:
    """The one place along an axis, which stays with size one; None where there are several. What is
    `free` beside it, as channels of a position code, counts for nothing."""
    if constant_along(numbers, axis):
        return first_along(numbers, axis)
    small = compact(numbers, [axis])
    highest = small.amax(axis, keepdim=True)
    if not bool(((small == highest) | (small == free)).all()):
        return None
    shape = list(numbers.shape)
    shape[axis] = 1
    return highest.expand(shape)


def same_numbers(one: Tensor, other: Tensor) -> bool:
    if one is other:
        return True
    if one.shape != other.shape:
        return False
    layout = (one.data_ptr(), one.stride()) == (other.data_ptr(), other.stride())
    if layout:
        return True
    both = [axis for axis in range(one.ndim) if 0 in (one.stride(axis), other.stride(axis))]
    for axis in both:
        if one.stride(axis) == other.stride(axis) == 0:
            one, other = first_along(one, axis), first_along(other, axis)
    return bool((one == other).all())
