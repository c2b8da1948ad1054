"""Calibrating: replaced layers refitted behind each other, never worse than plain conversion."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from probe.curves import StandIn
from probe.errors import ProbeError
from probe.jobs.converting.calibrate import calibrate
from probe.jobs.converting.convert import convert
from probe.jobs.converting.paired import Pair, read_pairs, sensitivities
from probe.jobs.converting.refit import Refit
from probe.jobs.inputs import open_model, open_stream
from probe.models.replacing.swap import swap
from probe.norms import DyT, LearnableScaler
from support.captures import token_batches
from support.classifiers import Classifier, captured


def random_network(seed):
    """Norms with random weights between random linear layers, of tokens of very different scale."""
    module = Classifier([nn.LayerNorm, nn.RMSNorm][seed % 2])
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    tokens = token_batches()[0].shape[1]
    return module, [batch * torch.logspace(-1, 1, tokens)[:, None] for batch in token_batches()]


def outputs(module, batches):
    with torch.no_grad():
        return torch.cat([module(batch) for batch in batches]).double()


def inputs_of(model, batches):
    stream = open_stream(
        model,
        batches,
        num_images=None,
        batch_size=8,
        workers=0,
        seed=0,
        mask=None,
        transform=None,
    )
    return list(stream.batches)


@pytest.fixture(scope="module")
def random_runs(tmp_path_factory):
    runs = []
    for seed in range(3):
        module, batches = random_network(seed)
        folder = tmp_path_factory.mktemp("random")
        runs.append((captured(module, folder / "run", batches), module, batches))
    return runs


@pytest.mark.parametrize("to", ["dyt", "derf", "dyisru", "learnable_scaler"])
@pytest.mark.parametrize("seed", range(3))
def test_the_output_error_is_never_above_that_of_the_plain_conversion(to, seed, random_runs):
    run, module, batches = random_runs[seed]
    plain, calibrated = copy.deepcopy(module), copy.deepcopy(module)
    convert(run, to, model=plain, data=batches)
    done = convert(
        run, to, model=calibrated, data=batches, calibrate=True, calibration_data=batches
    )
    original = outputs(module, batches)
    before, after = (
        float((outputs(network, batches) - original).square().mean())
        for network in (plain, calibrated)
    )
    assert done.calibration.error_before == pytest.approx(before)
    assert done.calibration.error_after == pytest.approx(after)
    assert after <= before
    assert set(done.stages) == {"converted", "calibrated"}


def test_calibrating_brings_the_outputs_closer(random_runs):
    gains = []
    for run, module, batches in random_runs:
        network = copy.deepcopy(module)
        done = convert(run, model=network, data=batches, calibrate=True, calibration_data=batches)
        gains.append(done.calibration.error_after / done.calibration.error_before)
    assert min(gains) < 0.8


def test_networks_whose_norms_are_dyt_stay_what_they_are(tmp_path):
    module = Classifier(lambda c: DyT(c, alpha_init=0.7))
    batches = token_batches()
    run = captured(module, tmp_path / "run", batches)
    plain = copy.deepcopy(module)
    convert(run, model=plain, data=batches)
    done = convert(run, model=module, data=batches, calibrate=True, calibration_data=batches)
    assert done.calibration.error_after <= done.calibration.error_before
    torch.testing.assert_close(outputs(module, batches), outputs(plain, batches), atol=1e-5, rtol=0)


def test_labels_are_not_read(random_runs):
    run, module, batches = random_runs[0]
    states = []
    for label in (0, 2):
        network = copy.deepcopy(module)
        labelled = [(batch, torch.full((len(batch),), label)) for batch in batches]
        convert(run, model=network, data=batches, calibrate=True, calibration_data=labelled)
        states.append(network.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def curve_of(norm, family, alpha):
    values = (each.detach().double().numpy() for each in (norm.weight, norm.bias))
    return StandIn("norm", family, alpha, 0.0, *values)


def test_a_refit_finds_the_curve_that_the_target_is():
    torch.manual_seed(0)
    norm, exact = DyT(4, alpha_init=0.5), DyT(4, alpha_init=1.0)
    with torch.no_grad():
        exact.weight.copy_(torch.tensor([1.0, -2.0, 3.0, 0.5]))
        exact.bias.copy_(torch.arange(4.0))
    x = 2 * torch.randn(5, 7, 4)
    refit = Refit(norm, curve_of(norm, "tanh", 0.5))
    refit.read([Pair(x, exact(x).detach(), torch.rand(5, 7, 1) + 0.1)])
    assert refit.move(1.0).alpha == 1.0
    torch.testing.assert_close(norm(x), exact(x), atol=1e-4, rtol=1e-4)
    refit.move(0.0)
    assert norm.alpha.tolist() == [0.5]
    assert norm.weight.tolist() == [1.0] * 4


def test_halfway_is_halfway_between_the_values_with_alpha_as_it_was():
    torch.manual_seed(0)
    norm, x = LearnableScaler(3), torch.randn(40, 3)
    refit = Refit(norm, curve_of(norm, "linear", 1.0), (1.0,))
    old = norm.weight.detach().clone()
    refit.read([Pair(x, 3 * x + 1, torch.ones(40, 1))])
    refit.move(0.5)
    torch.testing.assert_close(norm.weight.detach(), (old + 3) / 2, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(norm.bias.detach(), torch.full((3,), 0.5), atol=1e-4, rtol=1e-4)


def test_tokens_weigh_as_much_as_the_outputs_depend_on_them():
    """The head reads the first token alone: no other token counts."""

    class First(Classifier):
        def forward(self, x):
            return self.head(self.norm2(self.mix(self.norm1(x)))[:, 0])

    model = open_model(First().eval())
    swapped = swap(model.module, "dyt", init="match")
    slots = {name: [slot] for name, slot in zip(("norm1", "norm2"), swapped.slots, strict=True)}
    batches = inputs_of(model, token_batches())
    weights = sensitivities(model, slots, batches)
    assert (weights["norm2"][0][:, 0] > 0).all()
    assert not weights["norm2"][0][:, 1:].any()
    assert (weights["norm1"][0][:, 0] > 0).all()
    pair = next(read_pairs(model, slots, "norm2", batches, weights["norm2"]))
    x = batches[0].args[0]
    norm1, norm2 = (slot.old for slot in swapped.slots)
    torch.testing.assert_close(pair.target, norm2(model.module.mix(norm1(x))))
    torch.testing.assert_close(pair.inputs, model.module.mix(model.module.norm1(x)))
    assert model.module.norm2 is swapped.slots[1].new


def test_outputs_that_are_not_finite_are_named():
    model = open_model(Classifier().eval())
    swapped = swap(model.module, "dyt", init="match")
    slots = {slot.key: [slot] for slot in swapped.slots}
    with torch.no_grad():
        model.module.norm1.weight.fill_(float("nan"))
    with pytest.raises(ProbeError, match="outputs that are not finite"):
        calibrate(model, slots, {}, inputs_of(model, token_batches()))
