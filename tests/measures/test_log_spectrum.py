"""log_spectrum agrees with 300 digits through a real trunk, and says where it is not the whole."""

import math

import numpy as np
import pytest
import torch
from probe.trunks import FAMILIES, Cube, Once, Trunk, family, naive_jacobians, recorded
from theory.test_products import exact_logs
from torch import Tensor, nn

from unitygain._types import Profile
from unitygain.measures.log_spectrum import log_spectrum
from unitygain.theory.products import leading_log_singular_values


def measured(model: nn.Module, x: Tensor) -> Profile:
    profile = log_spectrum(*recorded(model, x))
    assert profile is not None
    return profile


def test_spectrum_of_a_deep_trunk_agrees_with_300_digits():
    torch.manual_seed(4)
    blocks = [nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(50)]
    for block in blocks:
        nn.init.normal_(block[0].weight, std=2 / 16**0.5)
    model, x = Trunk(list(blocks)).double(), torch.randn(3, 16).double()
    profile = measured(model, x)
    factors = [j.view(3, 16, 3, 16)[0, :, 0].numpy() for j in naive_jacobians(recorded(model, x)[0])]
    expected = exact_logs(factors) / math.log(10)
    # A thousandth of a nat per layer.
    allowed = 50 * 1e-3 / math.log(10)
    np.testing.assert_allclose(profile.rows[0], expected, rtol=0, atol=allowed)
    assert profile.values[0] == pytest.approx(expected[0] - expected[-1], abs=2 * allowed)
    assert profile.values[0] > 20
    assert profile.facts["rank"] == profile.facts["dimension"] == 16


@pytest.mark.parametrize("name", FAMILIES)
def test_spectrum_agrees_with_the_dense_one(name):
    case, record = family(name)
    profile = log_spectrum(case, record)
    assert profile is not None
    shape = case.batches[0].shape
    dense = torch.eye(case.batches[0].numel(), dtype=torch.float64)
    for factor in naive_jacobians(case):
        dense = factor @ dense
    if name != "batch norm":
        side = dense.shape[0] // shape[0]
        dense = dense[:side, :side]
    expected = torch.linalg.svdvals(dense).log10().numpy()
    rank = int(profile.facts["rank"])
    assert len(profile.rows[0]) == rank <= len(expected) == profile.facts["dimension"]
    # At most 500 sweeps: 0.19/499 nat for a pair that stood at 45 degrees, 0.00017 in log10, and ten times
    # that for a value with neighbours on both sides that stood at 72. Below 1e-8 of the largest a
    # product that was formed in float64 is no witness.
    sure = (expected > expected[0] - 8)[:rank]
    np.testing.assert_allclose(
        np.array(profile.rows[0])[sure], expected[:rank][sure], rtol=0, atol=10 * 0.00017
    )


def test_dead_channels_are_a_loss_of_rank():
    layers = [nn.Linear(8, 8, bias=False) for _ in range(3)]
    layers[1].weight.data[5:] = 0
    profile = measured(Trunk(list(layers)).double(), torch.randn(2, 8).double())
    assert profile.facts["rank"] == 5
    assert profile.facts["dimension"] == 8
    assert len(profile.rows[0]) == 5
    assert math.isfinite(profile.values[0])
    assert "3 of 8 singular values are zero" in profile.note


def test_orthogonal_trunk_has_condition_one():
    layers = [nn.Linear(8, 8, bias=False) for _ in range(5)]
    for layer in layers:
        layer.weight.data = 3 * torch.linalg.qr(torch.randn(8, 8).double()).Q
    profile = measured(Trunk(list(layers)).double(), torch.randn(2, 8).double())
    assert profile.values[0] == pytest.approx(0, abs=1e-12)
    assert profile.rows[0] == pytest.approx([5 * math.log10(3)] * 8, rel=1e-12)


def test_large_samples_give_the_leading_values_alone():
    torch.manual_seed(5)
    blocks = [nn.Sequential(nn.Linear(600, 600, bias=False)) for _ in range(3)]
    scale = torch.tensor(4.0).double() ** -torch.arange(600)
    for block in blocks:
        turn = torch.linalg.qr(torch.randn(600, 600).double()).Q
        block[0].weight.data = turn @ torch.diag(scale.clamp(min=1e-6)) @ turn.T
    model, x = Trunk(list(blocks)).double(), torch.randn(1, 600).double()
    profile = measured(model, x)
    dense = torch.eye(600, dtype=torch.float64)
    for block in blocks:
        dense = block[0].weight.detach() @ dense
    expected = torch.linalg.svdvals(dense).log10()[:8].numpy()
    assert math.isnan(profile.values[0])
    assert "a sample has up to 600 numbers" in profile.note
    assert len(profile.rows[0]) == 8
    # The same two sweeps with the matrices themselves; tests/theory holds the sweeps against exact values.
    weights = [block[0].weight.detach().numpy() for block in blocks]
    start = np.random.default_rng(0).standard_normal((600, 8))
    there, back = [[lambda c, a=a: a @ c for a in side] for side in (weights, [w.T for w in weights])]
    twin = leading_log_singular_values(there, back, start, sweeps=2).logs / math.log(10)
    np.testing.assert_allclose(profile.rows[0], twin, rtol=1e-9)
    # Block power iteration never exceeds the true volumes.
    assert np.all(np.cumsum(profile.rows[0]) <= np.cumsum(expected) + 1e-9)


def test_without_double_backward_a_large_trunk_gives_exponents():
    torch.manual_seed(6)
    profile = measured(Trunk([Cube(Once, 520), Cube(Once, 520)]).double(), torch.randn(1, 520).double())
    assert "exponents from one sweep" in profile.note
    assert len(profile.rows[0]) == 8


def test_a_jacobian_that_is_not_finite_is_said():
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).sub(100).sqrt()

    profile = measured(Trunk([Root(), Root()]), torch.randn(2, 4))
    assert math.isnan(profile.values[0])
    assert "holds NaN or infinity" in profile.note


def test_model_without_blocks_has_no_profile():
    assert log_spectrum(*recorded(nn.Linear(3, 3), torch.randn(2, 3))) is None
