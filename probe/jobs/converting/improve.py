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
from probe.jobs.converting.evaluate import Comparison, Score, Slots
from probe.jobs.converting.original import original_of
from probe.jobs.converting.result import Distillation
from probe.jobs.speed import Speed, measure_speed
from probe.models.loading.load import Model
from probe.records import Progress

Refine = Callable[[Model, Slots], Distillation]


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

    images: to calibrate on, None: it is not; timed: measure the forward passes.
    """
    steps = Steps({"converted": comparison.score(slots)})
    if images is not None and slots:
        data = images()
        steps.calibration = calibrate(
            model, slots, stand_ins, data.batches, data=data.description, progress=progress
        )
        steps.stages["calibrated"] = comparison.score_of(model)
    if refine is not None and slots:
        steps.distillation = refine(model, slots)
        steps.stages["distilled"] = comparison.score_of(model)
    if timed and slots:
        original = original_of(model, slots).module
        first = on_device(comparison.data.batches[0], model.module)
        steps.speed = measure_speed(original, model.module, first, progress=progress)
    return steps
