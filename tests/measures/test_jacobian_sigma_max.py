"""jacobian_sigma_max agrees with the dense singular values, says how it found them, and keeps to its cost."""

import copy
import importlib
import math

import pytest
import torch
from probe.trunks import FAMILIES, Cube, Once, Plain, Trunk, family, naive_jacobians, recorded
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.measures.jacobian_sigma_max import jacobian_sigma_max
from unitygain.measures.rms_gain import rms_gain
from unitygain.probe.operators import JacobianOperator

# The package's name for it is the function.
measure_file = importlib.import_module("unitygain.measures.jacobian_sigma_max")


@pytest.mark.parametrize("exact_rows", [0, 64])
@pytest.mark.parametrize("name", FAMILIES)
def test_first_five_agree_with_the_dense_singular_values(name, exact_rows, monkeypatch):
    # Without the short way for small Jacobians it is Golub-Kahan's turn.
    monkeypatch.setattr(measure_file, "EXACT_ROWS", exact_rows)
    case, record = family(name)
    profile = jacobian_sigma_max(case, record)
    assert profile is not None
    assert profile.error is not None
    assert profile.sites == record.blocks
    for row, value, error, dense in zip(
        profile.rows, profile.values, profile.error, naive_jacobians(case), strict=True
    ):
        expected = torch.linalg.svdvals(dense)[:5].tolist()
        assert row == pytest.approx(expected, rel=1e-6)
        assert row[0] == value
        assert abs(value - expected[0]) <= error + 1e-12


def test_scaled_orthogonal_layers_have_one_value_only():
    layers = [nn.Linear(16, 16, bias=False) for _ in range(3)]
    for layer in layers:
        layer.weight.data = 0.25 * torch.linalg.qr(torch.randn(16, 16).double()).Q
    profile = jacobian_sigma_max(*recorded(Trunk(list(layers)).double(), torch.randn(2, 16).double()))
    assert profile is not None
    for row in profile.rows:
        assert row == pytest.approx([0.25] * 5, rel=1e-13)


def by_plain_rules(case: Case) -> list[Tensor]:
    """Return the dense Jacobians of a trunk of cubes, with a cube that functorch knows."""
    plain = copy.deepcopy(case)
    for block in plain.model.blocks:  # pyright: ignore
        block.rule = Plain
    return naive_jacobians(plain)


def test_small_block_without_double_backward_is_taken_whole():
    torch.manual_seed(3)
    case, record = recorded(Trunk([Cube(Once, 40), Cube(Once, 40)]).double(), torch.randn(2, 40).double())
    profile = jacobian_sigma_max(case, record)
    assert profile is not None
    for row, label, dense in zip(profile.rows, profile.labels, by_plain_rules(case), strict=True):
        assert row == pytest.approx(torch.linalg.svdvals(dense)[:5].tolist(), rel=1e-12)
        assert label == "from the whole matrix: no double backward pass"


def test_large_block_without_double_backward_gets_a_lower_bound():
    torch.manual_seed(3)
    case, record = recorded(Trunk([Cube(Once, 60), Cube(Once, 60)]).double(), torch.randn(10, 60).double())
    profile = jacobian_sigma_max(case, record)
    assert profile is not None
    assert profile.error is not None
    assert "only a lower bound was possible" in profile.note
    for row, error, label, dense in zip(
        profile.rows, profile.error, profile.labels, by_plain_rules(case), strict=True
    ):
        expected = torch.linalg.svdvals(dense)[:5].tolist()
        assert label.startswith("lower bound")
        assert math.isnan(error)
        assert all(0 < bound <= true for bound, true in zip(row, expected, strict=True))


def test_cost_of_both_measures_stays_within_the_budget(monkeypatch):
    # Two blocks of 2·48·64 = 6144 numbers: large. A pass through the blocks of GPT-2-small to their
    # activations alone is about a third of a whole backward pass, so that 20 of those allow 55 products.
    model = Trunk([nn.TransformerEncoderLayer(64, 4, 128, batch_first=True) for _ in range(2)])
    case, record = recorded(model, torch.randn(2, 48, 64))
    passes = 0
    grad = torch.autograd.grad

    def counted(*args, **kwargs):
        nonlocal passes
        passes += 1
        return grad(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    rms_gain(case, record)
    assert passes <= 2 * 8 + 4
    profile = jacobian_sigma_max(case, record)
    assert passes <= 2 * (8 + 1 + 2 + 2 * 18) + 8
    assert profile is not None
    assert all("18 steps" in label for label in profile.labels)


def test_a_large_jacobian_still_has_a_true_error_bar():
    torch.manual_seed(2)
    case, record = recorded(
        Trunk([nn.Sequential(nn.Linear(96, 96), nn.Tanh()) for _ in range(2)]), torch.randn(50, 96)
    )
    profile = jacobian_sigma_max(case, record)
    assert profile is not None
    assert profile.error is not None
    for index, dense in enumerate(naive_jacobians(case)):
        # The batch's Jacobian is block diagonal: its largest value is that of the worst sample.
        samples = dense.view(50, 96, 50, 96).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        true = float(torch.linalg.svdvals(samples.double()).max())
        assert 0 <= true * (1 + 1e-6) - profile.values[index] <= profile.error[index] + 2e-6 * true


def test_products_are_counted():
    x = torch.randn(4, requires_grad=True)
    jacobian = JacobianOperator(x.tanh(), x)
    jacobian.rmatvec(torch.ones(4))
    jacobian.matvec(torch.ones(4))
    jacobian.matvec(torch.ones(4))
    # The second kind needs the graph of one backward pass, once.
    assert jacobian.applications == 4
