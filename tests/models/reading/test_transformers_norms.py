"""Norm classes of transformers: what their output shows, whatever they are called."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from probe.models.reading.layers import list_norm_layers
from probe.models.reading.recognize import Recognized, recognize

pytest.importorskip("transformers")

C = 8
CLASSES = {
    "gemma.GemmaRMSNorm": ("rms_norm", 1.0),  # w = 1 + the stored weight
    "t5.T5LayerNorm": ("rms_norm", 0.0),
    "llama.LlamaRMSNorm": ("rms_norm", 0.0),
    "olmo.OlmoLayerNorm": ("layer_norm", 0.0),
    "cohere.CohereLayerNorm": ("layer_norm", 0.0),
    "nemotron.NemotronLayerNorm1P": ("layer_norm", 1.0),
    "squeezebert.SqueezeBertLayerNorm": ("layer_norm_2d", 0.0),
    "vitdet.VitDetLayerNorm": ("layer_norm_2d", 0.0),
    "convnextv2.ConvNextV2GRN": ("global_response_norm", 0.0),
    "detr.DetrFrozenBatchNorm2d": ("batch_norm", 0.0),
}


def made(name: str) -> nn.Module:
    home, _, cls = name.partition(".")
    module = importlib.import_module(f"transformers.models.{home}.modeling_{home}")
    with torch.device("cpu"):
        return getattr(module, cls)(C)


def recognized(module: nn.Module) -> Recognized:
    layer = recognize(module)
    assert layer is not None
    return layer


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_the_kind_that_its_output_shows(name):
    module = made(name)
    layer = recognized(module)
    assert (layer.norm_type.kind, layer.offset) == CLASSES[name]
    assert layer.error is not None
    assert layer.is_right
    assert list_norm_layers(nn.Sequential(module))[0].channels in (C, 0)
