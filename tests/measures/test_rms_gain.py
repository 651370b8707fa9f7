"""rms_gain agrees with the Frobenius norm of the dense Jacobian on every family, within its error bar."""

import math

import pytest
import torch
from probe.trunks import FAMILIES, Trunk, family, naive_jacobians, recorded
from torch import nn

from unitygain.measures.rms_gain import rms_gain
from unitygain.probe.observe import observe


@pytest.mark.parametrize("name", FAMILIES)
def test_gain_meets_the_dense_one_within_two_percent(name):
    case, record = family(name)
    expected = [float(j.square().sum() / j.shape[0]) ** 0.5 for j in naive_jacobians(case)]
    probes = 16
    while True:
        profile = rms_gain(case, observe(case, [], seed=5, probes=probes))
        assert profile is not None
        assert profile.error is not None
        if all(e <= 0.01 * v for v, e in zip(profile.values, profile.error, strict=True)):
            break
        probes *= 4
    for value, error, true in zip(profile.values, profile.error, expected, strict=True):
        assert abs(value - true) <= 3 * error
    assert profile.sites == record.blocks
    assert profile.facts["probes"] == probes


def test_gain_of_scaled_orthogonal_layers_is_exact():
    layers = [nn.Linear(16, 16, bias=False) for _ in range(4)]
    for layer in layers:
        layer.weight.data = 1.5 * torch.linalg.qr(torch.randn(16, 16).double()).Q
    profile = rms_gain(*recorded(Trunk(list(layers)).double(), torch.randn(3, 16).double()))
    assert profile is not None
    assert profile.values == pytest.approx([1.5] * 4, rel=1e-13)


def test_gain_scales_with_the_weights_and_not_with_the_loss():
    case, record = recorded(Trunk([nn.Sequential(nn.Linear(8, 8)) for _ in range(3)]), torch.randn(3, 8))
    before = rms_gain(case, record)
    loss = case.loss
    case.loss = lambda model, batch: 1e6 * loss(model, batch)
    assert rms_gain(case, record) == before
    with torch.no_grad():
        case.model.blocks[1][0].weight.mul_(4)  # pyright: ignore
    after = rms_gain(case, record)
    assert before is not None
    assert after is not None
    # A power of two changes no digit.
    assert after.values == (before.values[0], 4 * before.values[1], before.values[2])


def test_one_probe_has_no_error_bar_and_more_narrow_it():
    case, _ = family("mlp")
    single = rms_gain(case, observe(case, [], seed=0, probes=1))
    assert single is not None
    assert single.error is not None
    assert all(map(math.isnan, single.error))


def test_gain_far_outside_the_range_of_squares():
    layers = [nn.Linear(6, 6, bias=False) for _ in range(2)]
    for layer in layers:
        layer.weight.data = 1e-30 * torch.eye(6)
    profile = rms_gain(*recorded(Trunk(list(layers)), torch.randn(2, 6)))
    assert profile is not None
    assert profile.values == pytest.approx([1e-30] * 2, rel=1e-6)


def test_coupling_of_the_batch_is_stated():
    notes = {name: rms_gain(*family(name)).note for name in ("mlp", "batch norm")}  # pyright: ignore
    assert notes["mlp"] == "the samples of the batch do not mix"
    assert notes["batch norm"].startswith("the batch is coupled")


def test_model_without_blocks_has_no_profile():
    assert rms_gain(*recorded(nn.Linear(3, 3), torch.randn(2, 3))) is None


def test_the_rows_hold_the_norm_of_the_jacobian():
    """J of a batch of three is the weight three times on the diagonal."""
    torch.manual_seed(0)
    layers = [nn.Linear(6, 6, bias=False, dtype=torch.float64) for _ in range(2)]
    profile = rms_gain(*recorded(Trunk(list(layers)), torch.randn(3, 6, dtype=torch.float64)))
    assert profile is not None
    assert profile.columns[2] == "frobenius"
    for layer, row, value, error in zip(
        layers, profile.rows, profile.values, profile.error or (), strict=True
    ):
        assert row[2] == pytest.approx(value * math.sqrt(18))
        exact = math.sqrt(3) * float(layer.weight.detach().norm())
        # Four standard errors of an estimate.
        assert abs(row[2] - exact) < 4 * error * math.sqrt(18)
