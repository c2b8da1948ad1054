"""Watch a model run and hand every attention call on, with the layer it belongs to and where its
tokens are.

Hooks on every module keep the stack of running modules; a function mode sees the calls. Both are
there inside of the with block only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from probe.models.attention.calls import Call, Unreadable
from probe.models.attention.functions import AttentionFunctions
from probe.models.attention.geometry import locate
from probe.models.attention.layout import Frame, Tokens
from probe.models.attention.place import Place
from probe.models.reading.observe import first_tensor
from probe.stats.attention import Geometry
from probe.stats.attention_scores import Scores

Take = Callable[
    [tuple[str, int], Scores, Geometry], None
]  # (module path, call in this forward pass from 1), scores, where

_ATTENTION = re.compile(
    r"att(n|ention)|MH?S?A(?![a-z])|XCA|GPSA|MLA(?![a-z])|Performer|Linformer", re.IGNORECASE
)
_KINDS = (
    (
        re.compile(r"XCA|CrossCovariance|Channel|^DCA", re.IGNORECASE),
        "channel attention: its scores are between channels, not tokens",
    ),
    (
        re.compile(r"LiteMLA|Linear|Performer|Linformer|Additive|Factor", re.IGNORECASE),
        "linear attention: no scores between tokens",
    ),
    (
        re.compile(r"Split|SelectiveKernel|SpatialAtt|^Coord|^Eca|Cbam", re.IGNORECASE),
        "a gate, no attention between tokens",
    ),
    (
        re.compile(r"^ClassAtt|AttentionPool|AttnPool", re.IGNORECASE),
        "queries are not patches: it pools",
    ),
    (re.compile(r"MaskUnit", re.IGNORECASE), "its tokens are not in the order of the patch grid"),
    (
        re.compile(r"^GPSA$|TalkingHead|DiffAtt", re.IGNORECASE),
        "its softmax is not what weighs the values: it is mixed with another",
    ),
)


def named_like_attention(module: nn.Module) -> bool:
    return bool(_ATTENTION.search(type(module).__name__))


def kind_of(module: nn.Module) -> str | None:
    """Why a module of a known class has no attention distance; None for all others."""
    if getattr(module, "use_global", None) is True:
        return "queries are not patches: they are made from the whole image"
    return next(
        (reason for pattern, reason in _KINDS if pattern.search(type(module).__name__)), None
    )


class Watch:
    """The calls of one model; `begin` is called before each forward pass."""

    def __init__(self, module: nn.Module, tokens: Tokens, take: Take) -> None:
        self.calls = 0
        self.reasons: dict[str, str] = {}  # layers of which a call could not be read
        self._doubts: dict[
            str, str
        ] = {}  # softmaxes in attention modules that may be something else
        self._module, self._tokens, self._take = module, tokens, take
        self._with_parameters = {
            name
            for name, child in module.named_modules()
            if next(child.parameters(), None) is not None
        }
        # all that is named like attention, with the reason where its kind has no distance
        self._attention = {
            name: kind_of(child)
            for name, child in module.named_modules()
            if name and named_like_attention(child)
        }
        self._frames: list[Frame] = []
        self._count: Counter[str] = Counter()
        self._read: set[str] = set()
        self._seen: set[str] = set()
        self._images: int | None = None
        self._size: tuple[int, int] | None = None
        self._passes = 0
        self._places: dict[tuple, Geometry] = {}
        self._grids: tuple[tuple[int, int], ...] = ()

    def begin(self, images: int, size: tuple[int, int] | None) -> None:
        self._images, self._size = images, size
        self._passes += 1
        self._count.clear()
        self._frames.clear()

    @property
    def unreadable(self) -> dict[str, str]:
        """Module path -> reason: calls that could not be read, and attention modules in which none
        was seen.
        """
        found = self.reasons | {
            layer: reason for layer, reason in self._doubts.items() if layer not in self._read
        }
        if self._passes:
            found |= {name: reason for name, reason in self._silent() if name not in found}
        return found

    def _silent(self) -> Iterator[tuple[str, str]]:
        """Attention modules in which no call was seen, the innermost of nested ones."""
        layers = self._read | set(self.reasons) | set(self._doubts)
        for name, reason in self._attention.items():
            inside = any(name.startswith(f"{layer}.") for layer in layers)
            if (
                name not in self._seen
                and not inside
                and not any(other.startswith(f"{name}.") for other in self._attention)
            ):
                yield name, reason or "no attention call was seen in it"

    def merge(self, other: Watch) -> None:
        self.calls += other.calls
        self._passes += other._passes
        self._read |= other._read
        self._seen |= other._seen
        self.reasons |= other.reasons
        self._doubts |= other._doubts

    def __getstate__(self) -> dict[str, Any]:
        """What was seen; the model, and what was learned of its running, stay behind."""
        left = ("_module", "_take", "_frames", "_places")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch until the block ends. torch's native fast path is off meanwhile: it calls no
        function that can be seen.
        """
        fast = torch.backends.mha.get_fastpath_enabled()
        with ExitStack() as stack:
            stack.callback(self._frames.clear)
            stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
            torch.backends.mha.set_fastpath_enabled(False)
            for name, module in self._module.named_modules():
                stack.callback(
                    module.register_forward_pre_hook(self._enter(name), with_kwargs=True).remove
                )
                stack.callback(module.register_forward_hook(self._leave, always_call=True).remove)
            stack.enter_context(AttentionFunctions(self._see))
            yield

    def _enter(self, name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            x = first_tensor(args, kwargs)
            self._frames.append(Frame(name, module, tuple(x.shape) if x is not None else None))

        return hook

    def _leave(self, *_: Any) -> None:
        if self._frames:  # an exception may call this twice for one module
            self._frames.pop()

    def _see(self, call: Call) -> None:
        if self._images is None or not self._frames:
            return
        depth = next(
            (
                i
                for i in reversed(range(len(self._frames)))
                if self._frames[i].path in self._with_parameters
            ),
            0,
        )
        frames = tuple(self._frames[: depth + 1])
        layer = frames[-1].path
        if (
            call.explicit
            and call.heads is None
            and len(call.shape) == 3
            and not named_like_attention(frames[-1].module)
        ):
            return
        try:
            self._read_call(call, frames, self._images)
        except Unreadable as reason:
            self._doubt(call, frames, str(reason))
        else:
            self._seen.update(frame.path for frame in self._frames)
            self._read.add(layer)
            self.calls += 1

    def _doubt(self, call: Call, frames: tuple[Frame, ...], reason: str) -> None:
        """A softmax that is no attention of patches counts as unreadable attention only inside of
        an attention module.
        """
        if not call.explicit:
            self.reasons[frames[-1].path] = reason
        elif named_like_attention(frames[-1].module):
            self._doubts[frames[-1].path] = reason
        else:
            return
        self._seen.update(frame.path for frame in self._frames)

    def _read_call(self, call: Call, frames: tuple[Frame, ...], images: int) -> None:
        layer = frames[-1]
        if (kind := kind_of(layer.module)) is not None:
            raise Unreadable(kind)
        with torch.no_grad(), torch.autocast(_device(call), enabled=False):
            scores = call.arranged(layer, images)
            geometry = self._geometry(frames, images, scores.shape, call.added)
            self._count[layer.path] += 1
            self._take((layer.path, self._count[layer.path]), scores, geometry)

    def _geometry(
        self, frames: tuple[Frame, ...], images: int, shape: tuple[int, int, int, int], added: int
    ) -> Geometry:
        size = self._size or _image_size(frames[0])
        key = (frames[-1].path, self._count[frames[-1].path], images, size, shape)
        if key not in self._places:
            found = locate(
                Place(frames, images, size, self._tokens, self._grids),
                shape[0],
                shape[2],
                shape[3] - added,
            )
            self._places[key] = found
            self._grids = tuple(dict.fromkeys([*self._grids, found.grid]))
        return self._places[key]


def _device(call: Call) -> str:
    tensor = call.scores if call.scores is not None else call.q
    assert tensor is not None
    return tensor.device.type


def _image_size(root: Frame) -> tuple[int, int] | None:
    """Height and width of what the model was given, where that is a batch of images."""
    if root.shape is not None and len(root.shape) == 4 and root.shape[1] in (1, 3, 4):
        return root.shape[2], root.shape[3]
    return None
