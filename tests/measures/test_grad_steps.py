"""grad_steps: how far back in time a gradient goes, by what a module is handed of its own."""

import math

import pytest
import torch
from measures.reading import by_name, measured
from rules.profiles import judged, profile
from torch import Tensor, nn

from unitygain import diagnose
from unitygain._case import Case
from unitygain.probe.handed import handed_on
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe

STEPS, UNITS = 12, 6


class Own(nn.Module):
    """A cell of the user's own, whose state stands in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.again = nn.Linear(3, UNITS), nn.Linear(UNITS, UNITS)

    def forward(self, x: Tensor, *, past: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"h": torch.tanh(self.into(x) + self.again(past["h"]))}


def detached(state):
    """Return the state, or all its parts, without graph."""
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


class Stepped(nn.Module):
    """A loop that cuts the state before every so many steps, in one of several ways."""

    def __init__(self, kind: str, every: int, cut=detached) -> None:
        super().__init__()
        self.cell = {"gru": nn.GRUCell(3, UNITS), "lstm": nn.LSTMCell(3, UNITS), "own": Own()}[kind]
        self.head, self.kind, self.every, self.cut = nn.Linear(UNITS, 2), kind, every, cut

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), UNITS)
        state = (h, h) if self.kind == "lstm" else h
        for t, now in enumerate(x.unbind(1)):
            state = self.cut(state) if self.every and t and t % self.every == 0 else state
            state = self.cell(now, past={"h": state})["h"] if self.kind == "own" else self.cell(now, state)
        return self.head(state[0] if self.kind == "lstm" else state)


class Called(nn.Module):
    """A layer of torch's that is called piece by piece, its state detached in between."""

    def __init__(self, piece: int) -> None:
        super().__init__()
        self.rnn, self.piece = nn.GRU(3, UNITS, batch_first=True), piece

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for part in x.split(self.piece, 1):
            out, state = self.rnn(part, None if state is None else state.detach())
        return out[:, -1]


class Iterated(nn.Module):
    """One block over and over, each time on what it returned, and told nothing new."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Own()

    def forward(self, x: Tensor) -> Tensor:
        h, still = x.new_zeros(len(x), UNITS), x[:, 0]
        for _ in range(STEPS):
            h = self.block(still, past={"h": h.detach()})["h"]
        return h


def case(model: nn.Module) -> Case:
    return Case(model, lambda m, x: m(x).square().mean(), [torch.randn(4, STEPS, 3)])


def steps(model: nn.Module) -> dict[str, float]:
    found = measured(case(model), "grad_steps").get("grad_steps")
    return {} if found is None else by_name(found)


@pytest.mark.parametrize("kind", ["gru", "lstm", "own"])
@pytest.mark.parametrize(("every", "reach"), [(0, 12.0), (1, 1.0), (2, 2.0), (5, 5.0)])
def test_a_gradient_goes_back_to_the_last_cut(kind, every, reach):
    assert steps(Stepped(kind, every)) == {"cell": reach}


@pytest.mark.parametrize(
    "cut", [lambda h: h.data, lambda h: h.detach()[:], lambda h: h.detach().requires_grad_()]
)
def test_however_the_state_is_cut_it_is_known_by_its_memory(cut):
    """A leaf that asks for a gradient of its own is no way back either."""
    assert steps(Stepped("gru", 1, cut)) == {"cell": 1.0}


@pytest.mark.parametrize(("piece", "reach"), [(1, 1.0), (3, 3.0)])
def test_a_call_of_a_layer_is_as_many_steps_as_its_sequence_has(piece, reach):
    assert steps(Called(piece)) == {"rnn": reach}


def test_what_is_told_nothing_new_is_no_step_in_time():
    assert steps(Iterated()) == {}


def test_a_call_that_may_hold_many_steps_is_not_counted():
    class Pieces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Own()

        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(len(x), 2, UNITS)
            for part in x.split(2, 1):
                h = self.cell(part, past={"h": h.detach()})["h"]
            return h

    assert math.isnan(steps(Pieces())["cell"])


def test_what_ran_without_a_graph_was_not_cut():
    """Its outputs never had one; so the frozen reservoir, and what is sampled under no_grad."""
    model = Stepped("gru", 1)
    model.cell.requires_grad_(False)
    assert steps(model) == {}


def test_nothing_is_held_and_no_hook_stays():
    model = Stepped("own", 1)
    with isolated(case(model), 0) as (subject, _):
        found = handed_on(subject, observe(subject, []))
        assert found["cell"].handed == found["cell"].cut == STEPS - 1
        assert not any(module._forward_hooks for module in subject.model.modules())


@pytest.mark.parametrize("kind", ["gru", "lstm", "own"])
def test_a_state_that_is_cut_at_every_step_is_told(kind):
    [finding] = diagnose(case(Stepped(kind, 1)), only=["UG603"]).findings
    assert finding.severity == "warning"
    assert [str(site) for site in finding.sites] == ["cell"]
    assert "1 step of 12 at cell" in finding.message
    assert finding.causes[0].text.startswith("detach: the state of cell is cut off at every step")


@pytest.mark.parametrize("every", [0, 2, 4])
def test_a_truncation_is_a_choice(every):
    assert not diagnose(case(Stepped("gru", every)), only=["UG603"]).findings


@pytest.mark.parametrize(
    ("reach", "handed", "cut", "said"),
    [(1.0, 3.0, 3.0, 1), (1.0, 2.0, 2.0, 0), (1.0, 5.0, 4.0, 0), (math.nan, 5.0, 5.0, 0), (2.0, 5.0, 5.0, 0)],
)
def test_every_one_of_three_states_must_be_cut(reach, handed, cut, said):
    given = profile("grad_steps", {"cell": reach}, rows=((handed + 1, handed, cut),))
    learns = profile("param_trainable", {"cell.w": 1.0}), profile("param_grad_rms", {"cell.w": 0.1})
    assert len(judged("UG603", *learns, given)) == said
