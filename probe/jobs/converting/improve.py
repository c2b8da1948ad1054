"""What may follow a conversion: calibrating, learning from the original, measuring the time of both
networks; and the score after each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from probe.curves import StandIn
from probe.jobs.capturing.forward import on_device
from probe.jobs.converting.calibrate import Calibration, calibrate
from probe.jobs.converting.eval_data import EvalData
from probe.jobs.converting.evaluate import Comparison
from probe.jobs.converting.networks import Slots
from probe.jobs.converting.original import original_of
from probe.jobs.converting.result import Distillation
from probe.jobs.converting.scores import Score
from probe.jobs.speed import Speed, measure_speed
from probe.models.loading.load import Model
from probe.records import Progress

Refine = Callable[[Model, Model, Slots], Distillation]  # converted, original, the layers


@dataclass
class Steps:
    """The steps that were taken, and the score after each."""

    stages: dict[str, Score] = field(default_factory=dict)
    calibration: Calibration | None = None
    distillation: Distillation | None = None
    speed: list[Speed] = field(default_factory=list)


def improve(
    model: Model,
    slots: Slots,
    stand_ins: Mapping[str, StandIn],
    comparison: Comparison,
    *,
    images: Callable[[], EvalData] | None,
    refine: Refine | None,
    timed: bool,
    progress: Progress,
) -> Steps:
    """Changes the norms in `slots` of the converted model, and what `refine` changes, in place.

    images: to calibrate on, None: it is not; timed: measure the forward passes. All of that is work
    of this process; the scores after it are by the engine of the comparison, to whose processes the
    changed model travels anew, beside the original.
    """
    steps = Steps({"converted": comparison.score(slots)})
    if not slots or not (images or refine or timed):
        return steps
    original = original_of(model, slots)
    if images is not None:
        data = images()
        batches = list(data.stream.batches)
        steps.calibration = calibrate(
            model, slots, stand_ins, batches, data=data.description, progress=progress
        )
        steps.stages["calibrated"] = comparison.score_of(original, model)
    if refine is not None:
        steps.distillation = refine(model, original, slots)
        steps.stages["distilled"] = comparison.score_of(original, model)
    if timed:
        first = on_device(next(iter(comparison.data.stream.batches)), model.module)
        steps.speed = measure_speed(original.module, model.module, first, progress=progress)
    return steps
