"""Fits of whole runs: the oracles through capture, statuses, channel fits, alphas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from torch import nn

from probe.curves import FAMILIES
from probe.errors import UsageError
from probe.jobs.capturing.capture import capture
from probe.jobs.fitting.fit import ensure_fitted, fit
from probe.models.loading.load import load_model
from probe.norms import Derf, DyT
from probe.stats.samples import keys
from probe.wording.notes import missed
from support.captures import Tokens, token_batches


def tokens(images=40, positions=20, channels=24, scale=3.0, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(images, positions, channels, generator=rng) * scale
    return x * (0.2 + torch.rand(images, positions, 1, generator=rng))


def fitted(module, data, tmp_path, **options):
    run = capture(nn.Sequential(module), data, out=tmp_path / "run", **options)
    return run, fit(run)


def one(fits, family, scope="layer", weighting="population", kind="all"):
    chosen = fits.query(
        "family == @family and scope == @scope and weighting == @weighting and tokens == @kind"
    )
    assert len(chosen) == 1
    return chosen.iloc[0]


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.7])
def test_a_dyt_layer_gives_back_its_alpha(alpha, tmp_path):
    row = one(fitted(DyT(24, alpha_init=alpha), tokens(), tmp_path)[1], "tanh")
    assert row["status"] == "curved"
    assert row["alpha"] == pytest.approx(alpha, rel=1e-4)
    assert row["gamma"] == pytest.approx(1, abs=1e-4)
    assert row["beta"] == pytest.approx(0, abs=1e-4)
    assert row["r2"] == pytest.approx(1, abs=1e-6)


def test_scope_channel_gives_back_weight_and_bias_of_a_dyt_output(tmp_path):
    from probe.curves import fit_channels

    module = DyT(24, alpha_init=0.4)
    with torch.no_grad():
        module.weight.copy_(torch.linspace(-2, 2, 24))
        module.bias.copy_(torch.linspace(1, 3, 24))
    run, _ = fitted(module, tokens(), tmp_path)
    rows = run.samples("0", stratum="uniform")
    x, y = (rows[name].to_numpy().reshape(24, -1).T for name in ("input", "output"))
    scope = fit_channels(x, y, np.arange(len(x)) % 16, families=("tanh",))
    assert scope.fits[0].alpha == pytest.approx(0.4, rel=1e-4)
    np.testing.assert_allclose(scope.gamma["tanh"], module.weight.detach(), atol=1e-3)
    np.testing.assert_allclose(scope.beta["tanh"], module.bias.detach(), atol=1e-3)


def test_a_derf_layer_gives_back_alpha_and_shift(tmp_path):
    row = one(fitted(Derf(24, alpha_init=0.3, shift_init=0.4), tokens(), tmp_path)[1], "erf_shift")
    assert row["alpha"] == pytest.approx(0.3, rel=1e-4)
    assert row["shift"] == pytest.approx(0.4, abs=1e-4)
    assert row["gamma"] == pytest.approx(1, abs=1e-4)
    assert row["beta"] == pytest.approx(0, abs=1e-4)


def test_a_derf_layer_names_erf_as_its_best_family(tmp_path):
    run, _ = fitted(Derf(24, alpha_init=0.3), tokens(), tmp_path)
    assert run.alphas()["best_family"][0] in ("erf", "erf_shift")


def test_isru_is_the_best_family_of_rms_norm_on_even_tokens(tmp_path):
    """With the other channels' mean square constant, RMSNorm is sqrt(C) x / sqrt(rest + x^2)
    exactly.
    """
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, 16, generator=rng)
    x[..., 1:] *= 4 / x[..., 1:].norm(dim=-1, keepdim=True)
    x[..., 0] *= 5

    class FirstChannel(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.RMSNorm(16, eps=0.0)

        def forward(self, x):
            return self.norm(x)

    run = capture(FirstChannel(), x, out=tmp_path / "run", samples=512)
    rows = run.samples("norm", channels=[0], stratum="uniform")
    expected = 4 * rows["input"] / np.sqrt(16 + rows["input"] ** 2)
    np.testing.assert_allclose(rows["normalized"], expected, atol=1e-5)
    fits = fit(run)
    layer = fits.query(
        "scope == 'layer' and weighting == 'population' and tokens == 'all'"
    ).set_index("family")
    assert layer["r2"].drop(["linear"]).max() > layer.loc["linear", "r2"]


def test_a_straight_map_is_linear_with_its_slope(tmp_path):
    x = torch.randn(40, 20, 24)
    x = x / x.std(-1, keepdim=True) * 2  # every token the same sigma: LayerNorm is one line
    row = one(fitted(nn.LayerNorm(24, eps=0.0), x - x.mean(-1, keepdim=True), tmp_path)[1], "tanh")
    assert (row["status"], pd.isna(row["alpha"])) == ("linear", True)
    assert row["slope"] == pytest.approx(0.5 * (24 / 23) ** 0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("batches", "status"),
    [
        (torch.full((40, 20, 24), 2.0), "constant"),
        (torch.full((1, 1, 1), 2.0), "too_few"),
        (torch.full((40, 20, 24), torch.nan), "not_finite"),
        (torch.full((40, 20, 24), torch.inf), "not_finite"),
    ],
    ids=["constant", "one element", "NaN", "inf"],
)
def test_degenerate_inputs_get_their_status_and_no_number(batches, status, tmp_path):
    run, fits = fitted(DyT(batches.shape[-1]), batches, tmp_path)
    row = one(fits, "tanh")
    assert row["status"] == status
    assert pd.isna(row["alpha"])
    assert run.alphas()["status"].tolist() == [status]


def test_a_layer_never_called_is_a_row(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run")
    fit(run)
    assert run.alphas().set_index("layer").loc["unused", "status"] == "not_called"


@pytest.fixture(scope="module")
def resnet50_run(tmp_path_factory):
    torch.manual_seed(0)
    module = timm.create_model("resnet50")
    x = torch.randn(12, 3, 64, 64)
    with torch.no_grad():
        module.train()(x)  # running statistics that differ by channel
    run = capture(module.eval(), x, out=tmp_path_factory.mktemp("r") / "run", samples=32)
    fit(run)
    return run


def test_all_53_batch_norms_of_resnet50_are_affine_and_none_is_curved(resnet50_run):
    alphas = resnet50_run.alphas()
    assert alphas["status"].tolist() == ["affine"] * 53
    assert alphas["alpha"].isna().all()
    assert alphas["alpha_channel"].isna().all()
    assert (resnet50_run.fits()["status"] == "affine").all()


def test_an_affine_layer_reports_its_fan_of_lines(resnet50_run):
    row = resnet50_run.alphas().iloc[5]
    moments = resnet50_run.moments(row["layer"])
    assert row["slope_min"] <= row["slope_median"] <= row["slope_max"]
    assert row["slope_cv"] == pytest.approx(moments["slope"].std(ddof=0) / moments["slope"].mean())
    rows = resnet50_run.samples(row["layer"], channels=[3])
    line = moments.set_index("channel").loc[3]
    np.testing.assert_allclose(
        rows["normalized"], line["slope"] * rows["input"] + line["offset"], atol=1e-4
    )
    channel_line = one(resnet50_run.fits().query("layer == @row.layer"), "linear", scope="channel")
    assert channel_line["r2"] == pytest.approx(1, abs=1e-6)


def test_extremes_and_massive_activations_are_named_by_channel(tmp_path):
    x = tokens(images=48, channels=24, scale=0.1)
    x[:, 0, 7] = 500.0
    run, _ = fitted(nn.LayerNorm(24), x, tmp_path)
    channels = run.channel_fits()
    assert channels.loc[channels["massive"], "channel"].tolist() == [7]
    assert channels["max_abs_input"].max() == 500
    assert run.alphas()["massive_channels"].tolist() == [1]
    assert (
        channels["extremes"].sum() == pytest.approx(1)
        or channels["extremes"].isna().all()
        or (channels["extremes"] == 0).all()
    )


def test_alphas_stand_beside_what_they_should_be_read_with(vit_run):
    alphas = vit_run.alphas()
    assert len(alphas) == 17
    curved = alphas[alphas["status"] == "curved"]
    assert len(curved) >= 3
    assert (curved["alpha_low"] < curved["alpha"]).all()
    assert (curved["alpha"] < curved["alpha_high"]).all()
    assert (alphas["r2"] <= alphas["r2_ceiling"] + 1e-9).all()
    np.testing.assert_allclose(alphas["inverse_std"], 1 / alphas["input_std"])
    assert (
        alphas["mean_inverse_sigma"]
        .between(0.5 * alphas["inverse_std"], 5 * alphas["inverse_std"])
        .all()
    )
    assert curved["beyond_linear"].between(0, 0.5).all()
    assert (curved["saturation"] <= curved["beyond_linear"]).all()


def test_prefix_and_patch_tokens_are_fitted_apart(vit_run):
    fits = vit_run.fits()
    apart = fits.query("layer == 'blocks.0.norm1' and tokens != 'all' and family == 'linear'")
    assert set(apart["tokens"]) == {"prefix", "patch"}
    assert apart.set_index("tokens").loc["prefix", "count"] == 16 * 128


def test_chosen_families_still_hold_the_line_and_tanh(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run")
    assert set(fit(run, families=["erf"], save=False)["family"]) == {"linear", "tanh", "erf"}
    assert not (run.path / "fits.parquet").exists()


def test_a_run_is_fitted_once_and_then_left_as_it_is(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run")
    stages = []
    assert ensure_fitted(run, lambda stage, *_: stages.append(stage)) is run
    assert set(stages) == {"fit"}
    assert run.has("fits")
    ensure_fitted(run.path, lambda *_: pytest.fail("fitted again"))


def test_a_second_fit_adds_families_and_drops_none(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run")
    fit(run, families=["erf"])
    fit(run, families=["isru"])
    fitted = run.fits()
    assert set(fitted["family"]) == {"linear", "tanh", "erf", "isru"}
    assert not fitted.duplicated(["layer", "family", "scope", "weighting", "tokens"]).any()
    fit(run)
    assert set(run.fits()["family"]) == set(FAMILIES)


def test_an_unknown_family_lists_the_known_ones(vit_run):
    with pytest.raises(
        UsageError, match=r"--families 'tan' is unknown \(did you mean tanh.*known: linear, tanh"
    ):
        fit(vit_run, families=["tan"], save=False)


def test_intervals_need_eight_groups(tmp_path):
    _, fits = fitted(DyT(24, alpha_init=1.0), tokens(images=7), tmp_path)
    assert pd.isna(one(fits, "tanh")["alpha_low"])


def test_the_sample_keys_stay_what_they_were():
    """Runs of different versions can be compared row by row only while the hash stays the same."""
    assert [int(k) >> 40 for k in keys(0, np.arange(2), 2).ravel()] == KEYS


KEYS = [2327157, 3093159, 4515257, 4608913]


def test_batch_norms_on_batch_statistics_are_mixtures_of_lines(tmp_path):
    """Each channel is a line in every batch, so no layer is curved, however the whole bends."""
    model = load_model("bundled:resnet_cifar10")
    model.module.train()
    run = ensure_fitted(capture(model, None, out=tmp_path / "run", num_images=48, batch_size=16))
    assert set(run.alphas()["status"]) <= {"mixture", "linear", "undetermined"}
    assert run.alphas().set_index("layer").loc["bn1", "status"] == "mixture"
    assert not run.alphas().query("status == 'mixture'")["established"].any()
    told = [line for line in missed(run.manifest, 20) if line.startswith("BatchNorm on the stat")]
    assert len(told) == 1
    assert "layer4.0.bn2" in told[0]


def test_a_group_norm_of_uneven_channels_is_a_mixture(tmp_path):
    rng = torch.Generator().manual_seed(0)
    spread = torch.logspace(-1, 1, 16)[:, None, None]
    x = torch.randn(48, 16, 8, 8, generator=rng) * spread
    x = x * (1 + 2 * (spread > 1) * (x > 0))
    run = ensure_fitted(capture(nn.GroupNorm(4, 16), x, out=tmp_path / "run"))
    (row,) = run.alphas().to_dict("records")
    assert row["status"] in ("mixture", "linear", "undetermined")
    assert row["channel_gain"] < 1e-3
