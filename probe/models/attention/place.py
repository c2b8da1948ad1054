"""Grid and stride of the tokens of a whole image, from what the user says, what the model says, and
the shapes that were seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from probe.models.attention.calls import Unreadable
from probe.models.attention.layout import Frame, Pair, Tokens


@dataclass(frozen=True)
class Place:
    """All that is known where a call happens: the running modules, outermost first, the input, and
    the grids of layers read before.
    """

    frames: tuple[Frame, ...]
    images: int
    size: Pair | None
    tokens: Tokens
    known: tuple[Pair, ...] = ()

    @property
    def first(self) -> bool:
        """Was no layer read before?"""
        return not self.known

    @property
    def shapes(self) -> Iterator[tuple[int, ...]]:
        """What the running modules but the model itself were given, innermost first."""
        return (frame.shape for frame in reversed(self.frames[1:]) if frame.shape is not None)

    def says(self, names: tuple[str, ...]) -> bool:
        """Does a running module have one of these attributes?"""
        return any(
            getattr(frame.module, name, None) is not None for frame in self.frames for name in names
        )

    def works_on(self, length: int) -> bool:
        """Is `length` the number of tokens of the layer's own input? True where that input is not
        known.
        """
        shape = next(self.shapes, None)
        return shape is None or length in _token_counts(shape, self.images)

    def planes(self) -> Iterator[Pair]:
        """Height and width of inputs (B, H, W, C) or (B, C, H, W) that hold whole images."""
        for shape in self.shapes:
            if len(shape) == 4 and shape[0] == self.images:
                yield shape[1], shape[2]
                yield shape[2], shape[3]

    def stages(self) -> Iterator[Pair]:
        """Grids that the image may have at this depth, innermost first."""
        for shape in self.shapes:
            if len(shape) == 4 and shape[0] == self.images:
                yield from (
                    grid
                    for grid in (shape[1:3], shape[2:4])
                    if self.size is not None and _like(grid, self.size)
                )
                yield from filter(
                    None, [exact_grid(shape[1] * shape[2], self.size or (1, 1))]
                )  # (B, windows, N, C)
            elif (
                len(shape) == 3
                and shape[0] == self.images
                and (found := self.find_grid(shape[1])) is not None
            ):
                yield found[1]

    def find_grid(self, length: int) -> tuple[int, Pair] | None:
        """Prefix tokens and grid of the `length` tokens of an image, None where they are none. The
        most certain source counts.
        """
        options = [(prefix, length - prefix) for prefix in self.tokens.prefix if length > prefix]
        for grids in (self._said_grids(), self._patch_grids(), self._seen_grids()):
            known = list(grids)
            for prefix, count in options:
                if (
                    grid := next((grid for grid in known if math.prod(grid) == count), None)
                ) is not None:
                    return prefix, grid
        if self.tokens.grid is None:
            for prefix, count in options:
                if (grid := exact_grid(count, self.size or (1, 1))) is not None and self._follows(
                    grid
                ):
                    return prefix, grid
        return None

    def _follows(self, grid: Pair) -> bool:
        """A square number of tokens need not be a grid: masked and pruned tokens are none. It must
        be a grid known from another layer, halved or doubled; or, in the first layer, no coarser
        than the patches."""
        if self.known:
            return any(_halves(grid, other) or _halves(other, grid) for other in self.known)
        smallest = min((math.prod(patches) for patches in self._patch_grids()), default=0)
        return math.prod(grid) >= smallest

    def _said_grids(self) -> Iterator[Pair]:
        """The user's grid, and its halves where a model of several stages goes on with them."""
        if self.tokens.grid is not None:
            yield from (
                (-(-self.tokens.grid[0] // 2**i), -(-self.tokens.grid[1] // 2**i))
                for i in range(1 if self.first else 6)
            )

    def _patch_grids(self) -> Iterator[Pair]:
        """The grids of whole patches, and of patches that reach over the border."""
        patch, size = self.tokens.patch, self.size
        if patch is not None and size is not None and self.tokens.grid is None:
            yield size[0] // patch[0], size[1] // patch[1]
            yield -(-size[0] // patch[0]), -(-size[1] // patch[1])

    def _seen_grids(self) -> Iterator[Pair]:
        if self.tokens.grid is None and self.size is not None:
            yield from (grid for grid in self.planes() if _like(grid, self.size))

    def stride(self, grid: Pair) -> tuple[float, float]:
        """Pixels between neighbouring tokens: input size / grid where that is whole; else, as
        convolutions have whole strides, the patch size times or by a power of two that covers the
        input give or take one token; else input size / grid."""
        size, patch = self.size, self.tokens.patch
        if size is None:
            if patch is None:
                raise Unreadable(
                    "neither the input size nor the patch size is known: give patch_size="
                )
            return float(patch[0]), float(patch[1])
        raw = (size[0] / grid[0], size[1] / grid[1])
        if patch is None or (size[0] % grid[0] == 0 and size[1] % grid[1] == 0):
            return raw
        power = 2.0 ** round(math.log2(raw[0] / patch[0]))
        whole = (patch[0] * power, patch[1] * power)
        return whole if covers(grid, whole, size) else raw


def exact_grid(count: int, size: Pair) -> Pair | None:
    """The grid of `count` tokens of exactly the shape of `size`."""
    rows = math.isqrt(count * size[0] // size[1])
    return (
        (rows, count // rows)
        if rows and count % rows == 0 and rows * size[1] == count // rows * size[0]
        else None
    )


def _halves(grid: Pair, other: Pair) -> bool:
    """Is `grid` the other one, or half, a quarter ... of it, rounded up or down?"""
    return any(
        all(
            side in (whole // 2**i, -(-whole // 2**i))
            for side, whole in zip(grid, other, strict=True)
        )
        for i in range(7)
    )


def covers(grid: Pair, patch: tuple[float, float], size: Pair) -> bool:
    """Do the patches cover the image, give or take one at the border?"""
    return all(
        abs(count * side - whole) <= side
        for count, side, whole in zip(grid, patch, size, strict=True)
    )


def _like(grid: Pair, size: Pair) -> bool:
    """Is the grid of the image's shape, give or take one token?"""
    return abs(grid[0] * size[1] - grid[1] * size[0]) < max(size)


def _token_counts(shape: tuple[int, ...], images: int) -> set[int]:
    """How many tokens an input may be: (N, C), (B, N, C), (N, B, C), (B, H, W, C), (B, C, H, W),
    (B, groups, N, C), ...
    """
    if len(shape) == 3:
        return {shape[1], shape[0]} if shape[1] == images else {shape[1]}
    return {
        shape[0] // images,
        *(
            math.prod(shape[i:j])
            for i in range(1, len(shape))
            for j in range(i + 1, len(shape) + 1)
            if j - i > 1 or j < len(shape)
        ),
    }
