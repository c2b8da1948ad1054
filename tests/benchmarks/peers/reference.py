"""The truth that every tool is held against: what enters and leaves each norm layer, taken by a
replaced `forward`, without hooks and without any of the tools, in float64.
"""

from __future__ import annotations

import copy
from pathlib import Path
from types import MethodType

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

NORMS = (nn.LayerNorm, nn.BatchNorm2d)
MODEL, IMAGES, ROWS, TRUTH = "model.pt", "images.pt", "rows.npz", "truth"


def prepare(name: str, images: int, samples: int, work: Path) -> None:
    """Writes weights, images, rows to keep and the truth of every layer into `work`."""
    torch.manual_seed(0)
    model = with_varied_norms(timm.create_model(name).eval())
    torch.save(model.state_dict(), work / MODEL)
    batch = torch.randn(images, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.save(batch, work / IMAGES)
    truth = Truth(model, images, samples)
    truth.record(batch)
    np.savez(work / ROWS, **{str(positions): rows for positions, rows in truth.rows.items()})
    (work / TRUTH).mkdir()
    for depth, (layer, arrays) in enumerate(truth.arrays().items()):
        np.savez(work / TRUTH / f"{depth:03d}.npz", layer=layer, **arrays)


def load_model(name: str, work: Path) -> nn.Module:
    model = timm.create_model(name).eval()
    model.load_state_dict(torch.load(work / MODEL, map_location="cpu"))
    return model


def norm_layers(model: nn.Module) -> list[str]:
    """Names of the norm layers; in both networks modules are declared in execution order."""
    return [name for name, module in model.named_modules() if isinstance(module, NORMS)]


def with_varied_norms(model: nn.Module) -> nn.Module:
    """New networks have weight 1 or 0 and bias 0: of a constant output nobody could tell whether
    it was overwritten.
    """
    with torch.no_grad():
        for name in norm_layers(model):
            norm = model.get_submodule(name)
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.2)
    return model


class Side:
    """Sums per channel in float64, and the sampled rows, of the input or output of a layer."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0
        self.rows: list[NDArray[np.float32]] = []

    def add(self, x: Tensor, positions: NDArray[np.int64]) -> None:
        """One image (1, C, H, W) or (1, T, C) and the positions of it that are sampled."""
        rows = (x.flatten(2).transpose(1, 2) if x.ndim == 4 else x)[0]
        values = rows.double().numpy()
        self.count += len(values)
        self.total = self.total + values.sum(0)
        self.squares = self.squares + (values**2).sum(0)
        self.rows.append(rows.numpy()[positions])

    def arrays(self, side: str) -> dict[str, NDArray]:
        mean = self.total / self.count
        return {
            f"mean_{side}": mean,
            f"var_{side}": np.maximum(self.squares / self.count - mean**2, 0),
            side: np.concatenate(self.rows),
        }


class Truth:
    """Runs a model image by image, with `forward` of its norm layers replaced."""

    def __init__(self, model: nn.Module, images: int, samples: int) -> None:
        self._model, self._images, self._samples = model, images, samples
        self._image = 0
        self._sides: dict[str, tuple[Side, Side]] = {}
        self._grid: dict[str, int] = {}  # layer -> positions of one image
        self.rows: dict[int, NDArray[np.int64]] = {}

    def record(self, images: Tensor) -> None:
        for name in norm_layers(self._model):
            self._sides[name] = (Side(), Side())
            self._replace_forward(name, self._model.get_submodule(name))
        with torch.no_grad():
            for self._image, image in enumerate(images):
                self._model(image[None])

    def arrays(self) -> dict[str, dict[str, NDArray]]:
        return {
            name: {"rows": self.rows[self._grid[name]]}
            | entered.arrays("input")
            | left.arrays("output")
            for name, (entered, left) in self._sides.items()
        }

    def _replace_forward(self, name: str, norm: nn.Module) -> None:
        exact, plain = copy.deepcopy(norm).double(), norm.forward

        def forward(_: nn.Module, x: Tensor) -> Tensor:
            entered = x.clone()
            left = plain(x)
            must_agree(name, left, exact(entered.double()))
            positions = self._positions(name, entered[0].numel() // norm.weight.numel())
            for side, value in zip(self._sides[name], (entered, left.clone()), strict=True):
                side.add(value, positions)
            return left

        norm.forward = MethodType(forward, norm)

    def _positions(self, name: str, grid: int) -> NDArray[np.int64]:
        """What is sampled of this image: of all rows those that probe draws."""
        self._grid[name] = grid
        if grid not in self.rows:
            self.rows[grid] = chosen_rows(self._images, grid, self._samples)
        image, position = self.rows[grid].T
        return position[image == self._image]


def chosen_rows(images: int, positions: int, samples: int) -> NDArray[np.int64]:
    """Image and position (samples, 2) of the rows that probe draws: those with the least keys."""
    from probe.stats.samples import keys

    key = keys(0, np.arange(images), positions).ravel()
    kept = np.sort(np.argsort(key, kind="stable")[:samples])
    return np.stack(np.divmod(kept, positions), axis=1)


def must_agree(name: str, left: Tensor, exact: Tensor) -> None:
    """The clone is the layer's own formula in float64, so the truth does not rest on clones."""
    error = float((left.double() - exact).abs().max() / exact.std())
    if error > 1e-3:
        raise SystemExit(
            f"{name}: its output is off its formula by {error:.1e} standard deviations"
        )
