"""The gradient over time against plain autograd, and the numbers that describe it."""

import math

import pytest
import torch
from measures.reading import measured, rms, squares
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.measures.time_grad_rms import _median_slope

RTOL = 1e-10
STEPS = 12


class Last(nn.Module):
    """A recurrent layer of which the last step counts."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(rnn.hidden_size * (1 + rnn.bidirectional), 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.rnn(x)[0]
        return self.head(out[:, -1] if self.rnn.batch_first else out[-1])


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_every_time_step_has_the_gradient_of_its_input(kind: type[nn.RNNBase], first: bool) -> None:
    case = squares(Last(kind(3, 6, batch_first=first)), *((4, STEPS, 3) if first else (STEPS, 4, 3)))
    profile = measured(case, "time_grad_rms")["time_grad_rms"]
    x = case.batches[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(case.loss(case.model, x), x)
    by_time = gradient.transpose(0, 1) if first else gradient
    assert profile.values == pytest.approx([rms(step) for step in by_time], rel=RTOL, abs=0)
    assert [str(site) for site in profile.sites] == [f"rnn@{t}" for t in range(STEPS)]
    assert profile.facts["module"] == "rnn"
    assert profile.facts["steps"] == STEPS
    assert profile.facts["last_over_first"] == pytest.approx(
        profile.values[-1] / profile.values[0], rel=1e-12
    )


def _scaled(factor: float, steps: int, dtype: torch.dtype) -> Case:
    """A linear recurrence in which every step back multiplies the gradient by `factor`."""
    rnn = nn.RNN(2, 2, nonlinearity="relu", bias=False).to(dtype)
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(factor * torch.eye(2, dtype=torch.float64))
        rnn.weight_ih_l0.copy_(torch.eye(2, dtype=torch.float64))
    data = [torch.ones(steps, 1, 2, dtype=dtype)]
    return Case(rnn, loss=lambda model, x: model(x)[0][-1].sum(), data=data)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.1])
def test_the_slope_is_the_factor_of_one_step_back(factor: float) -> None:
    facts = measured(_scaled(factor, 40, torch.float64), "time_grad_rms")["time_grad_rms"].facts
    assert facts["slope_db_per_step"] == pytest.approx(20 * math.log10(factor), rel=1e-9, abs=1e-9)
    assert facts["span_db"] == pytest.approx(-39 * 20 * math.log10(factor), rel=1e-9, abs=1e-9)
    assert facts["zeros"] == 0
    assert facts["first_nonzero_step"] == 0


def test_steps_without_any_gradient_are_counted_apart_from_the_slope() -> None:
    profile = measured(_scaled(0.125, 120, torch.float32), "time_grad_rms")["time_grad_rms"]
    facts = profile.facts
    # 2^-3 per step: float32's smallest subnormal is 2^-149, 49 steps back; 2^-150 rounds to zero.
    assert facts["first_nonzero_step"] == facts["zeros"] == 120 - 50
    assert facts["last_over_first"] == math.inf
    # The subnormal steps, which are rounded, are left out: powers of two are exact.
    assert facts["slope_db_per_step"] == pytest.approx(20 * math.log10(0.125), rel=1e-12)


def test_parameters_hide_what_the_input_shows() -> None:
    seen = measured(_scaled(0.125, 120, torch.float32), "time_grad_rms", "param_grad_rms")
    assert min(seen["param_grad_rms"].values) > 0.01
    assert seen["time_grad_rms"].values[0] == 0


class Loop(nn.Module):
    """A cell in a loop of the user's own."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[1], 4, dtype=x.dtype)
        for step in x:
            h = self.cell(step, h)
        return self.head(h)


class Own(nn.Module):
    """A recurrent cell written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 4)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.linear(torch.cat([x, h], -1)))


@pytest.mark.parametrize(("cell", "path"), [(nn.GRUCell(3, 4), "cell"), (Own(), "cell.linear")])
def test_a_cell_that_is_called_in_a_loop_is_a_line_over_time(cell: nn.Module, path: str) -> None:
    profile = measured(squares(Loop(cell), 10, 2, 3), "time_grad_rms")["time_grad_rms"]
    assert [str(site) for site in profile.sites] == [f"{path}@{t}" for t in range(10)]
    assert float(profile.facts["slope_db_per_step"]) < 0


def test_layers_that_share_their_weights_over_depth_are_no_time_steps() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(10):
                x = self.block(x)
            return x

    assert measured(squares(Shared(), 2, 4), "time_grad_rms") == {}


def test_the_module_that_is_described_is_the_one_that_loses_most() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.good, self.bad = (nn.RNN(2, 2, nonlinearity="relu", bias=False) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.good(1 * x)[0][-1].sum() + self.bad(1 * x)[0][-1].sum()

    model = Two().double()
    with torch.no_grad():
        for rnn, factor in ((model.good, 1.0), (model.bad, 0.1)):
            rnn.weight_hh_l0.copy_(factor * torch.eye(2, dtype=torch.float64))
            rnn.weight_ih_l0.copy_(torch.eye(2, dtype=torch.float64))
    case = Case(model, loss=lambda m, x: m(x), data=[torch.ones(9, 1, 2, dtype=torch.float64)])
    profile = measured(case, "time_grad_rms")["time_grad_rms"]
    assert profile.facts["module"] == "bad"
    assert profile.facts["slope_db_per_step"] == pytest.approx(-20, rel=1e-9)
    assert profile.facts["modules"] == 2


def test_the_median_slope_is_not_moved_by_outliers() -> None:
    points = [(float(t), 2.0 * t) for t in range(50)]
    points[3], points[20] = (3.0, 1e6), (20.0, -1e6)
    assert _median_slope(points) == 2.0
    assert math.isnan(_median_slope(points[:1]))
    # Of a long sequence every k-th step is taken.
    assert _median_slope([(float(t), -0.5 * t) for t in range(5000)]) == -0.5


def test_a_packed_sequence_is_named_and_not_measured() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3])))[1][0]

    case = squares(Packed(), 5, 2, 3)
    assert "time_grad_rms" not in measured(case, "time_grad_rms", "gate_mean")


class ByHand(nn.Module):
    """A recurrence of bare parameters, as in a tutorial."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.matrix = nn.Parameter(factor * torch.eye(3))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            h = h @ self.matrix + x[:, t]
        return h


def test_a_recurrence_of_bare_parameters_shows_at_the_input() -> None:
    profile = measured(squares(ByHand(0.5), 2, 20, 3), "time_grad_rms")["time_grad_rms"]
    assert str(profile.sites[0]) == "(model)(input 0)@0"
    assert profile.facts["module"] == "(model)(input 0)"
    assert profile.facts["slope_db_per_step"] == pytest.approx(20 * math.log10(0.5), rel=1e-9)


def test_the_input_is_no_second_series_where_a_module_has_one() -> None:
    profile = measured(squares(Last(nn.RNN(3, 6, batch_first=True)), 4, STEPS, 3), "time_grad_rms")
    assert {site.path for site in profile["time_grad_rms"].sites} == {"rnn"}
    assert "time_grad_rms" not in measured(squares(ByHand(0.5), 2, 7, 3), "time_grad_rms")
