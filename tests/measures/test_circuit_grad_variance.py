"""circuit_grad_variance against the shift rule written out, and what counts as a circuit."""

import math

import numpy as np
import pytest
import torch
from measures.reading import measured
from torch import Tensor, nn
from zoo import circuits, states

from unitygain._case import Case
from unitygain._types import Profile
from unitygain.probe.circuit import find_circuits
from unitygain.rules.ug706_barren_plateau import judge
from unitygain.theory import two_design_variance

NAME = "circuit_grad_variance"


def look(case: Case) -> Profile | None:
    return measured(case, NAME).get(NAME)


def read(case: Case) -> tuple[Profile, dict[str, float]]:
    profile = look(case)
    assert profile is not None
    return profile, dict(zip(profile.columns, profile.rows[0], strict=True))


def drawn(qubits: int = 4, layers: int = 3) -> nn.Module:
    torch.manual_seed(2)
    return circuits.Simulator(qubits, layers, circuits.ring(qubits))


def test_own_and_redrawn_values_are_those_of_the_shift_rule():
    """∂f/∂θ is half the difference at θ ± π/2, for the angles that the output feels."""
    model = drawn()
    angles = model.angles

    def squares(theta: np.ndarray) -> np.ndarray:
        found = []
        with torch.no_grad():
            for index in range(len(theta)):
                level = []
                for shift in (math.pi / 2, -math.pi / 2):
                    moved = theta.copy()
                    moved[index] += shift
                    angles.copy_(torch.from_numpy(moved).view_as(angles))
                    level.append(float(model(torch.ones(()))))
                found.append(((level[0] - level[1]) / 2) ** 2)
        return np.array(found)

    own = angles.detach().double().numpy().ravel().copy()
    profile, seen = read(circuits.minimised(model))
    draws = np.random.default_rng(0).uniform(0, 2 * math.pi, (12, own.size))
    slopes = np.stack([squares(theta) for theta in draws])
    felt = slopes.max(axis=0) > 1e-9
    unit = two_design_variance(4) * seen["swing"] ** 2
    assert seen["felt"] == felt.mean() < 1
    assert profile.values[0] == pytest.approx(squares(own)[felt].mean() / unit, rel=1e-3)
    each = slopes[:, felt].mean(axis=1) / unit
    assert seen["redrawn"] == pytest.approx(each.mean(), rel=1e-3)
    assert seen["redrawn_error"] == pytest.approx(each.std(ddof=1) / math.sqrt(12), rel=1e-3)
    assert (seen["redrawn_least"], seen["redrawn_most"]) == pytest.approx((each.min(), each.max()), rel=1e-3)


def test_a_weight_of_the_output_cancels():
    plain, _ = read(Case(drawn(), lambda m, x: m(x), [torch.ones(())]))
    quiet, seen = read(Case(drawn(), lambda m, x: m(x), [torch.full((), 2.0**-9)]))
    assert quiet.values == pytest.approx(plain.values, rel=1e-6)
    assert seen["swing"] < 2.0**-8


def test_deep_circuits_have_the_law_and_local_ones_more():
    deep, seen = read(circuits.minimised(circuits.Simulator(4, 9, circuits.dense(4))))
    assert deep.labels == ("n_qubits",)
    # The swing is known to about a third, its square to a factor of two; the mean of squares to 10 %.
    assert 0.4 < seen["redrawn"] < 2.2
    _, seen = read(circuits.minimised(circuits.Simulator(8, 1, circuits.ring(8))))
    # Closed form: X of one qubit is sin θ₀ cos θ₁ cos θ₇, whose slopes have a mean square of 1/8 each.
    assert seen["felt"] == 3 / 8
    scale = seen["law"] * seen["swing"] ** 2
    assert abs(seen["redrawn"] * scale - 1 / 8) < 4 * seen["redrawn_error"] * scale


