"""Refit the replaced layers one after the other on what the converted network itself feeds them, so
that each layer makes up for the errors of those before it. No label is read.

1. Each layer in execution order: least squares against the original's output at the same token,
   tokens weighted by how much the network's outputs depend on them (probe.jobs.converting.refit).
   The round stands if the mean squared error of the outputs has not grown, else all is put back.
2. Rounds in which each layer stands for itself: a solution is taken whole, or halfway, or not at
   all, so that the error never grows.

So the result is never worse than the plain conversion, in the mean squared error of the outputs on
these images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probe.curves import StandIn
from probe.errors import ProbeError
from probe.jobs.capturing.forward import forward
from probe.jobs.converting.networks import Slots, activate, logits_of
from probe.jobs.converting.paired import frozen, norm_of, read_pairs, sensitivities
from probe.jobs.converting.refit import SCALES, Refit, put_values, values_of
from probe.jobs.inputs import Inputs
from probe.models.loading.load import Model
from probe.models.replacing.initial_values import curve_of
from probe.records import Progress, silent

ROUNDS = 2
SHARES = (1.0, 0.5)  # of the way to a solution, halfway with alpha as it is
EXACT = 1e-4  # relative error under which a layer is left alone: it computes the same


@dataclass(frozen=True)
class Calibration:
    """What calibrating did. error: mean over images and outputs of the squared difference to the
    original's logits, on the images that it used; steps: layer -> share of the way to its last
    solution, 0 where the layer stayed.
    """

    images: int
    data: str
    error_before: float
    error_after: float
    steps: Mapping[str, float]


class _OutputError:
    """Mean squared difference of the logits to those of the original."""

    def __init__(self, model: Model, slots: Slots, batches: Sequence[Inputs]) -> None:
        self._model, self._batches = model, batches
        activate(slots, ())
        try:
            self._original = self._logits()
        finally:
            activate(slots, slots)

    def __call__(self) -> float:
        """Of the network as it is; not a number where a logit is not finite."""
        return float((self._logits() - self._original).square().mean())

    def _logits(self) -> Tensor:
        return torch.cat([logits_of(forward(self._model, batch)) for batch in self._batches])


def calibrate(
    model: Model,
    slots: Slots,
    stand_ins: Mapping[str, StandIn],
    batches: Sequence[Inputs],
    *,
    data: str = "",
    rounds: int = ROUNDS,
    progress: Progress = silent,
) -> Calibration:
    """Refit the norms of `slots` (layer -> where the model refers to it, in execution order), which
    stand as `stand_ins`, in place; the converted network is the one in the model.

    Raises ProbeError where the outputs of the plain conversion are not finite.
    """
    error = _OutputError(model, slots, batches)
    before = error()
    if not before < float("inf"):
        raise ProbeError(
            "the converted network gives outputs that are not finite: nothing to calibrate"
        )
    with frozen(model.module):
        calibrator = _Calibrator(model, slots, stand_ins, batches, error, before)
        for number in range(rounds):
            for place, layer in enumerate(slots):
                progress("calibrate", number * len(slots) + place, rounds * len(slots))
                calibrator.refit(layer, whole=number == 0)
            if number == 0:
                calibrator.settle()
    progress("calibrate", rounds * len(slots), rounds * len(slots))
    images = sum(map(len, batches))
    return Calibration(images, data, before, calibrator.best, calibrator.steps)


class _Calibrator:
    """The layers as they stand, and the error of the outputs with them."""

    def __init__(
        self,
        model: Model,
        slots: Slots,
        stand_ins: Mapping[str, StandIn],
        batches: Sequence[Inputs],
        error: _OutputError,
        best: float,
    ) -> None:
        self._model, self._slots, self._batches = model, slots, batches
        self._error, self.best = error, best
        self._norms: dict[str, Any] = {name: norm_of(slots[name][0].new) for name in slots}
        self._curves = {
            name: curve_of(stand_ins[name], norm.families) for name, norm in self._norms.items()
        }
        self._scales = {  # a line stays one
            name: SCALES[:1] if stand_ins[name].is_line else SCALES for name in slots
        }
        self._plain = {name: values_of(norm) for name, norm in self._norms.items()}
        self._plain_curves = dict(self._curves)
        self._weights = sensitivities(model, slots, batches)
        self.steps = dict.fromkeys(slots, 0.0)

    def refit(self, layer: str, whole: bool) -> None:
        """Move a layer to its solution; unless `whole`, only as far as the error does not grow."""
        refit = Refit(self._norms[layer], self._curves[layer], self._scales[layer])
        weights = self._weights[layer]
        refit.read(read_pairs(self._model, self._slots, layer, self._batches, weights))
        if not refit.is_finite or refit.relative_error <= EXACT:
            return
        for share in SHARES[:1] if whole else SHARES:
            curve = refit.move(share)
            if whole or self._is_better():
                self._curves[layer], self.steps[layer] = curve, share
                return
        refit.move(0.0)

    def settle(self) -> None:
        """The plain conversion again, where the error has grown."""
        if self._is_better():
            return
        self._curves, self.steps = dict(self._plain_curves), dict.fromkeys(self._slots, 0.0)
        for layer, norm in self._norms.items():
            put_values(norm, self._plain[layer])

    def _is_better(self) -> bool:
        reached = self._error()
        if not reached <= self.best:
            return False
        self.best = reached
        return True
