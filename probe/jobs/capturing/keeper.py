"""Keeps the state of a capture while it works, so that an interrupted one can go on: the worker,
how far the images were read, and what else the next batch depends on.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sized
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probe.errors import ProbeError, first_line
from probe.jobs.inputs import Inputs, Stream
from probe.stats.state import State, put_under, taken_from
from probe.store.checkpoint import Checkpoint, Saved

Facts = dict[str, Any]


class Kept(Protocol):
    """A worker whose state can be kept."""

    def state(self) -> tuple[Facts, State]: ...

    def restore(self, facts: Facts, arrays: State) -> None: ...


class Keeper:
    """Writes the state of the one worker of a capture, seldom enough to cost next to nothing.

        with Keeper(checkpoint, job, module, stream, saved) as keeper:
            worker = keeper.first(make_worker)  # with what `saved` holds
            for batch in keeper.dealt():
                worker.update(batch)
                keeper.after()
            keeper.finished()

    Leaving the block by an error writes the state once more, unless the error came in the midst of
    a batch, and says in a note of the error what is kept. Without a checkpoint nothing is kept.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        job: Facts,
        module: nn.Module,
        stream: Stream,
        saved: Saved | None = None,
    ) -> None:
        self._checkpoint, self._job = checkpoint, job
        self._module, self._stream, self._saved = module, stream, saved
        before = saved.facts if saved is not None else {}
        self.images = int(before.get("images", 0))  # that went through the model
        self.started = str(before.get("started") or datetime.now(UTC).isoformat())
        self._seconds, self._began = float(before.get("seconds", 0)), time.perf_counter()
        self._worker: Kept | None = None
        self._busy = False  # in the midst of a batch: the state of the worker is none
        self._place: Facts = {}  # after the last whole batch
        self._random: State = {}
        # images of the last state written here, and of the one gone on from
        self._written, self._before = 0, self.images
        self._buffers = {name: value.detach().clone() for name, value in module.named_buffers()}

    @property
    def seconds(self) -> float:
        """That the capture took so far, all its beginnings together."""
        return self._seconds + time.perf_counter() - self._began

    def __enter__(self) -> Self:
        if self._saved is not None:
            self._stream.read = int(self._saved.facts["read"])
            self._stream.skipped += [(name, why) for name, why in self._saved.facts["skipped"]]
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            return
        with suppress(ProbeError):
            if not self._busy and self.images > max(self._written, self._before):
                self._write()
        if kept := self._written or self._before:
            done = images_done(kept, self._stream.images)
            error.add_note(f"{done}: --resume (resume=True) goes on")

    def first(self, make_worker: Callable[[], Kept]) -> Kept:
        """A worker; the first one goes on from the saved state. Raises ProbeError where that is of
        another kind.
        """
        worker = make_worker()
        if self._worker is None:
            self._worker = worker
            if self._saved is not None:
                self._restore(worker, self._saved)
                self._saved = None  # its arrays are copied
        return worker

    def dealt(self) -> Iterator[Inputs]:
        """The batches of the stream."""
        for batch in self._stream.batches:
            self.begin()
            yield batch

    def begin(self) -> None:
        """The worker works on a batch, or takes some up: its state is none until `after`."""
        self._busy = True

    def after(self, batch: Sized) -> None:
        """The worker has worked on a batch, of so many images."""
        self.images += len(batch)
        self._place = {"read": self._stream.read, "skipped": list(self._stream.skipped)}
        self._random = _random_state()
        self._busy = False
        if self._checkpoint is not None and self._checkpoint.due():
            try:
                self._write(where_due=True)
            except ProbeError as error:
                warnings.warn(
                    f"the state of the capture could not be kept: {first_line(error)}; it goes on, "
                    "and starts anew if it is interrupted",
                    stacklevel=2,
                )

    def finished(self) -> None:
        """The run has its name: the state is not needed any more."""
        self._written, self._before, self._worker = 0, 0, None

    def _write(self, where_due: bool = False) -> None:
        """where_due: only if it costs no more than it may."""
        if self._worker is None or self._checkpoint is None:
            return
        facts, arrays = self._worker.state()
        arrays = put_under("worker", arrays) | put_under("random", self._random)
        arrays |= put_under("buffer", self._moved())
        if where_due and not self._checkpoint.due(arrays):
            return
        done = {"images": self.images, "started": self.started, "seconds": self.seconds}
        self._checkpoint.write({"job": self._job, **done, "worker": facts, **self._place}, arrays)
        self._written = self.images

    def _restore(self, worker: Kept, saved: Saved) -> None:
        try:
            worker.restore(saved.facts["worker"], taken_from("worker", saved.arrays))
            self._put_back(taken_from("buffer", saved.arrays))
            _set_random_state(taken_from("random", saved.arrays))
        except (KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError) as error:
            assert self._checkpoint is not None
            raise self._checkpoint.unusable(error) from None

    def _moved(self) -> State:
        """Buffers that the model has moved since the start, as a model in train mode does. Their
        values are compared: batch norm moves them without counting that as a change.
        """
        return {
            name: _bytes(value)
            for name, value in self._module.named_buffers()
            if name not in self._buffers or not torch.equal(self._buffers[name], value)
        }

    def _put_back(self, buffers: State) -> None:
        own = dict(self._module.named_buffers())
        for name, data in buffers.items():
            value = torch.from_numpy(data).view(own[name].dtype).reshape(own[name].shape)
            with torch.no_grad():
                own[name].copy_(value)


def images_done(images: int, planned: int | None) -> str:
    """`37 of 128 images are done`."""
    return f"{images}{f' of {planned}' if planned else ''} images are done"


def _bytes(value: Tensor) -> NDArray[np.uint8]:
    return np.array(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _random_state() -> State:
    """Of torch's generators: dropout in train mode draws from them, and so may a transform."""
    state = {"cpu": torch.get_rng_state().numpy()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state().numpy()
    return state


def _set_random_state(state: State) -> None:
    torch.set_rng_state(torch.from_numpy(state["cpu"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.from_numpy(state["cuda"]))


__all__ = ["Keeper", "images_done"]
