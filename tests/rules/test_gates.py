"""UG405 at the gates of layers: shut by a far bias, or on the side of carrying as people start them."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from measures.reading import measured
from rules.profiles import judged, profile
from torch import Tensor, nn
from torch.nn import functional as F

import unitygain.remedies  # noqa: F401 (fills the table)
import unitygain.rules  # noqa: F401 (fills the table)
from unitygain._case import Case
from unitygain._registry import REMEDIES
from unitygain._types import Finding

READ = ("gate_mean", "gate_frac_closed", "param_rms", "act_rms")


class Highway(nn.Module):
    """Carries what entered past a layer, as its gate says."""

    def __init__(self, width: int, bias: float, neighbours: Tensor | None = None) -> None:
        super().__init__()
        self.gate, self.value, self.neighbours = nn.Linear(width, width), nn.Linear(width, width), neighbours
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        seen = x if self.neighbours is None else self.neighbours @ x
        return (1 - gate) * x + gate * torch.tanh(self.value(seen))


class GatedConv(nn.Module):
    """A residual block of a gated convolution, its gate a module."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.value, self.gate = nn.Conv1d(width, width, 3, padding=1), nn.Conv1d(width, width, 1)
        self.open = nn.Sigmoid()
        nn.init.constant_(self.gate.bias, bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.value(x)) * self.open(self.gate(x))


class Linears(nn.Module):
    """A residual gated linear unit, the offset of whose gate stands in the forward."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.both, self.bias = nn.Linear(width, 2 * width), bias

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(x).chunk(2, -1)
        return x + F.glu(torch.cat([value, gate + self.bias], -1), -1)


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, width: int, bias: float = 0.0) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv1d(width, width, 1), nn.Linear(width, 4), nn.Linear(4, width)
        nn.init.constant_(self.up.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.sigmoid(self.up(F.relu(self.down(x.mean(-1)))))
        return x + F.relu(self.conv(x)) * seen[..., None]


class Scaled(nn.Module):
    """A branch behind a scale: ReZero, SkipInit, LayerScale."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(width, width), nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * F.relu(self.layer(x))


class Weighed(nn.Module):
    """Sigmoid attention with the bias of minus the logarithm of the length."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.bias = -torch.log(torch.tensor(float(length)))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(-1, -2) / x.shape[-1] ** 0.5
        return x + torch.sigmoid(scores + self.bias) @ self.value(x)


class Memory(nn.Module):
    """An LSTM with far gates in front of a head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(width, width, batch_first=True), nn.Linear(width, width)
        with torch.no_grad():
            self.cell.bias_ih_l0[:width].sub_(4.0)
            self.cell.bias_ih_l0[width : 2 * width].add_(4.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0])


def drawn(seed: int, *shape: int) -> tuple[int, int, Tensor]:
    """Return a width, a depth and an input, by seed."""
    torch.manual_seed(seed)
    width = int(torch.randint(8, 24, ()))
    return width, int(torch.randint(2, 6, ())), torch.randn(*(n or width for n in shape))


def deep(make: Callable[[int], nn.Module], seed: int, *shape: int, head: bool = True) -> Case:
    """Return a case of blocks on random input; a 0 in the shape is the width."""
    width, depth, x = drawn(seed, *shape)
    blocks = [make(width) for _ in range(depth)]
    last = nn.Linear(x.shape[-1], 2) if head else nn.Identity()
    return Case(nn.Sequential(*blocks, last), lambda m, x: m(x).square().mean(), [x])


def told(case: Case) -> list[Finding]:
    """Return what UG405 says."""
    profiles = measured(case, *READ)
    return judged("UG405", *profiles.values()) if "gate_mean" in profiles else []


