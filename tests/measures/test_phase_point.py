"""Layers on the phase diagram: the same points by hand, what is not known, and the lines of the picture."""

import math
from collections.abc import Callable

import pytest
import torch
from measures.reading import measured
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from unitygain._types import Profile
from unitygain.theory.mean_field import mean_field

PHI = {
    "tanh": nn.Tanh(),
    "relu": nn.ReLU(inplace=True),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "selu": nn.SELU(),
    "hardtanh": nn.Hardtanh(),
    "leaky_relu(0.2)": nn.LeakyReLU(0.2),
}


def stack(activation: nn.Module, gain: float, bias: float = 0.1, depth: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(40, 40)
        nn.init.normal_(layer.weight, std=gain / math.sqrt(40))
        nn.init.normal_(layer.bias, std=bias)
        layers += [layer, activation]
    return nn.Sequential(*layers, nn.Linear(40, 3))


def profile(model: nn.Module, *shape: int) -> Profile:
    data = [torch.randn(4, *(shape or (40,)))]
    return measured(Case(model, loss=lambda m, x: m(x).square().mean(), data=data), "phase_point")[
        "phase_point"
    ]


@pytest.mark.parametrize("name", PHI)
def test_a_layer_is_where_its_weights_put_it(name: str) -> None:
    model = stack(PHI[name], 1.1)
    found = profile(model)
    assert [site.path for site in found.sites] == ["0", "2", "4"]
    for k, layer in enumerate(model[:6:2]):
        assert isinstance(layer, nn.Linear)
        sigma_w2 = 40 * float(layer.weight.detach().double().square().mean())
        sigma_b2 = float(layer.bias.detach().double().square().mean())
        phi = PHI[name] if name.startswith("leaky") else name
        field = mean_field(phi, sigma_w2, sigma_b2)
        expected = (sigma_w2, sigma_b2, field.q_star, field.c_star, field.xi_c, field.xi_grad)
        assert found.rows[k] == pytest.approx(expected, rel=1e-6)
        assert found.values[k] == pytest.approx(field.chi_1, rel=1e-6)
        assert found.labels[k] == f"{name}: {field.phase}"


def test_a_convolution_counts_its_taps_and_an_absent_bias_is_zero() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.Tanh())
    row = profile(model, 4, 9, 9).rows[0]
    weight = model[0].weight
    assert isinstance(weight, Tensor)
    assert row[:2] == pytest.approx((36 * float(weight.detach().double().square().mean()), 0.0), rel=1e-6)


def test_without_a_fixed_point_the_gain_is_that_of_a_large_signal() -> None:
    found = profile(stack(nn.ReLU(), 2.0))
    for value, row, label in zip(found.values, found.rows, found.labels, strict=True):
        assert label == "relu: unbounded"
        assert value == pytest.approx(row[0] / 2, rel=1e-12)
        assert row[2] == math.inf
        assert math.isnan(row[3])
    assert "grows without bound" in found.note
    assert found.facts["settles_to"] == pytest.approx(math.sqrt(2))


class Written(nn.Module):
    """Activations as functions, one of them with an argument that is not known afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(40, 40) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.three(F.elu(self.two(torch.tanh(self.one(x))), 0.3)))


def test_a_function_between_others_keeps_its_layer() -> None:
    found = profile(Written())
    assert [site.path for site in found.sites] == ["one", "two", "three"]
    assert found.labels[1].startswith("elu(0.3): ")


def test_contours_lie_on_their_level() -> None:
    facts = profile(stack(nn.Tanh(), 1.1)).facts
    assert facts["phi"] == "tanh"
    for level in (0.25, 0.5, 1.0):
        line = [tuple(map(float, pair.split(","))) for pair in str(facts[f"chi_1 = {level:g}"]).split()]
        assert len(line) > 10
        for sigma_w, sigma_b in line[2:]:
            # Points are rounded to 0.001, between two of 160 of the line.
            chi_1 = mean_field("tanh", sigma_w**2, sigma_b**2).chi_1
            assert chi_1 == pytest.approx(level, abs=0.01)


def test_a_model_without_activations_has_no_diagram() -> None:
    case = Case(nn.Linear(4, 4), loss=lambda m, x: m(x).square().mean(), data=[torch.randn(2, 4)])
    assert "phase_point" not in measured(case, "phase_point")


FUNCTIONAL = {
    "elu": (F.elu, nn.ELU()),
    "elu(0.5)": (lambda x: F.elu(x, 0.5), nn.ELU(0.5)),
    "leaky_relu": (F.leaky_relu, nn.LeakyReLU()),
    "leaky_relu(0.2)": (lambda x: F.leaky_relu(x, 0.2), nn.LeakyReLU(0.2)),
    "hardtanh": (F.hardtanh, nn.Hardtanh()),
    "hardtanh(0.0, 6.0)": (lambda x: F.hardtanh(x, 0.0, 6.0), nn.ReLU6()),
    "softplus": (F.softplus, nn.Softplus()),
    "softplus(2.0)": (lambda x: F.softplus(x, 2.0), nn.Softplus(2.0)),
    "selu": (F.selu, nn.SELU()),
    "gelu": (F.gelu, nn.GELU()),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), nn.GELU("tanh")),
    "hardswish": (F.hardswish, nn.Hardswish()),
    "celu": (F.celu, nn.CELU()),
}


class Called(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor], layers: nn.Sequential) -> None:
        super().__init__()
        self.function, self.layers = function, layers[::2]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:3]:
            x = self.function(layer(x))
        return self.layers[3](x)


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_a_function_with_its_arguments_is_the_module_that_has_them(name: str) -> None:
    function, module = FUNCTIONAL[name]
    layers = stack(module, 1.1)
    called, whole = profile(Called(function, layers)), profile(layers)
    assert {label.rpartition(": ")[0] for label in called.labels} == {name}
    assert called.values == pytest.approx(whole.values, rel=1e-6)
    for one, other in zip(called.rows, whole.rows, strict=True):
        assert one == pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize("module", [nn.Softshrink(), nn.Hardshrink()])
def test_what_is_flat_around_zero_has_no_diagram(module: nn.Module) -> None:
    found = measured(
        Case(stack(module, 1.1), loss=lambda m, x: m(x).square().mean(), data=[torch.randn(4, 40)]),
        "phase_point",
    )
    assert "phase_point" not in found
