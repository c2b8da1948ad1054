"""A small run whose tables agree with each other, made from a population that the tests can
recompute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from probe.bins import bin_of
from probe.store import RunWriter
from probe.store.schema import VALUES

IMAGES, POSITIONS, SAMPLES, TAIL = 20, 10, 32, 12
NAMES = ("stem/norm", "blocks.0.norm1", "blocks.0.norm1#2")
CHANNELS = 6


@dataclass
class Population:
    """Every element of one layer: arrays (rows, channels)."""

    name: str
    depth: int
    image: np.ndarray = field(init=False)
    position: np.ndarray = field(init=False)
    values: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.depth)
        self.image, self.position = (grid.ravel() for grid in np.mgrid[:IMAGES, :POSITIONS])
        x = rng.normal(size=(len(self.image), CHANNELS)).astype(np.float32)
        z = np.tanh(x)
        self.values = {"input": x, "normalized": z, "output": 2 * z + 1}

    def uniform(self) -> dict[str, np.ndarray]:
        chosen = np.random.default_rng(self.depth + 100).permutation(len(self.image))[:SAMPLES]
        return {
            "image": self.image[chosen],
            "position": self.position[chosen],
            **{k: v[chosen] for k, v in self.values.items()},
        }

    def prefix(self) -> dict[str, np.ndarray]:
        chosen = np.flatnonzero(self.position == 0)[:4]
        return {
            "image": self.image[chosen],
            "position": self.position[chosen],
            **{k: v[chosen] for k, v in self.values.items()},
        }

    def tail(self) -> dict[str, np.ndarray]:
        row, channel = np.divmod(
            np.argsort(-np.abs(self.values["input"]), axis=None)[:TAIL], CHANNELS
        )
        values = {name: array[row, channel] for name, array in self.values.items()}
        return {
            "image": self.image[row],
            "position": self.position[row],
            "channel": channel,
            **values,
        }

    def moments(self) -> pd.DataFrame:
        frame = pd.DataFrame(
            {"layer": self.name, "channel": np.arange(CHANNELS), "count": len(self.image)}
        )
        for side in ("input", "output"):
            x = self.values[side].astype(np.float64)
            frame = frame.assign(
                **{f"{k}_{side}": getattr(x, k)(axis=0) for k in ("mean", "var", "min", "max")}
            )
        return frame.assign(weight=2.0, bias=1.0, slope=np.nan, offset=np.nan)

    def profile(self) -> pd.DataFrame:
        x, z = (self.values[name].astype(np.float64).ravel() for name in ("input", "normalized"))
        group = np.repeat(self.image % 16, CHANNELS)
        cells = pd.DataFrame(
            {
                "group": group,
                "bin": bin_of(x),
                "x": x,
                "z": z,
                "zz": z * z,
                "xx": x * x,
                "xz": x * z,
            }
        ).groupby(["group", "bin"])
        sums = cells.agg(
            count=("x", "size"),
            sum_input=("x", "sum"),
            sum_normalized=("z", "sum"),
            sum_normalized_sq=("zz", "sum"),
            sum_input_sq=("xx", "sum"),
            sum_product=("xz", "sum"),
        )
        return sums.reset_index().assign(layer=self.name, tokens="patch")

    def record(self) -> dict[str, Any]:
        count = self.values["input"].size
        return {
            "layer": self.name,
            "depth": self.depth,
            "kind": "layer_norm",
            "channels": CHANNELS,
            "count": count,
            "positions": 10,
        }


def populations() -> list[Population]:
    return [Population(name, depth) for depth, name in enumerate(NAMES)]


def fill(writer: RunWriter, layers: list[Population]) -> None:
    for layer in layers:
        writer.write_samples(
            layer.depth,
            layer.name,
            uniform=layer.uniform(),
            prefix=layer.prefix(),
            tail=layer.tail(),
        )
    writer.write_table("moments", pd.concat([layer.moments() for layer in layers]))
    writer.write_table("profile", pd.concat([layer.profile() for layer in layers]))
    writer.write_table(
        "rows", {"layer": ["a"], "image": [0], "position": [0], "mean": [0.0], "sigma": [1.0]}
    )


def manifest(layers: list[Population]) -> dict[str, Any]:
    return {
        "model": {"name": "toy <b>"},
        "plan": {"samples": SAMPLES, "seed": 11},
        "layers": [layer.record() for layer in layers],
    }


def write_run(out: Path, overwrite: bool = False) -> Path:
    layers = populations()
    with RunWriter(out, overwrite) as writer:
        fill(writer, layers)
        return writer.finish(manifest(layers))


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture
def kit() -> Any:
    """The functions above, for tests that need more than a finished run (test folders are no
    packages).
    """

    class Kit:
        write_run = staticmethod(write_run)
        fill = staticmethod(fill)
        manifest = staticmethod(manifest)
        populations = staticmethod(populations)
        names = NAMES
        channels = CHANNELS
        samples = SAMPLES
        values = VALUES

    return Kit


@pytest.fixture
def alphas() -> pd.DataFrame:
    """An alpha table with a curved, a linear and an affine layer; names that a careless reader
    would take for null.
    """
    from probe.store.schema import ALPHAS

    frame = pd.DataFrame({name: np.full(3, np.nan) for name in ALPHAS})
    frame["layer"] = ["null", "1.5", "NaN"]
    frame["kind"], frame["status"] = "layer_norm", ["curved", "linear", "affine"]
    frame["best_family"], frame["tied"] = ["tanh", "", ""], ["erf|isru", "", ""]
    frame["established"] = [True, False, False]
    frame["alpha"] = [1 / 3, np.nan, np.nan]
    frame["sigma_cv"] = [np.inf, 1e-300, 0.1 + 0.2]
    return frame.astype({"kind": str}).assign(
        depth=[0, 1, 2], channels=3, massive_channels=0, count=10
    )
