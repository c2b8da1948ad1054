"""The network as it was before its layers were replaced."""

from __future__ import annotations

import copy
from dataclasses import replace

from probe.jobs.converting.networks import Slots, activate
from probe.models.loading.load import Model


def original_of(model: Model, slots: Slots) -> Model:
    """A copy of the network with its own layers in `slots`, frozen."""
    activate(slots, ())
    try:
        module = copy.deepcopy(model.module)
    finally:
        activate(slots, slots)
    return replace(model, module=module.requires_grad_(False))
