"""Operations that move, cut and join elements: the same is done to the numbers of their places."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probe.models.attention.tracing.places import Origin
from probe.models.attention.tracing.track import Track, compact, everywhere

# run on the numbers as they are
VIEWS = {
    "expand",
    "permute",
    "transpose",
    "t",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "unbind",
    "squeeze",
    "unsqueeze",
    "unfold",
    "flip",
    "repeat",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "native_channel_shuffle",
    "split_with_sizes_copy",
    "unsafe_split",
    "unsafe_split_with_sizes",
}
# nothing moves
KEPT = {
    "clone",
    "contiguous",
    "alias",
    "detach",
    "lift_fresh",
    "_to_copy",
    "native_dropout",
    "native_layer_norm",
    "_fused_rms_norm",
    "native_group_norm",
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "batch_norm_elemt",
    "cumsum",
    "_log_softmax",
    "glu_jvp",
}
# element by element, although torch does not say so
POINTWISE = {
    "hardswish",
    "hardsigmoid",
    "_prelu_kernel",
    "rrelu_with_noise",
    "log_sigmoid_forward",
    "celu",
    "tril",
    "triu",
    "masked_fill",
    "where",
    "gelu",
}
# new tensors that have but the shape of another
FILLED = {
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "rand_like",
    "randn_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "new_empty_strided",
    "bernoulli",
    "zero",
    "fill",
}
SOFTMAXES = {"_softmax", "_safe_softmax"}


def view(func: Any, args: tuple, kwargs: dict, track: Track) -> Any:
    """One track, or a list of them for an operation that cuts a tensor into several."""
    parts = [func(numbers, *args[1:], **kwargs) for numbers in track.numbers]
    if isinstance(parts[0], Tensor):
        return Track(tuple(parts))
    return [Track(tuple(piece)) for piece in zip(*parts, strict=True)]


def reshaped(track: Track, shape: torch.Size) -> Track:
    """(..., C) to (..., C) keeps expanded channels without their memory."""

    def change(numbers: Tensor) -> Tensor:
        same = numbers.ndim > 0 and len(shape) > 0 and shape[-1] == numbers.shape[-1] > 1
        if same and numbers.stride(-1) == 0:
            return numbers[..., :1].reshape(*shape[:-1], 1).expand(shape)
        return numbers.reshape(shape)

    return track.map(change)


def rolled(track: Track, shifts: Any, axes: Any) -> Track:
    kept = axes if isinstance(axes, list | tuple) else [axes]
    if not kept:
        return track.map(lambda numbers: numbers.roll(shifts))
    return track.map(
        lambda numbers: compact(numbers, kept).roll(shifts, axes).expand(numbers.shape)
    )


def padded(track: Track, pad: list[int], shape: torch.Size) -> Track:
    """Numbers of Origin.PADDING around; the last axes first, as torch counts them."""
    kept = range(-(len(pad) // 2), 0)

    def change(numbers: Tensor) -> Tensor:
        small = compact(numbers, kept)
        return torch.constant_pad_nd(small, pad, int(Origin.PADDING)).expand(shape)

    return track.map(change)


def unfolded(track: Track, func: Any, args: tuple, kwargs: dict) -> Track:
    """im2col works on floating numbers only, and fills with zeros."""
    above = 1000

    def change(numbers: Tensor) -> Tensor:
        columns = func(numbers.double() + above, *args[1:], **kwargs)
        columns[columns == 0] = above + int(Origin.PADDING)
        return (columns - above).to(torch.int32)

    return track.map(change)


def joined(shapes: list[torch.Size], tracks: list[Track | None], axis: int) -> Track:
    """cat; tensors without a track are parameters."""
    several = max(len(track.numbers) for track in tracks if track is not None)
    return Track(tuple(_cat(_numbers_of(shapes, tracks, index), axis) for index in range(several)))


def _numbers_of(shapes: list[torch.Size], tracks: list[Track | None], index: int) -> list[Tensor]:
    return [
        everywhere(Origin.FREE, shape)
        if track is None
        else track.numbers[min(index, len(track.numbers) - 1)]
        for shape, track in zip(shapes, tracks, strict=True)
    ]


def _cat(parts: list[Tensor], axis: int) -> Tensor:
    axis %= parts[0].ndim
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    for other in range(len(shape)):
        if other != axis and all(part.stride(other) == 0 for part in parts):
            parts = [part.narrow(other, 0, min(1, part.shape[other])) for part in parts]
    return torch.cat(parts, axis).expand(shape)
