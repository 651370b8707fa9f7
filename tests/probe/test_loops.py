"""Cells written by hand are followed as torch's own are; depth, and what cannot be replayed, is not."""

import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain._registry import MEASURES
from unitygain.measures.lyapunov_spectrum import lyapunov_spectrum
from unitygain.probe.loops import Loop
from unitygain.probe.observe import observe
from unitygain.probe.steps import Walks, walk
from unitygain.remedies import gradient_flossing

STEPS, BATCH, FEATURES, HIDDEN = 12, 3, 4, 5


class Tanh(nn.Module):
    """A cell of one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.again = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.into(x) + self.again(h))


class Dropping(Tanh):
    """The same with dropout on its input."""

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(x, 0.5, self.training), h)


class Masked(Tanh):
    """The same with a dropout module."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return super().forward(self.drop(x), h)


class Normed(Tanh):
    """The same with a norm over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(HIDDEN)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.norm(super().forward(x, h))


class Gated(nn.Module):
    """A cell that takes its two tensors in a dict and returns them in another order, before an output."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = Tanh()
        self.decay = nn.Parameter(torch.tensor(0.9))

    def forward(self, x: Tensor, *, state: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        c = self.decay * state["c"] + self.cell(x, state["h"])
        h = c.sin()
        return h.sum(-1), c, h


class Net(nn.Module):
    """A loop over a cell, and a head."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), HIDDEN)
        for step in x.unbind(1):
            h = self.cell(step, h)
        return self.head(h)


class GatedNet(Net):
    """The same for a state of two tensors."""

    def forward(self, x: Tensor) -> Tensor:
        c = h = x.new_zeros(len(x), HIDDEN)
        for step in x.unbind(1):
            _, c, h = self.cell(step, state={"h": h, "c": c})
        return self.head(h)


class Tied(nn.Module):
    """Layers in depth that share their weights, and read the same context: no time."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Tanh()

    def forward(self, x: Tensor) -> Tensor:
        h, context = x.new_zeros(len(x), HIDDEN), x[:, 0]
        for _ in range(STEPS):
            h = self.block(context, h)
        return h


def case_of(model: nn.Module) -> Case:
    x = torch.randn(BATCH, STEPS, FEATURES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Case(model.double(), loss=lambda model, x: model(x).square().mean(), data=[x])


def followed(model: nn.Module) -> Walks:
    case = case_of(model)
    return walk(case, observe(case, []))


def test_jacobian_is_that_of_the_written_formula():
    torch.manual_seed(0)
    (found,) = followed(Net(cell := Tanh())).walks
    assert (str(found.site), found.cell.kind, found.size, found.total) == ("cell", "Tanh", HIDDEN, STEPS - 1)
    h = found.cell.step(found.inputs[4], found.states[4])[0][0][0]
    expected = (1 - h.square())[:, None] * cell.again.weight
    np.testing.assert_allclose(found.jacobian(4), expected.detach(), rtol=1e-12)


def test_states_are_those_of_torch_s_own_cell_of_the_same_weights():
    torch.manual_seed(0)
    mine, theirs = Tanh(), nn.RNNCell(FEATURES, HIDDEN)
    theirs.load_state_dict({
        "weight_ih": mine.into.weight,
        "bias_ih": mine.into.bias,
        "weight_hh": mine.again.weight,
        "bias_hh": mine.again.bias,
    })
    (one,), (other,) = followed(Net(mine)).walks, followed(Net(theirs)).walks
    assert len(other) == len(one) + 1
    for index in range(len(one)):
        torch.testing.assert_close(one.states[index][0], other.states[index + 1][0], atol=0, rtol=1e-12)
        np.testing.assert_allclose(one.jacobian(index), other.jacobian(index + 1), rtol=1e-12)


def test_a_state_of_several_tensors_is_one_vector_whatever_the_order():
    torch.manual_seed(0)
    (found,) = followed(GatedNet(cell := Gated())).walks
    assert (str(found.site), found.size) == ("cell", 2 * HIDDEN)

    def step(flat: Tensor) -> Tensor:
        state = dict(zip(("h", "c"), flat.split(HIDDEN), strict=True))
        _, c, h = cell(found.inputs[3][0][0], state=state)
        return torch.cat([h, c])

    before = torch.cat([part[0] for part in found.states[3]])
    naive = torch.autograd.functional.jacobian(step, before)
    np.testing.assert_allclose(found.jacobian(3), naive, rtol=1e-12)


@pytest.mark.parametrize("model", [Tied, lambda: Net(Tanh())], ids=["depth", "few"])
def test_what_is_no_step_in_time_is_not_followed(model, monkeypatch):
    monkeypatch.setattr("unitygain.probe.steps.FEWEST", STEPS + 1 if model is not Tied else 4)
    found = followed(model())
    assert not found.walks
    assert not found.skipped


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (Dropping, r"^the same call gives another state when it is made again$"),
        (
            Normed,
            r"^it cannot be run on one sample alone: ValueError: Expected more than 1 value per channel",
        ),
    ],
)
def test_a_cell_that_cannot_be_replayed_is_named_with_the_reason(cell, reason):
    torch.manual_seed(0)
    found = followed(Net(cell()))
    assert not found.walks
    with pytest.raises(ValueError, match=reason):
        raise ValueError(found.skipped["cell"])
    assert found.note.startswith("left out: cell (")


def test_a_dropout_module_is_left_out_and_nothing_is_drawn():
    torch.manual_seed(0)
    net = Net(Masked())
    before = torch.get_rng_state()
    (found,) = followed(net).walks
    again = found.cell.step(found.inputs[0], found.states[0])[0][0]
    torch.testing.assert_close(again, found.states[1][0], atol=0, rtol=1e-12)
    assert torch.equal(torch.get_rng_state(), before)
    assert net.cell.training


def test_no_activation_lives_longer_for_it():
    """What a module returned is known by a weak reference, as deep models return much."""
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal most
            most = max(most, sum(one() is not None for one in alive))
            out = x + 1
            alive.append(weakref.ref(out))
            return out

    case = Case(
        nn.Sequential(*(Layer() for _ in range(9))), loss=lambda m, x: m(x).sum(), data=[torch.ones(2)]
    )
    observed = observe(case, [])
    alive.clear()
    most = 0
    walk(case, observed)
    assert most <= 2


def test_exponents_of_a_hand_written_decay_are_exact():
    class Half(nn.Module):
        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return x[:, :HIDDEN] + h / 2

    class Long(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.cat([x, x], -1).repeat(1, 3, 1))

    case = case_of(Long(Half()))
    profile = lyapunov_spectrum(case, observe(case, MEASURES["lyapunov_spectrum"].needs))
    assert profile.labels == ("Half",)
    assert profile.values[0] == pytest.approx(-np.log(2), rel=1e-12)
    assert np.isnan(profile.expected[0])


def test_flossing_leaves_what_it_has_no_matrix_of():
    with pytest.raises(ValueError, match=r"a loop over other layers is not known"):
        gradient_flossing(case_of(Net(Tanh())))


def test_a_function_of_one_step_is_what_is_followed():
    (found,) = followed(Net(Tanh())).walks
    assert isinstance(found.cell, Loop)
