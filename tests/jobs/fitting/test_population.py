"""The profile's fits and moments are those of the whole population, for every layer of the bundled
ViT.

The test keeps every element of every layer in memory in float64 and fits by brute force; the run
has seen the same elements once, in bins.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize_scalar

from probe.data import open_images
from probe.models.loading.load import load_model
from probe.models.reading.layers import norm_modules

IMAGES = 16


@pytest.fixture(scope="module")
def population():
    """{layer: (x, z, y)} with every element of 16 images, (N, C) float64."""
    model = load_model("bundled:vit_cifar10")
    source = open_images(None, IMAGES)
    images = torch.stack([model.transform(source.load(i)) for i in range(IMAGES)])
    kept, handles = {}, []
    for name, module, _ in norm_modules(model.module):

        def hook(module, args, output, name=name):
            x = args[0].double()
            z = torch.nn.functional.layer_norm(x, module.normalized_shape, eps=module.eps)
            kept.setdefault(name, []).append(
                [t.reshape(-1, x.shape[-1]).numpy() for t in (x, z, output.double())]
            )

        handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        for batch in images.split(8):
            model.module(batch)
    for handle in handles:
        handle.remove()
    return {
        name: [np.concatenate(parts) for parts in zip(*batches, strict=True)]
        for name, batches in kept.items()
    }


def line(f, z):
    """Slope, intercept and R2 of z ~ slope f + intercept over every element."""
    df, dz = f - f.mean(), z - z.mean()
    slope = (df @ dz) / (df @ df)
    return (
        slope,
        z.mean() - slope * f.mean(),
        1 - ((dz - slope * df) @ (dz - slope * df)) / (dz @ dz),
    )


def brute_force_tanh(x, z, near):
    def loss(log_alpha):
        return 1 - line(np.tanh(np.exp(log_alpha) * x), z)[2]

    found = minimize_scalar(
        loss,
        bounds=(np.log(near) - 0.5, np.log(near) + 0.5),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(np.exp(found.x))


def test_moments_are_those_of_every_element(vit_run, population):
    assert set(vit_run.layers["layer"]) == set(population)
    for name, (x, _, y) in population.items():
        moments = vit_run.moments(name)
        assert (moments["count"] == len(x)).all()
        for side, values in (("input", x), ("output", y)):
            std = values.std(0)
            np.testing.assert_allclose(moments[f"var_{side}"], values.var(0), rtol=1e-6)
            for statistic in ("mean", "min", "max"):
                error = np.abs(moments[f"{statistic}_{side}"] - getattr(values, statistic)(0)) / std
                # the stored output is weight * normalized + bias, the module's own is rounded to
                # float32
                rounding = (1.2e-7 * np.abs(values).max(0) / std).max() if side == "output" else 0
                assert error.max() < 1e-6 + rounding, (name, side, statistic)


def population_fits(run, family):
    fits = run.fits()
    wanted = {"family": family, "scope": "layer", "weighting": "population", "tokens": "all"}
    return fits[(fits[list(wanted)] == pd.Series(wanted)).all(axis=1)]


def test_slope_and_r2_of_the_line_are_those_of_every_element(vit_run, population):
    chosen = population_fits(vit_run, "linear")
    assert len(chosen) == 17
    for row in chosen.itertuples():
        x, z, _ = population[row.layer]
        slope, _, r2 = line(x.ravel(), z.ravel())
        assert row.slope == pytest.approx(slope, rel=5e-4)
        assert row.r2 == pytest.approx(r2, abs=1e-5)


def test_alpha_of_curved_layers_is_that_of_every_element(vit_run, population):
    fits = population_fits(vit_run, "tanh")
    curved = fits[fits["status"] == "curved"]
    assert len(curved) >= 3
    for row in curved.itertuples():
        x, z, _ = (values.ravel() for values in population[row.layer])
        alpha = brute_force_tanh(x, z, row.alpha)
        gamma, beta, r2 = line(np.tanh(alpha * x), z)
        assert row.alpha == pytest.approx(alpha, rel=5e-4), row.layer
        assert row.gamma == pytest.approx(gamma, rel=5e-4)
        assert row.beta == pytest.approx(beta, abs=1e-4)
        assert row.r2 == pytest.approx(r2, abs=1e-5)
