"""Small classifiers whose norms are to be converted, and the bundled ViT."""

from __future__ import annotations

import torch
from torch import nn

from probe.data import open_images
from probe.jobs.capturing.capture import capture
from probe.jobs.fitting.fit import fit
from probe.models.loading.load import load_model
from support.captures import token_batches

VIT = "bundled:vit_cifar10"
# norm -> family of its curve per channel
FAMILIES = {"dyt": "tanh", "derf": "erf", "dyisru": "isru", "learnable_scaler": "linear"}


class Classifier(nn.Module):
    """Two norms on tokens (B, T, 8), a linear layer between them, three classes."""

    def __init__(self, norm=nn.LayerNorm):
        super().__init__()
        torch.manual_seed(0)
        self.norm1, self.mix, self.norm2, self.head = (
            norm(8),
            nn.Linear(8, 8),
            norm(8),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        x = x + self.mix(self.norm1(x))
        return self.head(self.norm2(x).mean(1))


def captured(module, out, batches=None):
    run = capture(module.eval(), batches or token_batches(), out=out, samples=400)
    fit(run)
    return run


def crops(number):
    """The first bundled crops as one batch of the bundled ViT."""
    source, transform = open_images(None, number), load_model(VIT).transform
    return torch.stack([transform(source.load(i)) for i in range(len(source))])