RING = (torch.eye(12).roll(1, 0) + torch.eye(12).roll(-1, 0)) / 2
SHUT: dict[str, Callable[[int, float], Case]] = {
    "highway": lambda seed, bias: deep(lambda w: Highway(w, bias), seed, 32, 0),
    "graph": lambda seed, bias: deep(lambda w: Highway(w, bias, RING), seed, 12, 0),
    "convolution": lambda seed, bias: deep(lambda w: GatedConv(w, bias), seed, 6, 0, 10),
    "excitation": lambda seed, bias: deep(lambda w: Squeeze(w, bias), seed, 6, 0, 10),
}
SOUND: dict[str, Callable[[int], Case]] = {
    "highway at -1": lambda seed: SHUT["highway"](seed, -1.0),
    "deep highway at -4": lambda seed: SHUT["highway"](seed, -4.0),
    "highway at -7": lambda seed: SHUT["graph"](seed, -7.0),
    "excitation": lambda seed: SHUT["excitation"](seed, 0.0),
    "gated convolution": lambda seed: SHUT["convolution"](seed, 0.0),
    "gated linear unit": lambda seed: deep(lambda w: Linears(w, 0.0), seed, 6, 0),
    "rezero": lambda seed: deep(lambda w: Scaled(w, 0.0), seed, 32, 0),
    "layer scale": lambda seed: deep(lambda w: Scaled(w, 1e-6), seed, 32, 0),
    "sigmoid attention": lambda seed: deep(lambda w: Weighed(w, 40), seed, 3, 40, 0),
    "sigmoid output": lambda seed: deep(lambda w: nn.Sequential(nn.Linear(w, w), nn.Sigmoid()), seed, 9, 0),
    "lstm": lambda seed: deep(Memory, seed, 4, 7, 0, head=False),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", SHUT)
def test_layers_whose_gates_a_bias_shuts_are_told_with_it_and_opened(kind, seed):
    case = SHUT[kind](seed, -10.0 - seed)
    [finding] = told(case)
    gates = measured(case, "gate_mean")["gate_mean"]
    assert set(finding.sites) == set(gates.sites)
    assert finding.value == min(gates.values) < 5e-4
    cause = finding.causes[0]
    assert cause.remedy == "open_gates"
    assert cause.text.startswith("biases: rms ")
    held = {"excitation": "up"}.get(kind, "gate")
    assert {path.rpartition(".")[2] for path in cause.parameters["sites"]} == {held}
    before = {name: value.clone() for name, value in case.model.state_dict().items()}
    undo = REMEDIES["open_gates"].apply(case, **cause.parameters)
    assert not told(case)
    assert cause.predicted is not None
    low, high = cause.predicted
    assert low < finding.reread(measured(case, "gate_mean")) < high
    undo()
    assert all(torch.equal(before[name], value) for name, value in case.model.state_dict().items())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", SOUND)
def test_gates_on_the_side_of_carrying_and_scales_of_branches_are_not(kind, seed):
    assert told(SOUND[kind](seed)) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_gate_whose_offset_no_layer_holds_is_told_without_a_remedy(seed):
    [finding] = told(deep(lambda w: Linears(w, -11.0), seed, 6, 0))
    [cause] = finding.causes
    assert cause.remedy is None
    assert cause.text.startswith("gate: what enters its sigmoid is about -1")


@pytest.mark.parametrize(("value", "expected"), [(5e-4, 0), (4.9e-4, 1)])
@pytest.mark.parametrize("label", ["sigmoid", "glu"])
def test_limit_of_a_layer_s_gate(value, expected, label):
    assert len(judged("UG405", profile("gate_mean", {"0.gate": value}, labels=(label,)))) == expected


@pytest.mark.parametrize("label", ["input", "output", "reset", "sigmoid (output)"])
def test_gates_that_keep_no_state_and_the_output_are_left_alone(label):
    assert judged("UG405", profile("gate_mean", {"0.gate": 1e-9}, labels=(label,))) == []


def test_a_gate_at_exactly_zero_is_opened_by_its_bias():
    sizes = profile("param_rms", {"gate.bias": 200.0})
    ran = profile("act_rms", {"gate": 1.0})
    gates = profile("gate_mean", {"(sigmoid)": 0.0}, labels=("sigmoid",))
    [finding] = judged("UG405", gates, sizes, ran)
    assert finding.causes[0].parameters == {"sites": ("gate",), "bias": 199.0}


def test_no_pattern_opens_a_linear_map():
    model = nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2))
    case = Case(model, lambda m, x: m(x)[0].sum(), [torch.ones(1, 2)])
    opened: Callable[..., Any] = functools.partial(REMEDIES["open_gates"].apply, case, bias=3.0)
    before = model.get_parameter("0.bias").clone()
    for sites in (None, "*", ("*", "1"), lambda path, module: True):
        opened(sites=sites)
        assert torch.equal(model.get_parameter("0.bias"), before)
    undo = opened(sites="0")
    assert torch.equal(model.get_parameter("0.bias"), before + 3)
    undo()
    assert torch.equal(model.get_parameter("0.bias"), before)
