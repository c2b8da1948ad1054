"""How far a changed network is from the original on the same images: sums per batch, and the
numbers that are made of them.

    KL         mean over images of sum_k p_k (log p_k - log q_k), p and q the softmax of the
               original's and the changed network's logits
    agreement  share of images whose largest logit is the same class
    accuracy   share of images whose largest logit is the label, where there are labels
    rel error  rms(y' - y) / rms(y) of a layer's output over all elements, y of the original and
               y' of the changed layer; of a norm+activation module: of what leaves its activation

The sums of each batch are kept apart and added up in the order of the batches: the numbers are the
same to the bit whoever worked on which batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Score:
    """A changed model beside the original; accuracy None without labels. KL is infinite where a
    logit is not finite.
    """

    kl: float
    agreement: float
    accuracy: float | None


@dataclass(frozen=True)
class BatchSums:
    """What one batch adds to the numbers of several networks."""

    images: int
    classes: int  # that the model tells apart
    strange: int  # labels that are none of these
    right: int  # images whose label the original gives
    networks: NDArray[np.float64]  # (networks, 4): `sums_against` of each
    errors: NDArray[np.float64]  # (layers, 3): alone, behind and size of each layer's Rivals


def sums_against(original: Tensor, changed: Tensor, labels: Tensor | None) -> list[float]:
    """Over the images of a batch: KL of those whose logits are finite, how many have the same
    class, are right, are finite. original, changed: logits (B, K) float64; labels (B,).
    """
    finite = torch.isfinite(changed).all(dim=1)
    p, q = original.log_softmax(1), changed.log_softmax(1)
    kl = (p.exp() * (p - q)).sum(1)[finite].sum()
    agreeing = ((original.argmax(1) == changed.argmax(1)) & finite).sum()
    return [float(kl), float(agreeing), right(changed, labels), float(finite.sum())]


def right(logits: Tensor, labels: Tensor | None) -> int:
    """How many images have their label as the largest logit; 0 without labels."""
    return 0 if labels is None else int((logits.argmax(1) == labels).sum())


class Totals:
    """The sums of all batches, in their order. labelled: have the images labels of so many
    `classes` (None: not told)?
    """

    def __init__(self, batches: Sequence[BatchSums], labelled: bool, classes: int | None) -> None:
        self.images = sum(batch.images for batch in batches)
        self.classes = batches[0].classes
        strange = sum(batch.strange for batch in batches)
        # can the labels be the model's?
        self.labelled = labelled and classes in (None, self.classes) and not strange
        self.accuracy = self._share_right(sum(batch.right for batch in batches))
        self._networks = np.sum([batch.networks for batch in batches], axis=0)
        self._errors = np.sum([batch.errors for batch in batches], axis=0)

    @property
    def scores(self) -> list[Score]:
        """Of each network."""
        return [self._score(*map(float, sums)) for sums in self._networks]

    @property
    def output_errors(self) -> list[tuple[float, float]]:
        """Of each layer: alone, and behind the replaced ones before it."""
        return [(_relative(a, size), _relative(b, size)) for a, b, size in self._errors.tolist()]

    def _score(self, kl: float, agreeing: float, right: float, finite: float) -> Score:
        mean = kl / self.images if finite == self.images else math.inf
        return Score(max(mean, 0.0), agreeing / self.images, self._share_right(right))

    def _share_right(self, right: float) -> float | None:
        return right / self.images if self.labelled else None


def _relative(error: float, size: float) -> float:
    return float((error / size) ** 0.5) if size else math.nan
