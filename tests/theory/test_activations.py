"""Values and slopes against torch's own, kinks where they are, refusals of what has no slope."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from unitygain.theory.activations import ACTIVATIONS, find_activation, leaky_relu
from unitygain.theory.mean_field import mean_field

TWINS = {
    "linear": lambda x: x * 1.0,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "elu": F.elu,
    "selu": F.selu,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sin": torch.sin,
    "hardtanh": F.hardtanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}


def test_every_name_has_a_twin():
    assert set(TWINS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", TWINS)
def test_value_and_slope_are_torch_s(name):
    ours, theirs = ACTIVATIONS[name], find_activation(TWINS[name])
    x = np.linspace(-9.3, 9.3, 401)
    # A few roundings each; 1 - tanh² cancels to 2e-16, times x·(inner slope) = 100 at the ends for GELU.
    np.testing.assert_allclose(ours.value(x), theirs.value(x), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(ours.slope(x), theirs.slope(x), rtol=1e-12, atol=4e-14)


@pytest.mark.parametrize("name", TWINS)
def test_kinks_are_located(name):
    # ELU's slope is 1 on both sides of zero: its declared kink is one of the second derivative.
    expected = () if name in {"elu", "linear"} else ACTIVATIONS[name].kinks
    assert find_activation(TWINS[name]).kinks == pytest.approx(expected, abs=1e-10)


def test_kinks_away_from_zero_and_close_together():
    kinks = find_activation(lambda x: F.relu(x - 1.37) - F.relu(x - 1.39) + F.hardswish(x)).kinks
    assert kinks == pytest.approx((-3.0, 1.37, 1.39, 3.0), abs=1e-9)


def test_kinks_can_be_given():
    assert find_activation(F.relu, kinks=[0, 2]).kinks == (0.0, 2.0)


@pytest.mark.parametrize(
    ("phi", "rays"),
    [(F.relu, (0.0, 1.0)), (torch.abs, (-1.0, 1.0)), (lambda x: 3 * F.leaky_relu(x, 0.5), (1.5, 3.0))],
)
def test_rays_are_recognised(phi, rays):
    assert find_activation(phi).rays == pytest.approx(rays, rel=1e-12)


@pytest.mark.parametrize("phi", [F.elu, F.relu6, torch.tanh, lambda x: F.relu(x) + 1])
def test_what_is_not_two_rays_is_not_taken_for_it(phi):
    assert find_activation(phi).rays is None


def test_leaky_slope_is_in_the_name():
    assert leaky_relu(0.2).name == "leaky_relu(0.2)"
    assert leaky_relu(0.2).value(np.array([-1.0, 1.0])).tolist() == [-0.2, 1.0]


def test_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match=r"no activation is named 'tahn'; the names are elu, erf"):
        find_activation("tahn")


def test_what_is_no_activation_is_refused():
    with pytest.raises(TypeError, match="phi is a float"):
        find_activation(1.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="not elementwise"):
        find_activation(lambda x: x - x.mean())
    with pytest.raises(ValueError, match=r"not finite at x = -1[56]"):
        find_activation(torch.log)
    with pytest.raises(ValueError, match=r"turned float64 into torch.float32; it must keep"):
        find_activation(lambda x: x.float())
    with pytest.raises(ValueError, match=r"PReLU raised on float64.*such as module.double\(\)"):
        find_activation(torch.nn.PReLU())
    with pytest.raises(ValueError, match="4097 numbers into 1"):
        find_activation(lambda x: x.sum())
    with pytest.raises(ValueError, match="jumps at x = 0,"):
        find_activation(lambda x: torch.sign(x) + 0 * x)
    with pytest.raises(ValueError, match="slope below zero is nan"):
        leaky_relu(float("nan"))


@pytest.mark.parametrize(
    ("phi", "jumps"),
    [
        (F.hardtanh, (1.0, -1.0)),
        (F.relu6, (1.0, -1.0)),
        (lambda x: F.relu(x - 1.37) - 3 * F.relu(x - 2.5) + 0.5 * x, (1.0, -3.0)),
        (F.selu, ()),
        (F.hardswish, ()),
        (torch.tanh, ()),
        # Straight at the middle of every piece, and bent inside it.
        (lambda x: F.relu(x) + 0.01 * torch.sin(x * math.pi / 8) ** 2, ()),
    ],
)
def test_jumps_of_the_slope_are_known_where_all_between_them_is_straight(phi, jumps):
    assert find_activation(phi).jumps == pytest.approx(jumps, abs=1e-12)


@pytest.mark.parametrize("point", [(1.28, 0.1), (1.5, 0.1), (4.0, 0.3)])
def test_a_piecewise_linear_callable_is_solved_like_the_named_one(point):
    named, called = mean_field("hardtanh", *point), mean_field(F.hardtanh, *point)
    for key in ("q_star", "chi_1", "c_star", "xi_c"):
        assert getattr(called, key) == pytest.approx(getattr(named, key), rel=1e-9)
