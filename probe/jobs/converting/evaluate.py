"""What a model loses when some of its layers are replaced: measured against its own outputs on the
same images.

    KL         mean over images of sum_k p_k (log p_k - log q_k), p and q the softmax of the
               original's and the changed model's logits
    agreement  share of images whose largest logit is the same class
    accuracy   share of images whose largest logit is the label, where there are labels
    rel error  rms(y' - y) / rms(y) of a layer's output over all elements, y of the original and
               y' of the changed layer; of a norm+activation module: of what leaves its activation

Batches, the original's logits and the scores are kept: each set of layers costs one pass over the
images, once. An output error is measured by a module in the layer's slot, which needs no hook. A
layer's output depends on the layers before it only, so one pass with every layer replaced gives the
error of each layer behind all the replaced ones before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probe.errors import ProbeError, UsageError
from probe.jobs.capturing.forward import forward
from probe.jobs.converting.eval_data import EvalData
from probe.jobs.inputs import Inputs
from probe.models.loading.load import Model
from probe.models.replacing.swap import ModuleSlot

Slots = Mapping[str, Sequence[ModuleSlot]]  # layer -> where the model refers to it


@dataclass(frozen=True)
class Score:
    """A changed model beside the original; accuracy None without labels. KL is infinite where a
    logit is not finite.
    """

    kl: float
    agreement: float
    accuracy: float | None


class Comparison:
    """A model with replaceable layers, its original logits (N, K) and the images. `on_pass` is
    called after each pass over them.

    Between its methods every layer of `slots` is the original.
    """

    def __init__(
        self,
        model: Model,
        slots: Slots,
        data: EvalData,
        on_pass: Callable[[], None] = lambda: None,
    ) -> None:
        self.model, self.slots, self.data, self._on_pass = model, slots, data, on_pass
        self.logits = self._logits(())
        if not torch.isfinite(self.logits).all():
            raise ProbeError(
                "the original model gives logits that are not finite: nothing can be compared "
                "with them"
            )
        self.labels = self._usable_labels()
        self.accuracy = self._share_right(self.logits)
        self._scores = {frozenset[str](): Score(0.0, 1.0, self.accuracy)}

    def score(self, replaced: Collection[str]) -> Score:
        """The model with these layers replaced."""
        layers = frozenset(replaced)
        if layers not in self._scores:
            self._scores[layers] = self._against_original(self._logits(layers))
        return self._scores[layers]

    def score_of(self, model: Model) -> Score:
        """Another model, or the same as it stands, whatever is in its slots."""
        logits = torch.cat([logits_of(forward(model, batch)) for batch in self.data.batches])
        return self._against_original(logits)

    def output_errors(self) -> dict[str, tuple[float, float]]:
        """Relative output error of each layer: alone, and behind the replaced layers before it."""
        rivals = {layer: _Rivals(slots[0].old, slots[0].new) for layer, slots in self.slots.items()}
        logits = []
        try:
            for layer, slots in self.slots.items():
                for slot in slots:
                    slot.hold(rivals[layer])
            for batch in self.data.batches:
                for changed in (False, True):
                    for rival in rivals.values():
                        rival.changed = changed
                    out = self._run(batch)
                logits.append(out)
        finally:
            activate(self.slots, ())
        self._on_pass()
        self._scores[frozenset(self.slots)] = self._against_original(torch.cat(logits))
        return {layer: (rival.alone.value, rival.behind.value) for layer, rival in rivals.items()}

    def _logits(self, replaced: Collection[str]) -> Tensor:
        activate(self.slots, replaced)
        try:
            logits = torch.cat([self._run(batch) for batch in self.data.batches])
        finally:
            activate(self.slots, ())
        self._on_pass()
        return logits

    def _run(self, batch: Inputs) -> Tensor:
        return logits_of(forward(self.model, batch))

    def _against_original(self, logits: Tensor) -> Score:
        finite = torch.isfinite(logits).all(dim=1)
        p, q = self.logits.log_softmax(1), logits.log_softmax(1)
        kl = float((p.exp() * (p - q)).sum(1).mean()) if finite.all() else math.inf
        agreement = float(((self.logits.argmax(1) == logits.argmax(1)) & finite).double().mean())
        return Score(max(kl, 0.0), agreement, self._share_right(logits))

    def _usable_labels(self) -> NDArray[np.int64] | None:
        """(N,) of the images in the order of the logits; None where their classes cannot be the
        model's.
        """
        if self.data.labels is None:
            return None
        labels = self.data.labels[np.concatenate([batch.images for batch in self.data.batches])]
        width = self.logits.shape[1]
        fits = self.data.classes in (None, width) and labels.min() >= 0 and labels.max() < width
        return labels if fits else None

    def _share_right(self, logits: Tensor) -> float | None:
        if self.labels is None:
            return None
        return float(np.mean(logits.argmax(1).numpy() == self.labels))


def activate(slots: Slots, replaced: Collection[str]) -> None:
    """Let these layers be the replaced ones, all others the original."""
    for layer, references in slots.items():
        for slot in references:
            slot.hold(slot.new if layer in replaced else slot.old)


def logits_of(output: Any) -> Tensor:
    """Logits (B, K) float64 on the host, of a tensor, a tuple that begins with one, or an object
    with `.logits`.

    Raises UsageError for any other output: KL and agreement need a classifier.
    """
    return raw_logits(output).detach().to("cpu", torch.float64)


def raw_logits(output: Any) -> Tensor:
    """The logits (B, K) of an output as they are. Raises UsageError for any other output."""
    logits = getattr(output, "logits", output)
    if isinstance(logits, tuple | list) and logits:
        logits = logits[0]
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        shape = f" of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else ""
        raise UsageError(
            f"the model gives a {type(logits).__name__}{shape}; logits (images, classes) are "
            "needed to compare models"
        )
    return logits


class _RelativeError:
    """sqrt(sum (y' - y)^2 / sum y^2)."""

    def __init__(self) -> None:
        self._error = self._size = 0.0

    def add(self, changed: Tensor, original: Tensor) -> None:
        self._error += float((changed.double() - original.double()).square().sum())
        self._size += float(original.double().square().sum())

    @property
    def value(self) -> float:
        return (self._error / self._size) ** 0.5 if self._size else float("nan")


class _Rivals(nn.Module):
    """The original and the new layer in one slot: passes the original's output on and remembers
    it, then the new one's.
    """

    def __init__(self, old: nn.Module, new: nn.Module) -> None:
        super().__init__()
        self.old, self.new = old, new
        self.changed = False
        self.alone, self.behind = _RelativeError(), _RelativeError()
        self._kept: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        """What a model reads of its norms (weight, eps) is the original's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("old"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        changed = self.new(*args, **kwargs)
        if self.changed:
            assert self._kept is not None
            self.behind.add(changed, self._kept)
            return changed
        original = self.old(*args, **kwargs)
        self.alone.add(changed, original)
        self._kept = original.clone()  # what comes next may overwrite it in place
        return original