def test_the_circuit_is_left_as_it_was_and_the_numbers_repeat():
    torch.manual_seed(2)
    case = circuits.fitted(circuits.Hybrid(4, 2))
    before = [parameter.detach().clone() for parameter in case.model.parameters()]
    state = torch.get_rng_state()
    profile, _ = read(case)
    assert [str(site) for site in profile.sites] == ["2"]
    assert profile.facts["angles"] == "2.angles"
    assert all(torch.equal(*pair) for pair in zip(before, case.model.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert repr(look(case)) == repr(profile)


def test_the_state_tells_the_qubits_where_only_the_name_says_what_it_is():
    profile, seen = read(circuits.minimised(circuits.RealAnsatz(6, 2, circuits.ring(6))))
    assert (profile.labels, seen["qubits"], seen["layers"]) == (("its name, and its state",), 6.0, 2.0)


def test_a_circuit_that_gives_states_is_observed_by_the_loss():
    """The loss as a function of the first state alone: its slopes are one sample's over the number of all."""
    torch.manual_seed(3)
    model = states.Turns(4, 2)
    case = states.case(model, states.parity)
    profile, seen = read(case)
    assert (profile.facts["observed"], profile.facts["angles"]) == ("loss", "weights")
    # One of four samples: a Pauli observable's ±1 becomes ±1/4, and the swing is known to about a third.
    assert seen["swing"] == pytest.approx(0.25, rel=0.35)
    case.model.zero_grad()
    states.parity(model, (case.batches[0][0][:1], None)).backward()
    slopes = model.weights.grad.double().numpy().ravel() / 4
    felt = round(seen["felt"] * slopes.size)
    expected = np.square(slopes).sum() / felt / (two_design_variance(4) * seen["swing"] ** 2)
    assert profile.values[0] == pytest.approx(expected, rel=1e-3)


def test_a_cost_that_is_flat_above_has_the_swing_of_its_valley():
    _, seen = read(states.taught(6, 8, 1.0))
    assert seen["swing"] == pytest.approx(0.25, rel=0.1)


def test_a_search_that_has_ended_lies_on_no_plateau():
    torch.manual_seed(3)
    profile, seen = read(states.case(states.Turns(6, 8, 0.3), states.infidelity))
    assert profile.values[0] < 1e-9 < seen["redrawn_least"]
    assert seen["nearby"] > 2 * seen["redrawn_most"]
    assert not list(judge({NAME: profile}))


def test_a_single_state_of_an_axis_for_each_qubit_is_no_batch():
    class Alone(states.Turns):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[:1]).reshape((2,) * self.n_qubits)

    def up(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return model(batch[0])[0].square().sum()

    torch.manual_seed(3)
    _, seen = read(states.case(Alone(4, 2), up))
    assert seen["swing"] == pytest.approx(0.5, rel=0.35)


class Named(nn.Module):
    """What calls itself a circuit of six qubits, and is none."""

    def __init__(self) -> None:
        super().__init__()
        self.n_qubits, self.weight = 6, nn.Parameter(torch.randn(8))


class Rotary(Named):
    """Turns pairs of features by learned multiples of their position."""

    def forward(self, x: Tensor) -> Tensor:
        turn = torch.polar(torch.ones(()), torch.arange(len(x))[:, None] * self.weight)
        return torch.view_as_real(torch.view_as_complex(x.unflatten(1, (8, 2))) * turn).flatten(1)


class Spectral(Named):
    """Weighs the frequencies of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x[:, :14]) * self.weight, n=14)


class Plain(Named):
    """Weighs its input."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, :8] * self.weight).tanh()


class Twice(Named):
    """Turns a hundredth of its output at twice the speed."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.cos() + 0.01 * (2 * self.weight).sin()


class Unit(Named):
    """Rows of 2^6 numbers and of length one."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(self.weight.repeat(8) * x[:, :1], dim=1)


MODELS = [Rotary(), Spectral(), Plain(), Twice(), Unit()]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_a_name_alone_makes_no_circuit(model):
    assert find_circuits(model) == {"": (6, "n_qubits")}
    assert look(Case(model, lambda m, x: m(x).square().mean(), [torch.randn(5, 16)])) is None


def told(**attributes: object) -> nn.Module:
    module = nn.Linear(1, 1)
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


class Device:
    wires = range(5)


class Node:
    device = Device()


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (told(num_qubits=5), (5, "num_qubits")),
        (told(wires=[0, 1, 2]), (3, "wires")),
        (told(qnode=Node()), (5, "the wires of its device")),
        (told(n_qubits=1), None),
        (told(n_qubits=True), None),
        (told(n_qubits=4.0), None),
        (told(), None),
    ],
)
def test_what_tells_the_qubits(module, found):
    assert find_circuits(nn.Sequential(nn.ReLU(), module)) == ({} if found is None else {"1": found})


def test_innermost_comes_first():
    model = nn.ModuleDict({"quantum": nn.ModuleDict({"vqc": nn.Linear(1, 1)}), "head": nn.Linear(1, 1)})
    assert list(find_circuits(model)) == ["quantum.vqc", "quantum"]
