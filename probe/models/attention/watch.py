"""Watch a model run and hand every attention call on, with the layer it belongs to and where its
tokens are.

Hooks on every module keep the stack of running modules, a function mode sees the calls, and in the
first pass of each shape a dispatch mode follows the tokens from the image. All of them are there
inside of the with block only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from probe.models.attention.call_site import CallSite, Frame
from probe.models.attention.calls import Call, Unreadable
from probe.models.attention.functions import AttentionFunctions
from probe.models.attention.known import named_like_attention, without_distance
from probe.models.attention.reading import Reading, read
from probe.models.attention.tokens import TokenOptions
from probe.models.attention.tracing import Tracer
from probe.models.reading.observe import first_tensor
from probe.stats.attention import Geometry
from probe.stats.attention_scores import Scores

# (module path, call in this forward pass from 1), scores, where
Take = Callable[[tuple[str, int], Scores, Geometry], None]

_ALTERED = "its heads are mixed or changed after the softmax ({}): it is not what weighs the values"


class Watch:
    """The calls of one model, handed to `take`.

    watch = Watch(module, options, take)
    with watch.running():
        watch.begin(len(images), (224, 224))    # before each forward pass
        module(images)
    watch.unreadable                            # module path -> why it has no number
    """

    def __init__(self, module: nn.Module, options: TokenOptions, take: Take) -> None:
        self.calls = 0
        self._refused: dict[str, str] = {}  # layers of which a call could not be read
        self._doubts: dict[str, str] = {}  # softmaxes in attention modules, of something else
        self._altered: dict[str, str] = {}
        self._read: set[str] = set()
        self._seen: set[str] = set()
        self._passes = 0
        self._first = True  # no call was read yet, by this watch itself
        self._module, self._options, self._take = module, options, take
        self._with_parameters = {
            name
            for name, child in module.named_modules()
            if next(child.parameters(), None) is not None
        }
        # all that is named like attention, with the reason where its kind has no distance
        self._attention = {
            name: without_distance(child)
            for name, child in module.named_modules()
            if name and named_like_attention(child)
        }
        self._frames: list[Frame] = []
        self._count: Counter[str] = Counter()
        self._images: int | None = None
        self._size: tuple[int, int] | None = None
        self._tracer = Tracer(self._layer_path)
        self._following = False
        self._followed: set[tuple] = set()  # shapes of passes in which tokens were followed
        self._readings: dict[tuple, Reading | str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What was seen; the model, and what was learned of its running, stay behind."""
        left = ("_module", "_take", "_frames", "_tracer", "_readings", "_followed")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def begin(self, images: int, size: tuple[int, int] | None) -> None:
        """Say what the next forward pass runs: number of images, height and width in pixels."""
        self._images, self._size = images, size
        self._passes += 1
        self._count.clear()
        self._frames.clear()

    @property
    def unreadable(self) -> dict[str, str]:
        """Module path -> reason: calls that could not be read, and attention modules in which none
        was seen."""
        altered = {
            layer: _ALTERED.format(name)
            for layer, name in self._altered.items()
            if layer in self._read
        }
        reasons = self._refused | altered
        reasons |= {
            layer: reason for layer, reason in self._doubts.items() if layer not in self._read
        }
        if self._passes:
            reasons |= {name: reason for name, reason in self._silent() if name not in reasons}
        return reasons

    def _silent(self) -> Iterator[tuple[str, str]]:
        """Attention modules in which no call was seen, the innermost of nested ones."""
        layers = self._read | set(self._refused) | set(self._doubts)
        for name, reason in self._attention.items():
            inside = any(name.startswith(f"{layer}.") for layer in layers)
            nested = any(other.startswith(f"{name}.") for other in self._attention)
            if name not in self._seen and not inside and not nested:
                yield name, reason or "no attention call was seen in it"

    def merge(self, other: Watch) -> None:
        """Take over what another watch saw of the same model."""
        self.calls += other.calls
        self._passes += other._passes
        self._read |= other._read
        self._seen |= other._seen
        self._refused |= other._refused
        self._altered |= other._altered
        self._doubts |= other._doubts

    def state(self) -> dict[str, Any]:
        """What was seen, for JSON."""
        return {
            "calls": self.calls,
            "passes": self._passes,
            "read": sorted(self._read),
            "seen": sorted(self._seen),
            "refused": self._refused,
            "altered": self._altered,
            "doubts": self._doubts,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what another watch of the same model saw."""
        self.calls, self._passes = int(state["calls"]), int(state["passes"])
        self._read, self._seen = set(state["read"]), set(state["seen"])
        self._refused, self._altered = dict(state["refused"]), dict(state["altered"])
        self._doubts = dict(state["doubts"])

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
            stack.callback(self._stop_following)
            for name, module in self._module.named_modules():
                enter, leave = self._enter(name, module), self._leave(module)
                stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave, always_call=True).remove)
            stack.enter_context(AttentionFunctions(self._see))
            yield

    def _enter(self, name: str, module: nn.Module) -> Callable:
        def hook(called: nn.Module, args: tuple, kwargs: dict) -> None:
            if called is not module:  # a deep copy has the hooks, too
                return
            if not self._frames and self._images is not None:
                self._start_following(name, [args, kwargs])
            x = first_tensor(args, kwargs)
            self._frames.append(Frame(name, module, tuple(x.shape) if x is not None else None))

        return hook

    def _leave(self, module: nn.Module) -> Callable:
        def hook(called: nn.Module, *_: Any) -> None:
            if called is not module:
                return
            if self._frames:  # an exception may call this twice for one module
                self._frames.pop()
            if not self._frames:
                self._stop_following()

        return hook

    def _start_following(self, name: str, inputs: list[Any]) -> None:
        """Once for every shape of what the model is given: places do not depend on values."""
        tensors = [value for value in tree_leaves(inputs) if isinstance(value, Tensor)]
        key = (name, self._images, self._size, *(tensor.shape for tensor in tensors))
        if key not in self._followed:
            assert self._images is not None
            self._followed.add(key)
            self._tracer.start(tensors, self._images)
            self._tracer.__enter__()
            self._following = True

    def _stop_following(self) -> None:
        if self._following:
            self._following = False
            self._tracer.__exit__(None, None, None)
            self._altered |= self._tracer.altered
            self._tracer.forget()

    def _layer_frames(self) -> tuple[Frame, ...]:
        """The running modules down to the innermost that has parameters."""
        depths = reversed(range(len(self._frames)))
        has = (i for i in depths if self._frames[i].path in self._with_parameters)
        return tuple(self._frames[: next(has, 0) + 1])

    def _layer_path(self) -> str:
        return self._layer_frames()[-1].path if self._frames else ""

    def _see(self, call: Call) -> None:
        if self._images is None or not self._frames:
            return
        frames = self._layer_frames()
        try:
            self._read_call(call, frames)
        except Unreadable as reason:
            self._doubt(call, frames, str(reason))
        else:
            self._seen.update(frame.path for frame in self._frames)
            self._read.add(frames[-1].path)
            self._first = False
            self.calls += 1

    def _doubt(self, call: Call, frames: tuple[Frame, ...], reason: str) -> None:
        """A softmax that is no attention of patches counts as unreadable attention only inside of
        an attention module.
        """
        if not call.explicit:
            self._refused[frames[-1].path] = reason
        elif named_like_attention(frames[-1].module):
            self._doubts[frames[-1].path] = reason
        else:
            return
        self._seen.update(frame.path for frame in self._frames)

    def _read_call(self, call: Call, frames: tuple[Frame, ...]) -> None:
        layer = frames[-1].path
        self._tracer.paused = True
        try:
            with torch.no_grad(), torch.autocast(call.device.type, enabled=False):
                reading = self._reading(call, frames)
                self._count[layer] += 1
                scores = call.ordered(reading.order)
                self._take((layer, self._count[layer]), scores, reading.geometry)
        finally:
            self._tracer.paused = False

    def _reading(self, call: Call, frames: tuple[Frame, ...]) -> Reading:
        """From the pass in which the tokens were followed, of the same shapes."""
        assert self._images is not None
        size = self._size or _image_size(self._frames[0])
        layer = frames[-1].path
        key = (layer, self._count[layer], call.explicit, call.shape, self._images, size)
        if self._following:
            site = CallSite(frames, self._images, size, self._options, self._first)
            try:
                self._readings[key] = read(call, site, self._tracer)
            except Unreadable as reason:
                self._readings[key] = str(reason)
        reading = self._readings.get(key, "it was not called when its tokens were followed")
        if isinstance(reading, str):
            raise Unreadable(reading)
        return reading


def _image_size(root: Frame) -> tuple[int, int] | None:
    """Height and width of what the model was given, where that is a batch of images."""
    if root.shape is not None and len(root.shape) == 4 and root.shape[1] in (1, 3, 4):
        return root.shape[2], root.shape[3]
    return None
