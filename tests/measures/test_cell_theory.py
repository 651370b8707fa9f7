"""Theory beside the measured exponent: torch's own cells, drawn at random, at several widths and seeds."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from unitygain import Case, diagnose
from unitygain.measures._cell_theory import CLAIMED, SCATTER, expected_exponent
from unitygain.probe.observe import observe
from unitygain.probe.steps import Walk, walk
from unitygain.theory.lyapunov import lyapunov_spectrum

KINDS = {"tanh": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def drawn(kind: str, width: int, scale: float, seed: int, steps: int = 150) -> Walk:
    """Torch's own initialisation of one cell, the recurrent weights times `scale`, and fresh inputs."""
    torch.manual_seed(seed)
    module = KINDS[kind](8, width)
    with torch.no_grad():
        module.weight_hh_l0.mul_(scale)
    x = torch.randn(steps, 1, 8)
    case = Case(module, loss=lambda m, x: m(x)[0].square().mean(), data=[x])
    return walk(case, observe(case, [])).walks[0]


def measured(walked: Walk) -> float:
    start = np.random.default_rng(0).standard_normal((walked.size, 2))
    return float(lyapunov_spectrum(walked.backward(), start).exponents[0])


def within(kind: str, width: int, scale: float, seed: int) -> bool:
    walked = drawn(kind, width, scale, seed)
    expected, (low, high) = expected_exponent(walked)
    assert low < expected < high
    assert high - low == pytest.approx(2 * (CLAIMED + SCATTER / math.sqrt(width)))
    return low <= measured(walked) <= high


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_random_cells_lie_in_the_stated_range(kind, scale):
    assert sum(within(kind, 48, scale, seed) for seed in range(6)) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nineteen_of_twenty_lie_in_the_stated_range(kind):
    settings = [(width, scale) for width in (16, 32, 64, 128) for scale in (1.0, 2.5)]
    inside = [within(kind, *setting, seed) for setting in settings for seed in range(20)]
    # Of 160 draws at 95 % more than 14 lie outside with a chance of 2 %.
    assert len(inside) - sum(inside) <= 14


def test_a_matrix_that_is_not_random_is_told_from_one_that_is():
    random = drawn("tanh", 64, 1.0, 0)
    expected, _ = expected_exponent(random)
    tied = drawn("tanh", 64, 1.0, 0)
    # The same variance in one direction: a symmetric rank-one matrix, whose eigenvalue is its norm.
    with torch.no_grad():
        weight = tied.cell.state_weight
        direction = torch.linalg.svd(weight)[0][:, :1]
        weight.copy_(direction @ direction.T * torch.linalg.matrix_norm(weight))
    again, (_, high) = expected_exponent(tied)
    assert again == pytest.approx(expected, abs=1e-6)
    assert measured(tied) > high


def test_there_is_no_formula_for_everything():
    torch.manual_seed(0)
    strong, growing = nn.GRU(3, 16), nn.RNN(3, 16, nonlinearity="relu")
    with torch.no_grad():
        strong.weight_hh_l0.mul_(10.0)
        growing.weight_hh_l0.mul_(5.0)
    for module in (strong, growing):
        case = Case(module, loss=lambda m, x: m(x)[0].square().mean(), data=[torch.randn(6, 1, 3)])
        value, _ = expected_exponent(walk(case, observe(case, [])).walks[0])
        assert math.isnan(value), module


def test_the_finding_says_what_theory_expects():
    torch.manual_seed(0)
    module = nn.RNN(4, 32)
    case = Case(module, loss=lambda m, x: m(x)[0].square().mean(), data=[torch.randn(400, 1, 4)])
    report = diagnose(case, only=["UG404"], removal=False)
    (finding,) = report.findings
    expected = report.profiles["lyapunov_spectrum"].expected
    assert expected is not None
    assert finding.expected == expected[0]
    assert "of random weights of this scale: it is as designed" in finding.message
    # One column as long as all the others together: the same variance, and another matrix.
    with torch.no_grad():
        size = module.weight_hh_l0.norm()
        module.weight_hh_l0.zero_()[0, 1:].fill_(float(size) / 31**0.5)
    (finding,) = diagnose(case, only=["UG404"], removal=False).findings
    assert "of random weights of this scale: these are not" in finding.message
